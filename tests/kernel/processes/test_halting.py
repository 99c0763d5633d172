"""Halt, pause, drain and the states of residents, on running acts: real commands, real processes, real time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from kernel.faults.scene import asynchronously_until, faults_of, marks, states, until
from vivarium_kernel.errors import StoreFull
from vivarium_kernel.people import Change, NewToken
from vivarium_kernel.records import NewTask
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.settling import Settlement
from vivarium_kernel.village import Village

from vivarium_kernel import board, control, people

from .nursery import Nursery
from .village_processes import acknowledged, found, opened

BEATING = "while :; do date +%s.%N >> files/beats; sleep 0.05; done"
HEARD = 'trap "" TERM; ' + BEATING


def beats(folder: Path) -> list[float]:
    path = folder / "files" / "beats"
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def beating(name: str, **options: Any) -> NewTask:
    """A command that notes the time twenty times a second, and that no gentle signal ends."""
    return NewTask(
        id=name, command=("sh", "-c", HEARD), effect="idempotent", timeout_seconds=60, max_micros=900, **options
    )


def deed(name: str, seconds: float = 0.0, **options: Any) -> NewTask:
    return NewTask(id=name, mode="deed", prompt="x", max_micros=900, data={"seconds": seconds}, **options)


def state_of(village: Village, task: str) -> str:
    with village.store.view() as view:
        return board.task(view, task).state


async def ended(village: Village, *tasks: str, state: str = "done") -> None:
    await asynchronously_until(lambda: all(state_of(village, t) == state for t in tasks), f"{tasks} to be {state}")


async def switched(village: Village, what: str, on: bool) -> None:
    await village.store.write(control.switch, control.Switch(what, on, "operator:test", "a test"))


def living(folder: Path, main: Callable[[Village, Runtime], Awaitable[None]], residents: int = 2) -> None:
    """Run a test's body beside a runtime, and look that the village is in order afterwards."""

    async def live() -> None:
        async with asyncio.timeout(40), Runtime(village, residents, kind="work") as runtime:
            await main(village, runtime)

    with opened(folder) as village:
        asyncio.run(live())
        with village.store.view() as view:
            assert faults_of(view) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return found(tmp_path / "village", lease_seconds=30.0)


@pytest.mark.promise("halt", "orphans-die", "budget-returns")
def test_a_halt_kills_what_runs_within_a_second_and_nothing_is_lost(folder: Path) -> None:
    async def main(village: Village, runtime: Runtime) -> None:
        await village.store.write(
            board.post, village.posting([beating("beating"), deed("slow", 600, effect="once")], "operator:test")
        )
        await asynchronously_until(lambda: len(beats(folder)) > 3 and marks(folder)["slow"], "both acts to run")
        await switched(village, "halted", True)
        acknowledged_at = time.time()
        await village.store.write(board.post, village.posting([deed("later")], "operator:test"))
        await asyncio.sleep(1.5)
        assert beats(folder)[-1] < acknowledged_at + 1.0, "an effect a second after the halt was acknowledged"
        assert not runtime.running
        assert state_of(village, "beating") == "open"
        assert state_of(village, "slow") == "review", "what may not run twice and has no result is for people"
        assert state_of(village, "later") == "open"
        with village.store.view() as view:
            assert faults_of(view) == []

    living(folder, main)


@pytest.mark.promise("halt")
def test_what_a_halt_gives_back_leaves_nothing_behind_in_the_process(folder: Path) -> None:
    async def main(village: Village, runtime: Runtime) -> None:
        services = len(runtime._services)
        for number in range(3):
            await village.store.write(board.post, village.posting([deed(f"d{number}", 30.0)], "test"))
            await asynchronously_until(lambda: bool(runtime.running), "the deed to begin")
            await switched(village, "halted", True)
            await asynchronously_until(lambda: not runtime.running and not runtime._settling, "it to be given back")
            await switched(village, "halted", False)
        assert len(runtime._services) == services

    living(folder, main)


def test_a_halt_by_another_process_survives_restarts_until_it_is_taken_back(folder: Path) -> None:
    with Nursery() as nursery:
        with opened(folder, threaded=False) as village:
            village.post([beating("beating"), deed("after", needs=())])
        worker = nursery.start("kernel.processes.village_processes:worker", str(folder), 2)
        until(lambda: len(beats(folder)) > 3, "the act to run")
        assert nursery.run("kernel.processes.village_processes:halter", str(folder), True) == 0
        (halted_at,) = map(float, acknowledged(folder, "halted"))
        time.sleep(1.2)
        nursery.kill(worker)
        worker = nursery.start("kernel.processes.village_processes:worker", str(folder), 2)
        time.sleep(0.8)
        count = len(beats(folder))
        assert beats(folder)[-1] < halted_at + 1.0
        assert nursery.run("kernel.processes.village_processes:halter", str(folder), False) == 0
        until(lambda: len(beats(folder)) > count, "the task to go on after the halt")
        nursery.kill(worker)


def vandalised(folder: Path, sql: str, *values: Any) -> None:
    """Do something to the database that the kernel never does."""
    with contextlib.closing(sqlite3.connect(folder / "vivarium.db", isolation_level=None)) as vandal:
        vandal.execute(sql, values)


@pytest.mark.promise("halt")
def test_without_the_villages_row_nothing_runs_until_it_is_there_again(folder: Path) -> None:
    """A halt that can't be read is a halt."""

    async def main(village: Village, runtime: Runtime) -> None:
        await village.store.write(board.post, village.posting([beating("beating")], "operator:test"))
        await asynchronously_until(lambda: len(beats(folder)) > 3, "the act to run")
        with village.store.view() as view:
            (row,) = view.rows("SELECT * FROM village")
        vandalised(folder, "DELETE FROM village")
        at = time.time()
        await asyncio.sleep(1.5)
        assert beats(folder)[-1] < at + 1.0
        count = len(beats(folder))
        vandalised(folder, f"INSERT INTO village VALUES ({','.join('?' * len(row))})", *row)
        await asynchronously_until(lambda: len(beats(folder)) > count, "the task to go on")

    living(folder, main)


@pytest.mark.promise("halt")
def test_a_village_that_cannot_be_read_ends_what_runs(tmp_path: Path) -> None:
    """Its switches can't be read for a reason that the kernel has no name for: the runtime ends with that reason."""
    folder = found(tmp_path / "village", lease_seconds=2.0)

    async def main(village: Village) -> float:
        async with Runtime(village, 2, kind="work") as runtime:
            await village.store.write(board.post, village.posting([beating("beating")], "operator:test"))
            await asynchronously_until(lambda: len(beats(folder)) > 3, "the act to run")
            vandalised(folder, "ALTER TABLE village RENAME COLUMN halted TO hidden")
            at = time.time()
            await asyncio.wait_for(runtime.run(), 5)
        return at

    with opened(folder) as village:
        at = time.time()
        with pytest.raises(sqlite3.OperationalError, match="halted"):
            asyncio.run(main(village))
        time.sleep(0.3)
        assert time.time() - at < 10
        count = len(beats(folder))
        time.sleep(0.5)
        assert len(beats(folder)) == count
    vandalised(folder, "ALTER TABLE village RENAME COLUMN hidden TO halted")
    with Nursery() as nursery:
        worker = nursery.start("kernel.processes.village_processes:worker", str(folder), 2)
        until(lambda: len(beats(folder)) > count, "the task to go on")
        nursery.kill(worker)


@pytest.mark.promise("halt")
def test_a_halt_while_a_settlement_waits_for_the_disk_leaves_its_resident_alive(folder: Path) -> None:
    async def main(village: Village, runtime: Runtime) -> None:
        settle, full = runtime._link.settle, True

        async def settle_when_there_is_room(settlement: Settlement) -> Any:
            if full:
                raise StoreFull("store.full", "The disk is full.", "Free some space.")
            return await settle(settlement)

        runtime._link.settle = settle_when_there_is_room  # type: ignore[method-assign,assignment]
        await village.store.write(board.post, village.posting([deed("one", effect="idempotent")], "operator:test"))
        await asynchronously_until(lambda: marks(folder)["one"] == 1, "the deed")
        await switched(village, "halted", True)
        await asyncio.sleep(0.8)
        full = False
        await switched(village, "halted", False)
        await ended(village, "one")
        await village.store.write(board.post, village.posting([deed("two"), deed("three")], "operator:test"))
        await ended(village, "two", "three")
        with village.store.view() as view:
            assert len({row[0] for row in view.rows("SELECT resident FROM attempts WHERE task <> 'one'")}) == 1

    living(folder, main, residents=1)


@pytest.mark.promise("a pause lets running acts finish and begins no new ones")
def test_a_pause_finishes_what_runs_and_begins_nothing(folder: Path) -> None:
    async def main(village: Village, runtime: Runtime) -> None:
        await village.store.write(board.post, village.posting([deed("one", 0.6, effect="once")], "operator:test"))
        await asynchronously_until(lambda: marks(folder)["one"] == 1, "the act to begin")
        await switched(village, "paused", True)
        await village.store.write(board.post, village.posting([deed("two")], "operator:test"))
        await ended(village, "one")
        await asyncio.sleep(0.6)
        assert state_of(village, "two") == "open"
        await switched(village, "paused", False)
        await ended(village, "two")

    living(folder, main)


# Drain


def drained(folder: Path, signals: int) -> int:
    """A worker whose acts run is told to stop, once or twice; returns its exit status."""
    with Nursery() as nursery:
        with opened(folder, threaded=False) as village:
            # What a second signal breaks off may take long: both must reach it while it runs.
            seconds = 1.0 if signals == 1 else 3.0
            first, second = deed("first", seconds, effect="once"), deed("second", seconds, effect="idempotent")
            village.post([first, second, deed("third")])
        worker = nursery.start("kernel.processes.village_processes:worker", str(folder), 2)
        until(lambda: marks(folder)["first"] and marks(folder)["second"], "two acts to begin")
        os.kill(worker, signal.SIGTERM)
        if signals == 2:
            until(lambda: acknowledged(folder, "signal"), "the first signal to be taken")
            os.kill(worker, signal.SIGTERM)
        return nursery.wait(worker)


@pytest.mark.promise("drain")
def test_a_first_signal_finishes_what_runs_and_begins_nothing(folder: Path) -> None:
    assert drained(folder, 1) == 0
    with opened(folder, threaded=False) as village, village.store.view() as view:
        assert states(view) == {"first": "done", "second": "done", "third": "open"}
        assert faults_of(view) == []


@pytest.mark.promise("drain", "effects-unknown")
def test_a_second_signal_stops_at_once_and_loses_nothing(folder: Path) -> None:
    begun = time.monotonic()
    assert drained(folder, 2) == 0
    assert time.monotonic() - begun < 20
    with opened(folder, threaded=False) as village, village.store.view() as view:
        assert states(view) == {"first": "review", "second": "open", "third": "open"}
        assert faults_of(view) == []
    with Nursery() as nursery:
        assert nursery.run("kernel.processes.village_processes:finisher", str(folder), 2) == 0
    with opened(folder, threaded=False) as village, village.store.view() as view:
        assert states(view) == {"first": "review", "second": "done", "third": "done"}
    assert marks(folder)["first"] == 1


# Residents' states


@pytest.mark.promise("quarantine", "budget-returns")
@pytest.mark.parametrize("state", ["quarantined", "banned", "retired"])
def test_a_resident_who_may_act_no_more_ends_its_act_at_once(folder: Path, state: Any) -> None:
    async def main(village: Village, runtime: Runtime) -> None:
        call = village.store.write
        secret = "a-secret-of-ada"  # noqa: S105 - a test's own
        await call(people.make_token, NewToken("resident", "ada", secret, "operator:test"))
        await call(
            board.post, village.posting([beating("beating", wanted="ada"), deed("ben", 0.5, wanted="ben")], "x:y")
        )
        await asynchronously_until(lambda: len(beats(folder)) > 3, "the act to run")
        await call(people.change, Change("ada", state, "operator:test", "a test", village.hooks.end_attempt))
        at = time.time()
        with village.store.view() as view:
            assert people.actor_of(view, secret) is None
            assert board.attempts(view, "beating")[0].ending == "released"
        await asyncio.sleep(1.5)
        assert beats(folder)[-1] < at + 1.2
        assert state_of(village, "beating") == "open"
        await ended(village, "ben")
        with village.store.view() as view:
            assert view.rows("SELECT reserved FROM budgets WHERE scope = 'task:beating'") == [(0,)]
            assert len(board.attempts(view, "beating")) == 1, "a resident who may not act takes no task"
        if state != "quarantined":
            with pytest.raises(Exception, match="for good"):
                await call(people.change, Change("ada", "active", "operator:test", "again"))

    living(folder, main)


@pytest.mark.promise("one resident's failure never touches another's")
def test_one_residents_failing_acts_do_not_disturb_anothers(folder: Path) -> None:
    async def main(village: Village, runtime: Runtime) -> None:
        bad = [
            NewTask(id="exits", command=("sh", "-c", "exit 3"), wanted="ada", max_attempts=2),
            NewTask(id="dies", command=("sh", "-c", "kill -9 $$"), wanted="ada", max_attempts=1),
            NewTask(id="late", command=("sleep", "60"), wanted="ada", timeout_seconds=0.2, max_attempts=1),
            NewTask(id="nobody", mode="unheard-of", prompt="x", wanted="ada"),
            NewTask(id="unknown", prompt="x", wanted="ada", model="scripted:unheard-of"),
        ]
        good = [deed(f"good{n}", 0.01, wanted="ben") for n in range(20)]
        await village.store.write(board.post, village.posting([*bad, *good], "operator:test"))
        await ended(village, *(task.id or "" for task in good))
        await ended(village, *(task.id or "" for task in bad), state="failed")
        assert runtime.fault is None
        with village.store.view() as view:
            assert {a.ending for n in range(20) for a in board.attempts(view, f"good{n}")} == {"accepted"}

    living(folder, main)


@pytest.mark.promise("two-villages")
def test_two_villages_in_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    """One is halted and has a failing disk of its own; the other works on."""
    one, other = (found(tmp_path / name, lease_seconds=30.0) for name in ("one", "other"))

    async def main() -> None:
        async with asyncio.timeout(40), Runtime(first, 2, kind="work") as a, Runtime(second, 2, kind="work") as b:
            for village in (first, second):
                await village.store.write(
                    board.post, village.posting([beating("beating"), deed("deed")], "operator:test")
                )
            await asynchronously_until(lambda: beats(one) and beats(other), "both villages' acts to run")
            await switched(first, "halted", True)
            await asynchronously_until(lambda: not a.running, "the halt of one")
            count = len(beats(other))
            await second.store.write(board.post, second.posting([deed(f"d{n}") for n in range(20)], "operator:test"))
            await ended(second, *(f"d{n}" for n in range(20)))
            await asynchronously_until(lambda: len(beats(other)) > count, "the other village's act to go on")
            assert b.running
            assert a.residents == b.residents == ["ada", "ben"]

    with opened(one) as first, opened(other) as second:
        asyncio.run(main())
        for village in (first, second):
            with village.store.view() as view:
                assert faults_of(view) == []
        with first.store.view() as view:
            assert "d0" not in states(view)
