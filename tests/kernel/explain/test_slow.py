"""What holds the loop or the writer for over 50 ms is logged with plugin, hook and place."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from kernel.hooks.scene import COMMAND, RESIDENT, TASKS, Tx, View, claim, hooks, plugin
from vivarium_kernel.calls import Health
from vivarium_kernel.health import SLOW_SECONDS, TOLD_SECONDS
from vivarium_kernel.records import Verdict

from .scene import logged

HERE = str(Path(__file__))
SLOW = SLOW_SECONDS + 0.02


def slow_filter(self: Any, resident: Any) -> None:
    time.sleep(SLOW)


def slow_and_wrong(self: Any, resident: Any) -> None:
    time.sleep(SLOW)
    raise ValueError("boom")


def slow_tick(self: Any, tx: Any) -> None:
    time.sleep(SLOW)


async def slow_check(self: Any, subject: Any) -> Verdict:
    await asyncio.sleep(0)
    time.sleep(SLOW)  # noqa: ASYNC251 - what it is about
    return Verdict("allow", "fine")


async def patient_check(self: Any, subject: Any) -> Verdict:
    await asyncio.sleep(2 * SLOW)
    return Verdict("allow", "fine")


def line_of(function: Any) -> str:
    return f"{HERE}:{function.__code__.co_firstlineno}"


def test_fifty_milliseconds_are_the_bound() -> None:
    assert SLOW_SECONDS == 0.05


@pytest.mark.promise("slow-is-logged")
def test_a_hook_that_holds_the_loop_is_logged_with_plugin_hook_and_place() -> None:
    health = Health()
    village = hooks(
        plugin("lazy", claim_filter=slow_filter), plugin("quick", claim_filter=lambda self: None), health=health
    )
    with logged() as lines:
        village.claim_filter(RESIDENT, TASKS, View())
    (line,) = lines
    assert line.startswith("plugin 'lazy' held the loop for ")
    assert line.endswith(f" ms in claim_filter ({line_of(slow_filter)})")
    assert health.tally("lazy", "claim_filter").slow == 1
    assert health.recent[-1].where == line_of(slow_filter)


@pytest.mark.promise("slow-is-logged")
def test_one_that_holds_the_writer_is_logged_too_and_one_that_fails_besides(tmp_path: Path) -> None:
    health = Health()
    village = hooks(
        plugin("ticker", on_tick=slow_tick),
        plugin("wrong", claim_filter=slow_and_wrong),
        plugin("r", claim_reserve=slow_tick),
        health=health,
    )
    with logged() as lines:
        village.on_tick(1, Tx(tmp_path))
        village.claim_reserve(claim(), Tx(tmp_path))
        village.claim_filter(RESIDENT, TASKS, View())
    assert [line.partition(" for ")[0].partition(" (")[0] for line in lines] == [
        "plugin 'ticker' held the writer", "plugin 'r' held the writer",
        "plugin 'wrong' failed in claim_filter: ValueError: boom", "plugin 'wrong' held the loop",
    ]  # fmt: skip
    assert health.tally("wrong", "claim_filter").errors == 1


@pytest.mark.promise("slow-is-logged")
def test_a_coroutine_is_blamed_for_what_it_holds_and_not_for_what_it_waits() -> None:
    village = hooks(plugin("blocks", check_safety=slow_check), plugin("waits", check_safety=patient_check))
    with logged() as lines:
        asyncio.run(village.check_safety(COMMAND))
    (line,) = lines
    assert line.startswith("plugin 'blocks' held the loop for ")
    assert f"check_safety ({line_of(slow_check)})" in line


def test_one_that_is_always_slow_is_logged_once_a_minute_with_how_often_it_was() -> None:
    now = [0.0]
    health = Health(monotonic=lambda: now[0])
    tally = health.tally("lazy", "claim_filter")
    with logged() as lines:
        for _ in range(40):
            health.slow(tally, 0.06, "loop", "lazy.py:3")
        now[0] += TOLD_SECONDS
        health.slow(tally, 0.06, "loop", "lazy.py:3")
    assert len(lines) == 2
    assert lines[1].endswith("(lazy.py:3), and 39 times more since that was last said")
    assert tally.slow == 41
