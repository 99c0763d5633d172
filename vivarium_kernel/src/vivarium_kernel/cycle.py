"""The room of the cycle: claim → prepare → act → settle, for one claimed task.

The claim itself is made by a round (``runtime``); here is what follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve, field, frozen
from msgspec import Struct

from vivarium_kernel import routing
from vivarium_kernel.calls import HookFailed, Hooks, Safety
from vivarium_kernel.claiming import Claimed
from vivarium_kernel.errors import (
    Distrusted,
    Forbidden,
    Invalid,
    LeaseLapsed,
    NotFound,
    OverBudget,
    RateLimited,
    StoreError,
    VivariumError,
)
from vivarium_kernel.jobs import Diverged, Job, Link, Ready
from vivarium_kernel.models import ProviderFault, Tool
from vivarium_kernel.prompting import MARKING, assemble
from vivarium_kernel.records import Entitlement, Outcome, Section, Step, Subject
from vivarium_kernel.routing import Route
from vivarium_kernel.settings_record import Models
from vivarium_kernel.settling import Retries, Settlement
from vivarium_kernel.terms import EndingKind


@frozen
class Rules:
    """What the village's settings say about a cycle."""

    auto_approve: float = 0.90
    human_review: bool = False
    default_model: str = "scripted:echo"
    models: Models = field(factory=Models)
    retries: Retries = field(factory=Retries)


class Stopped(Struct, frozen=True):
    """Preparation ended the attempt: with what ending, and whose check failed if one did."""

    settlement: Settlement
    culprit: str | None = None


async def prepare(
    hooks: Hooks,
    claimed: Claimed,
    sections: Sequence[tuple[str, Section]],
    entitlement: Entitlement,
    recorded: Sequence[Step],
    rules: Rules,
    tools: Sequence[Tool] = (),
) -> Ready | Stopped:
    """Check safety of the task and of what will be done, and assemble the prompt."""
    task, name, attempt = claimed.task, claimed.resident.name, claimed.attempt
    prompt: str | None = None
    ordered: list[Section] = []
    text = f"{task.title}\n{task.prompt}" if task.title else task.prompt
    subjects = [Subject("task", text, task.command, task, name, attempt, task.cwd)]
    if task.command:
        subjects.append(Subject("command", "", task.command, task, name, attempt, task.cwd))
    for subject in subjects:
        safety = await hooks.check_safety(subject)
        if safety.verdict.answer != "allow":
            stopped = _stopped(safety, claimed, hooks, rules)
            if stopped is not None:
                return stopped
    if task.mode != "command":
        ordered, prompt, safety = await _prompted(hooks, claimed, _all(sections, task.prompt, tools), rules)
        if safety.verdict.answer != "allow":
            stopped = _stopped(safety, claimed, hooks, rules)
            if stopped is not None:
                return stopped
    return Ready(claimed, ordered, prompt, entitlement, recorded, tools)


def _all(sections: Sequence[tuple[str, Section]], task: str, tools: Sequence[Tool]) -> list[tuple[str, Section]]:
    """The sections of the plugins, and the kernel's own: the task, and what untrusted text is, if there may be any."""
    found = [*sections, ("kernel", Section("task", task, 100))]
    if tools or any(section.untrusted for _, section in sections):
        found.insert(0, ("kernel", Section("rules", MARKING, 100)))
    return found


async def _prompted(
    hooks: Hooks, claimed: Claimed, found: Sequence[tuple[str, Section]], rules: Rules
) -> tuple[list[Section], str, Safety]:
    """The prompt, its record, and what safety says of it.

    What others say in the prompt is not the task's fault: sections that safety denies are left out, and all of the
    plugins' where only several of them together are denied.
    """
    limit = rules.models.prompt_tokens
    others = frozenset(place for place, (plugin, _) in enumerate(found) if plugin != "kernel")
    ordered, record = assemble(found, limit)
    safety = await _judged(hooks, claimed, ordered)
    if not _is_denied(safety) or not others:
        return ordered, record, safety
    denied = frozenset(
        [place for place in sorted(others) if _is_denied(await _judged(hooks, claimed, [found[place][1]]))]
    )
    for left_out in (denied, others) if denied else (others,):
        ordered, record = assemble(found, limit, left_out)
        safety = await _judged(hooks, claimed, ordered)
        if not _is_denied(safety):
            break
    return ordered, record, safety


def _is_denied(safety: Safety) -> bool:
    """Whether a verdict, not a fault of a check, denies it."""
    return safety.verdict.answer == "deny" and safety.culprit is None


async def _judged(hooks: Hooks, claimed: Claimed, sections: Sequence[Section]) -> Safety:
    return await hooks.check_safety(_subject(claimed, "\n\n".join([section.text for section in sections])))


def _subject(claimed: Claimed, text: str) -> Subject:
    return Subject("prompt", text, (), claimed.task, claimed.resident.name, claimed.attempt)


def _stopped(safety: Safety, claimed: Claimed, hooks: Hooks, rules: Rules) -> Stopped | None:
    """The ending that a verdict leads to before anything is done; None if a human approved the task before."""
    reason = str(safety.verdict)
    if safety.culprit is not None:
        return Stopped(_ending(claimed, hooks, rules, "released", reason), safety.culprit)
    if safety.verdict.answer == "ask":
        if claimed.task.approved is not None:
            return None
        return Stopped(_ending(claimed, hooks, rules, "parked", reason, parked_for="approval", hold=True))
    return Stopped(_ending(claimed, hooks, rules, "blocked", reason))


def _ending(claimed: Claimed, hooks: Hooks, rules: Rules, kind: EndingKind, reason: str, **more: Any) -> Settlement:
    return Settlement(
        claimed.attempt,
        claimed.holder,
        kind,
        reason,
        end_attempt=hooks.end_attempt,
        retries=rules.retries,
        task=claimed.task,
        **more,
    )


async def execute(
    hooks: Hooks, ready: Ready, link: Link, rules: Rules, now: Callable[[], float], chosen: Route | None = None
) -> tuple[Job, Outcome]:
    """Run the job; what fails becomes an outcome that says whose fault it was. Raises LeaseLapsed.

    Cancelling it is a halt, quarantine or stop: what the job runs is ended, its open step stays unknown.
    ``chosen`` is the route where somebody else has chosen it: the village, for a worker elsewhere.
    """
    claimed = ready.claimed
    job = Job(ready, link, lambda: chosen or route(claimed, ready.entitlement, rules), rules.models, now=now)
    began = now()
    try:
        async with hooks.around_execution(job):
            found = await hooks.execute_task(job)
    except LeaseLapsed:
        raise
    except (ProviderFault, VivariumError) as error:
        outcome = _failed(error)
    else:
        outcome = (
            Outcome(fault="invalid", reason=f"no enabled plugin executes tasks of mode {job.task.mode!r}")
            if found is None
            else found[1]
        )
    if outcome.seconds == 0.0:
        outcome = evolve(outcome, seconds=now() - began)
    return job, outcome


def route(claimed: Claimed, entitlement: Entitlement, rules: Rules) -> Route:
    """The model that a task is done with. Raises what refuses the one that was asked for."""
    asked = claimed.task.model or claimed.resident.model or rules.default_model
    return routing.choose(asked, claimed.task, entitlement, rules.models)


def _failed(error: Exception) -> Outcome:  # noqa: PLR0911 - one return a rule
    """Whose fault a failure is (docs/rules.md, "Board")."""
    if isinstance(error, HookFailed):
        cause = error.call.error
        if isinstance(cause, LeaseLapsed):
            raise cause
        if isinstance(cause, ProviderFault | VivariumError) and not isinstance(cause, HookFailed):
            return _failed(cause)
        return Outcome(fault="provider", reason=str(error))
    if isinstance(error, Diverged):
        return Outcome(reason=str(error), to_people=True)
    if isinstance(error, ProviderFault) and error.kind == "unauthorized":
        return Outcome(fault="provider", reason=error.reason, waits_for="key")
    if isinstance(error, ProviderFault) and error.retry_seconds is not None:
        return Outcome(
            fault="provider",
            reason=str(error),
            retry_seconds=max(0.0, min(error.retry_seconds, 86_400.0)),
        )
    if isinstance(error, ProviderFault | StoreError | RateLimited | Distrusted):
        return Outcome(fault="provider", reason=str(error))
    if isinstance(error, OverBudget | Invalid | Forbidden | NotFound):
        return Outcome(fault="invalid", reason=str(error))
    return Outcome(fault="task", reason=str(error))


async def judge(hooks: Hooks, claimed: Claimed, outcome: Outcome, rules: Rules) -> Settlement:  # noqa: PLR0911
    """Safety of the outcome, then its review, then the ending that follows."""
    task = claimed.task
    if outcome.to_people:
        return _ending(claimed, hooks, rules, "accepted", outcome.reason, outcome=outcome, to_review=True)
    if outcome.waits_for is not None:
        return _ending(
            claimed, hooks, rules, "parked", outcome.reason, outcome=outcome, parked_for=outcome.waits_for, hold=True
        )  # fmt: skip
    if outcome.fault is not None:
        kind: EndingKind = "released" if outcome.fault == "provider" else "failed"
        return _ending(claimed, hooks, rules, kind, outcome.reason, outcome=outcome)
    text = outcome.answer or outcome.stdout
    safety = await hooks.check_safety(Subject("outcome", text, (), task, claimed.resident.name, claimed.attempt))
    if safety.verdict.answer != "allow" or safety.culprit is not None:
        reason = str(safety.verdict)
        if safety.verdict.answer == "deny" and safety.culprit is None:
            return _ending(claimed, hooks, rules, "rejected", reason, outcome=outcome)
        return _ending(claimed, hooks, rules, "accepted", reason, outcome=outcome, to_review=True)
    review = await hooks.review_outcome(task, outcome)
    found: dict[str, Any] = {"outcome": outcome, "review": review}
    if review.decision in ("reject", "send_back"):
        return _ending(claimed, hooks, rules, "rejected", review.reason, **found)
    if review.decision == "accept":
        # What is sure enough is accepted, unless the task or the village wants a person to look.
        if review.confidence >= rules.auto_approve and not task.human and not rules.human_review:
            return _ending(claimed, hooks, rules, "accepted", review.reason, **found)
        reason = review.reason or "a person is to look at the outcome"
        return _ending(claimed, hooks, rules, "accepted", reason, **found, to_review=True)
    return _ending(claimed, hooks, rules, "accepted", review.reason, **found, to_review=True)
