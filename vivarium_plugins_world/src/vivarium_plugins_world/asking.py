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


def asked_of(task: Task) -> Goal | Words:
    """What a task of this mode asks for: its data say what to do, its prompt is the words. Raises Invalid."""
    do = task.data.get("do")
    if do in ("talk", "shout") and 1 <= len(task.prompt) <= 280:
        return Words(task.prompt)
    to, x, y = (task.data.get(key) for key in ("to", "x", "y"))
    if do == "walk" and (isinstance(to, str) or (type(x) is int and type(y) is int)):
        return Goal(to) if isinstance(to, str) else Goal(x=x, y=y)
    raise Invalid(
        "world.task", f"The task's data {dict(task.data)!r:.100} are neither a walk nor words.",
        'Use data {"do": "walk", "to": PLACE}, or "talk" or "shout" with up to 280 characters as prompt.', field="data",
    )  # fmt: skip
