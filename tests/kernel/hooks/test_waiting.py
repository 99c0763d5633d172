"""Coroutines: what their timeout does, whose a cancellation is, and what wraps a job."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from vivarium_kernel.calls import Health, HookFailed, Hooks
from vivarium_kernel.clock import SimulatedClock, run_simulated
from vivarium_kernel.records import Outcome, Subject, Verdict

from vivarium_kernel import runs

from .scene import COMMAND, OUTCOME, Unwell, hooks, job, plugin

ALLOWED = Verdict("allow", "fine")


async def sleeper(self: Any, subject: Subject) -> Verdict:
    await asyncio.sleep(3600)
    return ALLOWED


async def quick(self: Any, subject: Subject) -> Verdict:
    return ALLOWED


async def slow(self: Any, subject: Subject) -> Verdict:
    await asyncio.sleep(0.001)
    return ALLOWED


@pytest.mark.promise("async-hooks-end")
def test_a_coroutine_is_cancelled_at_its_timeout() -> None:
    health = Health()
    tidied = []

    async def tidy(self: Any, subject: Subject) -> Verdict:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            tidied.append(True)
        return ALLOWED

    village = hooks(
        plugin("a", check_safety=tidy), plugin("b", check_safety=quick), health=health, timeout_seconds=0.05
    )
    started = time.monotonic()
    safety = asyncio.run(village.check_safety(COMMAND))
    assert time.monotonic() - started < 30
    assert (safety.culprit, safety.by) == ("a", [("b", ALLOWED)])
    assert health.recent[0].what == "TimeoutError: no answer within 0.05 s"
    assert tidied == [True]


@pytest.mark.promise("async-hooks-end")
def test_a_coroutine_that_eats_its_cancellation_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "GRACE_SECONDS", 0.05)
    eaten = []
    started = time.monotonic()

    async def stubborn(self: Any, subject: Subject) -> Verdict:
        while time.monotonic() < started + 3:
            try:
                await asyncio.sleep(2)
            except asyncio.CancelledError:
                eaten.append(True)
        return ALLOWED

    async def late(self: Any, subject: Subject) -> Verdict:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return ALLOWED
        return ALLOWED

    village = hooks(plugin("a", check_safety=stubborn), plugin("b", check_safety=late), timeout_seconds=0.05)

    async def main() -> None:
        safety = await village.check_safety(COMMAND)
        assert time.monotonic() - started < 2
        assert (safety.verdict.rule, safety.by) == ("safety.failed", [])
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0.15)  # no cancellation is left over to strike later

    asyncio.run(main())
    assert eaten == [True]


def test_a_plugin_may_use_timeouts_of_its_own() -> None:
    async def patient(self: Any, subject: Subject) -> Verdict:
        for _ in range(3):
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(3600)
            except TimeoutError:
                continue
        return ALLOWED

    async def one_timeout(self: Any, subject: Subject) -> Verdict:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(3600)
        return ALLOWED

    health = Health()
    village = hooks(plugin("a", check_safety=patient), plugin("b", check_safety=one_timeout), health=health)
    safety = asyncio.run(village.check_safety(COMMAND))
    assert safety.by == [("a", ALLOWED)]
    assert [fault.what for fault in health.recent] == ["TimeoutError"]


def test_a_cancellation_from_outside_passes_through_and_blames_nobody() -> None:
    health = Health()
    village = hooks(plugin("a", check_safety=sleeper), health=health)

    async def main() -> None:
        task = asyncio.create_task(village.check_safety(COMMAND))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert list(health.recent) == []


def test_a_cancellation_from_outside_passes_through_a_plugin_that_eats_it() -> None:
    async def stubborn(self: Any, subject: Subject) -> Verdict:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return ALLOWED

    for timeouts in (True, False):
        village = hooks(plugin("a", check_safety=stubborn), timeouts=timeouts)

        async def main(village: Hooks = village) -> None:
            task = asyncio.create_task(village.check_safety(COMMAND))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())


@pytest.mark.promise("faults-stay-with-their-plugin")
def test_a_cancellation_that_a_plugin_made_itself_is_its_fault() -> None:
    async def at_once(self: Any, subject: Subject) -> Verdict:
        raise asyncio.CancelledError

    async def awaits_a_cancelled_task(self: Any, subject: Subject) -> Verdict:
        inner = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        inner.cancel()
        await inner
        return ALLOWED

    for check in (at_once, awaits_a_cancelled_task):
        village = hooks(plugin("a", check_safety=check), plugin("b", check_safety=quick))
        safety = asyncio.run(village.check_safety(COMMAND))
        assert (safety.culprit, safety.by) == ("a", [("b", ALLOWED)])


def test_the_same_hook_runs_for_many_at_once() -> None:
    village = hooks(plugin("a", check_safety=slow), plugin("b", check_safety=quick))

    async def main() -> None:
        found = await asyncio.gather(*(village.check_safety(COMMAND) for _ in range(200)))
        assert all(safety.by == [("a", ALLOWED), ("b", ALLOWED)] for safety in found)

    asyncio.run(main())


def test_a_simulation_has_no_timeouts() -> None:
    clock = SimulatedClock(1)
    village = hooks(plugin("a", check_safety=sleeper), timeouts=False)
    safety = run_simulated(clock, village.check_safety(COMMAND))
    assert safety.verdict == ALLOWED
    assert clock.monotonic() == 3600


def test_an_execution_has_no_timeout_but_the_jobs() -> None:
    async def work(self: Any, job: Any) -> Outcome:
        await asyncio.sleep(0.1)
        return OUTCOME

    village = hooks(plugin("a", execute_task=work), timeout_seconds=0.01)
    assert asyncio.run(village.execute_task(job())) == ("a", OUTCOME)

    async def main() -> None:
        async with asyncio.timeout(0.02):
            await village.execute_task(job())

    with pytest.raises(TimeoutError):
        asyncio.run(main())


# Around


def wrapper(name: str, seen: list[str], *, at_enter: Any = None, at_exit: Any = None, waits: bool = False) -> Any:
    @asynccontextmanager
    async def around_execution(self: Any, job: Any) -> AsyncIterator[None]:
        if waits:
            await asyncio.sleep(0)
        if at_enter is not None:
            raise at_enter
        seen.append(f"+{name}")
        try:
            yield
        finally:
            if waits:
                await asyncio.sleep(0)
            seen.append(f"-{name}")
            if at_exit is not None:
                raise at_exit

    return around_execution


async def under(village: Hooks, error: BaseException | None = None) -> None:
    async with village.around_execution(job()):
        await asyncio.sleep(0)
        if error is not None:
            raise error


def test_wrappers_are_entered_in_order_and_left_in_reverse() -> None:
    seen: list[str] = []
    village = hooks(
        plugin("a", around_execution=wrapper("a", seen)), plugin("b", around_execution=wrapper("b", seen, waits=True))
    )
    asyncio.run(under(village))
    assert seen == ["+a", "+b", "-b", "-a"]
    asyncio.run(under(hooks()))


def test_a_failed_entry_fails_the_attempt_and_leaves_what_was_entered() -> None:
    seen: list[str] = []
    village = hooks(
        plugin("a", around_execution=wrapper("a", seen)),
        plugin("b", around_execution=wrapper("b", seen, at_enter=SystemExit(3))),
        plugin("c", around_execution=wrapper("c", seen)),
    )
    with pytest.raises(HookFailed, match="plugin 'b' failed in around_execution: SystemExit"):
        asyncio.run(under(village))
    assert seen == ["+a", "-a"]


def test_no_manager_at_all_is_a_failed_entry() -> None:
    with pytest.raises(HookFailed, match="answer an asynchronous context manager"):
        asyncio.run(under(hooks(plugin("a", around_execution=lambda self: None))))


def test_a_failed_exit_fails_the_attempt_and_the_other_exits_run() -> None:
    seen: list[str] = []
    village = hooks(
        plugin("a", around_execution=wrapper("a", seen)),
        plugin("b", around_execution=wrapper("b", seen, at_exit=Unwell("boom"))),
    )
    with pytest.raises(HookFailed, match="plugin 'b' failed in around_execution: Unwell: boom"):
        asyncio.run(under(village))
    assert seen == ["+a", "+b", "-b", "-a"]


def test_the_jobs_own_error_comes_first_and_is_no_plugins_fault() -> None:
    seen: list[str] = []
    health = Health()

    class Transparent:
        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
            if error is not None:
                raise error

    class Swallower(Transparent):
        async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
            return True  # type: ignore[return-value]

    village = hooks(
        plugin("a", around_execution=wrapper("a", seen)),
        plugin("b", around_execution=lambda self: Transparent()),
        plugin("c", around_execution=lambda self: Swallower()),
        health=health,
    )
    with pytest.raises(LookupError, match="the job"):
        asyncio.run(under(village, LookupError("the job")))
    assert seen == ["+a", "-a"]
    assert list(health.recent) == []


def test_a_cancelled_job_leaves_every_wrapper() -> None:
    seen: list[str] = []
    village = hooks(
        plugin("a", around_execution=wrapper("a", seen, waits=True)),
        plugin("b", around_execution=wrapper("b", seen, waits=True)),
    )

    async def main() -> None:
        async def body() -> None:
            async with village.around_execution(job()):
                await asyncio.sleep(3600)

        task = asyncio.create_task(body())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["+a", "+b", "-b", "-a"]
