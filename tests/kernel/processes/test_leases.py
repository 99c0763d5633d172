"""Leases: who holds none writes nothing, and what a dead process held is taken up in time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel.faults.scene import (
    Deeds,
    asynchronously_until,
    effect_faults,
    faults_of,
    states,
    until,
)
from msgspec.structs import replace
from vivarium_kernel.claiming import Claimed, Pick, Round
from vivarium_kernel.clock import SimulatedClock, run_simulated
from vivarium_kernel.errors import LeaseLapsed
from vivarium_kernel.processes import Self
from vivarium_kernel.records import NewTask, Outcome, Task
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.settling import Settlement
from vivarium_kernel.stepping import Holder, Intent, Result
from vivarium_kernel.terms import MICROS
from vivarium_kernel.village import Village, With

from vivarium_kernel import board, claiming, processes, settling, stepping

from .jumping import JumpingClock
from .nursery import Nursery
from .village_processes import acknowledged, found, opened, settled

LEASE_SECONDS = 10.0


class Scene:
    """One village with a claimed task, and every late write that its holder could make."""

    def __init__(self, folder: Path) -> None:
        self.clock = JumpingClock()
        how = With(installed=False, plugins=(Deeds,))
        self.village = Village(found(folder, LEASE_SECONDS), how, clock=self.clock, environ={})
        self.call = self.village.store.call
        self.village.post([NewTask(id="one", mode="deed", prompt="x", max_micros=1_000, effect="idempotent")])
        self.process = self.joined()
        self.claimed = self.claim(self.process, "ada")

    def joined(self, me: Self | None = None) -> int:
        me = me or processes.this_process()
        number: int = self.call(processes.register, processes.Register(me, "work", LEASE_SECONDS))
        return number

    def wake_at(self) -> int:
        with self.village.store.view() as view:
            ((at,),) = view.rows("SELECT wake_at FROM tasks")
        return int(at)

    def claim(self, process: int, resident: str, **pick: Any) -> Claimed:
        with self.village.store.view() as view:
            task = board.task(view, "one")
        (answer,) = self.call(claiming.claim, Round([Pick(resident, (task,), **pick)], process))
        assert isinstance(answer, Claimed), answer
        return answer

    def reap(self) -> int:
        ended: int = self.call(processes.reap, processes.Reap(None, self.village.hooks.end_attempt))
        return ended

    def late_writes(self, claimed: Claimed, holder: Holder | None = None) -> dict[str, Callable[[], Any]]:
        """Everything that the holder of an attempt may write."""
        attempt, holder = claimed.attempt, holder or claimed.holder
        intent = Intent(attempt, 1, holder, "tool", "deed", "once", "{}", "ada", "one", 10)
        pure = replace(intent, number=9, effect="pure", worst_micros=0)
        result = Result(attempt, 1, holder, "ada", "one", "done", "{}", 5)
        end = Settlement(attempt, holder, "accepted", outcome=Outcome(answer="x"))
        return {
            "intent": lambda: self.call(stepping.intend, intent),
            "result": lambda: self.call(stepping.record, result),
            "pure step": lambda: self.call(stepping.record, replace(result, number=9, intent=pure)),
            "settlement": lambda: self.call(settling.settle, end),
            "release": lambda: self.call(settling.settle, replace(end, kind="released", outcome=None)),
        }

    def snapshot(self) -> list[Any]:
        """Everything that a late write could change."""
        with self.village.store.view() as view:
            return [
                view.rows("SELECT * FROM attempts"),
                view.rows("SELECT * FROM steps"),
                view.rows("SELECT * FROM tasks"),
                view.rows("SELECT * FROM budgets"),
                view.rows("SELECT count(*) FROM events"),
            ]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "village")
    yield made
    made.village.close()


def refused(writes: dict[str, Callable[[], Any]]) -> None:
    for what, write in writes.items():
        with pytest.raises(LeaseLapsed):
            write()
            pytest.fail(f"a late {what} was taken")


@pytest.mark.promise("lapsed-lease")
def test_a_lapsed_lease_cannot_intend_record_or_settle(scene: Scene) -> None:
    scene.clock.off_seconds = LEASE_SECONDS + 0.01
    before = scene.snapshot()
    refused(scene.late_writes(scene.claimed))
    assert scene.snapshot() == before


@pytest.mark.promise("lapsed-lease")
def test_a_lease_that_stands_lets_its_holder_write(scene: Scene) -> None:
    """The same writes, so that the tests of refusals can fail."""
    scene.clock.off_seconds = LEASE_SECONDS - 1.0
    for write in list(scene.late_writes(scene.claimed).values())[:-1]:
        write()
    with scene.village.store.view() as view:
        assert board.task(view, "one").state == "done"


@pytest.mark.promise("lapsed-lease")
def test_a_holder_whose_task_was_taken_up_by_another_cannot_write(scene: Scene) -> None:
    """Also when the other is the same process under a new lease: the attempt is the fencing token."""
    scene.clock.off_seconds = LEASE_SECONDS + 0.01
    assert scene.reap() == 1
    again = scene.claim(scene.joined(), "ben")
    before = scene.snapshot()
    refused(scene.late_writes(scene.claimed))
    refused(scene.late_writes(again, scene.claimed.holder))
    assert scene.snapshot() == before
    scene.late_writes(again)["settlement"]()


@pytest.mark.promise("lapsed-lease", "attempt-token")
def test_a_remote_job_writes_with_its_own_token_while_its_own_lease_stands(scene: Scene) -> None:
    scene.late_writes(scene.claimed)["release"]()
    remote = scene.claim(scene.process, "ben", token=b"digest", lease_seconds=2.0)
    refused(scene.late_writes(remote, Holder(scene.process, None)))
    refused(scene.late_writes(remote, Holder(None, b"another")))
    scene.late_writes(remote)["intent"]()
    scene.clock.off_seconds = 2.01
    refused(scene.late_writes(remote))


@pytest.mark.promise("lapsed-lease")
def test_an_ended_attempt_takes_no_more_writes(scene: Scene) -> None:
    scene.late_writes(scene.claimed)["settlement"]()
    before = scene.snapshot()
    refused(scene.late_writes(scene.claimed))
    assert scene.snapshot() == before


@pytest.mark.promise("lapsed-lease", "kill-workers")
def test_a_dead_workers_task_is_claimed_within_its_lease_and_a_second(tmp_path: Path) -> None:
    """A process of another machine dies, in simulated time, so that the bound is exact."""
    clock = SimulatedClock(1)
    how = With(installed=False, plugins=(Deeds,), timeouts=False)
    folder = tmp_path / "village"
    settled(folder, LEASE_SECONDS)
    village = Village(folder, how, clock=clock, environ={})
    village.post([NewTask(id="one", mode="deed", prompt="x", effect="idempotent")])
    call = village.store.call

    def joined(me: Self) -> int:
        number: int = call(processes.register, processes.Register(me, "work", LEASE_SECONDS))
        return number

    async def main() -> None:
        async with Runtime(village, 1) as runtime:
            with village.store.view() as view:
                task = board.task(view, "one")
            runtime.rounds.guard(None, 1.0)  # so that the other machine is first
            await asyncio.sleep(0.5)
            (answer,) = call(claiming.claim, Round([Pick("ben", (task,))], joined(Self("elsewhere", 1, "1"))))
            assert isinstance(answer, Claimed)
            for _ in range(200):
                await asyncio.sleep(0.1)
                with village.store.view() as view:
                    if board.task(view, "one").state == "done":
                        return

    run_simulated(clock, main())
    with village.store.view() as view:
        first, second = board.attempts(view, "one")
    lapsed_at = first.started_at + int(LEASE_SECONDS * MICROS)
    assert first.ending == "lapsed"
    assert lapsed_at <= second.started_at <= lapsed_at + MICROS
    village.close()


@pytest.mark.promise("kill-workers", "recorded-results-stand")
def test_a_task_of_a_process_that_died_on_this_machine_is_taken_up_at_once(tmp_path: Path) -> None:
    """By a process that runs already and by one that starts: neither waits for the lease."""
    folder, other = found(tmp_path / "village", lease_seconds=600.0), 0
    with Nursery() as nursery:
        for task in ("one", "two"):
            if task == "two":
                nursery.kill(other)  # else it might take the task before the slow one has started
            with opened(folder, threaded=False) as village:
                village.post([NewTask(id=task, mode="late", prompt="x", effect="idempotent")])
            slow = nursery.start("kernel.processes.village_processes:late_worker", str(folder), True)
            until(lambda slow=slow: str(slow) in acknowledged(folder, "began"), "the act to begin")
            if task == "one":
                other = nursery.start("kernel.processes.village_processes:late_worker", str(folder), False)
                time.sleep(0.3)
            assert nursery.kill(slow) == -signal.SIGKILL
            if task == "two":
                other = nursery.start("kernel.processes.village_processes:late_worker", str(folder), False)
            until(
                lambda task=task, other=other: f"{task}:done:{other}" in acknowledged(folder, "settled"),
                "the other process to finish the task", 15,
            )  # fmt: skip
        nursery.kill(other, signal.SIGTERM)
    with opened(folder, threaded=False) as village, village.store.view() as view:
        assert faults_of(view) == []
        assert [a.ending for a in board.attempts(view, "one")] == ["lapsed", "accepted"]


@pytest.mark.promise("lapsed-lease", "kill-workers")
def test_a_stopped_process_that_goes_on_after_its_lease_writes_nothing(tmp_path: Path) -> None:
    """SIGSTOP for longer than its lease; another process does the task; SIGCONT: its late write is refused."""
    folder = found(tmp_path / "village", lease_seconds=1.0)
    with Nursery() as nursery:
        with opened(folder, threaded=False) as village:
            village.post([NewTask(id="one", mode="late", prompt="x", effect="idempotent")])
        slow = nursery.start("kernel.processes.village_processes:late_worker", str(folder), True)
        until(lambda: str(slow) in acknowledged(folder, "began"), "the act to begin")
        os.kill(slow, signal.SIGSTOP)
        other = nursery.start("kernel.processes.village_processes:late_worker", str(folder), False)
        until(lambda: f"one:done:{other}" in acknowledged(folder, "settled"), "the other to finish the task")
        (folder / "go").touch()
        os.kill(slow, signal.SIGCONT)
        # It finds that it has lapsed, joins again, and lives on: it does the next task.
        nursery.kill(other, signal.SIGTERM)
        with opened(folder, threaded=False) as village:
            village.post([NewTask(id="two", mode="late", prompt="x", effect="idempotent")])
        until(lambda: f"two:done:{slow}" in acknowledged(folder, "settled"), "the late process to live on")
        nursery.kill(slow, signal.SIGTERM)
    assert [line for line in acknowledged(folder, "settled") if line.startswith("one:")] == [f"one:done:{other}"]
    with opened(folder, threaded=False) as village, village.store.view() as view:
        assert faults_of(view) == []
        attempts = board.attempts(view, "one")
        assert [(a.ending, a.answer) for a in attempts] == [("lapsed", None), ("accepted", str(other))]
        assert view.rows("SELECT count(*) FROM residents") == [(6,)], "a lapsed lease makes no residents"


# Clocks that jump


async def through_jumps(village: Village, clock: JumpingClock, jumps: list[float], count: int | None) -> list[int]:
    """Do tasks while the clock jumps; returns the village hours that were seen."""
    hours = []
    async with asyncio.timeout(40), Runtime(village, count, kind="work") as runtime:
        for number, off in enumerate([0.0, *jumps]):
            clock.off_seconds = off
            with village.store.view() as view:
                known = len(board.tasks(view))
            posting = [
                NewTask(id=f"t{number}-{each}", mode="deed", prompt="x", effect="idempotent", max_micros=1_000,
                        data={"seconds": 0.05})
                for each in range(6)
            ]  # fmt: skip
            posting.append(NewTask(id=f"bad{number}", command=("cat", "facts-that-are-not"), max_attempts=2))
            await village.store.write(board.post, village.posting(posting, "operator:test"))

            def all_ended(known: int = known) -> bool:
                with village.store.view() as view:
                    tasks = board.tasks(view)
                hours.append(village.times().hour(clock.now()))
                return len(tasks) == known + 7 and all(task.state in ("done", "failed") for task in tasks)

            await asynchronously_until(all_ended, f"the tasks after the jump to {off:+g} s", 12)
        assert runtime.fault is None
    return hours


@pytest.mark.promise("clock-jumps")
@pytest.mark.parametrize(
    "jumps",
    [[7_200.0], [-7_200.0], [86_400.0, 0.0], [-100.0, 100.0, 0.0], [9.0, 18.0, 27.0]],
    ids=["forward", "backward", "forward and back", "to and fro", "creeping"],
)
@pytest.mark.parametrize("count", [3, None], ids=["some", "all residents"])
def test_a_clock_that_jumps_loses_and_repeats_nothing_and_moves_no_hour_back(
    tmp_path: Path, jumps: list[float], count: int | None
) -> None:
    clock = JumpingClock()
    how = With(threaded=True, installed=False, plugins=(Deeds,))
    with Village(found(tmp_path / "village", LEASE_SECONDS), how, clock=clock, environ={}) as village:
        hours = asyncio.run(through_jumps(village, clock, jumps, count))
        with village.store.view() as view:
            assert faults_of(view) == []
            assert effect_faults(village.folder, board.tasks(view)) == []
            at = [row[0] for row in view.rows("SELECT at FROM events ORDER BY id")]
            days = [row[0] for row in view.rows("SELECT hour FROM events ORDER BY id")]
            assert view.rows("SELECT count(*) FROM residents") == [(6,)]
    assert at == sorted(at), "an event is never older than the one before"
    assert days == sorted(days)
    assert hours == sorted(hours)


@pytest.mark.promise("two-villages")
def test_leases_are_each_villages_own(tmp_path: Path) -> None:
    """The same process in two villages: that one lets a lease lapse touches nothing of the other."""
    one, other = Scene(tmp_path / "one"), Scene(tmp_path / "other")
    one.clock.off_seconds = LEASE_SECONDS + 1
    assert one.reap() == 1
    other.late_writes(other.claimed)["settlement"]()
    for each, state in ((one, "open"), (other, "done")):
        with each.village.store.view() as view:
            assert states(view) == {"one": state}
        each.village.close()


def test_a_claim_from_an_old_snapshot_takes_the_task_as_it_is_now(scene: Scene) -> None:
    """Between a round's look and its claim the task was tried elsewhere: its number and its steps must not be lost."""
    with scene.village.store.view() as view:
        old: Task = replace(board.task(view, "one"), state="open", attempts=0, continues=None)
    scene.clock.off_seconds = LEASE_SECONDS + 0.01
    assert scene.reap() == 1
    process = scene.joined()
    (answer,) = scene.call(claiming.claim, Round([Pick("ben", (old,))], process))
    with scene.village.store.view() as view:
        attempts = board.attempts(view, "one")
    if isinstance(answer, Claimed):
        assert [a.number for a in attempts] == [1, 2]
        assert answer.task.attempts == 1
    else:
        assert answer.rule == "taken"


@pytest.mark.promise("lapsed-lease")
def test_a_renewal_comes_before_what_waited_for_its_turn_with_it(tmp_path: Path) -> None:
    """A process that lives, and that somebody kept from writing for longer than its lease, loses nothing."""
    scene = Scene(tmp_path)
    scene.clock.off_seconds += LEASE_SECONDS + 1
    store = scene.village.store

    async def ask() -> list[Any]:
        settlement = Settlement(scene.claimed.attempt, scene.claimed.holder, "released")
        renewal = processes.Renewal(scene.process, LEASE_SECONDS, stands=True)
        return await asyncio.gather(store.write(settling.settle, settlement), store.write(processes.renew, renewal))

    settled, renewed = asyncio.run(ask())
    assert (settled.task_state, renewed) == ("open", True)
    scene.village.close()


def test_a_clock_that_is_set_back_delays_a_next_try_by_no_more_than_the_longest_pause(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    settlement = Settlement(scene.claimed.attempt, scene.claimed.holder, "failed", "it broke")
    scene.call(settling.settle, settlement)
    waits = scene.wake_at() - scene.clock.now()
    assert 0 < waits < 2 * MICROS
    scene.clock.off_seconds -= 3_600
    for _ in range(3):  # so many processes saw it
        scene.call(processes.stand, processes.Jump(-3_600.0, LEASE_SECONDS, 300.0))
        assert 290 * MICROS < scene.wake_at() - scene.clock.now() <= 300 * MICROS
    scene.village.close()
