"""Promises about real money: whatever providers report and whenever processes die, no cap is passed by anything."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from vivarium_kernel.ledger import Books
from vivarium_kernel.testing.simulation import Plan, simulate

CAPS = {
    "village_usd": [None, 0, 9_000, 60_000],
    "village_day_usd": [None, 7_000, 30_000],
    "resident_day_usd": [None, 0, 5_000, 41_000],
}
caps = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CAPS.items()})


def plan_of(seed: int, capped: dict[str, int | None], wrong: float) -> Plan:
    """Fifty residents who all want a model at once, and a midnight at which the days' budgets begin anew."""
    lines = [f'{name} = "0.{micros:06d}"' for name, micros in capped.items() if micros is not None]
    return Plan(
        seed, residents=50, tasks=70, seconds=14.0, crashes=2, meddling_seconds=1.0, wrong_reports=wrong,
        settings="[budgets]\n" + "\n".join(lines) + "\n",
    )  # fmt: skip


def overshoot(examples: int, *, shrink: bool = True) -> None:
    @settings(
        max_examples=examples, database=None, derandomize=not shrink,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
    )  # fmt: skip
    @given(st.integers(0, 10**6), caps, st.sampled_from([0.0, 0.3, 1.0]))
    def no_cap_is_passed(seed: int, capped: dict[str, int | None], wrong: float) -> None:
        assert simulate(plan_of(seed, capped, wrong)).problems == ()

    no_cap_is_passed()


@pytest.mark.promise("caps-hold", "effects-unknown", "budget-returns")
def test_fifty_residents_with_lying_providers_and_crashes_pass_no_cap(thorough: bool) -> None:
    overshoot(12 if thorough else 6)


@pytest.mark.long
@pytest.mark.promise("caps-hold")
def test_a_thousand_villages_pass_no_cap() -> None:
    overshoot(1_000)


@pytest.mark.promise("caps-hold")
def test_a_cap_of_nothing_lets_no_call_through() -> None:
    report = simulate(plan_of(1, {"village_usd": 0}, 0.0))
    assert report.problems == ()
    assert report.calls == 0


@pytest.mark.promise("harnesses-find-planted-bugs")
def test_budgets_that_are_not_reserved_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Books, "reserve", lambda *_: None)
    monkeypatch.setattr(Books, "consume", lambda *_: None)  # else the table refuses to give back what nobody reserved
    with pytest.raises(AssertionError, match="its cap is"):
        overshoot(40, shrink=False)
