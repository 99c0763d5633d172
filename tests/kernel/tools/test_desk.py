"""The desk: a question waits for its answer and the thought goes on with it; a task is given back; people are told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from vivarium_kernel.cli.status import status_of
from vivarium_kernel.deciding import Answering, Decision, answer, decide, question
from vivarium_kernel.errors import Conflict, NotFound, VivariumError
from vivarium_kernel.records import Task
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage, VirtualClock, events, rows
from vivarium_kernel.waiting import wait_of

from vivarium_kernel import ProviderFault, board

from .scene import HIDDEN, heard, use

pytestmark = pytest.mark.village(residents=["ada", "ben"])
EDITION = "Which edition?"


def task_of(village: StagedVillage, task: str) -> Task:
    with village.store.view() as view:
        return board.task(view, task)


def reply(village: StagedVillage, task: str, text: str) -> None:
    village.store.call(answer, Answering(task, text, "human:eve"))


def told(model: ScriptedModel) -> list[Any]:
    """What the tools replied, out of its mark."""
    return [json.loads(text.split("\n")[1]) for text in heard(model)]


@pytest.fixture
def asked(village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles) -> str:
    """A task whose resident asked a question."""
    scripted_model.says(use("desk.ask", question=EDITION))
    task = village.task("Find the book.")
    (attempt,) = run_cycles()
    assert (attempt.ending, attempt.reason) == ("parked", EDITION)
    return task


# Asking


def test_a_question_parks_its_task_and_is_shown_wherever_the_task_waits(village: StagedVillage, asked: str) -> None:
    found = task_of(village, asked)
    assert (found.state, found.parked_for, found.wake_at) == ("parked", "answer", None)
    with village.store.view() as view:
        wait = wait_of(view, found)
        open_question = question(view, found)
    assert (wait.kind, wait.what) == ("person", f"a person's answer: {EDITION}")
    assert wait.next_step == f"vivarium task answer {asked} TEXT, or approve or reject it"
    assert open_question is not None
    assert open_question.text == EDITION


def test_the_answer_is_the_tool_s_reply_and_no_model_is_asked_again_for_what_it_said(
    village: StagedVillage, asked: str, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    reply(village, asked, "The second.")
    (attempt,) = run_cycles()
    assert attempt.ending == "accepted"
    assert told(scripted_model) == [{"question": EDITION, "answer": "The second.", "by": "human:eve"}]
    assert len(scripted_model.requests) == 2, "the first request was answered from its record"
    (event,) = events(village, "task.answered")
    assert (event.task, event.actor, event.data["characters"]) == (asked, "human:eve", 11)


def test_the_answer_reaches_the_thought_across_restarts_of_the_village(
    village: StagedVillage, asked: str, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    village = village.reopened()
    reply(village, asked, "The second.")
    village = village.reopened()
    (attempt,) = run_cycles(village=village)
    assert attempt.ending == "accepted"
    assert [each["answer"] for each in told(scripted_model)] == ["The second."]
    assert len(scripted_model.requests) == 2


def test_the_one_who_asked_goes_on(village: StagedVillage, asked: str, run_cycles: RunCycles) -> None:
    reply(village, asked, "The second.")
    run_cycles()
    assert len({row[0] for row in rows(village, "SELECT resident FROM attempts")}) == 1


def test_several_questions_in_one_task_each_get_their_own_answer(
    village: StagedVillage, asked: str, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(use("desk.ask", question="Which shelf?"), use("desk.ask", question="Which room?"), "Found.")
    for text in ("the second", "the third", "the fourth"):
        reply(village, asked, text)
        run_cycles()
    assert village.state(asked) == "done"
    assert [(each["question"], each["answer"]) for each in told(scripted_model)] == [
        (EDITION, "the second"),
        ("Which shelf?", "the third"),
        ("Which room?", "the fourth"),
    ]


@pytest.mark.parametrize(("reason", "text"), [("", "(approved without words)"), ("Take any.", "Take any.")])
def test_approving_answers_too(
    village: StagedVillage, asked: str, scripted_model: ScriptedModel, run_cycles: RunCycles, reason: str, text: str
) -> None:
    village.store.call(decide, Decision(asked, "approve", "human:eve", reason))
    run_cycles()
    assert [each["answer"] for each in told(scripted_model)] == [text]


def test_rejecting_ends_the_task_and_requeueing_begins_it_afresh(
    village: StagedVillage, asked: str, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    village.store.call(decide, Decision(asked, "reject", "human:eve", "no"))
    assert village.state(asked) == "blocked"
    village.store.call(decide, Decision(asked, "requeue", "human:eve"))
    scripted_model.says("Found without asking.")
    (attempt,) = run_cycles()
    assert attempt.answer == "Found without asking."
    assert heard(scripted_model) == []


def test_a_question_with_a_deadline_goes_on_without_an_answer_and_the_model_is_told(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles, virtual_clock: VirtualClock
) -> None:
    scripted_model.says(use("desk.ask", question=EDITION, minutes=30))
    task = village.task()
    run_cycles(1)
    with village.store.view() as view:
        assert "until" in wait_of(view, board.task(view, task)).what
    virtual_clock.pass_time(seconds=29 * 60)
    assert village.state(task) == "parked"
    virtual_clock.pass_time(seconds=2 * 60)
    assert village.state(task) == "open"
    with pytest.raises(Conflict, match="is open and can't be answered"):
        reply(village, task, "too late")
    run_cycles(1)
    (said,) = told(scripted_model)
    assert (said["answer"], said["note"]) == (None, "Nobody answered in time: go on without an answer.")


@pytest.mark.parametrize("waits_for", ["key", "answer"])
def test_a_question_whose_time_ran_out_is_open_no_more_whatever_its_task_waits_for_then(
    village: StagedVillage,
    scripted_model: ScriptedModel,
    run_cycles: RunCycles,
    virtual_clock: VirtualClock,
    waits_for: str,
) -> None:
    scripted_model.says(
        use("desk.ask", question=EDITION, minutes=30), ProviderFault("no key", started=False, kind="unauthorized")
    )
    task = village.task()
    run_cycles(1)
    virtual_clock.pass_time(seconds=31 * 60)
    run_cycles(1)
    assert rows(village, "SELECT state, parked_for FROM tasks") == [("parked", "key")]
    village.store.call(lambda tx, word: tx.run("UPDATE tasks SET parked_for = ?", (word,)), waits_for)
    with village.store.view() as view:
        found = board.task(view, task)
        assert question(view, found) is None
        assert f"vivarium task {'reject' if waits_for == 'key' else 'approve'} {task}" in wait_of(view, found).next_step
        assert status_of(view, village.folder)["asking"] == []
    with pytest.raises(Conflict, match=r"asks no question|can't be answered"):
        reply(village, task, "The second.")


def test_only_an_open_question_can_be_answered_and_only_once(
    village: StagedVillage, asked: str, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    with pytest.raises(NotFound):
        reply(village, "nothing", "x")
    reply(village, asked, "The second.")
    with pytest.raises(Conflict, match="is open and can't be answered"):
        reply(village, asked, "The third.")
    declined = village.task(wanted="ada")
    scripted_model.says("Found.", use("desk.decline", reason="Not for me."))
    run_cycles()
    assert task_of(village, declined).parked_for == "answer"
    with pytest.raises(Conflict, match="asks no question") as found:
        reply(village, declined, "Why?")
    assert f"vivarium task approve {declined}" in found.value.next_step


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ({"question": ""}, "desk.text"),
        ({"question": " \n"}, "desk.text"),
        ({"question": "x" * 2_001}, "desk.text"),
        ({"question": "x", "minutes": -1}, "desk.minutes"),
        ({"question": "x", "minutes": 10**12}, "desk.minutes"),
    ],
)
def test_a_question_that_is_none_is_refused_and_the_thought_goes_on(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles, words: dict[str, Any], rule: str
) -> None:
    scripted_model.says(use("desk.ask", **words), "Then not.")
    village.task()
    (attempt,) = run_cycles()
    assert attempt.answer == "Then not."
    assert heard(scripted_model)[0].startswith(f"Refused ({rule})")


def test_what_follows_a_question_in_the_same_reply_is_done_when_it_is_answered(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    from .scene import use_all

    scripted_model.says(use_all(("desk.ask", {"question": EDITION}), ("desk.report", {"text": "I go on."})), "Done.")
    task = village.task()
    run_cycles()
    assert rows(village, "SELECT count(*) FROM desk_told") == [(0,)]
    reply(village, task, "The second.")
    run_cycles()
    assert rows(village, "SELECT count(*) FROM desk_told") == [(1,)]
    assert village.state(task) == "done"


# Giving back


def test_declining_gives_the_task_to_others_and_keeps_the_reason(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(use("desk.decline", reason="It is not honest."), use("desk.decline", reason="Nor for me."))
    task = village.task()
    attempts = run_cycles()
    assert [(each.ending, each.reason) for each in attempts] == [
        ("released", "It is not honest."),
        ("released", "Nor for me."),
    ]
    found = task_of(village, task)
    assert (sorted(found.declined), found.failures, found.state) == (["ada", "ben"], 0, "open")
    assert [event.data["characters"] for event in events(village, "desk.declined")] == [17, 11]


def test_who_rests_is_offered_nothing_until_the_next_village_hour_and_others_are(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles, virtual_clock: VirtualClock
) -> None:
    scripted_model.says(use("desk.rest"))
    first = village.task(wanted="ada")
    (attempt,) = run_cycles(1)
    assert (attempt.resident, attempt.ending) == ("ada", "released")
    with village.store.view() as view:
        assert wait_of(view, board.task(view, first)).what.startswith("ada, who rests until village hour ")
    others = [village.task() for _ in range(3)]
    assert {each.resident for each in run_cycles(3)} == {"ben"}
    assert [village.state(task) for task in (first, *others)] == ["open", "done", "done", "done"]
    virtual_clock.pass_time(hours=1)
    (again,) = run_cycles(1)
    assert (again.resident, again.ending, again.task) == ("ada", "accepted", first)
    assert told(scripted_model)[0]["rested_until_hour"] >= 1
    (event,) = events(village, "resident.rests")
    assert event.resident == "ada"


@pytest.mark.village(real_time=True, settings={"pace_seconds": 0}, residents=["ada"])
def test_a_run_that_ends_when_all_is_done_waits_for_who_rests(
    village: StagedVillage, scripted_model: ScriptedModel
) -> None:
    scripted_model.says(use("desk.rest"), "Done.")
    task = village.task()

    async def live() -> None:
        async with Runtime(village, 1, kind="run", until_done=True) as runtime:
            await asyncio.wait_for(runtime.run(), 60)

    village.stage.run(live())
    assert village.state(task) == "done"


def test_rest_asks_the_board_no_statement_more(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    """The hour is in what a round reads of its residents anyway."""
    from vivarium_kernel.rounds import _residents, _Waiting

    scripted_model.says(use("desk.rest"))
    village.task(wanted="ada")
    run_cycles(1)
    with village.store.view() as view:
        said: list[str] = []
        view.connection.set_trace_callback(said.append)
        looking: Any = [_Waiting("ada", None, None), _Waiting("ben", None, None)]  # type: ignore[arg-type]
        up, resting = _residents(view, looking, 0)
        assert (list(up), resting) == (["ben"], {"ada"})
        up, resting = _residents(view, looking, 1)
        assert (list(up), resting) == (["ada", "ben"], set())
        view.connection.set_trace_callback(None)
    assert len(said) == 2


# Telling people


@pytest.mark.parametrize(("kind", "event"), [("report", "desk.reported"), ("flag", "desk.flagged")])
def test_what_residents_tell_is_kept_for_people_and_its_event_is_silent(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles, kind: str, event: str
) -> None:
    scripted_model.says(use(f"desk.{kind}", text=f" {HIDDEN} "), "Done.")
    task = village.task(wanted="ada")
    (attempt,) = run_cycles()
    (found,) = events(village, event)
    assert (found.resident, found.task, found.attempt) == ("ada", task, attempt.id)
    assert found.data == {"number": 1, "characters": len(HIDDEN)}
    assert HIDDEN not in str(rows(village, "SELECT data FROM events"))
    (entry,) = village.do("desk.told")
    assert {name: entry[name] for name in ("kind", "resident", "task", "text")} == {
        "kind": kind, "resident": "ada", "task": task, "text": HIDDEN,
    }  # fmt: skip
    assert len(village.do("desk.told", {"kind": kind})) == 1
    assert village.do("desk.told", {"before": 1}) == []


def test_residents_do_not_read_what_others_told(village: StagedVillage) -> None:
    with pytest.raises(VivariumError, match=r"may not do desk\.told"):
        village.do("desk.told", by="ben")
    assert "desk__told" not in {tool.name for tool in village.tools()}


@pytest.mark.parametrize("act", ["ask", "report", "decline", "rest", "flag"])
def test_the_desk_is_for_residents_at_work(village: StagedVillage, act: str) -> None:
    words = {"ask": {"question": "x"}, "decline": {"reason": "x"}, "rest": {}}.get(act, {"text": "x"})
    with pytest.raises(VivariumError) as found:
        village.do(f"desk.{act}", words, by="ada")
    assert found.value.rule == "desk.attempt"
    with pytest.raises(VivariumError) as found:
        village.do(f"desk.{act}", words)
    assert found.value.rule == "action.role"


@pytest.mark.village(settings={"budgets": {"start_aid": "0"}})
@pytest.mark.parametrize("act", ["ask", "report", "decline", "rest", "flag"])
def test_nobody_is_too_poor_for_the_desk(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles, act: str
) -> None:
    words = {"ask": {"question": "x"}, "decline": {"reason": "x"}, "rest": {}}.get(act, {"text": "x"})
    scripted_model.says(use(f"desk.{act}", **words), "Done.")
    village.task(wanted="ada")
    run_cycles(1)
    assert rows(village, "SELECT count(*) FROM events WHERE kind = 'action.performed'") == [(1,)]
    assert rows(village, "SELECT count(*) FROM transfers WHERE payer LIKE 'resident:%'") == [(0,)]


@pytest.mark.village(settings={"models": {"steps": 60}})
def test_the_desk_may_be_used_so_often_a_minute(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    for number in range(25):
        scripted_model.says(use("desk.report", text=f"{number} of 25"))
    scripted_model.says("Done.")
    village.task()
    run_cycles(1)
    refused = [text for text in heard(scripted_model) if text.startswith("Refused (action.rate)")]
    assert 1 <= len(refused) <= 5
    assert len(village.do("desk.told")) == 25 - len(refused)
