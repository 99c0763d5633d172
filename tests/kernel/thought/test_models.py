"""Promises about which model a task is done with, what it may use, and what happens when its provider fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from vivarium_kernel.circuit import FAILURES, PAUSE_MAX_SECONDS, PAUSE_SECONDS, Circuit
from vivarium_kernel.routing import Route, check, choose, price_of, wishes
from vivarium_kernel.settings import ModelPrice, Models
from vivarium_kernel.testing import (
    RunCycles,
    ScriptedModel,
    StagedVillage,
    VirtualClock,
    assert_sound,
    events,
    rows,
)

from vivarium_kernel import Entitlement, Forbidden, Invalid, Price, ProviderFault, Reply, Task, Usage, deciding, keys

from .scene import Shelf, shelf, use

CLASSES = Models(small="p:tiny", medium="p:middling", large="q:huge")
ANY = Entitlement()


def task(failures: int = 0, model: str | None = None) -> Task:
    return Task(1, "t", "llm", failures=failures, model=model)


@pytest.mark.parametrize(
    ("asked", "failures", "settings", "found"),
    [
        ("p:tiny", 0, Models(), ["p:tiny"]),
        ("small", 0, CLASSES, ["p:tiny"]),
        ("large", 0, CLASSES, ["q:huge"]),
        ("auto", 0, CLASSES, ["p:tiny"]),
        ("auto", 1, CLASSES, ["p:middling"]),
        ("auto", 2, CLASSES, ["q:huge"]),
        ("auto", 9, CLASSES, ["q:huge"]),
        ("auto", 1, Models(small="p:tiny", large="q:huge"), ["q:huge"]),
        ("auto", 2, Models(small="p:tiny", medium="p:middling"), ["p:middling"]),
        ("auto", 0, Models(large="q:huge"), ["q:huge"]),
        ("q:huge, small", 0, CLASSES, ["q:huge", "p:tiny"]),
        ("small,p:tiny", 0, CLASSES, ["p:tiny"]),
    ],
)
def test_a_model_is_named_by_itself_by_its_class_or_found_by_the_tasks_failures(
    asked: str, failures: int, settings: Models, found: list[str]
) -> None:
    assert wishes(asked, task(failures), settings) == found


@pytest.mark.parametrize(
    ("asked", "settings", "rule"),
    [
        ("auto", Models(), "model.auto"),
        ("small", Models(), "model.class"),
        ("huge", CLASSES, "model.name"),
        ("", CLASSES, "model.name"),
    ],
)
def test_a_model_that_can_not_be_meant_is_refused_with_what_to_write(asked: str, settings: Models, rule: str) -> None:
    with pytest.raises(Invalid) as refused:
        wishes(asked, task(), settings)
    assert refused.value.rule == rule
    assert refused.value.next_step


@pytest.mark.promise("a model that is not allowed is refused by name with the list, and never silently replaced")
@pytest.mark.parametrize(
    ("model", "entitlement", "allow", "rule"),
    [
        ("p:tiny", ANY, ("*",), None),
        ("p:tiny", ANY, ("p:*",), None),
        ("q:huge", ANY, ("p:*", "q:small"), "model.allow"),
        ("p:tiny", Entitlement(models=("small",)), ("*",), None),
        ("p:middling", Entitlement(models=("small",)), ("*",), "model.entitlement"),
        ("p:middling", Entitlement(models=("small", "p:*")), ("*",), None),
        ("p:tiny", Entitlement(models=()), ("*",), "model.entitlement"),
    ],
)
def test_a_model_is_allowed_by_the_village_and_by_the_residents_entitlement(
    model: str, entitlement: Entitlement, allow: tuple[str, ...], rule: str | None
) -> None:
    settings = Models(allow=allow, small="p:tiny", medium="p:middling", large="q:huge")
    if rule is None:
        check(model, entitlement, settings)
        return
    with pytest.raises(Forbidden) as refused:
        check(model, entitlement, settings)
    assert refused.value.rule == rule
    assert model in refused.value.message
    named = allow if rule == "model.allow" else entitlement.models or ("none",)
    assert all(name in refused.value.next_step for name in named)


def test_another_model_stands_in_only_where_the_task_lists_it() -> None:
    poor = Entitlement(models=("small",))
    with pytest.raises(Forbidden):
        choose("q:huge", task(), poor, CLASSES)
    assert choose("q:huge,p:tiny", task(), poor, CLASSES) == Route(
        "p:tiny", "q:huge", "The resident may not use q:huge."
    )
    with pytest.raises(Forbidden, match="q:huge"):
        choose("q:huge,p:middling", task(), poor, CLASSES)


def test_a_price_of_the_settings_is_stronger_than_the_providers() -> None:
    settings = Models(prices={"p:tiny": ModelPrice(2_000_000, 4_000_000, None, 7)})
    assert price_of("p:tiny", Price(1, 1), settings) == Price(2_000_000, 4_000_000, None, 7)
    assert price_of("p:other", Price(1, 1), settings) == Price(1, 1)
    assert price_of("p:other", None, settings) is None


@pytest.mark.parametrize(
    ("price", "used", "seconds", "micros"),
    [
        (Price(1_000_000, 2_000_000), (3, 4, 0), 0.0, 11),
        (Price(1, 1), (1, 0, 0), 0.0, 1),
        (Price(0, 0), (9, 9, 9), 9.0, 0),
        (Price(1_000_000, 0, 100_000), (10, 0, 10), 0.0, 1),
        (Price(1_000_000, 0, 100_000), (10, 0, 5), 0.0, 6),
        (Price(0, 0, None, 100), (9, 9, 0), 0.015, 2),
    ],
)
def test_a_call_costs_its_tokens_and_seconds_rounded_up(
    price: Price, used: tuple[int, int, int], seconds: float, micros: int
) -> None:
    assert price.of(*used, seconds) == micros
    assert price.worst(used[0], used[1], seconds) >= micros


def test_a_breaker_opens_at_the_fifth_failure_and_lets_one_call_through_after_its_pause() -> None:
    circuit = Circuit()
    for _ in range(FAILURES - 1):
        assert not circuit.failed(0.0, "503")
        assert circuit.wait_seconds(0.0) == 0.0
    assert circuit.failed(0.0, "503")
    assert circuit.wait_seconds(1.0) == PAUSE_SECONDS - 1.0
    assert circuit.wait_seconds(PAUSE_SECONDS) == 0.0
    assert circuit.wait_seconds(PAUSE_SECONDS) > 0.0  # the probe is under way
    circuit.undecided()
    assert circuit.wait_seconds(PAUSE_SECONDS) == 0.0
    assert not circuit.failed(PAUSE_SECONDS, "503")
    assert circuit.wait_seconds(PAUSE_SECONDS) == 2 * PAUSE_SECONDS
    assert circuit.wait_seconds(3 * PAUSE_SECONDS) == 0.0
    assert circuit.went_well()
    assert circuit == Circuit(open_until=circuit.open_until)
    for _ in range(30):
        circuit.failed(0.0, "503")  # those that were under way when it opened tell nothing new
    assert circuit.wait_seconds(0.0) == PAUSE_SECONDS
    for now in (1_000.0 * turn for turn in range(1, 9)):
        assert circuit.wait_seconds(now) == 0.0
        circuit.failed(now, "503")
    assert circuit.wait_seconds(8_000.0) == PAUSE_MAX_SECONDS


@pytest.mark.village(plugins=[Shelf])
@pytest.mark.promise("uncounted-faults")
def test_a_provider_that_is_down_is_left_alone_and_tried_again_and_the_task_is_done(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(*(ProviderFault("503", started=False, kind="overloaded") for _ in range(6)), "At last.")
    task = village.task("Go on.", max_attempts=1)
    run_cycles()
    assert village.state(task) == "done"
    assert [event.data["reason"] for event in events(village, "model.left_alone")] == ["503"]
    assert len(events(village, "model.tried_again")) == 1
    assert len(scripted_model.requests) == 7  # what the breaker refused was never asked
    assert rows(village, "SELECT failures FROM tasks") == [(0,)]


@pytest.mark.village(plugins=[Shelf])
def test_a_server_that_asks_for_a_pause_is_given_it(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles, virtual_clock: VirtualClock
) -> None:
    scripted_model.says(ProviderFault("429", started=False, kind="rate_limited", retry_seconds=900.0), "Now.")
    task = village.task("Go on.")
    (first,) = run_cycles(1)
    ((woken,),) = rows(village, f"SELECT wake_at FROM tasks WHERE id = '{task}'")
    assert first.ended_at is not None
    assert woken - first.ended_at == 900 * 1_000_000
    virtual_clock.pass_time(seconds=901)
    run_cycles(1)
    assert village.state(task) == "done"


@pytest.mark.village(
    plugins=[], settings={"limits": {"default": {"requests_per_minute": 2}, "ben": {"requests_per_minute": 50}}}
)
@pytest.mark.promise("limits hold for each resident, and a call that a limit refuses is told in the log")
def test_the_settings_limit_residents_by_name_and_all_others(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    for _ in range(3):
        village.task("For ada.", wanted="ada")
        village.task("For ben.", wanted="ben")
    attempts = run_cycles(6)
    ended = {name: [a.ending for a in attempts if a.resident == name] for name in ("ada", "ben")}
    assert ended == {"ada": ["accepted", "accepted", "released"], "ben": ["accepted"] * 3}
    (limited,) = events(village, "RATE_LIMITED")
    assert limited.data["reason"] == "meter.requests"
    assert (limited.data["requested"], limited.data["remaining"]) == (1, 0)
    assert_sound(village)


@pytest.mark.village(plugins=[Shelf], settings={"limits": {"default": {"tool_calls": 0}}})
def test_a_resident_that_may_use_no_tools_is_offered_none(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    village.task("Say.")
    run_cycles(1)
    assert scripted_model.requests[0].tools == ()


@pytest.mark.village(plugins=[], settings={"limits": {"default": {"models": ["other:model"], "priority": 7}}})
def test_a_task_whose_model_nobody_may_use_is_left_with_the_reason(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    task = village.task("Say.")
    assert run_cycles() == []
    assert village.state(task) == "open"
    assert scripted_model.requests == []


@pytest.mark.village(plugins=[Shelf])
@pytest.mark.promise("caps-hold")
def test_a_call_whose_worst_case_does_not_fit_the_tasks_budget_is_refused_and_told(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.price_of_all = Price(1_000_000, 1_000_000)
    scripted_model.says(use("lend", 1), Reply("Never said.", Usage(1, 1)))
    task = village.task("Say.", max_micros=500, max_attempts=1)
    (attempt,) = run_cycles(1)
    assert (attempt.ending, village.state(task)) == ("failed", "failed")
    (told,) = events(village, "TASK_BUDGET_EXCEEDED")
    assert told.data["requested"] > told.data["remaining"] == 500
    assert told.model == "scripted_model:m"
    assert scripted_model.requests == []
    assert rows(village, f"SELECT reserved, spent FROM budgets WHERE scope = 'task:{task}'") == [(0, 0)]
    assert_sound(village)


@pytest.mark.village(plugins=[Shelf], settings={"budgets": {"resident_day_usd": "0.01", "village_day_usd": "0.05"}})
@pytest.mark.promise("caps-hold")
def test_a_cap_that_keeps_a_task_from_being_claimed_is_told_once(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles, virtual_clock: VirtualClock
) -> None:
    task = village.task("Say.", max_micros=20_000)
    dear = village.task("Say more.", max_micros=60_000)
    assert run_cycles() == []
    virtual_clock.pass_time(seconds=30)
    assert run_cycles() == []
    told = [(event.task, event.resident, event.data["scope"].split(":")[0]) for event in events(village)
            if event.kind == "BUDGET_EXCEEDED"]  # fmt: skip
    assert sorted(name for _, name, scope in told if scope == "resident-day") == ["ada", "ben"]  # by one task each
    assert (village.state(task), village.state(dear)) == ("open", "open")


@pytest.mark.village(plugins=[], settings={"model": "auto"})
def test_a_task_waits_until_there_is_a_model_for_it(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    """Nobody's task is to fail because no model is set up yet; one that names a class itself is wrong."""
    task = village.task("Say.")
    wrong = village.task("Say.", model="large")
    run_cycles()
    assert (village.state(task), village.state(wrong)) == ("open", "failed")
    assert scripted_model.requests == []


@pytest.mark.village(plugins=[Shelf])
@pytest.mark.promise("uncounted-faults")
def test_a_task_whose_model_wants_a_key_waits_for_people_and_then_goes_on(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(
        use("lend", 1), ProviderFault("no key is set for p", started=False, kind="unauthorized"), "Yes."
    )
    task = village.task("Ask.")
    run_cycles()
    assert rows(village, f"SELECT state, parked_for, failures, faults FROM tasks WHERE id = '{task}'") == [
        ("parked", "key", 0, 0)
    ]
    village.store.call(deciding.decide, deciding.Decision(task, "approve", "operator:test"))
    assert rows(village, f"SELECT approved FROM tasks WHERE id = '{task}'") == [(None,)]  # safety may still ask
    run_cycles()
    assert village.state(task) == "done"
    assert shelf(village).done == {"lend": 1}


@pytest.mark.village(plugins=[], settings={"budgets": {"village_day_usd": "0.05"}})
@pytest.mark.promise("caps-hold")
def test_a_task_that_never_fits_a_cap_does_not_wait_for_tomorrow(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    never = village.task("Say.", max_micros=60_000)
    run_cycles()
    ((state, wake_at, reason),) = rows(village, f"SELECT state, wake_at, reason FROM tasks WHERE id = '{never}'")
    assert (state, wake_at) == ("parked", None)
    assert "0.05 usd left of 0.05; 0.06 is needed" in reason
    assert "It never fits" in reason


def test_a_village_in_a_repository_commits_no_key(tmp_path: Path) -> None:
    kept = keys.save(tmp_path, "groq", "gsk-0123456789abcdef")
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (kept.parent / ".gitignore").read_text() == "*\n"
    assert keys.kept(tmp_path) == ["groq"]
