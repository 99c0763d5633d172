"""Each hook's policy: what its answers become, and what one implementation's failure does to them."""

import asyncio
import gc
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.calls import FLOOR, Health, HookFailed, Refuse, Refused, SwitchedOff
from vivarium_kernel.clock import SystemClock
from vivarium_kernel.errors import StoreFull
from vivarium_kernel.records import (
    Entitlement,
    Event,
    NewTask,
    Outcome,
    Reject,
    Resident,
    Review,
    Section,
    Subject,
    Task,
    Verdict,
)
from vivarium_kernel.store import Store

from .scene import COMMAND, ENDING, FAULTS, OUTCOME, RESIDENT, TASKS, Tx, View, claim, hooks, job, plugin

SECTION = Section("rules", "Be kind.")


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[Tx]:
    found = Tx(tmp_path)
    yield found
    found.connection.close()


# Faults stay with their plugin


@pytest.mark.promise("faults-stay-with-their-plugin")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_whatever_an_implementation_raises_the_others_answers_stand(fault: Callable[[], Any], tx: Tx) -> None:
    """In a plain hook, a coroutine before and after it waited, and a part of a transaction."""

    async def late(self: Any, subject: Subject) -> None:
        await asyncio.sleep(0)
        fault()

    async def early(self: Any, subject: Subject) -> None:
        fault()

    async def fine(self: Any, subject: Subject) -> Verdict:
        return Verdict("allow", "fine")

    def end(self: Any, task: Task, ending: Any, tx: Any) -> None:
        tx.note()
        fault()

    health = Health()
    village = hooks(
        plugin("bad", enrich_prompt=lambda self, task: fault(), end_attempt=end, check_safety=early),
        plugin("late", check_safety=late),
        plugin(
            "well",
            enrich_prompt=lambda self: [SECTION],
            end_attempt=lambda self, task, ending, tx: tx.note(),
            check_safety=fine,
        ),
        health=health,
    )
    assert village.enrich_prompt(RESIDENT, TASKS[0], View()) == [("well", SECTION)]
    assert [call.plugin for call in village.end_attempt(TASKS[0], ENDING, tx)] == ["bad"]
    assert tx.notes() == ["well"]
    safety = asyncio.run(village.check_safety(COMMAND))
    assert (safety.verdict.rule, safety.culprit) == ("safety.failed", "bad")
    assert [(name, said.rule) for name, said in safety.by] == [("well", "fine")]
    faults = {(found.plugin, found.hook) for found in health.recent}
    assert faults == {
        ("bad", "enrich_prompt"),
        ("bad", "end_attempt"),
        ("bad", "check_safety"),
        ("late", "check_safety"),
    }
    assert {Path(found.where.rpartition(":")[0]).parent for found in health.recent} == {Path(__file__).parent}


def test_a_fault_is_told_with_the_plugins_own_line() -> None:
    """However deep below it the error was raised, and where the kernel refused what it had returned."""
    health = Health()

    def deep(self: Any, task: Task) -> list[Section]:
        json.loads("{")
        return []

    def wrong(self: Any, resident: Any, tasks: Any) -> Any:
        return "Not these."

    village = hooks(plugin("deep", enrich_prompt=deep), plugin("wrong", claim_filter=wrong), health=health)
    assert village.enrich_prompt(RESIDENT, TASKS[0], View()) == []
    village.claim_filter(RESIDENT, TASKS, View())
    told = {found.plugin: found.where for found in health.recent}
    first, written = (function.__code__.co_firstlineno for function in (deep, wrong))
    assert told == {"deep": f"{__file__}:{first + 1}", "wrong": f"{__file__}:{written}"}


async def coroutine() -> None:
    pass


def generator() -> Iterator[Section]:
    yield SECTION


NONSENSE: dict[str, Callable[[], Any]] = {
    "a generator": generator,
    "a coroutine": coroutine,
    "a text": lambda: "Be kind.",
    "a number": lambda: 7,
    "a record of another hook": lambda: [Reject("one", "no")],
    "a slot that there is not": lambda: [Section("cellar", "dark")],  # type: ignore[arg-type]
    "a text that is no text": lambda: [Section("rules", 5)],  # type: ignore[arg-type]
    "a dictionary": lambda: {"slot": "rules"},
}


@pytest.mark.promise("faults-stay-with-their-plugin")
@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_a_fault_of_its_plugin(answer: Callable[[], Any]) -> None:
    health = Health()
    village = hooks(
        plugin("odd", enrich_prompt=lambda self: answer()),
        plugin("well", enrich_prompt=lambda self: (SECTION,)),
        health=health,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert village.enrich_prompt(RESIDENT, TASKS[0], View()) == [("well", SECTION)]
        gc.collect()
    (fault,) = health.recent
    assert (fault.plugin, fault.hook) == ("odd", "enrich_prompt")
    assert "answered" in fault.what


def test_each_implementation_gets_its_own_view_and_only_what_it_asks_for() -> None:
    seen = []

    def mine(self: Any, view: Any, resident: Resident) -> None:
        seen.append((view.plugin, resident))

    view = View()
    village = hooks(plugin("blind", enrich_prompt=lambda self: None), plugin("seer", enrich_prompt=mine))
    village.enrich_prompt(RESIDENT, TASKS[0], view)
    assert (seen, view.given) == ([("seer", RESIDENT)], ["seer"])


def test_a_plugin_cannot_change_what_the_next_one_sees() -> None:
    def clear(self: Any, tasks: Any) -> None:
        tasks.clear()

    seen: list[int] = []
    village = hooks(
        plugin("a", claim_filter=clear), plugin("b", claim_filter=lambda self, tasks: seen.append(len(tasks)))
    )
    village.claim_filter(RESIDENT, list(TASKS), View())
    assert seen == [3]


# Register


def test_a_plugin_that_fails_to_register_has_all_its_items_withdrawn() -> None:
    village = hooks(
        plugin("half", register_actions=lambda self: ["act"], register_routes=lambda self: 1 / 0),
        plugin("well", register_actions=lambda self: ["walk", "talk"]),
    )
    assert village.register_actions() == [("well", "walk"), ("well", "talk")]
    assert village.register_routes() == []
    assert [(call.plugin, call.hook) for call in village.failed] == [("half", "register_routes")]


# Collect, filter and score


def test_proposals_are_collected_in_order_with_who_proposed_them() -> None:
    village = hooks(
        plugin("b", propose_activity=lambda self: [NewTask("walk")]),
        plugin("a", propose_activity=lambda self: None),
        plugin("c", propose_activity=lambda self: [NewTask("talk")]),
    )
    found = village.propose_activity(RESIDENT, View())
    assert [(name, task.id) for name, task in found] == [("b", "walk"), ("c", "talk")]


def test_a_filter_that_fails_abstains_unless_the_task_needs_its_plugin() -> None:
    needy = Task(4, "needy", "command", plugins=("broken",))
    village = hooks(
        plugin("broken", claim_filter=lambda self: 1 / 0),
        plugin("strict", claim_filter=lambda self: [Reject("two", "not on Sundays")]),
    )
    refused = village.claim_filter(RESIDENT, [*TASKS, needy], View())
    assert refused["two"] == [("strict", "not on Sundays")]
    ((name, reason),) = refused["needy"]
    assert name == "broken"
    assert "ZeroDivisionError" in reason
    assert set(refused) == {"two", "needy"}


def test_a_task_that_needs_an_absent_plugin_or_one_that_is_off_is_refused_with_the_reason() -> None:
    health = Health()
    health.off("guilds", "on_tick", "held the writer")
    village = hooks(plugin("guilds", claim_filter=lambda self: None), plugin("hats"), health=health)
    tasks = [Task(n, name, "command", plugins=(name,)) for n, name in enumerate(("guilds", "nobody", "hats"))]
    refused = village.claim_filter(RESIDENT, tasks, View())
    assert set(refused) == {"guilds", "nobody"}
    assert "off on on_tick: held the writer" in refused["guilds"][0][1]
    assert "not enabled" in refused["nobody"][0][1]


@pytest.mark.promise("faults-stay-with-their-plugin")
@pytest.mark.parametrize(
    "scores",
    [
        [math.nan, 0.5, 0.5],
        [0.5, math.inf, 0.5],
        [0.5, -math.inf, math.inf],
        [0.5, 0.5],
        [0.5] * 4,
        ["0.5"] * 3,
        [None] * 3,
        [10**400] * 3,
        0.5,
        "abc",
        {0.5},
    ],
    ids=repr,
)
def test_scores_that_are_no_scores_abstain(scores: Any) -> None:
    health = Health()
    village = hooks(
        plugin("odd", claim_score=lambda self: scores),
        plugin("well", claim_score=lambda self: [0.1, 0.2, 0.3]),
        health=health,
    )
    assert village.claim_score(RESIDENT, TASKS, View()) == [0.1, 0.2, 0.3]
    assert health.tally("odd", "claim_score").streak == 1


def test_scores_out_of_range_are_clamped_and_recorded() -> None:
    health = Health()
    village = hooks(plugin("keen", claim_score=lambda self: [7, -0.5, 0.5]), health=health)
    assert village.claim_score(RESIDENT, TASKS, View()) == [1.0, 0.0, 0.5]
    (fault,) = health.recent
    assert "from -0.5 to 7 were clamped" in fault.what
    assert health.tally("keen", "claim_score").streak == 0


def test_scorers_are_weighed() -> None:
    plugins = plugin("a", claim_score=lambda self: [1, 0, 0]), plugin("b", claim_score=lambda self: [0, 1, 0])
    assert hooks(*plugins).claim_score(RESIDENT, TASKS, View()) == [0.5, 0.5, 0.0]
    weighed = hooks(*plugins, weights={"a": 3.0}).claim_score(RESIDENT, TASKS, View())
    assert weighed == [0.75, 0.25, 0.0]
    assert hooks().claim_score(RESIDENT, TASKS, View()) == [0.0, 0.0, 0.0]


# Strictest


def test_an_entitlement_that_fails_is_the_floor() -> None:
    generous = plugin("rich", entitle=lambda self: Entitlement(models=("large",), tool_calls=9))
    assert hooks(generous).entitle(RESIDENT, View()) == Entitlement(models=("large",), tool_calls=9)
    for fault in (lambda self: 1 / 0, lambda self: "all", lambda self: Entitlement(tool_calls=-1)):
        assert hooks(generous, plugin("odd", entitle=fault)).entitle(RESIDENT, View()) == FLOOR
    assert hooks(plugin("mute", entitle=lambda self: None)).entitle(RESIDENT, View()) == Entitlement()


async def allow(self: Any, subject: Subject) -> Verdict:
    return Verdict("allow", "allowed")


async def deny(self: Any, subject: Subject) -> Verdict:
    return Verdict("deny", "denied")


async def pass_by(self: Any, subject: Subject) -> None:
    return None


async def fail(self: Any, subject: Subject) -> Verdict:
    raise OSError("the list of rules is gone")


@pytest.mark.promise("failed-check-is-no-allow")
@pytest.mark.promise("unchecked-kind-is-refused")
@pytest.mark.parametrize(
    ("checks", "answer", "rule", "culprit"),
    [
        ([], "deny", "safety.uncovered", None),
        ([pass_by], "deny", "safety.uncovered", None),
        ([pass_by, allow], "allow", "allowed", None),
        ([allow, deny, allow], "deny", "denied", None),
        ([fail], "deny", "safety.failed", "p0"),
        ([allow, fail], "deny", "safety.failed", "p1"),
        ([fail, allow, fail], "deny", "safety.failed", "p0"),
        ([pass_by, fail], "deny", "safety.failed", "p1"),
        # Only a verdict blocks a task, and a verdict of deny stands whatever the failed check would have said.
        ([fail, deny], "deny", "denied", None),
    ],
)
def test_safety_is_the_strictest_and_a_failed_check_is_never_an_allow(
    checks: list[Any], answer: str, rule: str, culprit: str | None
) -> None:
    village = hooks(*(plugin(f"p{n}", check_safety=check) for n, check in enumerate(checks)))
    safety = asyncio.run(village.check_safety(COMMAND))
    assert (safety.verdict.answer, safety.verdict.rule, safety.culprit) == (answer, rule, culprit)
    assert safety.verdict.answer == "allow" or safety.verdict.next_step or rule == "denied"


@pytest.mark.promise("failed-check-is-no-allow")
def test_a_safety_check_that_answers_nonsense_has_failed() -> None:
    answers: list[Any] = [True, "allow", Verdict("perhaps", "x")]  # type: ignore[arg-type]

    async def check(self: Any, subject: Subject) -> Any:
        return answers.pop()

    village = hooks(plugin("odd", check_safety=check))
    while answers:
        safety = asyncio.run(village.check_safety(COMMAND))
        assert (safety.verdict.rule, safety.culprit) == ("safety.failed", "odd")


async def approve(self: Any, task: Task, outcome: Outcome) -> Review:
    return Review("accept", 0.95)


async def abstain(self: Any, task: Task, outcome: Outcome) -> None:
    return None


async def stumble(self: Any, task: Task, outcome: Outcome) -> Review:
    raise ValueError("boom")


async def reject(self: Any, task: Task, outcome: Outcome) -> Review:
    return Review("reject", 0.9)


async def too_sure(self: Any, task: Task, outcome: Outcome) -> Review:
    return Review("accept", math.nan)


@pytest.mark.parametrize(
    ("reviewers", "decision", "confidence"),
    [
        ([], "human", 0.0),
        ([abstain], "human", 0.0),
        ([approve, abstain], "accept", 0.95),
        ([approve, stumble], "human", 0.0),
        ([approve, too_sure], "human", 0.0),
        ([stumble, reject], "reject", 0.0),
    ],
)
def test_a_human_reviews_where_a_reviewer_failed_or_nobody_spoke(
    reviewers: list[Any], decision: str, confidence: float
) -> None:
    village = hooks(*(plugin(f"p{n}", review_outcome=review) for n, review in enumerate(reviewers)))
    review = asyncio.run(village.review_outcome(TASKS[0], OUTCOME))
    assert (review.decision, review.confidence) == (decision, confidence)
    assert review.reason or decision in ("accept", "reject")


# First


def test_the_first_outcome_counts_also_after_one_who_waited_to_say_not_mine() -> None:
    async def not_mine(self: Any, job: Any) -> None:
        await asyncio.sleep(0)

    async def mine(self: Any, job: Any) -> Outcome:
        await asyncio.sleep(0)
        return OUTCOME

    async def never(self: Any, job: Any) -> Outcome:
        raise AssertionError("the second was tried")

    village = hooks(plugin("a", execute_task=not_mine), plugin("b", execute_task=mine), plugin("c", execute_task=never))
    assert asyncio.run(village.execute_task(job())) == ("b", OUTCOME)
    assert asyncio.run(hooks(plugin("a", execute_task=not_mine)).execute_task(job())) is None


def test_a_failed_execution_is_the_attempts_failure_and_no_other_is_tried() -> None:
    tried = []

    async def fall(self: Any, job: Any) -> Outcome:
        raise RuntimeError("no GPU")

    async def next_one(self: Any, job: Any) -> Outcome:
        tried.append(job)
        return OUTCOME

    village = hooks(plugin("a", execute_task=fall), plugin("b", execute_task=next_one))
    with pytest.raises(HookFailed, match="plugin 'a' failed in execute_task: RuntimeError: no GPU") as failed:
        asyncio.run(village.execute_task(job()))
    assert isinstance(failed.value.call.error, RuntimeError)
    assert tried == []


def test_an_outage_that_comes_through_an_execution_switches_nobody_off() -> None:
    health = Health()

    async def call_a_provider(self: Any, job: Any) -> Outcome:
        raise StoreFull("store.full", "The disk is full.")

    village = hooks(plugin("a", execute_task=call_a_provider), health=health)
    for _ in range(8):
        with pytest.raises(HookFailed) as failed:
            asyncio.run(village.execute_task(job()))
        assert isinstance(failed.value.call.error, StoreFull)
    assert health.switched_off == {}
    assert health.tally("a", "execute_task").errors == 8


def test_a_job_that_one_who_is_off_might_have_taken_has_failed_and_is_not_nobodys() -> None:
    async def not_mine(self: Any, job: Any) -> None: ...

    async def mine(self: Any, job: Any) -> Outcome:
        return OUTCOME

    health = Health()
    health.off("a", "execute_task", "held the loop")
    village = hooks(plugin("a", execute_task=mine), plugin("b", execute_task=not_mine), health=health)
    with pytest.raises(HookFailed, match="plugin 'a' is off on execute_task: held the loop"):
        asyncio.run(village.execute_task(job()))
    village = hooks(plugin("a", execute_task=mine), plugin("b", execute_task=mine), health=health)
    assert asyncio.run(village.execute_task(job())) == ("b", OUTCOME)


# Transact


def test_a_refusal_refuses_the_claim_with_its_reason(tx: Tx) -> None:
    def refuse(self: Any, tx: Any) -> None:
        raise Refuse("no desk is free")

    health = Health()
    village = hooks(plugin("desks", claim_reserve=refuse), health=health)
    with pytest.raises(Refused) as refused:
        village.claim_reserve(claim(), tx)
    assert (refused.value.plugin, refused.value.reason) == ("desks", "no desk is free")
    assert health.tally("desks", "claim_reserve").errors == 0


def test_a_fault_while_reserving_refuses_only_tasks_that_need_the_plugin(tx: Tx) -> None:
    def fall(self: Any, tx: Any) -> None:
        tx.note()
        raise ValueError("boom")

    village = hooks(plugin("desks", claim_reserve=fall), plugin("quota", claim_reserve=lambda self, tx: tx.note()))
    village.claim_reserve(claim(), tx)
    assert tx.notes() == ["quota"]
    with pytest.raises(Refused, match="ValueError: boom"):
        village.claim_reserve(claim(Task(9, "nine", "command", plugins=("desks",))), tx)


def test_an_ending_that_is_off_is_missed_and_can_be_run_later(tx: Tx) -> None:
    health = Health()
    health.off("wages", "end_attempt", "held the writer")
    village = hooks(plugin("wages", end_attempt=lambda self, task, ending, tx: tx.note()), health=health)
    (call,) = village.end_attempt(TASKS[0], ENDING, tx)
    assert isinstance(call.error, SwitchedOff)
    assert tx.notes() == []
    later = village.end_attempt_of("wages", TASKS[0], ENDING, tx)
    assert later is not None
    assert later.error is None
    assert tx.notes() == ["wages"]
    assert village.end_attempt_of("nobody", TASKS[0], ENDING, tx) is None


def test_the_stores_own_error_is_not_a_plugins(tx: Tx) -> None:
    """An error that ends the whole transaction goes to the store, which runs the request again."""
    health = Health()

    def end(self: Any, task: Task, ending: Any, tx: Any) -> None:
        connection.execute("ROLLBACK")
        raise ValueError("boom")

    connection = tx.connection
    village = hooks(plugin("p", end_attempt=end), health=health)
    with pytest.raises(Exception, match="no such savepoint"):
        village.end_attempt(TASKS[0], ENDING, tx)
    assert health.tally("p", "end_attempt").streak == 0


@pytest.mark.parametrize("threaded", [False, True])
def test_a_transaction_that_the_store_runs_again_counts_a_failure_once(tmp_path: Path, threaded: bool) -> None:
    """The store undoes a part that has written by running the whole transaction again, with the same failure."""
    runs: list[str] = []
    health = Health()

    def fall(self: Any, task: Task, ending: Any, tx: Any) -> None:
        runs.append("fall")
        tx.run("INSERT INTO notes VALUES ('fall')")
        raise ValueError("boom")

    def note(self: Any, task: Task, ending: Any, tx: Any) -> None:
        tx.run("INSERT INTO notes VALUES ('note')")

    village = hooks(plugin("a", end_attempt=fall), plugin("b", end_attempt=note), health=health)
    store = Store(tmp_path, SystemClock(), threaded=threaded)
    try:
        with store.exclusive() as connection:
            connection.execute("CREATE TABLE notes (text TEXT)")
        (call,) = store.call(lambda tx, item: village.end_attempt(item, ENDING, tx), TASKS[0])
        assert (call.plugin, str(call.error)) == ("a", "boom")
        with store.view() as view:
            assert view.rows("SELECT text FROM notes") == [("note",)]
    finally:
        store.close()
    assert len(runs) == 2
    assert health.tally("a", "end_attempt").streak == 1


def test_ticks_tell_every_run(tx: Tx) -> None:
    village = hooks(plugin("a", on_tick=lambda self, now: None), plugin("b", on_tick=lambda self: 1 / 0))
    calls = village.on_tick(5, tx)
    assert [(call.plugin, call.error is None) for call in calls] == [("a", True), ("b", False)]


# Notify


def test_an_event_is_told_to_one_plugin() -> None:
    heard = []

    async def listen(self: Any, event: Event) -> None:
        heard.append(event.kind)

    event = Event(1, 0, 0, 0, "task.done", "kernel", None, None, None, None, None, {}, "")
    village = hooks(plugin("ear", on_event=listen), plugin("other", on_event=listen))
    call = asyncio.run(village.on_event("ear", event))
    assert call is not None
    assert call.error is None
    assert heard == ["task.done"]
    assert asyncio.run(village.on_event("deaf", event)) is None
    assert village.names("on_event") == ["ear", "other"]
    assert village.has("on_event")
    assert not village.has("on_tick")


def test_what_was_started_is_shut_down_in_reverse() -> None:
    order = []

    def opener(name: str) -> dict[str, Any]:
        async def startup(self: Any, village: Any) -> None:
            order.append(f"open {name}")

        async def shutdown(self: Any) -> None:
            order.append(f"close {name}")

        return {"startup": startup, "shutdown": shutdown}

    village = hooks(plugin("a", **opener("a")), plugin("b", **opener("b")))
    asyncio.run(village.startup("the village"))
    asyncio.run(village.shutdown("the village"))
    assert order == ["open a", "open b", "close b", "close a"]
