"""Taking up residents: however many are asked for, the process stays alive to everything else meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.errors import Invalid
from vivarium_kernel.records import NewTask
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village

from vivarium_kernel import control, people, processes

from .village_processes import found, opened

LONGEST_SECONDS = 2.0  # the watchdog ends a process after 5


async def _longest_hold(village: Village, residents: int) -> tuple[int, float]:
    """How many residents a runtime then drives, and the longest time in which nothing else had a turn."""
    longest = 0.0

    async def feel() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - before)

    feeling = asyncio.create_task(feel())
    try:
        async with Runtime(village, residents) as runtime:
            return len(runtime.residents), longest
    finally:
        feeling.cancel()


def test_as_many_residents_as_may_be_asked_for_are_taken_up_while_the_loop_goes_on(tmp_path: Path) -> None:
    with opened(found(tmp_path / "village", lease_seconds=30.0)) as village:
        for _ in ("they are made", "they are taken up again"):
            driven, longest = asyncio.run(_longest_hold(village, control.MOST_RESIDENTS))
            assert driven == control.MOST_RESIDENTS
            assert longest < LONGEST_SECONDS


def test_more_residents_than_a_process_can_drive_are_refused_with_the_limit(tmp_path: Path) -> None:
    with opened(found(tmp_path / "village", lease_seconds=30.0), threaded=False) as village:
        with pytest.raises(Invalid, match="from 0 to 10,000, not 100,000") as refused:
            village.store.call(control.set_residents, (100_000, "operator:test"))
        assert refused.value.next_step
        assert village.times().residents is None


def test_free_names_are_given_in_their_order_and_leave_out_those_that_are_taken() -> None:
    names = people.free_names({"ada", "ben", "ada-2"}.__contains__)
    found_names = [next(names) for _ in range(30)]
    assert found_names[:2] == ["cyn", "dov"]
    assert found_names[24:26] == ["ben-2", "cyn-2"]
    assert len(set(found_names)) == 30


# Who was paused keeps its place, and nobody else's


def _changed(village: Village, state: Any, *names: str) -> None:
    for name in names:
        village.store.call(people.change, people.Change(name, state, "operator:test", "a test", None))


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not reached():
            await asyncio.sleep(0.01)


async def _drives(runtime: Runtime, expected: list[str]) -> None:
    await until(lambda: runtime.residents == expected)


NAMES = ["ada", "ben", "cyn", "dov", "eli", "fay"]


@pytest.mark.promise("Nobody is made in place of a resident that was paused or quarantined")
def test_nobody_takes_the_place_of_one_that_is_paused_while_it_is_driven(tmp_path: Path) -> None:
    async def life(village: Village) -> None:
        async with Runtime(village, 8, kind="work") as runtime:
            (first, second) = (name for name in runtime.residents if name not in NAMES)
            await asyncio.to_thread(_changed, village, "paused", "ada")
            await asyncio.to_thread(_changed, village, "quarantined", "ben")
            await _drives(runtime, sorted([*NAMES[2:], first, second]))
            await asyncio.sleep(0.6)  # two beats: nobody is made then, either
            await _drives(runtime, sorted([*NAMES[2:], first, second]))
            await asyncio.to_thread(_changed, village, "active", "ada", "ben")
            await _drives(runtime, sorted([*NAMES, first, second]))
            await asyncio.to_thread(_changed, village, "retired", "ben")
            await asyncio.sleep(0.6)
            assert len(runtime.residents) == 8
            assert "ben" not in runtime.residents

    with opened(found(tmp_path / "village", lease_seconds=30.0)) as village:
        asyncio.run(life(village))


@pytest.mark.promise("Nobody is made in place of a resident that was paused or quarantined")
@pytest.mark.parametrize(("kind", "count", "made"), [("work", 2, 2), ("run", 1, 1), ("run", 3, 2), ("run", None, 1)])
def test_one_that_was_paused_before_keeps_nobody_from_work(
    tmp_path: Path, kind: str, count: int | None, made: int
) -> None:
    """Five are at work elsewhere, one is quarantined: a run drives somebody all the same, or could not tell its end."""

    async def life(village: Village) -> None:
        village.post([NewTask(id="hers", prompt="x", wanted="fay")])  # something to do, of which this is not the end
        _changed(village, "quarantined", "fay")
        async with Runtime(village, 5, kind="work") as busy:
            assert busy.residents == NAMES[:5]
            async with Runtime(village, count, kind=kind, until_done=True) as runtime:
                assert len(set(runtime.residents) - set(NAMES)) == made
                async with asyncio.timeout(10):
                    await runtime.run()

    with opened(found(tmp_path / "village", lease_seconds=30.0)) as village:
        asyncio.run(life(village))


@pytest.mark.promise("Nobody is made in place of a resident that was paused or quarantined")
def test_where_all_are_paused_nobody_is_made_and_whoever_is_let_back_works_alone(tmp_path: Path) -> None:
    async def life(village: Village) -> None:
        _changed(village, "paused", *NAMES)
        for count in (None, 6, 7):
            async with Runtime(village, count, kind="run") as runtime:
                assert runtime.residents == []
        async with Runtime(village, 6, kind="up") as runtime:
            await asyncio.to_thread(_changed, village, "active", "cyn")
            await _drives(runtime, ["cyn"])
            await asyncio.sleep(0.6)
            assert runtime.residents == ["cyn"]

    with opened(found(tmp_path / "village", lease_seconds=30.0)) as village:
        asyncio.run(life(village))


@pytest.mark.promise("Nobody is made in place of a resident that was paused or quarantined")
def test_a_process_that_is_begun_anew_makes_nobody_in_place_of_the_quarantined(tmp_path: Path) -> None:
    """Nor does one that joins again by itself, because its lease had lapsed."""

    async def life(village: Village) -> None:
        async with Runtime(village, 6, kind="up") as runtime:
            await asyncio.to_thread(_changed, village, "quarantined", "ada", "ben")
            await _drives(runtime, NAMES[2:])
            before = runtime.process
            await village.store.write(processes.leave, (before, None))
            runtime._lapsed.set()
            await until(lambda: runtime.process != before)
            await _drives(runtime, NAMES[2:])
            await asyncio.sleep(0.6)
            assert runtime.residents == NAMES[2:]
        async with Runtime(village, 6, kind="up") as runtime:
            await asyncio.sleep(0.6)
            assert runtime.residents == NAMES[2:]

    with opened(found(tmp_path / "village", lease_seconds=30.0)) as village:
        asyncio.run(life(village))
