"""The room of what is asked of the world: the inputs of its actions, and tasks that are a walk or words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from attrs import frozen

from vivarium_kernel import Invalid, Meta, NewTask, Task

MODE = "world"  # of tasks that are a walk or words


@frozen
class Goal:
    """Where to: a landmark's or a resident's name in ``to``, or a tile's ``x`` and ``y``."""

    to: Annotated[str, Meta(max_length=100)] | None = None
    x: Annotated[int, Meta(ge=0)] | None = None
    y: Annotated[int, Meta(ge=0)] | None = None


@frozen
class Words:
    """What to say."""

    text: Annotated[str, Meta(min_length=1, max_length=280)]


@frozen
class Nothing:
    """Nothing is needed."""


def activity(title: str, prompt: str, data: Mapping[str, Any]) -> NewTask:
    return NewTask(mode=MODE, title=title, prompt=prompt, data=data, effect="idempotent", max_attempts=1,
                   plugins=("world",))  # fmt: skip


def act_of(task: Task) -> tuple[str, dict[str, Any]]:
    """The action that a task of this mode is, and what it is given; the action refuses what it can't do with that.

    Its data say what to do, its prompt is the words. Raises Invalid for what is no action.
    """
    do = task.data.get("do")
    if do == "walk":
        return "world.walk", {key: task.data[key] for key in ("to", "x", "y") if key in task.data}
    if do in ("talk", "shout"):
        return f"world.{do}", {"text": task.prompt}
    raise Invalid(
        "world.task", f"The task's data {dict(task.data)!r:.100} are neither a walk nor words.",
        'Use data {"do": "walk", "to": PLACE}, or "talk" or "shout" with up to 280 characters as prompt.', field="data",
    )  # fmt: skip
