"""Promises about costs: what is shown is what ledger and budgets say, to the millionth, however it is grouped."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kernel.thought.scene import Shelf, use
from vivarium_kernel.claiming import DAY_MICROS
from vivarium_kernel.cli.opening import looking
from vivarium_kernel.costing import GROUPS, costs
from vivarium_kernel.store import View
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage, VirtualClock, rows
from vivarium_kernel.testing.simulation import Plan, simulate

from vivarium_kernel import Price, Reply, Usage

from .running import Here

CAPS = '[budgets]\nresident_day_usd = "0.041"\nvillage_day_usd = "0.2"\nvillage_usd = "{}"\n'


def _date(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))


def agrees_with_the_ledger(view: View) -> int:
    """Compare every figure with where it is kept; returns what was spent in all."""
    balances = dict(view.rows("SELECT name, balance FROM accounts WHERE currency = 'usd' AND name GLOB 'provider:*'"))
    budgets = dict(
        (scope, (reserved, spent))
        for scope, reserved, spent in view.rows("SELECT scope, reserved, spent FROM budgets WHERE currency = 'usd'")
    )
    totals = set()
    for by in GROUPS:
        found = costs(view, by)
        spent, reserved = found.total.spent_micros, found.total.reserved_micros
        totals.add((spent, reserved, found.total.calls, found.total.tokens_in, found.total.tokens_out))
        assert spent == sum(balances.values()) == sum(line.spent_micros for line in found.lines)
        assert reserved == sum(line.reserved_micros for line in found.lines)
        assert sum(budgets["village"]) == spent + reserved  # a budget counts all of a running attempt as reserved
        for line in found.lines:
            assert line.name
            scope = {"task": f"task:{line.name}"}.get(by)
            if scope in budgets:
                assert sum(budgets[scope]) == line.spent_micros + line.reserved_micros
    assert len(totals) == 1
    days = {
        int(scope.rpartition(":")[2]): sum(both)
        for scope, both in budgets.items()
        if scope.startswith("village-day:") and sum(both)
    }
    lines = {line.name: line.spent_micros + line.reserved_micros for line in costs(view, "day").lines}
    assert {_date(day): micros for day, micros in days.items()} == {
        day: micros for day, micros in lines.items() if micros
    }
    per_resident: dict[str, int] = {}
    for scope, both in budgets.items():
        if scope.startswith("resident-day:"):
            name = scope.split(":")[1]
            per_resident[name] = per_resident.get(name, 0) + sum(both)
    told = {line.name: line.spent_micros + line.reserved_micros for line in costs(view, "resident").lines}
    assert {name: sum_ for name, sum_ in per_resident.items() if sum_} == {n: s for n, s in told.items() if s}
    return totals.pop()[0]


@pytest.mark.promise("double-entry")
def test_after_crashes_and_lies_the_costs_are_the_ledgers_to_the_millionth() -> None:
    spent: list[int] = []

    @settings(
        max_examples=5, database=None, derandomize=True, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 10**6), st.sampled_from(["0.01", "0.3", "900"]), st.sampled_from([0.0, 0.3, 1.0]))
    def agrees(seed: int, village_cap: str, wrong: float) -> None:
        plan = Plan(
            seed, residents=20, tasks=30, seconds=14.0, crashes=2, meddling_seconds=1.0, wrong_reports=wrong,
            settings=CAPS.format(village_cap),
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            assert simulate(plan, Path(folder)).problems == ()
            with looking(Path(folder)) as view:
                spent.append(agrees_with_the_ledger(view))

    agrees()
    assert max(spent) > 0


@pytest.fixture
def priced(scripted_model: ScriptedModel) -> ScriptedModel:
    scripted_model.price_of_all = Price(1_000_000, 1_000_000)  # a millionth of a dollar for each token
    return scripted_model


BUDGETS = {"budgets": {"village_day_usd": "1", "resident_day_usd": "0.5", "village_usd": "10"}}


@pytest.mark.village(settings=BUDGETS)
def test_what_runs_is_reserved_and_what_it_spent_is_spent(
    village: StagedVillage, priced: ScriptedModel, virtual_clock: VirtualClock
) -> None:
    priced.says(Reply("one", Usage(300, 100)))
    done = village.task("First.", max_micros=20_000, wanted="ada")
    seen: list[Any] = []

    def look(*_: Any) -> str:
        with village.store.view() as view:
            agrees_with_the_ledger(view)
            seen.append(costs(view, "task"))
        return "two"

    village.stage.cycles(village, 1)
    priced.says(look)
    running = village.task("Second.", max_micros=30_000, wanted="ben")
    village.stage.cycles(village, 1)
    (found,) = seen
    assert (found.total.spent_micros, found.total.reserved_micros) == (400, 30_000)
    assert {line.name: (line.spent_micros, line.reserved_micros) for line in found.lines} == {
        done: (400, 0), running: (0, 30_000),
    }  # fmt: skip
    assert [(cap.scope.partition(":")[0], cap.cap_micros) for cap in found.caps] == [
        ("village", 10_000_000), ("village-day", 1_000_000),
    ]  # fmt: skip
    assert found.caps[0].left_micros == 10_000_000 - 400 - 30_000


@pytest.mark.village(settings=BUDGETS)
def test_the_rate_is_of_the_last_hour_and_tells_when_a_cap_is_reached(
    village: StagedVillage, priced: ScriptedModel, virtual_clock: VirtualClock
) -> None:
    virtual_clock.advance((DAY_MICROS - virtual_clock.now() % DAY_MICROS) / 1_000_000)  # the day has just begun
    priced.price_of_all = Price(20_000_000, 20_000_000)
    priced.says(Reply("one", Usage(50_000, 50_000)))
    village.task("Begin.", max_micros=400_000, wanted="ada")
    village.stage.cycles(village, 1)
    with village.store.view() as view:
        found = costs(view, "resident")
    (line,) = found.lines
    assert (line.name, line.rate_micros, line.calls) == ("ada", line.spent_micros, 1)
    rate = line.rate_micros
    assert rate > 0
    assert line.cap is not None and line.cap.seconds == (500_000 - rate) * 3_600 / rate
    assert found.caps[0].seconds == (10_000_000 - rate) * 3_600 / rate
    assert found.caps[1].seconds == (1_000_000 - rate) * 3_600 / rate
    virtual_clock.advance(3_601.0)
    with village.store.view() as view:
        found = costs(view, "resident")
    assert (found.total.rate_micros, found.caps[0].seconds) == (0, None)


@pytest.mark.village(settings=BUDGETS)
def test_a_cap_of_the_day_that_the_day_outlives_is_not_reached(
    village: StagedVillage, priced: ScriptedModel, virtual_clock: VirtualClock
) -> None:
    virtual_clock.advance((DAY_MICROS - virtual_clock.now() % DAY_MICROS) / 1_000_000 + 86_000.0)  # 400 s are left
    priced.says(Reply("one", Usage(10, 10)))
    village.task("Begin.", max_micros=400_000)
    village.stage.cycles(village, 1)
    with village.store.view() as view:
        found = costs(view, "day")
    assert found.total.rate_micros > 0
    assert found.caps[0].seconds is not None and found.caps[1].seconds is None


@pytest.mark.village(residents=["ada", "ben", "cyn"])
def test_the_lines_that_cost_most_come_first_and_the_rest_is_counted(
    village: StagedVillage, priced: ScriptedModel, run_cycles: RunCycles
) -> None:
    for resident, tokens in (("ada", 10), ("ben", 900), ("cyn", 50)):
        priced.says(Reply("x", Usage(tokens, 1)))
        village.task("Do.", max_micros=90_000, wanted=resident)
        run_cycles(1)
    with village.store.view() as view:
        found = costs(view, "resident", 2)
        assert [line.name for line in found.lines] == ["ben", "cyn"]
        assert found.more == 1 and found.total.calls == 3
        assert [line.name for line in costs(view, "model").lines] == ["scripted_model:m"]


@pytest.mark.village(residents=["ada"], plugins=[Shelf])
def test_calls_that_a_continued_attempt_takes_over_are_counted_once(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(use("lend", 1), use("lend", 2))
    for _ in range(2):  # an outage before the answer, in two attempts: the second copies what the first recorded
        scripted_model.fails("outage")
        if not scripted_model.requests:
            village.task("Go.", wanted="ada")
        run_cycles(1)
    scripted_model.says(use("lend", 3), Reply("done", Usage(10, 5)))
    run_cycles(1)
    steps = rows(village, "SELECT attempt, tokens_in FROM steps WHERE kind = 'model' AND state = 'done'")
    assert len({attempt for attempt, _ in steps}) == 3 and len(steps) == 2 + 2 + 4
    with village.store.view() as view:
        for by in GROUPS:
            total = costs(view, by).total
            assert (total.calls, total.tokens_in, total.tokens_out) == (4, 40, 20)


@pytest.mark.village(residents=["ada"], plugins=[Shelf])
def test_a_call_that_reports_no_tokens_is_a_call_in_a_continued_attempt_too(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(use("lend", 1))
    scripted_model.fails("outage")
    village.task("Go.", wanted="ada")
    run_cycles(1)
    scripted_model.says(Reply("done", Usage(0, 0)))
    run_cycles(1)
    with village.store.view() as view:
        assert costs(view, "resident").total.calls == 2


def test_the_command_shows_it_for_people_and_for_programs(here: Here) -> None:
    here("pace", "1")  # founds it
    shown = here("costs")
    assert shown.status == 0
    assert "spent     0 USD in 0 calls" in shown.out and "rate      0 USD an hour" in shown.out
    for by in GROUPS:
        document = here("costs", "--by", by, "--json").document
        assert (document["by"], document["total"]["spent_micros"], document["lines"]) == (by, 0, [])
    assert here("costs", "--by", "weather").status == 2


def test_a_village_that_has_called_models_shows_a_line_of_each(here: Here) -> None:
    here("task", "add", "--prompt", "Say it.", "--max", "0.01")
    assert here("run").status == 0
    shown = here("costs", "--by", "model")
    assert "scripted:echo" in shown.out and "1 call" in shown.out
