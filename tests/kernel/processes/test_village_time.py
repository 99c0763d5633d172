"""The village's clock never goes back when its host dies, and plugins are handed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.clock import SimulatedClock
from vivarium_kernel.processes import Reap, Register, Self, this_process
from vivarium_kernel.terms import MICROS
from vivarium_kernel.village import Village, With

from vivarium_kernel import control, processes

GONE = Self(this_process().machine, 1, "a process of long ago")


@pytest.fixture
def village(tmp_path: Path) -> Any:
    (tmp_path / "vivarium.toml").write_text("pace_seconds = 2.0\n")  # an hour has 10 s
    with Village(tmp_path, With(load_plugins=False), clock=SimulatedClock(3), environ={}) as opened:
        yield opened


def hours(village: Village) -> float:
    return village.times().hours_micros_at(village.clock.now()) / MICROS


@pytest.mark.promise("the village's clock never goes back, whoever dies")
@pytest.mark.parametrize(("dead_seconds", "expected"), [(7.0, 0.7), (100.0, 3.0)])
def test_time_does_not_go_back_when_a_dead_host_is_reaped(
    village: Village, dead_seconds: float, expected: float
) -> None:
    """A host that died is noticed while its lease stands, or after it has lapsed: time goes on until its end."""
    number = village.store.call(processes.register, Register(GONE, "work", 30.0))
    village.store.call(processes.take_host, number)
    village.clock.advance(dead_seconds)  # type: ignore[attr-defined]
    assert hours(village) == expected
    village.store.call(processes.reap, Reap(this_process(), None))
    assert hours(village) == expected
    other = village.store.call(processes.register, Register(this_process(), "work", 30.0))
    village.store.call(processes.take_host, other)
    assert hours(village) == expected
    village.clock.advance(10.0)  # type: ignore[attr-defined]
    assert hours(village) == expected + 1


def test_a_plugin_is_handed_the_villages_clock_and_a_halt_stops_it(village: Village) -> None:
    number = village.store.call(processes.register, Register(this_process(), "work", 300.0))
    village.store.call(processes.take_host, number)

    def seen() -> tuple[int, int]:
        with village.store.view() as view:
            return view.plugin("p").hours_micros, village.store.call(lambda tx, _: tx.plugin("p").hours_micros, None)

    village.clock.advance(15.0)  # type: ignore[attr-defined]
    assert seen() == (1_500_000, 1_500_000)
    village.store.call(control.switch, control.Switch("halted", True, "operator:test"))
    village.clock.advance(15.0)  # type: ignore[attr-defined]
    assert seen() == (1_500_000, 1_500_000)
