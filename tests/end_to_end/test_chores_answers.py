"""The answers of examples/chores: each command gives what expected.toml says, and that follows from the material."""

from __future__ import annotations

import ast
import csv
import hashlib
import math
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

VILLAGE = Path(__file__).resolve().parents[2] / "examples" / "chores"
MADE_BY_THE_PROGRAM = shutil.ignore_patterns("vivarium.db*", "vivarium.lock", "plugins.json", "files", "__pycache__")
SHIPPED = {"ls", "pwd", "echo", "cat", "head", "tail", "wc"}
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
LINE = re.compile(r"(\S+) (-?\d+) mm q=(ok|bad) batt=\S+")

Task = dict[str, Any]


def tasks() -> dict[str, Task]:
    return {task["id"]: task for task in tomllib.loads((VILLAGE / "tasks.toml").read_text())["task"]}


def expected() -> dict[str, dict[str, Any]]:
    return tomllib.loads((VILLAGE / "expected.toml").read_text())


def bare(output: str) -> list[str]:
    """Lines without the blanks around them: how far wc pads its figures is no answer."""
    return [line.strip() for line in output.strip().splitlines()]


def assert_answers(outputs: Mapping[str, str], village: Path | None = None) -> None:
    """Every answer of expected.toml is among the outputs: standard output by task id, blanks around lines aside.

    Tasks that are to fail may be left out. With the folder of a village that has run, its files are compared too.
    """
    answers, known = expected(), tasks()
    missing = {task_id for task_id in answers if known[task_id].get("expect", "done") == "done"} - set(outputs)
    assert not missing, f"no output of {sorted(missing)}"
    for task_id, answer in answers.items():
        if task_id in outputs:
            assert bare(outputs[task_id]) == bare(answer["stdout"]), f"{task_id} answered something else"
        for name, digest in answer.get("sha256", {}).items() if village else ():
            assert village is not None
            assert hashlib.sha256((village / name).read_bytes()).hexdigest() == digest, (
                f"{task_id} wrote another {name}"
            )


@dataclass
class Month:
    """What came of the tasks: their ending, their last standard output, and how often each was tried."""

    village: Path
    endings: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)


def is_allowed(command: list[str], cwd: Path, village: Path, allow: Mapping[str, str]) -> bool:
    """The two rules that the example relies on: a known command, and no path that leads out of the village."""
    outside = any(not (cwd / word).resolve().is_relative_to(village.resolve()) for word in command[1:])
    return command[0] in SHIPPED | set(allow) and not outside


def attempt(task: Task, month: Month, allow: Mapping[str, str]) -> bool:
    """Runs the task's command once, as an operator would by hand; whether it succeeded."""
    name, *arguments = task["command"]
    program = allow.get(name, name)
    path = sys.executable if program == "{python}" else shutil.which(program, path=ENVIRONMENT["PATH"])
    assert path, f"{program} is not on this machine"
    try:
        done = subprocess.run(
            [path, *arguments],
            cwd=month.village / task.get("cwd", "."),
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=task.get("timeout_seconds", 30),
            check=False,
        )
    except subprocess.TimeoutExpired:
        month.outputs[task["id"]] = ""
        return False
    month.outputs[task["id"]] = done.stdout
    return done.returncode == 0 and all((month.village / name).is_file() for name in task.get("files", ()))


def live_through(village: Path) -> Month:
    """All tasks in the order of their dependencies."""
    allow = tomllib.loads((village / "vivarium.toml").read_text())["commands"]["allow"]
    month, waiting = Month(village), tasks()
    (village / "files").mkdir()
    while waiting:
        ready = [task for task in waiting.values() if not set(task.get("needs", ())) & set(waiting)]
        assert ready, f"these wait for one another: {sorted(waiting)}"
        for task in ready:
            del waiting[task["id"]]
            month.endings[task["id"]] = ending_of(task, month, allow)
    return month


def ending_of(task: Task, month: Month, allow: Mapping[str, str]) -> str:
    if any(month.endings[need] != "done" for need in task.get("needs", ())):
        return "failed"
    if not is_allowed(task["command"], month.village / task.get("cwd", "."), month.village, allow):
        return "blocked"
    for _ in range(task.get("max_attempts", 3)):
        month.attempts[task["id"]] += 1
        if attempt(task, month, allow):
            return "done"
    return "failed"


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Month:
    village = tmp_path_factory.mktemp("month") / "chores"
    shutil.copytree(VILLAGE, village, ignore=MADE_BY_THE_PROGRAM)
    return live_through(village)


def test_every_task_ends_as_it_says(month: Month) -> None:
    assert month.endings == {task_id: task.get("expect", "done") for task_id, task in tasks().items()}


def test_every_command_gives_the_expected_answer(month: Month) -> None:
    assert_answers(month.outputs, month.village)


def test_every_task_that_succeeds_has_an_expected_answer() -> None:
    succeed = {task_id for task_id, task in tasks().items() if task.get("expect", "done") == "done"}
    assert len(succeed) >= 28
    assert succeed <= set(expected()) <= set(tasks())


def test_a_wrong_or_missing_answer_or_file_is_found(tmp_path: Path) -> None:
    right = {task_id: answer["stdout"] for task_id, answer in expected().items()}
    assert_answers(right)
    with pytest.raises(AssertionError, match="spikes answered something else"):
        assert_answers(right | {"spikes": "30"})
    with pytest.raises(AssertionError, match=r"no output of .'spikes'"):
        assert_answers({task_id: output for task_id, output in right.items() if task_id != "spikes"})
    for name in (name for answer in expected().values() for name in answer.get("sha256", {})):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("something else")
    with pytest.raises(AssertionError, match=r"wrote another files/gauge-00\.log"):
        assert_answers(right, tmp_path)


def test_every_written_file_is_compared() -> None:
    written = {
        name for task in tasks().values() if task.get("expect", "done") == "done" for name in task.get("files", ())
    }
    assert written == {name for answer in expected().values() for name in answer.get("sha256", {})}


def test_commands_write_below_files_only(month: Month) -> None:
    there = {path.relative_to(month.village) for path in month.village.rglob("*") if path.is_file()}
    before = {path.relative_to(VILLAGE) for path in VILLAGE.rglob("*") if path.is_file()}
    assert {path.parts[0] for path in there - before} <= {"files"}


def test_the_far_gauge_answers_the_third_call_and_the_dead_links_stay_dead(month: Month) -> None:
    assert (month.attempts["far-gauge"], month.attempts["dead-links"], month.attempts["bell-buoy-light"]) == (3, 2, 1)


def test_what_was_tried_says_whether_it_may_be_tried_again() -> None:
    allow = tomllib.loads((VILLAGE / "vivarium.toml").read_text())["commands"]["allow"]
    unsaid = [task_id for task_id, task in tasks().items() if task["command"][0] in allow and "effect" not in task]
    assert unsaid == []


def test_the_material_is_what_its_seed_makes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-B", "-m", "tools.make_material", str(tmp_path)], cwd=VILLAGE, env=ENVIRONMENT, check=True
    )
    made = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == 7
    assert [name for name in made if (tmp_path / name).read_bytes() != (VILLAGE / name).read_bytes()] == []


# The same answers once more, from the material alone: none of the village's programs and none of its commands.


def text(name: str) -> list[str]:
    return (VILLAGE / name).read_text().splitlines()


def table(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text(name)))


def levels() -> dict[datetime, int]:
    """The good readings."""
    found = (LINE.fullmatch(line) for line in text("logs/gauge.log"))
    return {datetime.fromisoformat(line[1]): int(line[2]) for line in found if line and line[3] == "ok"}


def tally(values: list[str]) -> str:
    return "\n".join(
        f"{count} {value}" for value, count in sorted(Counter(values).items(), key=lambda it: (-it[1], it[0]))
    )


def silences() -> str:
    there = {datetime.fromisoformat(line.split()[0]) for line in text("logs/gauge.log")}
    first, step = datetime(2025, 3, 1, tzinfo=UTC), timedelta(minutes=15)
    missing = [at for at in (first + number * step for number in range(31 * 96)) if at not in there]
    starts = [at for at in missing if at - step not in missing]
    lengths = [
        sum(start <= at < (*starts, datetime.max.replace(tzinfo=UTC))[n + 1] for at in missing)
        for n, start in enumerate(starts)
    ]
    lines = [f"{start:%Y-%m-%dT%H:%MZ} {length}" for start, length in zip(starts, lengths, strict=True)]
    return "\n".join([*lines, f"missing {len(missing)}"])


def daily() -> list[tuple[str, int, int, int]]:
    days: dict[str, list[int]] = {}
    for at, level in levels().items():
        days.setdefault(at.date().isoformat(), []).append(level)
    return [(day, len(found), min(found), max(found)) for day, found in days.items()]


def springs() -> str:
    highest = {row[0] for row in sorted(daily(), key=lambda row: -row[3])[:5]}
    lowest = {row[0] for row in sorted(daily(), key=lambda row: row[2])[:5]}
    return f"springs: {' '.join(sorted(highest & lowest))}\nonly high: {' '.join(sorted(highest - lowest))}"


def alerts(season: str) -> list[str]:
    """Tops of tides: the highest good reading within six hours to either side, if it reaches the watch."""
    settings = dict(line.split(" = ") for line in text(f"config/{season}.conf"))
    watch, flood = int(settings["alerts.watch_mm"]), int(settings["alerts.flood_mm"])
    high = {at: level for at, level in levels().items() if level >= watch}
    tops = []
    for at, level in high.items():
        near = [other for other in high if abs(other - at) < timedelta(hours=6)]
        if at == max(near, key=lambda other: (high[other], -other.timestamp())):
            tops.append(f"{at:%Y-%m-%dT%H:%MZ} {'flood' if level >= flood else 'watch'} {level}")
    return tops


def strongest_surge() -> str:
    waves = [
        (float(row["amplitude_mm"]), float(row["degrees_per_hour"]), float(row["phase_degrees"]))
        for row in table("tables/constituents.csv")
    ]

    def surge(at: datetime) -> float:
        hours = (at - datetime(2025, 3, 1, tzinfo=UTC)) / timedelta(hours=1)
        return levels_found[at] - 3100 - sum(a * math.cos((w * hours - g) * math.pi / 180) for a, w, g in waves)

    levels_found = levels()
    at = max(levels_found, key=surge)
    return f"{at:%Y-%m-%dT%H:%MZ} observed {levels_found[at]} mm, surge {surge(at):.0f} mm"


def bulletin() -> str:
    rows = [row for row in table("tables/high_waters.csv") if row["time"].startswith("2025-03-30")]
    lines = [f"{row['time'][11:16]}  {row['kind']:<4}  {int(row['level_mm']) / 1000:.2f} m" for row in rows]
    heights = [int(row["level_mm"]) for row in rows]
    assert max(heights) - min(heights) >= 4000
    return "\n".join(["Greyling Point, 2025-03-30", *(line.replace(".", ",") for line in lines), "A day of springs."])


def heard() -> set[str]:
    return {line.split()[2] for line in text("logs/radio.log")}


def registered() -> set[str]:
    return {row["name"] for row in table("tables/vessels.csv")}


def busiest_day() -> str:
    days = Counter(line[:10] for line in text("logs/radio.log"))
    count = max(days.values())
    firsts = [
        next(line for line in text("logs/radio.log") if line.startswith(day)) for day in days if days[day] == count
    ]
    return f"{count} {min(firsts)}"


def order() -> dict[str, tuple[int, int]]:
    lacks = {
        row["item"]: (int(row["wanted"]) - int(row["in_stock"]), int(row["price_pence"]))
        for row in table("tables/stores.csv")
    }
    return {item: (number, number * price) for item, (number, price) in lacks.items() if number > 0}


def pounds(pence: int) -> str:
    return f"By our list that makes {pence / 100:.2f} pounds."


def berths() -> str:
    lengths = {row["name"]: row["length_cm"] for row in table("tables/vessels.csv")}
    return "\n".join(
        [
            "name,berth,length_cm",
            *(f"{row['name']},{row['berth']},{lengths[row['name']]}" for row in table("tables/berths.csv")),
        ]
    )


def without_a_berth() -> str:
    lying = {row["name"] for row in table("tables/berths.csv")}
    return "\n".join(
        [
            "name,home",
            *(f"{row['name']},{row['home']}" for row in table("tables/vessels.csv") if row["name"] not in lying),
        ]
    )


def lines_of_code() -> str:
    names = ["__main__", "alerts", "bulletin", "harmonics", "readings", "settings", "surge"]
    counts = {f"tidewatch/{name}.py": len(text(f"tidewatch/{name}.py")) for name in names}
    return "\n".join(f"{lines} {name}" for name, lines in [*counts.items(), ("total", sum(counts.values()))])


def functions_per_file() -> str:
    names = sorted(
        path for path in (VILLAGE / "tidewatch").glob("*.py") if path.name not in {"__init__.py", "test_tidewatch.py"}
    )
    counts = {
        path.name: sum(isinstance(node, ast.FunctionDef) for node in ast.parse(path.read_text()).body) for path in names
    }
    return "\n".join(f"tidewatch/{name}:{count}" for name, count in counts.items())


def only_in(one: str, other: str) -> str:
    return "\n".join(sorted(set(text(one)) - set(text(other))))


def storm_quarters() -> str:
    return str(sum(at.date().isoformat() == "2025-03-14" and 5000 <= level < 6000 for at, level in levels().items()))


def count(name: str, start: str) -> str:
    return str(sum(line.startswith(start) for line in text(name)))


RECOMPUTED: dict[str, Callable[[], str]] = {
    "lines-of-code": lines_of_code,
    "functions-per-file": functions_per_file,
    "releases": lambda: count("CHANGELOG.md", "## "),
    "faults-mended": lambda: count("CHANGELOG.md", "- Fixed:"),
    "spring-settings": lambda: only_in("config/spring.conf", "config/winter.conf"),
    "winter-settings": lambda: only_in("config/winter.conf", "config/spring.conf"),
    "readings-written": lambda: f"{len(text('logs/gauge.log'))} logs/gauge.log",
    "silences": silences,
    "spikes": lambda: str(len(text("logs/gauge.log")) - len(levels())),
    "log-levels": lambda: tally([line.split()[1] for line in text("logs/system.log")]),
    "daily-levels": lambda: f"{len(daily())} days",
    "springs": springs,
    "alerts-by-winter-settings": lambda: (
        f"{len(alerts('winter'))} alerts, {str(alerts('winter')).count('flood')} of them floods"
    ),
    "alerts-by-spring-settings": lambda: (
        f"{len(alerts('spring'))} alerts, {str(alerts('spring')).count('flood')} of them floods"
    ),
    "alerts-gained": lambda: "\n".join(alert for alert in alerts("spring") if alert not in alerts("winter")),
    "strongest-surge": strongest_surge,
    "hours-above-five-metres": storm_quarters,
    "bulletin-of-the-30th": bulletin,
    "channels": lambda: tally([line.split()[1] for line in text("logs/radio.log")]),
    "busiest-day": busiest_day,
    "vessels-heard": lambda: f"{len(heard())} different values",
    "strangers": lambda: "\n".join(sorted(heard() - registered())),
    "never-heard": lambda: "\n".join(sorted(registered() - heard())),
    "berths": berths,
    "without-a-berth": without_a_berth,
    "harbour-fees": lambda: str(sum(int(row["fee_pence"]) for row in table("tables/visits.csv"))),
    "watches": lambda: tally(["keeper", *(row["keeper"] for row in table("tables/watches.csv"))]),
    "stores-to-order": lambda: f"{len(order())} items to order",
    "order-total": lambda: str(sum(cost for _, cost in order().values())),
    "order-letter": lambda: pounds(sum(cost for _, cost in order().values())),
    "order-letter-items": lambda: str(len(order())),
    "glossary-words": lambda: count("docs/glossary.md", "**"),
    "handbook-words": lambda: f"{len(' '.join(text('docs/handbook.md')).split())} docs/handbook.md",
}


@pytest.mark.parametrize("task_id", RECOMPUTED)
def test_an_expected_answer_follows_from_the_material(task_id: str) -> None:
    assert bare(expected()[task_id]["stdout"]) == bare(RECOMPUTED[task_id]())


@pytest.mark.parametrize(
    ("task_id", "name", "rows"),
    [
        ("daily-levels", "files/daily-levels.csv", lambda: [(*row, row[3] - row[2]) for row in daily()]),
        ("alerts-by-spring-settings", "files/alerts-spring.txt", lambda: [(alert,) for alert in alerts("spring")]),
        ("vessels-heard", "files/vessels-heard.txt", lambda: [(name,) for name in sorted(heard())]),
        (
            "stores-to-order",
            "files/order.csv",
            lambda: [("item", "number", "cost_pence")] + [(item, *of) for item, of in order().items()],
        ),
    ],
)
def test_an_expected_file_follows_from_the_material(
    task_id: str, name: str, rows: Callable[[], list[tuple[object, ...]]]
) -> None:
    written = "".join(",".join(str(value) for value in row) + "\n" for row in rows())
    assert expected()[task_id]["sha256"][name] == hashlib.sha256(written.encode()).hexdigest()


def test_the_logs_are_the_ones_that_were_signed_off() -> None:
    sums = {name: digest for digest, name in (line.split("  ") for line in text("logs/SHA256SUMS"))}
    assert sums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (VILLAGE / "logs").glob("*.log")
    }
    assert expected()["logs-intact"]["stdout"] == "\n".join(f"{name}: OK" for name in sums)
