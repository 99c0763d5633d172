"""Taking up residents: however many are asked for, the process stays alive to everything else meanwhile."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from vivarium_kernel.errors import Invalid
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village

from vivarium_kernel import control, people

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
