"""Promises about how a run ends: its exit status, and what it says of everything that is left."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from .running import Done, Here, village, vivarium

LS = 'command = ["ls"]'


def run(folder: Path, *options: str) -> Done:
    return vivarium("run", folder, *options, cwd=folder.parent)


@pytest.mark.promise("exit-status")
@pytest.mark.parametrize(
    ("tasks", "status", "said"),
    [
        ([f'id = "a"\n{LS}'], 0, "1 done; each ended as it was expected to"),
        (['id = "a"\ncommand = ["cat", "ghost"]\nmax_attempts = 1'], 1, "1 failed; 1 task not as expected"),
        (['id = "a"\ncommand = ["cat", "ghost"]\nmax_attempts = 1\nexpect = "failed"'], 0, "as it was expected to"),
        ([f'id = "a"\n{LS}\nexpect = "failed"'], 1, "1 task not as expected"),
        (['id = "a"\ncommand = ["cat", "ghost"]\nmax_attempts = 1\nexpect = "any"'], 0, "as it was expected to"),
        (['id = "a"\ncommand = ["rm", "x"]'], 1, "1 blocked; 1 task not as expected"),
        ([f'id = "a"\n{LS}\nhuman = true'], 3, "1 left"),
        ([f'id = "a"\n{LS}\nhuman = true', f'id = "b"\n{LS}\nneeds = ["a"]'], 3, "2 left"),
        ([f'id = "a"\n{LS}\nhuman = true', f'id = "b"\n{LS}\nnot_before = 2999-01-01T00:00:00Z'], 1, "2 left"),
        ([f'id = "a"\n{LS}\nhuman = true', 'id = "b"\ncommand = ["rm", "x"]'], 1, "1 left; 1 task not as expected"),
        ([], 0, "The board is empty"),
    ],
    ids=["done", "failed", "failed as expected", "done unexpectedly", "whatever comes", "blocked", "review",
         "waits for review", "review and time", "review and blocked", "empty"],
)  # fmt: skip
def test_the_exit_status_says_how_it_ended(tmp_path: Path, tasks: list[str], status: int, said: str) -> None:
    done = run(village(tmp_path / "v", tasks))
    assert (done.status, said in done.out) == (status, True), done.out + done.err
    assert done.err == ""


def test_an_ending_that_is_acknowledged_counts_against_no_further_run(tmp_path: Path) -> None:
    tasks = ['id = "a"\ncommand = ["cat", "ghost"]\nmax_attempts = 1\neffect = "pure"', f'id = "b"\n{LS}\nhuman = true']
    folder = village(tmp_path / "v", tasks)
    done = run(folder)
    assert (done.status, "To leave one at that: vivarium task acknowledge ID -v v" in done.out) == (1, True)
    early = vivarium("task", "acknowledge", "a", "b", "-v", folder, cwd=tmp_path)
    assert (early.status, "Only one that has ended can be" in early.err) == (2, True)
    assert run(folder).status == 1  # all or none
    told = vivarium("task", "acknowledge", "a", "-v", folder, "--reason", "seen", cwd=tmp_path)
    assert (told.status, told.out) == (0, "a is acknowledged: it stays failed\n")
    assert run(folder).status == 3  # for b a person is awaited
    (event,) = vivarium("log", "tail", "--kind", "task.acknowledged", "-v", folder, "--json", cwd=tmp_path).document
    assert (event["task"], event["data"]["state"], event["data"]["reason"]) == ("a", "failed", "seen")
    assert vivarium("task", "requeue", "a", "-v", folder, cwd=tmp_path).status == 0
    assert run(folder).status == 1  # another ending, which nobody has acknowledged


def test_a_cap_that_is_only_set_aside_makes_nobody_wait_for_tomorrow(tmp_path: Path) -> None:
    """Eight at once set aside more than the cap, though together they spend hardly any of it."""
    waits = 'prompt = "Say."\nmodel = "scripted:wait-0.05"'
    prices = '[models.prices]\n"scripted:wait-0.05" = { in_usd = "0.1", out_usd = "0.1" }\n'
    tasks = [f'id = "t{number}"\n{waits}' for number in range(24)]
    done = run(village(tmp_path / "v", tasks, f'[budgets]\nvillage_day_usd = "0.25"\n{prices}'), "--residents", "8")
    assert (done.status, "24 done; each ended as it was expected to" in done.out) == (0, True), done.out + done.err


@pytest.mark.parametrize(
    ("task", "before", "waits", "kind"),
    [
        (f'id = "a"\n{LS}\nnot_before = 2999-01-01T00:00:00Z', [], "its time until 2999-01-01", "time"),
        (f'id = "a"\n{LS}\nhuman = true', [], "a person's decision", "person"),
        (f'id = "a"\n{LS}', [["pause"]], "the village is paused", "village"),
        (f'id = "a"\n{LS}', [["halt"]], "the village is halted", "village"),
        (f'id = "a"\n{LS}\nwanted = "ada"', [["resident", "pause", "ada", "--reason", "tea"]],
         "ada, who is paused (tea)", "resident"),
        (f'id = "a"\n{LS}\nplugins = ["forge"]', [], "the plugin forge, which is off or not installed", "plugin"),
    ],
    ids=["time", "person", "pause", "halt", "resident", "plugin"],
)  # fmt: skip
def test_what_is_left_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, before: list[list[str]], waits: str, kind: str
) -> None:
    folder = village(tmp_path / "v", [task])
    here = Here(folder, monkeypatch)
    for command in before:
        assert here(*command).status == 0
    done = run(folder)
    assert waits in done.out, done.out + done.err
    (left,) = run(folder, "--json").document["left"]
    assert (left["task"], left["kind"]) == ("a", kind)
    assert waits in here("task", "show", "a").out or kind == "plugin"


def test_what_is_left_is_whole_where_no_terminal_cuts_it(tmp_path: Path) -> None:
    names = [f"forge_of_the_far_mountain_{number}" for number in range(6)]
    folder = village(tmp_path / "v", [f'id = "a"\n{LS}\nplugins = {names}'])
    done = vivarium("run", folder, cwd=tmp_path, env={"COLUMNS": ""})
    (line,) = [line for line in done.out.splitlines() if line.startswith("a ")]
    assert "…" not in line
    assert f"the plugin {', '.join(names)}, which is off or not installed" in line
    assert line.endswith(f"vivarium plugins enable {' '.join(names)}")


def test_a_task_file_that_no_setting_names_is_pointed_out(tmp_path: Path) -> None:
    folder = village(tmp_path / "v")
    (folder / "tasks.toml").write_text(f'[[task]]\nid = "a"\n{LS}\n')
    done = run(folder)
    assert "tasks.toml lies here, but vivarium.toml does not name it" in done.out
    assert 'tasks = ["tasks.toml"]' in done.out


def test_a_run_takes_up_what_a_person_has_decided(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", [f'id = "a"\n{LS}\nhuman = true', f'id = "b"\n{LS}\nneeds = ["a"]'])
    assert run(folder).status == 3
    assert vivarium("task", "approve", "a", "-v", folder, cwd=tmp_path).status == 0
    done = run(folder)
    assert done.status == 0
    assert "Going on where it was: 1 of 2 done before" in done.out


def test_a_very_long_board_shows_what_was_unexpected_and_the_last(tmp_path: Path) -> None:
    tasks = [f'id = "t{number}"\n{LS}' for number in range(260)]
    tasks[7] += '\nexpect = "failed"'
    folder = village(tmp_path / "v", tasks)
    done = run(folder, "--residents", "8")
    assert done.status == 1
    table = done.out[done.out.index("The last 50 of 260 that ended; `vivarium task list` has them all:") :]
    strange = table[table.index("\n1 task not as expected, and why:") :]
    assert re.search(r"^t7 +done, not failed +it was accepted$", strange, re.MULTILINE)
    assert "requeue" not in strange
    assert len(table.splitlines()) < 70
    assert len(run(folder, "--json").document["tasks"]) == 260


def test_what_was_unexpected_is_told_with_its_reason_and_what_tries_it_again(tmp_path: Path) -> None:
    folder = village(
        tmp_path / "v",
        [
            'id = "fails"\ncommand = ["cat", "no-such-file"]\nmax_attempts = 1',
            'id = "outside"\ncommand = ["cat", "/etc/hostname"]',
            'id = "well"\ncommand = ["cat", "no-such-file"]\nmax_attempts = 1\nexpect = "failed"',
        ],
    )
    for _ in ("the first run", "and each later one"):
        done = run(folder)
        assert done.status == 1
        strange = done.out[done.out.index("\n2 tasks not as expected, and why:") :]
        strange = " ".join(strange.split())
        assert re.search(
            r"fails\b.* failed, not done.* exit code 1: .*No such file.* vivarium task requeue fails ", strange
        )
        assert re.search(r"outside\b.* blocked, not done.* command\.path: .* vivarium task requeue outside ", strange)
        assert "well" not in strange


def test_what_failed_for_another_task_comes_back_with_it(tmp_path: Path) -> None:
    folder = village(
        tmp_path / "v",
        [
            'id = "goal"\ncommand = ["cat", "prize"]\nmax_attempts = 1',
            'id = "feast"\ncommand = ["ls"]\nneeds = ["goal"]',
            'id = "sleep"\ncommand = ["ls"]\nneeds = ["feast"]',
        ],
    )

    def requeue(*names: str) -> Done:
        return vivarium("task", "requeue", *names, "-v", folder, cwd=tmp_path)

    said = " ".join(run(folder).out.split())
    assert said.count("vivarium task requeue goal -v v tries it again") == 3
    assert said.count("tries it again and what needed it") == 2
    refused = requeue("feast")
    assert (refused.status, "[board.needs]" in refused.err) == (2, True)
    assert "Task feast needs goal, which is failed." in refused.err
    assert "vivarium task requeue goal" in refused.err
    (folder / "prize").write_text("gold")
    assert requeue("sleep", "feast", "goal").out.splitlines() == [
        "goal is requeued: it is open now",
        "feast is requeued: it is waiting now",
        "sleep is requeued: it is waiting now",
    ]
    assert run(folder).status == 0


@pytest.mark.parametrize("order", [("goal", "feast", "sleep"), ("sleep", "goal", "feast"), ("feast", "sleep", "goal")])
def test_tasks_that_need_each_other_are_cancelled_together_in_any_order(tmp_path: Path, order: tuple[str, ...]) -> None:
    tasks = ['id = "goal"\ncommand = ["ls"]', 'id = "feast"\ncommand = ["ls"]\nneeds = ["goal"]',
             'id = "sleep"\ncommand = ["ls"]\nneeds = ["feast"]']  # fmt: skip
    folder = village(tmp_path / "v", tasks)
    assert vivarium("task", "add", "--from", folder / "tasks.toml", "-v", folder, cwd=tmp_path).status == 0
    done = vivarium("task", "cancel", *order, "-v", folder, cwd=tmp_path)
    assert done.out.splitlines() == [f"{name} is cancelled" for name in ("sleep", "feast", "goal")], done.err


@pytest.mark.parametrize("order", [("goal", "sleep", "other"), ("other", "sleep", "goal")])
def test_tasks_that_need_each_other_through_one_that_is_not_named_are_decided_together(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    tasks = ['id = "goal"\ncommand = ["ls"]', 'id = "feast"\ncommand = ["ls"]\nneeds = ["goal"]',
             'id = "sleep"\ncommand = ["ls"]\nneeds = ["feast"]', 'id = "other"\ncommand = ["ls"]']  # fmt: skip
    folder = village(tmp_path / "v", tasks)
    assert vivarium("task", "add", "--from", folder / "tasks.toml", "-v", folder, cwd=tmp_path).status == 0
    done = vivarium("task", "cancel", *order, "-v", folder, cwd=tmp_path)
    said = [line.partition(" ")[0] for line in done.out.splitlines()]
    assert (done.status, said.index("sleep") < said.index("goal")) == (0, True), done.err
    assert vivarium("task", "requeue", *order, "-v", folder, cwd=tmp_path).status == 0
    found = vivarium("task", "list", "--json", "-v", folder, cwd=tmp_path).document
    states = {one["id"]: one["state"] for one in found}
    assert states == {"goal": "open", "feast": "waiting", "sleep": "waiting", "other": "open"}


def test_words_of_a_task_cannot_paint_the_terminal(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", ['id = "a"\ntitle = "[bold red]x[/]"\ncommand = ["cat", "colours"]'])
    (folder / "colours").write_text("\x1b[31mred\x1b[0m \x07\n")
    assert run(folder).status == 0
    shown = vivarium("task", "show", "a", "-v", folder, cwd=tmp_path).out
    assert "\x1b" not in shown
    assert "\\x1b[31mred" in shown
    assert "[bold red]x[/]" in vivarium("task", "list", "-v", folder, cwd=tmp_path).out


@pytest.mark.promise("watchdog")
def test_a_plugin_that_holds_the_process_is_named_and_switched_off_and_the_run_ends_well(tmp_path: Path) -> None:
    site = tmp_path / "site"
    information = site / "sticky-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: sticky\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[vivarium.plugins]\nsticky = sticky:Sticky\n")
    (site / "sticky.py").write_text(
        "import time\n"
        "from vivarium_kernel import Plugin, hookimpl\n"
        "class Sticky(Plugin):\n"
        "    name = 'sticky'\n"
        "    @hookimpl\n"
        "    def claim_score(self, resident, tasks, view):\n"
        "        time.sleep(60)\n"
    )
    folder = village(tmp_path / "v", [f'id = "a"\n{LS}', f'id = "b"\n{LS}\nneeds = ["a"]'])
    began = time.monotonic()
    done = vivarium("run", folder, cwd=tmp_path, env={"PYTHONPATH": str(site)})
    assert done.status == 0, done.out + done.err
    assert time.monotonic() - began < 30
    assert "plugin 'sticky' held the process for too long in claim_score" in done.err
    assert "it is off on that hook from now on" in done.err
    assert "plugin sticky is off on claim_score" in done.out  # the new process says so, too
    assert "2 tasks: 2 done; each ended as it was expected to" in done.out
    with closing(sqlite3.connect(folder / "vivarium.db")) as db:
        assert db.execute("SELECT count(*) FROM attempts").fetchone() == (2,)


def test_an_ended_task_that_was_edited_keeps_nobody_from_work_and_one_that_has_not_ended_is_refused(
    tmp_path: Path,
) -> None:
    ended, waits = 'id = "a"\ncommand = ["cat", "{}"]\nmax_attempts = 1', 'id = "b"\nhuman = true\ncommand = ["{}"]'
    folder = village(tmp_path / "v", [ended.format("ghost"), waits.format("ls")])
    assert run(folder).status == 1
    done = run(village(folder, [ended.format("tasks.toml"), waits.format("ls"), f'id = "c"\n{LS}']))
    assert "task a is failed and was edited since: it stays as it was" in done.out
    assert "1 done, 1 failed" in done.out  # c was done
    refused = run(village(folder, [ended.format("ghost"), waits.format("pwd")]))
    assert (refused.status, "Task b was posted before with other content" in refused.err) == (2, True)
