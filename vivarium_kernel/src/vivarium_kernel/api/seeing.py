"""The room of who sees what: a resident sees what is public and what is about itself, people see everything.

Private texts (a section's, a step's) are shown to nobody here: their rows hold a digest.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from vivarium_kernel import board
from vivarium_kernel.api.auth import Caller
from vivarium_kernel.audit import Filter
from vivarium_kernel.errors import NotFound
from vivarium_kernel.records import Attempt, Task
from vivarium_kernel.store import View

PUBLIC_KINDS = ("village.*", "task.*")
PUBLIC_ACCOUNTS = ("treasury", "commons")


@frozen
class Seen(Filter):
    """A filter of events that also keeps to what one resident may see; ``eyes`` None sees all."""

    eyes: str | None = None

    def clause(self) -> tuple[str, list[Any]]:
        text, params = super().clause()
        if self.eyes is None:
            return text, params
        public = " OR ".join("kind GLOB ?" for _ in PUBLIC_KINDS)
        return f"{text} AND (resident = ? OR (resident IS NULL AND ({public})))", [*params, self.eyes, *PUBLIC_KINDS]


def eyes_of(caller: Caller) -> str | None:
    """The resident whose eyes the caller has; None for people."""
    return caller.actor.name if caller.is_resident else None


def may_see_task(view: View, caller: Caller, task: Task) -> bool:
    """A task that is for another resident alone may hold a private text."""
    eyes = eyes_of(caller)
    if eyes is None or task.wanted in (None, eyes):
        return True
    return view.row("SELECT 1 FROM attempts WHERE task = ? AND resident = ?", (task.id, eyes)) is not None


def task_seen(view: View, caller: Caller, name: str) -> Task:
    """A task by its id, if the caller may see it; else there is no such task."""
    found = board.task(view, name)
    if not may_see_task(view, caller, found):
        raise NotFound("board.task", f"There is no task {name!r}.", "See GET /tasks.")
    return found


def attempt_seen(view: View, caller: Caller, number: int) -> Attempt:
    """An attempt by its number, if the caller may see it; else there is no such attempt."""
    found = board.attempt(view, number)
    if caller.is_resident and found.resident != caller.actor.name:
        raise NotFound("board.attempt", f"There is no attempt {number}.")
    return found


def may_see_account(caller: Caller, account: str) -> bool:
    """A resident sees its own money and what belongs to all."""
    own = f"resident:{caller.actor.name}:"
    return not caller.is_resident or account.startswith(own) or account in PUBLIC_ACCOUNTS
