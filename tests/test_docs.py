"""Promises about what people read: what the README shows runs and answers so, and the rules' tables are the code's."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from attrs import evolve
from vivarium_kernel.amounts import amount
from vivarium_kernel.builtin.rewards import RewardPhysics, reward_micros
from vivarium_kernel.clock import SimulatedClock
from vivarium_kernel.settings import Settings
from vivarium_kernel.settling import Retries, backoff_micros
from vivarium_kernel.terms import MICROS, TaskState
from vivarium_kernel.village_time import HOURS_A_DAY, hour_length_seconds

from vivarium_kernel import taskfile

VIVARIUM = [sys.executable, "-c", "import sys; from vivarium_kernel.cli import main; sys.exit(main())"]
# A rule's or an event's name, as the pages write it.
RULE = re.compile(r"`((?:board|command|ledger|request|safety|text_policy|task_reward)\.[a-z_]+)`")


@pytest.fixture(scope="session")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def rules(repository: Path) -> str:
    return (repository / "docs" / "rules.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def rows_of(page: str, header: str) -> list[list[str]]:
    """The cells of the table whose header line begins so."""
    lines = iter(page[page.index(f"\n| {header}") + 1 :].splitlines()[2:])
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIVARIUM_")}
    return kept | {"LANG": "C.UTF-8", "COLUMNS": "200"} | more


# The README


@pytest.mark.promise("readme-runs")
def test_the_readmes_tour_can_be_typed_and_answers_as_it_shows(readme: str, tmp_path: Path) -> None:
    place = tmp_path
    session = list(typed_lines("\n".join(blocks(readme, "console"))))
    assert len(session) > 10
    for typed, shown in session:
        words = shlex.split(typed)
        if words[0] == "cd":
            place = place / words[1]
            continue
        assert words[0] == "vivarium", typed
        answered = lived(words[1:], place) if words[1] == "up" else answer(words[1:], place)
        assert unseen(shown, answered) == [], f"`{typed}` answered:\n{answered}"


def typed_lines(session: str) -> Iterator[tuple[str, list[str]]]:
    """Each typed line of a session, with the lines that it is shown to answer."""
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        typed, *shown = part.splitlines()
        yield typed, [line for line in shown if line.strip() not in ("", "…")]


def answer(words: list[str], place: Path) -> str:
    done = subprocess.run(
        [*VIVARIUM, *words], cwd=place, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def lived(words: list[str], place: Path) -> str:
    """What a command says that stays, on a free port, until it has said all of its beginning; then it is ended."""
    with subprocess.Popen(
        [*VIVARIUM, *words, "--port", "0"], cwd=place, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said: list[str] = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("Log in"):
                    break
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
    return "".join(said)


def unseen(shown: list[str], answered: str) -> list[str]:
    """The shown lines that were not answered; times and addresses may differ, and … is anything."""
    there = [plain(line) for line in answered.splitlines()]
    return [line for line in shown if not any(re.fullmatch(like(line), other) for other in there)]


@pytest.mark.promise("harnesses-find-planted-bugs")
def test_a_line_that_is_not_answered_is_found() -> None:
    answered = "lines  done\n  │  128 vivarium.toml\n    32 11:30:54 d0 money.moved  by kernel key=a:b\n"
    shown = ["lines  done", "  │  128 vivarium.toml", "    32 10:00:00 d0 money.moved by … key=a:b"]
    assert unseen(shown, answered) == []
    wrong = ["lines  failed", "vivarium.toml", "  │  127 vivarium.toml"]
    assert unseen(wrong, answered) == wrong


def plain(line: str) -> str:
    return " ".join(re.sub(r"\d+(?:[.,:]\d+)+", "0", line).split())  # a whole number is as it is shown


def like(line: str) -> str:
    return ".*".join(re.escape(plain(part)) for part in line.split("…"))


@pytest.mark.promise("readme-runs")
def test_the_readmes_plugin_runs_as_a_program_and_installed(readme: str, tmp_path: Path) -> None:
    (program,) = blocks(readme, "python")
    (table,) = blocks(readme, "toml")
    folder = tmp_path / "village"
    answer(["init", "village"], tmp_path)
    (tmp_path / "short_first.py").write_text(program, encoding="utf-8")
    subprocess.run([sys.executable, "short_first.py"], cwd=tmp_path, env=environment(), check=True, timeout=60)
    claimed = answer(["log", "tail", "--kind", "task.claimed"], folder)
    assert re.findall(r"task\.claimed +(\S+)", claimed) == ["short", "long"]
    assert "short_first.quick" in answer(["log", "tail"], folder)

    ((group, points),) = tomllib.loads(table)["project"]["entry-points"].items()
    metadata = tmp_path / "short_first-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: short-first\nVersion: 0.1\n", encoding="utf-8")
    lines = [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    looked = subprocess.run(
        [*VIVARIUM, "doctor"], cwd=folder, env=environment(PYTHONPATH=str(tmp_path)), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert re.search(r"^ok +plugins +.*\bshort_first\b", looked.stdout, re.MULTILINE), looked.stdout


def test_the_readmes_recording_shows_tasks_of_the_chores(readme: str, repository: Path) -> None:
    posted = tomllib.loads((repository / "examples" / "chores" / "tasks.toml").read_text(encoding="utf-8"))["task"]
    expected = {task["id"]: task.get("expect", "done") for task in posted}
    (recording,) = blocks(readme, "text")
    assert f"Village chores: {len(expected)} tasks in examples/chores" in recording
    shown = re.findall(r"^([a-z-]+) +(done|(?:failed|blocked|cancelled), as expected)\b", recording, re.MULTILINE)
    assert len(shown) >= 8
    assert [(name, state) for name, state in shown if expected[name] != state.partition(",")[0]] == []


def test_the_readme_names_figures_that_the_benchmarks_take(readme: str, repository: Path) -> None:
    for *_, source in rows_of(readme, "what | figure"):
        for file, figures in re.findall(r"`(\w+\.py)`((?: `\w+`,?)+)", source):
            text = (repository / "benchmarks" / file).read_text(encoding="utf-8")
            named = re.findall(r"`(\w+)`", figures)
            assert named and [figure for figure in named if f'"{figure}"' not in text] == [], file


# The rules


def test_the_rules_tell_of_every_state(rules: str) -> None:
    named = [row[0].strip("`") for row in rows_of(rules, "state | the task")]
    assert sorted(named) == sorted(get_args(TaskState))


def test_the_rules_examples_of_rewards_are_what_is_paid(rules: str) -> None:
    examples = rows_of(rules, "budget | spent | confidence")
    assert len(examples) >= 5
    for most, spent, confidence, reward in examples:
        paid = reward_micros(amount(most, ""), amount(spent, ""), float(confidence), RewardPhysics())
        assert paid == int(reward) * MICROS, (most, spent, confidence)


def test_the_rules_examples_of_hours_are_how_long_they_last(rules: str) -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    for pace, hour, day in rows_of(rules, "pace | an hour"):
        seconds = hour_length_seconds(Settings().hour_seconds, float(pace))
        for text, lasts in ((hour, seconds), (day, seconds * HOURS_A_DAY)):
            parts = re.findall(r"([\d,]+) (s|min|h)\b", text)
            assert sum(int(number.replace(",", "")) * units[unit] for number, unit in parts) == lasts, (pace, text)


def test_the_rules_examples_of_pauses_are_how_long_they_last(rules: str) -> None:
    header = re.search(r"^\| try that failed \|(.*)\|$", rules, re.MULTILINE)
    assert header is not None
    ((_, *pauses),) = rows_of(rules, "try that failed")
    steady, chance = evolve(Retries(), jitter=0.0), SimulatedClock(0).chance
    for number, pause in zip(header[1].split("|"), pauses, strict=True):
        assert backoff_micros(int(number), steady, chance) == float(pause) * MICROS


def test_the_rules_name_rules_that_the_code_has(rules: str, repository: Path) -> None:
    source = repository / "vivarium_kernel" / "src" / "vivarium_kernel"
    code = "\n".join(file.read_text(encoding="utf-8") for file in source.rglob("*.py"))
    named = set(RULE.findall(rules))
    assert len(named) > 15
    # A plugin's own events and policies get its name from the kernel.
    missing = [name for name in named if f'"{name}"' not in code and f'"{name.partition(".")[2]}"' not in code]
    assert missing == []


# All pages


def test_the_page_of_task_files_has_every_key_and_examples_that_can_be_posted(repository: Path) -> None:
    page = (repository / "docs" / "tasks.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [*taskfile.keys()]
    (toml,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (jsonl,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    for text, is_jsonl in ((toml, False), (jsonl, True)):
        count, summary = taskfile.read_text(text, "docs/tasks.md", jsonl=is_jsonl)
        assert (count.id, count.effect, summary.needs, summary.max_micros) == ("count", "pure", ("count",), 50_000)


def test_links_to_headings_lead_to_a_heading(repository: Path) -> None:
    broken = []
    for page in (repository / "README.md", *(repository / "docs").rglob("*.md")):
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            other = page.parent / target if target else page
            if anchor not in anchors(other.read_text(encoding="utf-8")):
                broken.append(f"{page.relative_to(repository)}: {target}#{anchor}")
    assert broken == []


def anchors(page: str) -> set[str]:
    """The names under which a page's headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_every_decision_stands_in_the_list(repository: Path) -> None:
    folder = repository / "docs" / "decisions"
    listed = re.findall(r"\]\(([a-z-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.name for page in folder.glob("*.md") if page.name != "README.md")
    for page in listed:
        text = (folder / page).read_text(encoding="utf-8")
        for part in ("**Question.**", "**Decision", "**Why", "**What it costs.**"):
            assert part in text, f"{page}: {part}"
