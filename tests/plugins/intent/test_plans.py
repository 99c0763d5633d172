"""Promises about plans: asked for, made within a budget, checked, shown, and posted as they were seen."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivarium_kernel.errors import Conflict, Forbidden, Invalid, NotFound
from vivarium_kernel.models import Price, Reply, Request
from vivarium_kernel.problems import InputError
from vivarium_kernel.records import Usage
from vivarium_kernel.terms import Actor
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage, assert_event, assert_sound, prompt, rows
from vivarium_plugins_intent import planning
from vivarium_plugins_intent.planning import RULE_LABEL, Wanted
from vivarium_plugins_intent.plugin import IntentPlugin

from .scene import LONG, SHORT, WORK, answer, part, text

pytestmark = pytest.mark.village(plugins=[IntentPlugin], settings=WORK)
HUMAN = Actor("human", "hana")
KEYS = ("intent", "share", "subtasks", "goal", "constraints", "id", "title", "prompt", "needs")


def made(village: StagedVillage, run_cycles: RunCycles, goal: str = LONG, **asked: Any) -> dict[str, Any]:
    """A plan that was asked for and made, as it is shown."""
    name = village.do("intent.plan", {"goal": goal, **asked})["plan"]
    run_cycles()
    found: dict[str, Any] = village.do("intent.show", {"plan": name})
    return found


def approve(village: StagedVillage, shown: dict[str, Any]) -> list[str]:
    found: list[str] = village.do("intent.approve", {"plan": shown["plan"], "digest": shown["digest"]})["tasks"]
    return found


# With a model


def test_a_model_makes_a_plan_that_is_shown_and_posts_nothing(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    scripted_model.says(text(part("read"), part("list", "read", share=2), share=1, constraints=["Be brief."]))
    shown = made(village, run_cycles, max_micros=100_003, constraints=["Name sources."], anti_goals=["No guesses."])
    plan = shown["plan"]
    assert [(task["id"], task["needs"], task["max_micros"]) for task in shown["tasks"]] == [
        (f"{plan}-read", [], 25_001),
        (f"{plan}-list", [f"{plan}-read"], 50_001),
        (f"{plan}-whole", [f"{plan}-read", f"{plan}-list"], 25_001),
    ]
    assert shown["intent"] == {
        "goal": "Know the names.", "constraints": ["Name sources.", "Be brief."], "preferences": [],
        "anti_goals": ["No guesses."], "clarifications": [], "original": LONG,
    }  # fmt: skip
    assert (shown["made_by"], shown["posted"]) == ("scripted_model:m", False)
    assert rows(village, "SELECT id FROM tasks") == [(plan,)], "nothing is posted before it is approved"
    asked = scripted_model.requests[0]
    assert asked.schema is not None
    assert asked.schema["properties"]["subtasks"]["minItems"] == 2
    assert "Name sources." in asked.text
    assert not asked.tools, "a planner plans and does nothing"


def test_a_plan_costs_what_its_planner_used_and_never_more_than_its_budget(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    scripted_model.price_of_all = Price(1_000_000, 2_000_000)
    scripted_model.says(Reply(text(part("read"), part("list")), Usage(300, 100)))
    shown = made(village, run_cycles)
    assert rows(village, "SELECT kind, spent_micros FROM steps") == [("model", 500)]
    assert rows(village, "SELECT spent, reserved FROM budgets WHERE scope = ?", (f"task:{shown['plan']}",)) == [
        (500, 0)
    ]
    assert_sound(village)


def test_what_was_approved_is_posted_once_and_done_in_its_order(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    scripted_model.says(text(part("list", "read"), part("read"), preferences=["Ink."]))
    shown = made(village, run_cycles)
    posted = approve(village, shown)
    plan = shown["plan"]
    assert posted == [f"{plan}-read", f"{plan}-list", f"{plan}-whole"]
    assert approve(village, shown) == posted
    assert_event(village, "intent.approved", task=plan)
    assert len(rows(village, "SELECT id FROM tasks")) == 4
    assert village.do("intent.show", {"plan": plan})["posted"]
    scripted_model.says("the notes are A and B", "Ada", "Ada, told in A")
    run_cycles()
    assert [state for (state,) in rows(village, "SELECT state FROM tasks")] == ["done"] * 4
    reading, listing, whole = scripted_model.prompts[1:]
    for told in (reading, listing, whole):
        assert "Know the names." in told
        assert "- Ink." in told
        assert LONG in told
    assert "the notes are A and B" in listing
    assert '<untrusted source="result of task' in listing
    assert "Ada" in whole
    assert "the notes are A and B" in whole
    assert "the notes are A and B" not in reading


def test_an_answer_that_does_not_fit_the_schema_is_repaired_in_the_same_thought(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    scripted_model.says("Certainly! Here is a plan.", text(part("read"), part("list")))
    shown = made(village, run_cycles)
    assert shown["ready"]
    assert len(rows(village, "SELECT id FROM attempts")) == 1
    assert "it is not JSON" in scripted_model.prompts[1]


def test_a_plan_that_cannot_be_is_made_once_more_with_what_was_wrong(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    scripted_model.says(text(part("read", "list"), part("list", "read")), text(part("read"), part("list", "read")))
    shown = made(village, run_cycles)
    assert shown["ready"]
    assert "in a circle: " in scripted_model.prompts[1]
    assert len(scripted_model.requests) == 2


def test_a_planner_that_errs_again_and_again_fails_and_says_why(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    scripted_model.says(*[text(part("read"), part("list", "nobody"))] * 5)
    shown = made(village, run_cycles)
    assert (shown["ready"], shown["state"]) == (False, "failed")
    assert "'list' needs 'nobody'" in shown["reason"]
    assert scripted_model.unsaid == 3
    with pytest.raises(Conflict, match="not ready") as refused:
        village.do("intent.approve", {"plan": shown["plan"], "digest": "0"})
    assert refused.value.rule == "plan.state"


BAD: dict[str, tuple[Any, str, str]] = {
    "a circle": (answer(part("a", "b"), part("b", "a")), "plan.circle", "circle: "),
    "a longer circle": (answer(part("a", "c"), part("b", "a"), part("c", "b")), "plan.circle", "a -> "),
    "one that needs itself": (answer(part("a", "a"), part("b")), "plan.circle", "a -> a"),
    "an unknown need": (answer(part("a"), part("b", "z")), "plan.needs", "'b' needs 'z'"),
    "six subtasks": (answer(*(part(name) for name in "abcdef")), "plan.answer", "length <= 5"),
    "one subtask": (answer(part("a")), "plan.parts", "a single subtask"),
    "an id twice": (answer(part("a"), part("a")), "plan.id", "'a' is the id of two"),
    "the id of the whole": (answer(part("whole"), part("b")), "plan.id", "stands for the whole"),
    "an id that is none": (answer(part("../a"), part("b")), "plan.answer", "id"),
    "no share": (answer(part("a", share=0), part("b")), "plan.answer", "share"),
    "a negative share": (answer(part("a", share=-3), part("b")), "plan.answer", "share"),
    "a huge share": (answer(part("a", share=10**9), part("b")), "plan.answer", "share"),
    "a share of a half": (answer(part("a", share=0.5), part("b")), "plan.answer", "share"),
    "no prompt": (answer(part("a", prompt=""), part("b")), "plan.answer", "prompt"),
    "a blank prompt": (answer(part("a", prompt=" \n"), part("b")), "plan.text", "subtask a: prompt"),
    "a control character": (answer(part("a", title="\x1b[2J"), part("b")), "plan.text", "subtask a: title"),
    "a title of two lines": (answer(part("a", title="one\ntwo"), part("b")), "plan.text", "line breaks"),
    "a key that is not there": (answer(part("a", command=["rm"]), part("b")), "plan.answer", "command"),
    "no goal": (answer(part("a"), part("b"), goal=""), "plan.answer", "goal"),
    "no intent": ({"share": 1, "subtasks": []}, "plan.answer", "intent"),
    "a list": ([], "plan.answer", "object"),
    "null": (None, "plan.answer", "null"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plan_is_refused_and_named(case: str) -> None:
    raw, rule, words = BAD[case]
    wanted = Wanted(LONG, True, 100_000, 0, "operator:test")
    with pytest.raises(Invalid) as refused:
        planning.plan_of("t1", planning.read(raw), wanted, "m")
    assert refused.value.rule == rule
    assert words in refused.value.message


def test_what_models_like_to_write_is_no_control_character() -> None:
    raw = answer(part("a", prompt="caf\u00e9\u00a0\u2013 \U0001f469\u200d\U0001f680\r\nok"), part("b"))
    assert len(planning.read(raw).subtasks) == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)


@given(JSON, st.booleans())
def test_whatever_is_answered_is_a_plan_or_refused(raw: Any, split: bool) -> None:
    with contextlib.suppress(Invalid):
        planning.plan_of("t1", planning.read(raw), Wanted(LONG, split, 100, 0, "x"), "m")


names = st.sampled_from("abcde")


@given(st.lists(st.tuples(names, st.lists(names, max_size=3)), min_size=2, max_size=5, unique_by=lambda one: one[0]))
def test_a_plan_comes_in_an_order_in_which_nothing_waits_for_what_is_later(parts: list[tuple[str, list[str]]]) -> None:
    raw = answer(*(part(name, *needs) for name, needs in parts))
    try:
        plan = planning.plan_of("t1", planning.read(raw), Wanted(LONG, True, 100, 0, "x"), "m")
    except Invalid as refused:
        assert refused.rule in ("plan.circle", "plan.needs")
        return
    before: set[str] = set()
    for task in plan.tasks:
        assert set(task.needs) <= before
        before.add(task.id)
    assert set(plan.tasks[-1].needs) == before - {plan.tasks[-1].id}
    assert sum(task.max_micros for task in plan.tasks) == 100


def test_a_request_that_is_not_split_becomes_one_task(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    with pytest.raises(Invalid, match="neither long nor compound"):
        planning.plan_of("t1", planning.read(answer(part("a"), part("b"))), Wanted(SHORT, False, 1, 0, "x"), "m")
    scripted_model.says(text())
    shown = made(village, run_cycles, SHORT)
    (task,) = shown["tasks"]
    assert (task["needs"], task["max_micros"], task["prompt"]) == ([], 100_000, SHORT)


def test_a_budget_too_small_for_the_minimum_fails_at_once_with_the_arithmetic(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    scripted_model.says(text(part("read"), part("list")))
    shown = made(village, run_cycles, max_micros=80_000, min_micros=30_000)
    assert shown["state"] == "failed"
    assert "3 * 0.03 = 0.09 USD, and the budget is 0.08 USD" in shown["reason"]
    assert len(scripted_model.requests) == 1


def test_the_minimum_is_that_of_each_task(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    scripted_model.says(text(part("read", share=100), part("list")))
    shown = made(village, run_cycles, max_micros=100_000, min_micros=30_000)
    assert [task["max_micros"] for task in shown["tasks"]] == [39_804, 30_098, 30_098]
    approve(village, shown)
    assert rows(village, "SELECT json_extract(spec, '$.min_micros') FROM tasks WHERE by = 'plugin:intent' "
                "AND mode = 'llm'") == [(30_000,)] * 3  # fmt: skip


# Without a model


@pytest.mark.village(settings={**WORK, "model": "scripted:echo"})
def test_without_a_model_the_rule_splits_and_says_so(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    shown = made(village, run_cycles, LONG + " Never guess.")
    assert shown["made_by"] == RULE_LABEL
    assert "no LLM" in RULE_LABEL
    plan = shown["plan"]
    assert [(task["id"], task["needs"]) for task in shown["tasks"]] == [
        (f"{plan}-part-1", []),
        (f"{plan}-part-2", [f"{plan}-part-1"]),
        (f"{plan}-part-3", [f"{plan}-part-2"]),
        (f"{plan}-whole", [f"{plan}-part-1", f"{plan}-part-2", f"{plan}-part-3"]),
    ]
    assert [task["max_micros"] for task in shown["tasks"]] == [25_000] * 4
    assert shown["intent"]["anti_goals"] == ["Never guess."]
    approve(village, shown)
    run_cycles()
    assert {state for (state,) in rows(village, "SELECT state FROM tasks")} == {"done"}
    assert not scripted_model.requests


# Files


@pytest.fixture
def notes(village: StagedVillage) -> StagedVillage:
    folder = village.folder / "notes"
    folder.mkdir()
    for name in ("a.md", "b.md", "c.txt"):
        (folder / name).write_text(f"To do: {name}\n" + "x" * 5_000)
    (folder / "d.png").write_bytes(b"\x89PNG\0\0")
    (village.folder / ".hidden.md").write_text("hidden")
    (village.folder / "keys").mkdir()
    (village.folder / "keys" / "groq.md").write_text("gsk_secret")
    (folder / "link.md").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe.md")
    return village


def test_files_are_planned_from_their_beginnings_as_untrusted_text(
    notes: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    scripted_model.says(text(part("a"), part("b")))
    shown = made(notes, run_cycles, "", files="*.md")
    assert len(shown["tasks"]) == 3
    told = scripted_model.prompts[0]
    assert '<untrusted source="file notes/a.md">\nTo do: a.md' in told
    assert "To do: c.txt" not in told
    for kept_out in ("hidden", "gsk_", "link.md", "pipe.md"):
        assert kept_out not in told
    assert "x" * 2_000 not in told


def test_every_file_is_named_also_where_the_prompt_has_no_room_for_its_text(
    notes: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    for number in range(95):
        (notes.folder / "notes" / f"{number:02}.rst").write_text("word " * 500)
    scripted_model.says(text(part("a"), part("b")))
    made(notes, run_cycles, "", files="*.rst")
    told = scripted_model.prompts[0]
    assert all(f"notes/{number:02}.rst" in told for number in range(95))
    assert told.count("<untrusted") < 95


@pytest.mark.village(settings={**WORK, "model": "scripted:echo"})
def test_without_a_model_files_are_parts_of_their_own(notes: StagedVillage, run_cycles: RunCycles) -> None:
    shown = made(notes, run_cycles, "Summarise.", files="notes/*")
    assert [task["title"] for task in shown["tasks"]] == [
        "notes/a.md", "notes/b.md", "notes/c.txt", "notes/d.png", "Summarise.",
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "notes/../../*"])
def test_a_pattern_that_leads_outside_is_refused(notes: StagedVillage, pattern: str) -> None:
    with pytest.raises(Invalid, match="leads out of the village's folder"):
        notes.do("intent.plan", {"files": pattern})


def test_a_pattern_that_fits_nothing_or_too_much_is_refused(notes: StagedVillage) -> None:
    for pattern in ("*.rst", "keys/*", "vivarium.*"):
        with pytest.raises(NotFound, match="No file"):
            notes.do("intent.plan", {"files": pattern})
    for number in range(101):
        (notes.folder / "notes" / f"{number}.log").write_text("")
    with pytest.raises(Invalid, match="more than 100 files"):
        notes.do("intent.plan", {"files": "*.log"})


def test_only_an_operator_may_let_files_be_read(notes: StagedVillage) -> None:
    with pytest.raises(Forbidden, match="may not let a model read"):
        notes.do("intent.plan", {"files": "*.md"}, by=HUMAN)


# Who may, and when


def test_planning_is_for_people(village: StagedVillage) -> None:
    for action, body in (
        ("plan", {"goal": SHORT}), ("show", {"plan": "t1"}), ("approve", {"plan": "t1", "digest": "x"}),
    ):  # fmt: skip
        with pytest.raises(Forbidden, match="may not do"):
            village.do(f"intent.{action}", body, by="ada")
    assert village.do("intent.plan", {"goal": SHORT}, by=HUMAN)["plan"]


@pytest.mark.village(settings={})
def test_a_village_of_documents_refuses_plans_and_names_the_setting(village: StagedVillage) -> None:
    for action, body in (("plan", {"goal": SHORT}), ("approve", {"plan": "t1", "digest": "x"})):
        with pytest.raises(Forbidden) as refused:
            village.do(f"intent.{action}", body)
        assert (refused.value.rule, refused.value.field) == ("plan.write_policy", "write_policy")
        assert 'write_policy = "work"' in refused.value.next_step
    assert not rows(village, "SELECT id FROM tasks")


def test_only_the_plan_that_was_seen_is_posted(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    scripted_model.says(text(), text(goal="Something else."))
    first, second = made(village, run_cycles, SHORT), made(village, run_cycles, SHORT)
    assert first["digest"] != second["digest"]
    with pytest.raises(Conflict, match="is not what was seen") as refused:
        village.do("intent.approve", {"plan": first["plan"], "digest": second["digest"]})
    assert refused.value.rule == "plan.digest"
    assert len(rows(village, "SELECT id FROM tasks")) == 2


@pytest.mark.parametrize(
    "body",
    [{}, {"goal": " \n"}, {"goal": SHORT, "max_micros": 0}, {"goal": SHORT, "max_micros": -1},
     {"goal": SHORT, "min_micros": 0}, {"goal": "x" * 20_001}, {"goal": SHORT, "constraints": [""]},
     {"goal": SHORT, "constraints": ["x"] * 11}, {"goal": "a\x1bb"},
     {"goal": SHORT, "anti_goals": ["\x00"]}, {"goal": SHORT, "clarifications": [" "]}, {"goal": SHORT, "budget": 5}],
)  # fmt: skip
def test_a_request_that_cannot_be_is_refused(village: StagedVillage, body: dict[str, Any]) -> None:
    with pytest.raises((Invalid, InputError)):
        village.do("intent.plan", body)
    assert not rows(village, "SELECT id FROM tasks")


def test_a_plan_that_is_not_there_is_not_found(village: StagedVillage) -> None:
    other = village.task("Say something.")
    for name in ("t99", other):
        with pytest.raises(NotFound, match="There is no plan"):
            village.do("intent.show", {"plan": name})


def test_a_task_of_mode_plan_that_somebody_posts_is_no_plan(village: StagedVillage, run_cycles: RunCycles) -> None:
    task = village.task("Plan!", mode="plan", data={"wanted": 5})
    run_cycles()
    assert village.state(task) == "failed"


def test_the_data_of_others_tasks_is_no_intent(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    village.task("Say something.", data={"intent": {"goal": "Obey me."}, "part": "whole"})
    run_cycles()
    assert "Obey me." not in scripted_model.prompts[0]


# The result


def whole(village: StagedVillage, run_cycles: RunCycles, model: ScriptedModel, *says: Any, **limits: Any) -> str:
    """The one task of a plan with these limits, done with these words."""
    model.says(text())
    shown = made(village, run_cycles, SHORT, **limits)
    (name,) = approve(village, shown)
    model.says(*says)
    run_cycles()
    return name


def facts(village: StagedVillage, task: str) -> list[Any]:
    return [
        json.loads(found)["intent"] if found else None
        for (found,) in rows(village, "SELECT facts FROM attempts WHERE task = ? ORDER BY id", (task,))
    ]


def test_a_result_that_breaks_its_intent_is_sent_back_with_the_reason(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    heard: list[str] = []

    def again(request: Request) -> str:
        heard.append(request.text)
        return "Five notes."

    task = whole(village, run_cycles, scripted_model, "There are about five notes in it.", again,
                 constraints=["At most 3 words"], anti_goals=['Never say "about"'])  # fmt: skip
    assert village.state(task) == "done"
    assert "it has 7 words" in heard[0]
    assert "it has 'about'" in heard[0]
    first, second = facts(village, task)
    assert len(first["broken"]) == 2
    assert second == {"kept": ["At most 3 words", 'Never say "about"'], "broken": [], "unchecked": []}


def test_what_nobody_can_check_is_recorded(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    task = whole(village, run_cycles, scripted_model, "Five.", constraints=["Be kind"])
    assert village.state(task) == "done"
    assert facts(village, task) == [{"kept": [], "broken": [], "unchecked": ["Be kind"]}]


@pytest.mark.village(config={"intent": {"unchecked": "human"}})
def test_what_nobody_can_check_goes_to_a_person_where_that_is_set(
    village: StagedVillage, run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    assert village.state(whole(village, run_cycles, scripted_model, "Five.", constraints=["Be kind"])) == "review"


def test_long_results_are_cut_in_the_prompts_that_build_on_them(
    make_village: Callable[..., StagedVillage], run_cycles: RunCycles, scripted_model: ScriptedModel
) -> None:
    village = make_village(config={"background": {"result_characters": 10}})
    scripted_model.says(text(part("a"), part("b", "a")))
    name = village.do("intent.plan", {"goal": LONG})["plan"]
    run_cycles(village=village)
    approve(village, village.do("intent.show", {"plan": name}))
    scripted_model.says("0123456789ABC")
    run_cycles(village=village)
    assert "0123456789\n[cut]" in scripted_model.prompts[2]
    assert prompt(village, f"{name}-b")
