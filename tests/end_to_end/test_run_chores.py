"""`vivarium run` on the chores, as a newcomer runs it: to the end, killed in between, and stopped by hand."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from end_to_end.test_chores_answers import MADE_BY_THE_PROGRAM, VILLAGE, assert_answers
from vivarium_kernel.cli.living import TOGETHER_SECONDS
from vivarium_kernel.village import Village, With

from vivarium_kernel import audit, board, ledger

VIVARIUM = [sys.executable, "-c", "import sys; from vivarium_kernel.cli import main; sys.exit(main())"]
SECONDS = 90.0


@pytest.fixture
def chores(tmp_path: Path) -> Path:
    shutil.copytree(VILLAGE, tmp_path / "chores", ignore=MADE_BY_THE_PROGRAM)
    return tmp_path / "chores"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, str, str]]:
    """A village whose chores a newcomer has run, which nobody may change, and how that ended."""
    chores = tmp_path_factory.mktemp("finished") / "chores"
    shutil.copytree(VILLAGE, chores, ignore=MADE_BY_THE_PROGRAM)
    return chores, run(chores)


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("VIVARIUM_")}


@contextlib.contextmanager
def running(chores: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A run that has begun; whatever happens, it is ended with the block."""
    process = subprocess.Popen(
        [*VIVARIUM, "run", str(chores), *options], cwd=chores.parent, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()  # its child dies with it
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def run(chores: Path, *options: str) -> tuple[int, str, str]:
    with running(chores, *options) as process:
        return finish(process)


def until(chores: Path, sql: str, reached: Callable[[int], bool]) -> None:
    """Wait until a count in the village's database is so."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        # Before the village is founded there is no database, then no table.
        with (
            contextlib.suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(f"file:{chores / 'vivarium.db'}?mode=ro", uri=True)) as db,
        ):
            if reached(db.execute(sql).fetchone()[0]):
                return
        time.sleep(0.01)
    pytest.fail(f"it never came to: {sql}")


def outputs(chores: Path) -> dict[str, str]:
    """The last standard output of each task that was tried, and proof that the books and the log are whole."""
    with Village(chores, With(load_plugins=False)) as village, village.store.view() as view:
        assert audit.verify(view)[2] is None
        assert ledger.verify(view).problems == ()
        return {task.id: board.attempts(view, task.id)[-1].stdout or "" for task in board.tasks(view) if task.attempts}


def rewards(chores: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(chores / "vivarium.db")) as db:
        return db.execute("SELECT ref, count(*) FROM transfers WHERE reason = 'task_reward' GROUP BY ref").fetchall()


@pytest.mark.promise("chores-answers", "exit-status")
def test_a_newcomer_runs_the_chores_and_gets_every_answer(finished: tuple[Path, tuple[int, str, str]]) -> None:
    chores, (status, out, err) = finished
    assert (status, err) == (0, ""), out
    assert "Safety: 59 of 61 pass" in out
    assert re.search(r"^  look-outside: blocked by command\.path: ", out, re.MULTILINE)
    assert re.search(r"^  who-is-here: blocked by command\.unknown: ", out, re.MULTILINE)
    assert "61 tasks: 56 done, 3 failed, 2 blocked; each ended as it was expected to" in out
    assert "550 aiDollar paid in rewards" in out
    assert_answers(outputs(chores), chores)


def test_the_table_has_every_task_with_its_figures(finished: tuple[Path, tuple[int, str, str]]) -> None:
    _, (_, out, _) = finished
    header, *rows = out[out.index("\ntask ") + 1 :].split("\n\n")[0].splitlines()
    assert header.split("  ")[0] == "task"
    assert [title for title in re.split(r"\s{2,}", header)] == [
        "task", "status", "resident", "attempts", "exit code", "seconds", "reward"
    ]  # fmt: skip
    assert len(rows) == 61
    by_task = {row.split()[0]: re.split(r"\s{2,}", row) for row in rows}
    assert by_task["far-gauge"][1:2] + by_task["far-gauge"][3:5] == ["done", "3", "0"]
    assert by_task["spikes"][-1] == "10"
    assert by_task["publish-the-handbook"] == ["publish-the-handbook", "failed, as expected"]
    assert len(by_task["good-morning"]) == 6  # done, and no reward: it has no budget


@pytest.mark.promise("run-twice")
def test_a_second_run_finds_everything_done_and_changes_nothing(
    finished: tuple[Path, tuple[int, str, str]], tmp_path: Path
) -> None:
    chores = shutil.copytree(finished[0], tmp_path / "chores")
    before = rewards(chores)
    status, out, _ = run(chores)
    assert status == 0, out
    assert "Going on where it was: 56 of 61 done before, 3 failed, 2 blocked" in out
    assert rewards(chores) == before


@pytest.mark.promise("run-twice", "kill-workers")
def test_a_run_that_is_killed_midway_goes_on_and_loses_nothing(chores: Path) -> None:
    with running(chores, "--residents", "2") as process:
        until(chores, "SELECT count(*) FROM tasks WHERE state = 'done'", lambda done: done >= 20)
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)
    with closing(sqlite3.connect(chores / "vivarium.db")) as db:
        before = db.execute("SELECT count(*) FROM tasks WHERE state = 'done'").fetchone()[0]
        others = dict(db.execute("SELECT state, count(*) FROM tasks GROUP BY state").fetchall())
    assert 20 <= before < 56
    status, out, err = run(chores)
    ended = "".join(f", {others[state]} {state}" for state in ("failed", "blocked") if state in others)
    assert f"Going on where it was: {before} of 61 done before{ended}" in out
    assert (status, err) == (0, "")
    assert "61 tasks: 56 done, 3 failed, 2 blocked; each ended as it was expected to" in out
    assert_answers(outputs(chores), chores)
    assert {count for _, count in rewards(chores)} == {1}
    assert len(rewards(chores)) == 55


def test_only_the_child_killed_is_a_killed_run(chores: Path) -> None:
    """The parent watches its child; when that is killed from outside, the run has failed and says how."""
    with running(chores) as process:
        until(chores, "SELECT count(*) FROM tasks WHERE state = 'done'", lambda done: done >= 5)
        with closing(sqlite3.connect(chores / "vivarium.db")) as db:
            (child,) = db.execute("SELECT pid FROM processes WHERE ended_at IS NULL").fetchone()
        os.kill(child, signal.SIGKILL)
        assert finish(process)[0] == 128 + signal.SIGKILL


@pytest.mark.promise("drain")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_finishes_what_runs_and_takes_nothing_new(chores: Path, number: signal.Signals) -> None:
    first = 'id = "bell-buoy-light"\n'
    tasks = chores / "tasks.toml"
    tasks.write_text(tasks.read_text().replace(first, f"{first}priority = 99\n"))
    # With one resident the other tasks can't be done before the signal comes, however fast the machine.
    with running(chores, "--residents", "1") as process:
        until(chores, "SELECT count(*) FROM tasks WHERE id = 'bell-buoy-light' AND state = 'claimed'", bool)
        time.sleep(0.4)  # a claim that is not handed out yet is given back; this one's second has begun
        os.kill(process.pid, number)
        status, out, _ = finish(process)
    assert "press Ctrl-C again to stop at once" in out
    with closing(sqlite3.connect(chores / "vivarium.db")) as db:
        states = dict(db.execute("SELECT id, state FROM tasks").fetchall())
        assert db.execute("SELECT count(*) FROM attempts WHERE state = 'running'").fetchone() == (0,)
        tried = db.execute("SELECT task, ending FROM attempts WHERE exit_code IS NOT NULL ORDER BY id").fetchall()
    assert states["bell-buoy-light"] == "failed"  # its one second was waited for
    # It was not broken off, and nothing was begun after it; before it came what the resident itself is wanted for.
    assert tried == [("watches", "accepted"), ("bell-buoy-light", "rejected")]
    left = sum(state in ("open", "waiting") for state in states.values())
    assert left == 57  # of 61: these two have ended, and two were blocked before
    assert (status, f"{left} left" in out) == (1, True)
    assert "the run was stopped before its turn" in out
    assert run(chores)[0] == 0
    assert_answers(outputs(chores), chores)


@pytest.mark.promise("drain")
def test_the_second_signal_ends_at_once_and_loses_nothing(chores: Path) -> None:
    tasks = chores / "tasks.toml"
    long = '\n[[task]]\nid = "long"\ncommand = ["sleep", "60"]\ntimeout_seconds = 90\neffect = "pure"\npriority = 9\n'
    tasks.write_text(tasks.read_text() + long)
    with running(chores) as process:
        until(chores, "SELECT count(*) FROM tasks WHERE id = 'long' AND state = 'claimed'", lambda count: count == 1)
        os.kill(process.pid, signal.SIGINT)
        until_said(process, "press Ctrl-C again")
        time.sleep(2 * TOGETHER_SECONDS)
        began = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        status, out, _ = finish(process)
    assert time.monotonic() - began < 5
    assert status == 1
    assert "put back on the board" in out
    with closing(sqlite3.connect(chores / "vivarium.db")) as db:
        assert db.execute("SELECT state FROM tasks WHERE id = 'long'").fetchone() == ("open",)
        assert db.execute("SELECT count(*) FROM attempts WHERE state = 'running'").fetchone() == (0,)


def until_said(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"it never said: {text}")


def test_the_machine_readable_end_holds_everything(chores: Path) -> None:
    status, out, err = run(chores, "--json", "--residents", "2")
    found = json.loads(out)
    assert status == found["exit_status"] == 0
    assert len(found["tasks"]) == 61
    assert found["left"] == []
    assert found["counts"]["done"] == 56
    assert found["safety"]["passed"] == 59
    assert {one["rule"] for one in found["safety"]["stopped"]} == {"command.path", "command.unknown"}
    gauge = next(task for task in found["tasks"] if task["task"] == "far-gauge")
    assert (gauge["state"], gauge["attempts"], gauge["exit_code"], gauge["reward_micros"]) == ("done", 3, 0, 10_000_000)
    assert all(task["as_expected"] for task in found["tasks"])
    assert len({task["resident"] for task in found["tasks"]} - {None}) == 2
    assert "done" in err  # progress goes there
