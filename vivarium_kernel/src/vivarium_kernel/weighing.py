"""The room of the weighing: what one resident makes of a batch of tasks, and what is kept of it with its attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from vivarium_kernel.calls import Hooks, Scores
from vivarium_kernel.errors import Forbidden, VivariumError
from vivarium_kernel.records import Entitlement, Resident, Task
from vivarium_kernel.routing import choose, wishes
from vivarium_kernel.settings import Settings
from vivarium_kernel.store import View

if TYPE_CHECKING:
    from vivarium_kernel.village import Village

Refusals = Mapping[str, Sequence[tuple[str, str]]]  # task -> (who, why)
_NOBODY = Scores((), (), [])
_encode = msgspec.json.Encoder().encode


class Kept(Struct, frozen=True, omit_defaults=True):
    """How a task that was claimed had been weighed: its row alone, as its attempt keeps it.

    ``scores`` are (plugin, score, weight) and ``score`` is their mean; ``place`` is the task's among the ``wishes``
    that were left of ``weighed`` tasks, from 1: before it come what others were quicker to take. ``refused`` is why
    somebody had refused it before, as far as the process knew that gave it out.
    """

    weighed: int
    wishes: int
    place: int
    score: float
    scores: Sequence[tuple[str, float, float]] = ()
    refused: str = ""


class Weighed(Struct, frozen=True):
    """What a resident may use, and what it may take: ``wishes``, best first. ``before`` are refusals by task."""

    right: Entitlement
    count: int
    refused: Refusals
    tasks: Sequence[Task]
    wishes: tuple[Task, ...]
    scores: Scores
    before: Mapping[str, str]

    def why(self, task: Task) -> str:
        """How one of the wishes was weighed, as JSON of :class:`Kept`."""
        # By identity: comparing records field by field would cost more than all the rest.
        at = list(map(id, self.tasks)).index(id(task))
        place = list(map(id, self.wishes)).index(id(task)) + 1
        kept = Kept(
            self.count, len(self.wishes), place, self.scores.mean[at], self.scores.of(at), self.before.get(task.id, "")
        )
        return _encode(kept).decode()


def weigh(
    hooks: Hooks, view: View, resident: Resident, tasks: Sequence[Task], settings: Settings, before: Mapping[str, str]
) -> Weighed:
    """Ask every plugin about a batch that comes in the board's order."""
    right = hooks.entitle(resident, view)
    refused = hooks.claim_filter(resident, tasks, view)
    count = len(tasks)
    # Models that are named outright need no look, where the resident may use any.
    if right.models is not None or ":" not in (resident.model or settings.model):
        for task in tasks:
            missing = model_missing(right, resident, task, settings)
            if missing:
                refused.setdefault(task.id, []).append(("entitlement", missing))
    if refused:
        tasks = [task for task in tasks if task.id not in refused]
    if not tasks:
        return Weighed(right, count, refused, (), (), _NOBODY, before)
    scores = hooks.claim_scores(resident, tasks, view)
    order = sorted(range(len(tasks)), key=scores.mean.__getitem__, reverse=True)
    return Weighed(right, count, refused, tasks, tuple([tasks[place] for place in order]), scores, before)


def model_missing(right: Entitlement, resident: Resident, task: Task, settings: Settings) -> str:
    """Why a resident's entitlement, or the want of a model, keeps it from a task; empty when nothing does."""
    asked = task.model or resident.model or settings.model
    if task.mode != "llm" or (right.models is None and ":" in asked):
        return ""
    try:
        choose(asked, task, right, settings.models)
    except Forbidden as error:
        return "" if right.models is None else f"{resident.name}: {error.message} {error.next_step}"
    except VivariumError as error:
        # A task that names what can't be is wrong itself, and whoever claims it says so.
        return "" if task.model else f"{error.message} {error.next_step}"
    return ""


def provider_missing(village: Village, resident: Resident, task: Task) -> str:
    """Why the model that a task is to be done with first can't be had here; empty when it can."""
    settings = village.settings
    asked = task.model or resident.model or settings.model
    if task.mode != "llm" or not village.why_absent(asked):
        return ""
    try:
        return village.why_absent(wishes(asked, task, settings.models)[0])
    except VivariumError:
        return ""  # who claims it says what is wrong


def judged(task: Task) -> tuple[str, str, str]:
    """The kinds of subject that are judged before and after a task is done."""
    return "task", "outcome", "command" if task.command else "prompt"
