"""What is counted, when an implementation is switched off, and in which order they are called."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from vivarium_kernel.calls import FLOOR, Call, Health
from vivarium_kernel.health import PROBE_SECONDS
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Entitlement, Outcome, Review, Section, Subject, Task, Verdict

from .scene import COMMAND, OUTCOME, RESIDENT, TASKS, View, hooks, job, plugin


def enrich(village: Any) -> list[tuple[str, Section]]:
    found: list[tuple[str, Section]] = village.enrich_prompt(RESIDENT, TASKS[0], View())
    return found


class Switch:
    """A hook that fails while it is told to."""

    def __init__(self) -> None:
        self.failing, self.runs = True, 0

    def run(self) -> None:
        self.runs += 1
        if self.failing:
            raise ValueError("boom")

    def hook(self) -> Callable[[Any], None]:
        return lambda _plugin: self.run()


@pytest.mark.promise("breaker")
def test_five_failures_in_a_row_switch_a_plugin_off_on_that_hook_alone() -> None:
    changes: list[Any] = []
    switch = Switch()
    health = Health(lambda *change: changes.append(change))
    bad = plugin(
        "bad",
        enrich_prompt=switch.hook(),
        propose_activity=lambda self: None,
    )
    village = hooks(bad, health=health)
    for _ in range(8):
        enrich(village)
    assert switch.runs == 5
    ((name, hook, state, cause),) = changes
    assert (name, hook, state) == ("bad", "enrich_prompt", "off")
    assert cause == "5 failures in a row, the last: ValueError: boom"
    assert health.cause("bad", "enrich_prompt") == cause
    assert health.cause("bad", "propose_activity") is None
    assert village.missing("bad").endswith(cause)


@pytest.mark.promise("breaker")
def test_a_success_between_failures_starts_the_count_again() -> None:
    switch = Switch()
    health = Health()
    village = hooks(plugin("bad", enrich_prompt=switch.hook()), health=health)
    for failing in [*[True] * 4, False, *[True] * 4]:
        switch.failing = failing
        enrich(village)
    assert health.switched_off == {}
    enrich(village)
    assert "bad" in health.switched_off


def test_what_was_switched_off_stays_off_in_the_next_plugin_set_until_it_is_switched_on() -> None:
    health = Health()
    health.off("hats", "enrich_prompt", "held the loop")
    section = Section("rules", "Be kind.")

    def village() -> Any:
        return hooks(plugin("hats", enrich_prompt=lambda self: [section]), health=health)

    assert enrich(village()) == enrich(village()) == []
    health.on("hats", "enrich_prompt")
    assert enrich(village()) == [("hats", section)]
    assert village().missing("hats") == ""


@pytest.mark.promise("breaker")
@pytest.mark.promise("failed-check-is-no-allow")
def test_a_strictest_hook_that_is_off_goes_on_counting_as_strictest_until_a_probe_passes() -> None:
    now = [1000.0]
    switch = Switch()
    changes: list[str] = []
    health = Health(lambda plugin, hook, state, cause: changes.append(f"{hook} {state}"), monotonic=lambda: now[0])

    async def check(self: Any, subject: Subject) -> Verdict:
        switch.run()
        return Verdict("allow", "fine")

    async def review(self: Any, task: Task, outcome: Outcome) -> Review:
        switch.run()
        return Review("accept", 0.95)

    def entitle(self: Any) -> Entitlement:
        switch.run()
        return Entitlement(tool_calls=3)

    village = hooks(plugin("p", check_safety=check, review_outcome=review, entitle=entitle), health=health)

    async def state() -> tuple[str | None, str, bool]:
        safety = await village.check_safety(COMMAND)
        assert safety.culprit is None or safety.verdict.answer == "deny"
        decision = (await village.review_outcome(TASKS[0], OUTCOME)).decision
        return safety.culprit, decision, village.entitle(RESIDENT, View()) == FLOOR

    for _ in range(7):
        assert asyncio.run(state()) == ("p", "human", True)
    assert switch.runs == 15
    switch.failing = False
    assert asyncio.run(state()) == ("p", "human", True)
    now[0] += PROBE_SECONDS
    assert asyncio.run(state()) == (None, "accept", False)
    assert changes == [f"{hook} {to}" for to in ("off", "on") for hook in ("check_safety", "review_outcome", "entitle")]


def test_a_probe_that_fails_is_the_only_run_until_the_next() -> None:
    now = [1000.0]
    switch = Switch()
    health = Health(monotonic=lambda: now[0])
    village = hooks(plugin("p", entitle=switch.hook()), health=health)
    for _ in range(5):
        village.entitle(RESIDENT, View())
    now[0] += PROBE_SECONDS
    for _ in range(4):
        assert village.entitle(RESIDENT, View()) == FLOOR
    assert switch.runs == 6


def test_what_the_watchdog_switched_off_is_never_probed() -> None:
    now = [0.0]
    health = Health(monotonic=lambda: now[0])
    health.off("p", "entitle", "held the loop")
    village = hooks(plugin("p", entitle=lambda self: None), health=health)
    now[0] += 100 * PROBE_SECONDS
    assert village.entitle(RESIDENT, View()) == FLOOR


def test_a_wrapper_that_is_off_is_left_out_unless_the_task_needs_it() -> None:
    health = Health()
    health.off("tracing", "around_execution", "boom")
    village = hooks(plugin("tracing", around_execution=lambda self: None), health=health)

    async def live(task: Task) -> None:
        async with village.around_execution(job(task)):
            pass

    asyncio.run(live(TASKS[0]))
    with pytest.raises(Exception, match="plugin 'tracing' is off on around_execution: boom"):
        asyncio.run(live(Task(9, "nine", "command", plugins=("tracing",))))


def test_figures_and_traces_tell_every_run() -> None:
    calls: list[Call] = []
    health = Health(trace=calls.append)
    village = hooks(
        plugin("a", enrich_prompt=lambda self: None), plugin("b", enrich_prompt=lambda self: 1 / 0), health=health
    )
    for _ in range(3):
        enrich(village)
    assert [(call.plugin, call.hook, call.error is None) for call in calls] == [
        ("a", "enrich_prompt", True),
        ("b", "enrich_prompt", False),
    ] * 3
    rows = {(row["plugin"], row["hook"]): row for row in health.view()}
    a, b = rows["a", "enrich_prompt"], rows["b", "enrich_prompt"]
    assert (a["calls"], a["errors"], b["calls"], b["errors"], b["streak"]) == (3, 0, 3, 3, 3)
    assert b["last_error"] == "ZeroDivisionError: division by zero"
    assert a["seconds"] > 0


# Order


def ordered_plugin(name: str, after: tuple[str, ...] = (), **options: bool) -> Plugin:
    def enrich_prompt(self: Any) -> list[Section]:
        return [Section("rules", name)]

    cls = type(name, (Plugin,), {"name": name, "after": after, "enrich_prompt": hookimpl(**options)(enrich_prompt)})  # type: ignore[call-overload]
    return cls(None, None)  # type: ignore[no-any-return]


def test_the_order_is_tryfirst_then_the_graph_with_names_then_trylast_however_they_come() -> None:
    plugins = [
        ordered_plugin("zoo", tryfirst=True),
        ordered_plugin("ant", trylast=True),
        ordered_plugin("bee", after=("cat", "not_installed")),
        ordered_plugin("cat"),
        ordered_plugin("dog"),
    ]
    for shuffled in itertools.permutations(plugins):
        assert [name for name, _ in enrich(hooks(*shuffled))] == ["zoo", "cat", "bee", "dog", "ant"]
