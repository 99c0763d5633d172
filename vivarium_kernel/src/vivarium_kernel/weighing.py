"""The room of the weighing: what one resident makes of a batch of tasks, and what is kept of it with its attempt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from vivarium_kernel.calls import Hooks, Scores
from vivarium_kernel.errors import Forbidden, VivariumError
from vivarium_kernel.records import Entitlement, Resident, Task
from vivarium_kernel.routing import choose
from vivarium_kernel.settings import Settings
from vivarium_kernel.store import View

Refusals = Mapping[str, Sequence[tuple[str, str]]]  # task -> (who, why)
Absent = Callable[[str], str]  # why a model provider is not here, by its name; empty when it is
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
    hooks: Hooks,
    view: View,
    resident: Resident,
    tasks: Sequence[Task],
    settings: Settings,
    before: Mapping[str, str],
    absent: Absent | None,
) -> Weighed:
    """Ask every plugin about a batch that comes in the board's order.

    ``absent`` says why a provider is not here; None for who works elsewhere, with providers and executors of its own.
    """
    right = hooks.entitle(resident, view)
    refused = hooks.claim_filter(resident, tasks, view)
    count = len(tasks)
    default = resident.model or settings.model
    # Models that are named outright need no look, where the resident may use any and their providers are here.
    if right.models is not None or any([_unsure(asked, absent) for asked in {task.model or default for task in tasks}]):
        for task in tasks:
            missing = model_missing(right, resident, task, settings, absent)
            if missing:
                refused.setdefault(task.id, []).append(missing)
    if absent is not None and hooks.modes is not None and not hooks.modes.issuperset({task.mode for task in tasks}):
        for task in tasks:
            if why := unexecuted(hooks, task):
                refused.setdefault(task.id, []).append(("mode", why))
    if refused:
        tasks = [task for task in tasks if task.id not in refused]
    if not tasks:
        return Weighed(right, count, refused, (), (), _NOBODY, before)
    scores = hooks.claim_scores(resident, tasks, view)
    order = sorted(range(len(tasks)), key=scores.mean.__getitem__, reverse=True)
    return Weighed(right, count, refused, tasks, tuple([tasks[place] for place in order]), scores, before)


def _unsure(asked: str, absent: Absent | None) -> bool:
    return "," in asked or ":" not in asked or (absent is not None and bool(absent(asked.partition(":")[0])))


def unexecuted(hooks: Hooks, task: Task) -> str:
    """Why nobody here executes a task's mode; empty where somebody does, or where only a plugin knows."""
    if hooks.modes is None or task.mode in hooks.modes:
        return ""
    return f"no enabled plugin executes tasks of mode {task.mode!r}: see `vivarium plugins list`"


def model_missing(
    right: Entitlement, resident: Resident, task: Task, settings: Settings, absent: Absent | None
) -> tuple[str, str] | None:
    """What keeps a resident from a task for want of a model, and why: ``entitlement`` or ``model``; None if nothing.

    A provider that is not here is looked at only for the model that the task would be done with.
    """
    if task.mode != "llm":
        return None
    asked = task.model or resident.model or settings.model
    try:
        model = choose(asked, task, right, settings.models).model
    except Forbidden as error:
        return None if right.models is None else ("entitlement", f"{resident.name}: {error.message} {error.next_step}")
    except VivariumError as error:
        # A task that names what can't be is wrong itself, and whoever claims it says so.
        return None if task.model else ("entitlement", f"{error.message} {error.next_step}")
    why = "" if absent is None else absent(model.partition(":")[0])
    return ("model", why) if why else None


def judged(task: Task) -> tuple[str, str, str]:
    """The kinds of subject that are judged before and after a task is done."""
    return "task", "outcome", "command" if task.command else "prompt"
