"""The room of the cycle: claim → prepare → act → settle, for one claimed task.

The claim itself is made by a round (``runtime``); here is what follows it. A :class:`Link` is how the act phase
reaches the village: directly for residents of this process, over HTTP for those of another machine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from attrs import evolve, frozen

from vivarium_kernel import stepping
from vivarium_kernel.calls import HookFailed, Hooks
from vivarium_kernel.claiming import Claimed
from vivarium_kernel.errors import Invalid, LeaseLapsed, OverBudget, StoreFull, VivariumError
from vivarium_kernel.models import Provider, ProviderFault, count_tokens
from vivarium_kernel.records import (
    Effect,
    Entitlement,
    Outcome,
    Resident,
    Review,
    Section,
    Step,
    Subject,
    Task,
    Verdict,
)
from vivarium_kernel.settling import Retries, Settled, Settlement

SLOTS = ("rules", "identity", "tools", "overlay", "memory", "situation", "task")
PROMPT_TOKENS = 6000


class Link(Protocol):
    """How an act reaches the board: each function answers after the commit, or raises LeaseLapsed."""

    def intend(self, intent: stepping.Intent) -> Awaitable[None]: ...

    def record(self, result: stepping.Result) -> Awaitable[None]: ...

    def settle(self, settlement: Settlement) -> Awaitable[Settled]: ...

    def provider(self, name: str) -> Provider: ...

    def distrust(self, provider: str, reason: str) -> None: ...


@frozen
class Ready:
    """A claimed task that passed safety, with its prompt: what the act phase needs."""

    claimed: Claimed
    sections: Sequence[Section]
    prompt: str | None
    entitlement: Entitlement
    recorded: Sequence[Step] = ()


class Job:
    """What ``execute_task`` gets: the task, the prompt, and steps that are written before and after they are done."""

    def __init__(self, ready: Ready, link: Link, model: str) -> None:
        self.task: Task = ready.claimed.task
        self.resident: Resident = ready.claimed.resident
        self.attempt = ready.claimed.attempt
        self.cycle = ready.claimed.cycle
        self.sections = ready.sections
        self.entitlement = ready.entitlement
        self.model = model
        self._holder = ready.claimed.holder
        self._prompt = ready.prompt
        self._link = link
        self._recorded = {step.number: step for step in ready.recorded if step.state == "done"}
        self._number = 0
        self._open: stepping.Intent | None = None
        self._writing: list[asyncio.Future[None]] = []

    def provider(self, name: str) -> Provider:
        """A model provider by its name; raises NotFound naming those that there are."""
        return self._link.provider(name)

    def distrust(self, provider: str, reason: str) -> None:
        """Refuse a provider until an operator has looked."""
        self._link.distrust(provider, reason)

    async def begin(
        self,
        kind: str,
        name: str,
        effect: Effect,
        arguments: Mapping[str, Any],
        *,
        worst_micros: int = 0,
        aid_micros: int = 0,
        private: bool = False,
    ) -> Any | None:
        """Begin a step. Returns the result that an earlier attempt recorded for it, else None: do it, then ``end``.

        What may cost or change something is written down before it is done; a ``pure`` step is written afterwards.
        Raises LeaseLapsed, or OverBudget when the worst case doesn't fit.
        """
        self._number += 1
        intent = stepping.Intent(
            self.attempt, self._number, self._holder, kind, name, effect, _json(arguments), self.resident.name,
            self.task.id, worst_micros, aid_micros, self.model if kind == "model" else None, self._prompt, private,
        )  # fmt: skip
        before = self._recorded.get(self._number)
        if before is not None and (before.kind, before.name) == (kind, name):
            self._replay(intent, before)
            return before.result
        self._open = intent
        if effect != "pure":
            self._prompt = None
            await self._written()
            await self._link.intend(intent)
        return None

    def end(
        self,
        state: str,
        result: Any,
        *,
        spent_micros: int = 0,
        aid_micros: int = 0,
        tokens_in: int = 0,
        tokens_out: int = 0,
    ) -> None:
        """End the step that was begun. Its record is on the way; it is waited for before anything follows from it."""
        intent = self._open
        if intent is None:
            raise Invalid("step.end", "No step was begun.", "Call begin() first.")
        self._open = None
        self._write(
            stepping.Result(
                self.attempt,
                intent.number,
                self._holder,
                self.resident.name,
                self.task.id,
                state,
                _json(result),
                spent_micros,
                aid_micros,
                intent.name.partition(":")[0],
                tokens_in,
                tokens_out,
                intent.model,
                intent if intent.effect == "pure" else None,
            )  # fmt: skip
        )

    @property
    def is_unknown(self) -> bool:
        """Whether a step was begun whose result nobody knows."""
        return self._open is not None and self._open.effect != "pure"

    def _replay(self, intent: stepping.Intent, before: Step) -> None:
        # The result is copied into this attempt, so that the next one can continue from here too; it cost nothing now.
        pure = evolve(intent, effect="pure", worst_micros=0, aid_micros=0)
        self._write(
            stepping.Result(
                self.attempt,
                intent.number,
                self._holder,
                self.resident.name,
                self.task.id,
                "done",
                _json(before.result),
                0,
                0,
                "",
                0,
                0,
                intent.model,
                pure,
            )  # fmt: skip
        )

    def _write(self, result: stepping.Result) -> None:
        self._writing.append(asyncio.ensure_future(self._link.record(result)))

    async def _written(self) -> None:
        writing, self._writing = self._writing, []
        for future in writing:
            await future

    async def finish(self, settlement: Settlement) -> Settled:
        """Settle once all records are on their way: both often share one commit."""
        writing, self._writing = self._writing, []
        settled = await self._link.settle(settlement)
        for future in writing:
            await future
        return settled


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise Invalid("step.json", f"A step's arguments and result are JSON: {error}.") from error


def assemble(found: Sequence[tuple[str, Section]], limit: int = PROMPT_TOKENS) -> tuple[list[Section], str]:
    """Order sections by slot, stable parts first, and drop the least important until they fit ``limit`` tokens.

    Returns the sections and the record of them: who wrote what, and what was dropped. Private texts are left out.
    """
    placed = sorted(enumerate(found), key=lambda item: (SLOTS.index(item[1][1].slot), item[0]))
    sizes = {place: count_tokens(section.text) for place, (_, section) in placed}
    total = sum(sizes.values())
    dropped: set[int] = set()
    for place, (_, _section) in sorted(placed, key=lambda item: (item[1][1].priority, -item[0])):
        if total <= limit:
            break
        if found[place][1].slot == "task":
            continue
        dropped.add(place)
        total -= sizes[place]
    record = [
        {"plugin": plugin, "slot": section.slot, "tokens": sizes[place]}
        | ({"private": True} if section.private else {"text": section.text})
        | ({"dropped": True} if place in dropped else {})
        for place, (plugin, section) in placed
    ]
    return [section for place, (_, section) in placed if place not in dropped], _json(record)


@frozen
class Rules:
    """What the village's settings say about a cycle."""

    auto_approve: float = 0.90
    human_review: bool = False
    default_model: str = "scripted:echo"
    retries: Retries = Retries()


@frozen
class Stopped:
    """Preparation ended the attempt: with what ending, and whose check failed if one did."""

    settlement: Settlement
    culprit: str | None = None


async def prepare(
    hooks: Hooks, claimed: Claimed, sections: Sequence[tuple[str, Section]], entitlement: Entitlement,
    recorded: Sequence[Step], rules: Rules,
) -> Ready | Stopped:  # fmt: skip
    """Check safety of the task and of what will be done, and assemble the prompt."""
    task = claimed.task
    prompt = None
    ordered: list[Section] = []
    subjects = [Subject("task", f"{task.title}\n{task.prompt}", task.command, task, claimed.resident.name,
                        claimed.attempt, task.cwd)]  # fmt: skip
    if task.command:
        subjects.append(Subject("command", "", task.command, task, claimed.resident.name, claimed.attempt, task.cwd))
    if task.mode != "command":
        ordered, prompt = assemble([*sections, ("kernel", Section("task", task.prompt, 100))])
        text = "\n\n".join(section.text for section in ordered)
        subjects.append(Subject("prompt", text, (), task, claimed.resident.name, claimed.attempt))
    for subject in subjects:
        safety = await hooks.check_safety(subject)
        if safety.verdict.answer != "allow":
            stopped = _judged(safety.verdict, safety.culprit, claimed, hooks, rules)
            if stopped is not None:
                return stopped
    return Ready(claimed, ordered, prompt, entitlement, recorded)


def _judged(verdict: Verdict, culprit: str | None, claimed: Claimed, hooks: Hooks, rules: Rules) -> Stopped | None:
    reason = f"{verdict.rule}: {verdict.reason}"
    if culprit is not None:
        return Stopped(_ending(claimed, hooks, rules, "released", reason), culprit)
    if verdict.answer == "ask":
        if claimed.task.approved is not None:
            return None
        return Stopped(evolve(_ending(claimed, hooks, rules, "parked", reason), parked_for="approval", hold=True))
    return Stopped(_ending(claimed, hooks, rules, "blocked", reason))


def _ending(claimed: Claimed, hooks: Hooks, rules: Rules, kind: Any, reason: str) -> Settlement:
    return Settlement(
        claimed.attempt, claimed.holder, kind, reason, end_attempt=hooks.end_attempt, retries=rules.retries
    )


async def act(hooks: Hooks, ready: Ready, link: Link, rules: Rules, now: Any) -> Settled:
    """Run the job, judge what came of it, and settle. Raises LeaseLapsed when the attempt is no longer ours.

    Cancelling it is a halt, quarantine or stop: what the job runs is ended, its open step stays unknown.
    """
    claimed = ready.claimed
    task = claimed.task
    model = task.model or claimed.resident.model or rules.default_model
    job = Job(ready, link, model)
    began = now()
    try:
        outcome = await _execute(hooks, job)
    except asyncio.CancelledError:
        raise
    except LeaseLapsed:
        raise
    except (OverBudget, ProviderFault, HookFailed, VivariumError) as error:
        outcome = _failed(error, job)
    if outcome.seconds == 0.0:
        outcome = evolve(outcome, seconds=now() - began)
    return await job.finish(await _judge(hooks, claimed, outcome, rules))


async def _execute(hooks: Hooks, job: Job) -> Outcome:
    if hooks.has("around_execution"):
        async with hooks.around_execution(job):
            found = await hooks.execute_task(job)
    else:
        found = await hooks.execute_task(job)
    if found is None:
        return Outcome(fault="invalid", reason=f"no enabled plugin executes tasks of mode {job.task.mode!r}")
    return found[1]


def _failed(error: Exception, job: Job) -> Outcome:
    """Whose fault a failure is (RULES, Board)."""
    if isinstance(error, HookFailed):
        cause = error.call.error
        if isinstance(cause, LeaseLapsed):
            raise cause
        if isinstance(cause, Exception) and not isinstance(cause, HookFailed):
            if isinstance(cause, ProviderFault | VivariumError):
                return _failed(cause, job)
        return Outcome(fault="provider", reason=str(error), unknown_effect=job.is_unknown)
    if isinstance(error, ProviderFault | StoreFull):
        return Outcome(fault="provider", reason=str(error), unknown_effect=job.is_unknown)
    if isinstance(error, OverBudget | Invalid):
        return Outcome(fault="invalid", reason=str(error), unknown_effect=job.is_unknown)
    return Outcome(fault="task", reason=str(error), unknown_effect=job.is_unknown)


async def _judge(hooks: Hooks, claimed: Claimed, outcome: Outcome, rules: Rules) -> Settlement:
    """Safety of the outcome, then its review, then the ending that follows."""
    ending = evolve(_ending(claimed, hooks, rules, "accepted", ""), outcome=outcome)
    if outcome.fault is not None:
        kind = "released" if outcome.fault == "provider" else "failed"
        return evolve(ending, kind=kind, reason=outcome.reason)
    text = outcome.answer or outcome.stdout
    safety = await hooks.check_safety(
        Subject("outcome", text, (), claimed.task, claimed.resident.name, claimed.attempt)
    )
    if safety.culprit is not None or safety.verdict.answer == "ask":
        return evolve(ending, to_review=True, reason=f"{safety.verdict.rule}: {safety.verdict.reason}")
    if safety.verdict.answer == "deny":
        return evolve(ending, kind="rejected", reason=f"{safety.verdict.rule}: {safety.verdict.reason}")
    review = await hooks.review_outcome(claimed.task, outcome)
    return _reviewed(ending, claimed.task, review, rules)


def _reviewed(ending: Settlement, task: Task, review: Review, rules: Rules) -> Settlement:
    """The ending that a review leads to: what is sure enough is accepted, what is not goes to people."""
    ending = evolve(ending, review=review, reason=review.reason)
    if review.decision == "accept":
        sure = review.confidence >= rules.auto_approve
        if sure and not task.human and not rules.human_review:
            return ending
        return evolve(ending, to_review=True, reason=review.reason or "a person is to look at the outcome")
    if review.decision in ("reject", "send_back"):
        return evolve(ending, kind="rejected")
    return evolve(ending, to_review=True)
