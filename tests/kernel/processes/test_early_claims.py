"""Promises about early claims: a resident's ending and its next claim share a commit, and nobody can tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.committing import Committer
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With

from vivarium_kernel import NewTask, Plugin, Reject, board, control, hookimpl

COUNT, MANY = 20, 60


class Reading(Plugin):
    """Looks at the board's tables before it says who may take what, and keeps what it saw."""

    name = "reading"
    seen: list[tuple[int, int]]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen = []

    @hookimpl
    def claim_filter(self, resident: Any, tasks: Sequence[Any], view: Any) -> list[Reject]:
        found = view.read("SELECT count(*), coalesce(sum(state = 'running'), 0) FROM attempts")
        self.seen.append(found[0])
        return []


def opened(folder: Path, residents: int = 1, **how: Any) -> Village:
    names = ", ".join(f'"r{number}"' for number in range(residents))
    (folder / "vivarium.toml").write_text(f"residents = [{names}]\npace_seconds = 60\n", encoding="utf-8")
    return Village(folder, With(threaded=True, installed=False, **how), environ={})


def commits_of(village: Village) -> int:
    """Commits from the first claim to the end of a run, with one resident."""
    village.post([NewTask(id=f"t{number}", prompt="x") for number in range(COUNT)])

    async def run() -> int:
        async with Runtime(village, 1, until_done=True) as runtime:
            before = village.store.commits
            async with asyncio.timeout(60):
                await runtime.run()
            return village.store.commits - before

    commits = asyncio.run(run())
    with village.store.view() as view:
        assert view.rows("SELECT DISTINCT state FROM tasks") == [("done",)]
        assert view.rows("SELECT DISTINCT ending FROM attempts") == [("accepted",)]
        assert view.rows("SELECT count(*) FROM attempts") == [(COUNT,)]
    return commits


def test_an_ending_and_the_next_claim_share_a_commit(tmp_path: Path) -> None:
    with opened(tmp_path) as village:
        assert commits_of(village) < 1.5 * COUNT


def test_a_plugin_that_reads_tables_to_say_who_may_take_what_sees_every_ending(tmp_path: Path) -> None:
    with opened(tmp_path, plugins=(Reading,)) as village:
        assert commits_of(village) >= 2 * COUNT
        reading = village.plugins["reading"]
        assert isinstance(reading, Reading)
        assert reading.seen[:COUNT] == [(number, 0) for number in range(COUNT)]


def test_what_an_ending_opens_comes_in_its_place(tmp_path: Path) -> None:
    """The second task needs the first and is older than the third; the fourth is urgent and needs the third."""
    with opened(tmp_path) as village:
        village.post(
            [
                NewTask(id="first", prompt="x"),
                NewTask(id="second", prompt="x", needs=("first",)),
                NewTask(id="third", prompt="x"),
                NewTask(id="urgent", prompt="x", needs=("third",), priority=9),
                NewTask(id="last", prompt="x"),
            ]
        )

        async def run() -> None:
            async with Runtime(village, 1, until_done=True) as runtime, asyncio.timeout(60):
                await runtime.run()

        asyncio.run(run())
        with village.store.view() as view:
            found = [row[0] for row in view.rows("SELECT task FROM attempts ORDER BY id")]
        assert found == ["first", "second", "third", "urgent", "last"]


def test_what_an_ending_opens_comes_in_its_place_also_where_commits_are_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other residents at work and a slow disk, a round may read the board before the settlement is on it."""
    quick = Committer._commit

    def slow(committer: Committer) -> None:
        time.sleep(0.006)
        quick(committer)

    monkeypatch.setattr(Committer, "_commit", slow)
    with opened(tmp_path, residents=3) as village:
        opens = [NewTask(id=f"a{n}", prompt="x", wanted="r0", model="scripted:wait-0.013") for n in range(MANY)]
        urgent = [NewTask(id=f"u{n}", prompt="x", wanted="r0", priority=9, needs=(f"a{n}",)) for n in range(MANY)]
        others = [NewTask(prompt="x", model="scripted:wait-0.003") for _ in range(8 * MANY)]
        village.post([*opens, *urgent, *others])

        async def run() -> None:
            async with Runtime(village, 3):
                await until(lambda: _left(village) == 0)

        asyncio.run(run())
        with village.store.view() as view:
            found = [row[0] for row in view.rows("SELECT task FROM attempts WHERE resident = 'r0' ORDER BY id")]
        after = {task: found[place + 1] for place, task in enumerate(found[:-1]) if task.startswith("a")}
        assert after == {f"a{n}": f"u{n}" for n in range(MANY)}


def _left(village: Village) -> int:
    """Of the tasks that are for r0, those that are not done."""
    with village.store.view() as view:
        return int(view.rows("SELECT count(*) FROM tasks WHERE wanted = 'r0' AND state <> 'done'")[0][0])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def running(village: Village) -> list[str]:
    with village.store.view() as view:
        return [row[0] for row in view.rows("SELECT resident FROM attempts WHERE state = 'running'")]


def begun(village: Village) -> dict[str, int]:
    with village.store.view() as view:
        return dict(view.rows("SELECT resident, count(*) FROM attempts GROUP BY resident"))


def test_residents_who_are_not_wanted_any_more_finish_their_task_and_begin_no_other(tmp_path: Path) -> None:
    async def life(village: Village) -> None:
        async with Runtime(village, 4) as runtime:
            await until(lambda: len(running(village)) == 4)
            before = begun(village)
            village.store.call(control.set_residents, (1, "operator:test"))
            await until(lambda: len(runtime.residents) == 1)
            (stays,) = runtime.residents
            await until(lambda: _done(village) == COUNT)
        # One task each may have begun before the process heard of it, at its next beat.
        assert all(count <= before[name] + 1 for name, count in begun(village).items() if name != stays)

    with opened(tmp_path, residents=4) as village:
        village.post([NewTask(id=f"t{n}", prompt="x", model="scripted:wait-0.4") for n in range(COUNT)])
        asyncio.run(life(village))


def test_what_was_claimed_early_for_one_who_does_not_come_is_given_back(tmp_path: Path) -> None:
    async def life(village: Village) -> None:
        async with Runtime(village, 1) as runtime:
            (other,) = {"r0", "r1"} - set(runtime.residents)
            village.store.call(control.switch, control.Switch("paused", True, "operator:test"))
            runtime.rounds.claim_early(other)
            runtime.rounds.forgo(other)  # before it has anything
            await village.store.write(control.switch, control.Switch("paused", False, "operator:test"))
            await village.store.write(board.post, village.posting([NewTask(id="one", prompt="x")], "operator:test"))
            await until(lambda: _done(village) == 1)
            assert other not in begun(village)
            held = NewTask(id="two", prompt="x", wanted=other)
            await village.store.write(board.post, village.posting([held], "operator:test"))
            runtime.rounds.claim_early(other)
            await until(lambda: running(village) == [other])
            runtime.rounds.forgo(other)
            await until(lambda: running(village) == [])
            with village.store.view() as view:
                assert view.rows("SELECT ending FROM attempts WHERE task = 'two'") == [("released",)]
                assert board.task(view, "two").state == "open"

    with opened(tmp_path, residents=2) as village:
        asyncio.run(life(village))


def _done(village: Village) -> int:
    with village.store.view() as view:
        return int(view.rows("SELECT count(*) FROM tasks WHERE state = 'done'")[0][0])


@pytest.mark.parametrize("after", [0.0, 0.01, 0.02, 0.03])
def test_a_drain_ends_with_nothing_claimed(tmp_path: Path, after: float) -> None:
    """Also where it comes between an ending and the claim that goes with it."""

    async def life(village: Village) -> None:
        async with Runtime(village, 3) as runtime:
            await until(lambda: _done(village) > 3)
            await asyncio.sleep(after)
            runtime.drain()
            async with asyncio.timeout(20):
                await runtime.run()
            await until(lambda: running(village) == [])  # before the process has left, which gives back everything
            assert runtime.rounds.waiting == 0
        with village.store.view() as view:
            assert view.rows("SELECT DISTINCT state FROM tasks WHERE state NOT IN ('open', 'done')") == []
            assert view.rows("SELECT 1 FROM attempts WHERE ending NOT IN ('accepted', 'released')") == []

    with opened(tmp_path, residents=3) as village:
        village.post([NewTask(id=f"t{n}", prompt="x", model="scripted:wait-0.02") for n in range(500)])
        asyncio.run(life(village))
