"""The room of the plan: what a planner's answer has to be like, and the tasks with their budgets that it becomes.

An answer is read by the same rules whoever gave it: a model, the rule that splits without one, or a worker elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Any
from unicodedata import category

import msgspec
from attrs import asdict, frozen
from msgspec import Meta, Struct

from vivarium_kernel import Invalid, NewTask
from vivarium_plugins_intent import splitting
from vivarium_plugins_intent.sharing import shared
from vivarium_plugins_intent.splitting import MOST_SUBTASKS

WHOLE = "whole"  # the task that puts the parts together
RULE_LABEL = "[split by rule, no LLM]"
MOST_SHARE = 100
_DIGEST_CHARACTERS = 16
_NEXT_STEP = "Give a whole plan that mends this."

Line = Annotated[str, Meta(min_length=1, max_length=1_000)]
Lines = Annotated[tuple[Line, ...], Meta(max_length=20)]
Share = Annotated[int, Meta(ge=1, le=MOST_SHARE, description="how much of the budget it needs, against the others")]


class Intent(Struct, frozen=True, forbid_unknown_fields=True):
    """What a request is for. ``clarifications`` are what was left open, and how it is taken."""

    goal: Line
    constraints: Lines
    preferences: Lines
    anti_goals: Lines
    clarifications: Lines


class Subtask(Struct, frozen=True, forbid_unknown_fields=True):
    """One part of a plan. ``needs`` are the ids of the parts that come before it."""

    id: Annotated[str, Meta(pattern="^[a-z][a-z0-9-]{0,29}$")]
    title: Annotated[str, Meta(min_length=1, max_length=120)]
    prompt: Annotated[str, Meta(min_length=1, max_length=20_000)]
    needs: Annotated[tuple[str, ...], Meta(max_length=MOST_SUBTASKS)]
    share: Share


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """What a planner answers. ``share`` is that of putting the parts together."""

    intent: Intent
    share: Share
    subtasks: Annotated[tuple[Subtask, ...], Meta(max_length=MOST_SUBTASKS)]


class Wanted(Struct, frozen=True):
    """A request for a plan, as the planning task carries it. ``files`` are paths and their beginnings."""

    original: str
    split: bool
    max_micros: int
    min_micros: int
    by: str
    model: str | None = None
    constraints: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ()
    anti_goals: tuple[str, ...] = ()
    clarifications: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


@frozen
class Planned:
    """A task as it will be posted."""

    id: str
    title: str
    needs: tuple[str, ...]
    max_micros: int
    prompt: str


@frozen
class Plan:
    """Tasks in an order in which each comes after those that it needs, the whole last."""

    made_by: str
    intent: Mapping[str, Any]
    tasks: tuple[Planned, ...]

    @property
    def digest(self) -> str:
        """What this very plan is known by: one that differs in anything has another."""
        text = msgspec.json.encode([self.intent, [asdict(task) for task in self.tasks]], order="sorted")
        return sha256(text).hexdigest()[:_DIGEST_CHARACTERS]


def schema(wanted: Wanted) -> dict[str, Any]:
    """The JSON Schema of an answer to this request: with parts where it is to be split, without where not."""
    whole: dict[str, Any] = msgspec.json.schema(Answer)
    kinds = whole["$defs"]
    root = dict(kinds.pop("Answer"))
    few, most = (2, MOST_SUBTASKS) if wanted.split else (0, 0)
    parts = {**root["properties"]["subtasks"], "minItems": few, "maxItems": most}
    return {**root, "properties": {**root["properties"], "subtasks": parts}, "$defs": kinds}


def by_rule(wanted: Wanted) -> dict[str, Any]:
    """The answer that words alone give: the steps of the text in a chain, or else its files, with equal shares."""
    found = splitting.said(wanted.original)
    parts = splitting.steps(wanted.original) if wanted.split else []
    titles = [splitting.title_of(part) for part in parts]
    if not parts and len(wanted.files) > 1:
        groups = _in_groups([name for name, _ in wanted.files])
        titles = [splitting.title_of(", ".join(group)) for group in groups]
        parts = [f"{wanted.original}\n\nThe files: {', '.join(group)}" for group in groups]
    ids = [f"part-{number}" for number in range(1, len(parts) + 1)]
    return {
        "intent": {
            "goal": found.goal[:1_000],
            **{name: _lines(getattr(found, name)) for name in ("constraints", "preferences", "anti_goals")},
            "clarifications": [],
        },
        "share": 1,
        "subtasks": [
            {"id": name, "title": title, "prompt": part, "needs": ids[place - 1 : place] if place else [], "share": 1}
            for place, (name, title, part) in enumerate(zip(ids, titles, parts, strict=True))
        ],
    }


def _in_groups(names: Sequence[str]) -> list[Sequence[str]]:
    """Names in at most five groups of their order, as even as can be."""
    count = min(MOST_SUBTASKS, len(names))
    ends = [len(names) * number // count for number in range(count + 1)]
    return [names[start:end] for start, end in pairwise(ends)]


def _lines(found: Sequence[str]) -> list[str]:
    return [line[:1_000] for line in found][:20]


def read(raw: object) -> Answer:
    """An answer that can become a plan; raises Invalid, which names what can't be."""
    try:
        answer = msgspec.convert(raw, Answer)
    except msgspec.ValidationError as error:
        raise Invalid("plan.answer", f"The plan is not as it has to be: {error}.", _NEXT_STEP) from error
    for path, text in _texts(answer):
        refuse_unreadable(path, text, lines=not path.endswith("title"))
    _refuse_needs(answer.subtasks)
    return answer


def refuse_unreadable(path: str, text: str, *, lines: bool = True) -> None:
    """Refuse a text that is blank, or that no task may hold; raises Invalid."""
    kept = "\n\r\t" if lines else ""
    if not text.strip() or any(category(sign) in ("Cc", "Cs") and sign not in kept for sign in text):
        what = "control characters" if lines else "control characters or line breaks"
        raise Invalid("plan.text", f"{path} is blank or holds {what}.", _NEXT_STEP, field=path)


def _texts(answer: Answer) -> list[tuple[str, str]]:
    intent = [("intent.goal", answer.intent.goal)]
    for name in ("constraints", "preferences", "anti_goals", "clarifications"):
        intent += [(f"intent.{name}[{place}]", line) for place, line in enumerate(getattr(answer.intent, name))]
    parts = [(f"subtask {part.id}: {name}", getattr(part, name)) for part in answer.subtasks
             for name in ("title", "prompt")]  # fmt: skip
    return [*intent, *parts]


def _refuse_needs(parts: Sequence[Subtask]) -> None:
    """Refuse ids that stand twice, needs that are not there, and circles, each by name."""
    names: list[str] = []
    for part in parts:
        if part.id in names or part.id == WHOLE:
            why = "stands for the whole" if part.id == WHOLE else "is the id of two subtasks"
            raise Invalid("plan.id", f"{part.id!r} {why}.", _NEXT_STEP)
        names.append(part.id)
    for part in parts:
        for need in part.needs:
            if need not in names:
                raise Invalid("plan.needs", f"Subtask {part.id!r} needs {need!r}, which the plan has not; it has "
                              f"{', '.join(names)}.", _NEXT_STEP)  # fmt: skip
    _ordered(parts)


def _ordered(parts: Sequence[Subtask]) -> list[Subtask]:
    """The parts, each after those that it needs; raises Invalid with the circle where there is one."""
    named = {part.id: part for part in parts}
    try:
        return [named[name] for name in TopologicalSorter({part.id: part.needs for part in parts}).static_order()]
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise Invalid("plan.circle", f"The subtasks need each other in a circle: {circle}.", _NEXT_STEP) from error


def plan_of(name: str, answer: Answer, wanted: Wanted, made_by: str) -> Plan:
    """The plan ``name`` of an answer. Raises Invalid where its parts or the budget don't fit the request."""
    if wanted.split and len(answer.subtasks) == 1:
        raise Invalid("plan.parts", "The plan has a single subtask.", "Split it into 2 to 5, or ask for less at once.")
    if not wanted.split and answer.subtasks:
        raise Invalid("plan.parts", "The request is neither long nor compound, and the plan splits it.",
                      "Leave subtasks empty.")  # fmt: skip
    parts = _ordered(answer.subtasks)
    *each, last = shared(wanted.max_micros, [*(part.share for part in parts), answer.share], wanted.min_micros)
    tasks = [
        Planned(f"{name}-{part.id}", part.title, tuple(f"{name}-{need}" for need in part.needs), micros, part.prompt)
        for part, micros in zip(parts, each, strict=True)
    ]
    whole = Planned(
        f"{name}-{WHOLE}", splitting.title_of(answer.intent.goal), tuple(task.id for task in tasks), last,
        f"{wanted.original}\n\n{_PUT_TOGETHER}" if tasks else wanted.original,
    )  # fmt: skip
    return Plan(made_by, _intent(answer.intent, wanted), (*tasks, whole))


_PUT_TOGETHER = (
    "The parts of this were done as tasks of their own, and their results are given above. Put them together into the "
    "whole result, and hold it against the constraints and anti-goals."
)


def _intent(found: Intent, wanted: Wanted) -> dict[str, Any]:
    """The record of the intent: what the person stated comes first, and no planner can leave it out."""
    limits = {
        name: list(dict.fromkeys([*getattr(wanted, name), *getattr(found, name)]))
        for name in ("constraints", "preferences", "anti_goals", "clarifications")
    }
    return {"goal": found.goal, **limits, "original": wanted.original}


def new_tasks(plan: Plan, wanted: Wanted, name: str) -> list[NewTask]:
    """The plan as tasks to post, in its order. Each needs this plugin: it is told, and held to, the intent."""
    return [
        NewTask(
            id=task.id,
            mode="llm",
            title=task.title,
            prompt=task.prompt,
            needs=task.needs,
            max_micros=task.max_micros,
            min_micros=wanted.min_micros,
            model=wanted.model,
            labels=("planned",),
            plugins=("intent",),
            data={"intent": plan.intent, "plan": name, "part": task.id.removeprefix(f"{name}-"), "asked_by": wanted.by},
        )
        for task in plan.tasks
    ]
