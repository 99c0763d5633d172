"""The room of the plug points: every hook of the kernel, in the order in which a cycle meets them.

A hook that is handed a ``tx`` or a ``view`` is a plain function; one that may wait is a coroutine and gets neither.
What happens when an implementation fails depends on the hook's kind: see ``calls.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pluggy

from vivarium_kernel.records import (
    Claim,
    Ending,
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

if TYPE_CHECKING:
    from vivarium_kernel.actions import Action
    from vivarium_kernel.api.panels import Panel
    from vivarium_kernel.grants import PluginTx, PluginView
    from vivarium_kernel.jobs import Job
    from vivarium_kernel.village import Village

hookspec = pluggy.HookspecMarker("vivarium")
hookimpl = pluggy.HookimplMarker("vivarium")


@hookspec
async def startup(village: Village) -> None:
    """Open what the plugin holds, before the first cycle. Runs once in each process that runs residents or the API."""


@hookspec
async def shutdown(village: Village) -> None:
    """Close what the plugin holds, after the last cycle that uses it."""


@hookspec
def register_actions() -> Sequence[Action[Any]]:
    """Declare what can be done: each action becomes a tool, an HTTP route, a command and an OpenAPI entry."""


@hookspec
def register_routes() -> Sequence[Any]:
    """Give Starlette routes for sockets and odd shapes; anything else is better an action."""


@hookspec
def register_panels() -> Sequence[Panel]:
    """Give pages for the village's people: each a template and a function."""


@hookspec
def propose_activity(resident: Resident, view: PluginView) -> Sequence[NewTask]:
    """Propose free-time tasks for a resident who found nothing to claim; filters and scores choose among them."""


@hookspec
def entitle(resident: Resident, view: PluginView) -> Entitlement | None:
    """Say what the resident may use now; asked at every claim and at every model call, the smallest of each counts."""


@hookspec
def claim_filter(resident: Resident, tasks: Sequence[Task], view: PluginView) -> Sequence[Reject]:
    """Refuse tasks of the batch for this resident, each with its reason."""


@hookspec
def claim_score(resident: Resident, tasks: Sequence[Task], view: PluginView) -> Sequence[float]:
    """Say how much the resident wants each task of the batch: one number from 0 to 1 a task, in their order."""


@hookspec
def claim_reserve(claim: Claim, tx: PluginTx) -> None:
    """Reserve what the claim needs (escrow, desk, quota) in its transaction; raise ``Refuse(reason)`` to refuse it."""


@hookspec
def enrich_prompt(resident: Resident, task: Task, view: PluginView) -> Sequence[Section]:
    """Give sections of the prompt; the kernel orders them by slot and drops the least important to fit."""


@hookspec
async def check_safety(subject: Subject) -> Verdict | None:
    """Judge a task, command, prompt, tool call, outcome or message; None is "not my kind". The strictest wins."""


@hookspec
def around_execution(job: Job) -> AbstractAsyncContextManager[None]:
    """Wrap the execution of a job: tracing, a sandbox, a lease on a device."""


@hookspec
async def execute_task(job: Job) -> Outcome | None:
    """Do the job, or answer None if it is not this plugin's kind; the first who answers did it."""


@hookspec
async def review_outcome(task: Task, outcome: Outcome) -> Review | None:
    """Judge an outcome; the strictest decision counts, with the lowest confidence."""


@hookspec
def end_attempt(task: Task, ending: Ending, tx: PluginTx) -> None:
    """Reward, refund or release, once for each attempt, in the transaction that ends it."""


@hookspec
async def on_event(event: Event) -> None:
    """Hear of an event after its commit, on the host process, at least once."""


@hookspec
def on_tick(now: int, tx: PluginTx) -> None:
    """Keep deadlines and daily grants, about once a second on the host process. ``now`` is in microseconds."""
