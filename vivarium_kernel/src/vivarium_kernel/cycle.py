"""The room of the cycle: claim → prepare → act → settle, for one claimed task.

The claim itself is made by a round (``runtime``); here is what follows it. A :class:`Link` is how the act phase
reaches the village: directly for residents of this process, over HTTP for those of another machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from attrs import evolve, field, frozen
from msgspec import Struct
from msgspec.structs import replace

from vivarium_kernel import stepping
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
from vivarium_kernel.meters import Meter
from vivarium_kernel.models import Provider, ProviderFault, count_tokens
from vivarium_kernel.records import (
    Effect,
    EndingKind,
    Entitlement,
    Outcome,
    Resident,
    Section,
    Step,
    Subject,
    Task,
)
from vivarium_kernel.settling import Retries, Settled, Settlement

_encode = msgspec.json.Encoder().encode
SLOTS = ("rules", "identity", "tools", "overlay", "memory", "situation", "task")
PROMPT_TOKENS = 6000


class Link(Protocol):
    """How an act reaches the board: each function answers after the commit, or raises LeaseLapsed."""

    def intend(self, intent: stepping.Intent) -> Awaitable[None]: ...

    def record(self, result: stepping.Result) -> Awaitable[None]: ...

    def settle(self, settlement: Settlement) -> Awaitable[Settled]: ...

    def provider(self, name: str) -> Provider: ...

    def entitled(self, resident: Resident) -> Entitlement | None: ...

    def distrust(self, provider: str, reason: str) -> None: ...

    async def act(self, job: Job, action: str, asked: Mapping[str, Any]) -> Any: ...


class Ready(Struct, frozen=True):
    """A claimed task that passed safety, with its prompt: what the act phase needs."""

    claimed: Claimed
    sections: Sequence[Section]
    prompt: str | None
    entitlement: Entitlement
    recorded: Sequence[Step] = ()


class Job:
    """What ``execute_task`` gets: the task, the prompt, and steps that are written before and after they are done."""

    def __init__(self, ready: Ready, link: Link, model: str, *, after: int = 0) -> None:
        """``after`` is the number of the last step that somebody else took for this job: a worker elsewhere."""
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
        self._number = after
        self._open: stepping.Intent | None = None
        self._writing: list[asyncio.Future[None]] = []

    def provider(self, name: str) -> Provider:
        """A model provider by its name; raises NotFound naming those that there are."""
        return self._link.provider(name)

    def entitled(self) -> Entitlement:
        """What the resident may use now, asked anew: a tier may have changed since the claim."""
        found = self._link.entitled(self.resident)
        if found is not None:
            self.entitlement = found
        return self.entitlement

    def distrust(self, provider: str, reason: str) -> None:
        """Refuse a provider until an operator has looked."""
        self._link.distrust(provider, reason)

    async def act(self, action: str, asked: Mapping[str, Any]) -> Any:
        """Do an action as the resident, as a step of this attempt, on the path of every tool; returns its reply.

        Raises what is wrong with it, having changed nothing.
        """
        return await self._link.act(self, action, asked)

    def took(self, number: int) -> None:
        """Step ``number`` was taken elsewhere on this job's behalf."""
        self._number = number

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
        meter: Meter | None = None,
    ) -> Any | None:
        """Begin a step. Returns the result that an earlier attempt recorded for it, else None: do it, then ``end``.

        What may cost or change something is written down before it is done; a ``pure`` step is written afterwards.
        Raises LeaseLapsed, or OverBudget when the worst case doesn't fit.
        """
        self._number += 1
        intent = stepping.Intent(
            self.attempt, self._number, self._holder, kind, name, effect, _json(arguments), self.resident.name,
            self.task.id, worst_micros, aid_micros, self.model if kind == "model" else None, self._prompt, private,
            meter,
        )  # fmt: skip
        before = self._recorded.get(self._number)
        if before is not None and (before.kind, before.name) == (kind, name):
            self._replay(intent, before)
            return before.result
        self._open = intent
        self._prompt = None  # it is recorded once, with the first step
        if effect != "pure":
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
            )
        )

    @property
    def number(self) -> int:
        """The number of the last step that was begun."""
        return self._number

    def hand_over(self, effect: Effect) -> stepping.Intent:
        """The ``pure`` step that was begun, for a transaction that does it and writes its record at once."""
        intent, self._open = self._open, None
        if intent is None or intent.effect != "pure":
            raise Invalid("step.hand_over", "No pure step was begun.", "Call begin() first.")
        return replace(intent, effect=effect)

    async def recorded(self) -> None:
        """Wait until every record that is on its way has been written; raises what refused one."""
        await self._written()

    @property
    def is_unknown(self) -> bool:
        """Whether a step was begun whose result nobody knows."""
        return self._open is not None and self._open.effect != "pure"

    def _replay(self, intent: stepping.Intent, before: Step) -> None:
        # The result is copied into this attempt, so that the next one can continue from here too; it cost nothing now.
        copied = replace(intent, effect=before.effect, worst_micros=0, aid_micros=0)
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
                copied,
            )
        )

    def _write(self, result: stepping.Result) -> None:
        self._writing.append(asyncio.ensure_future(self._link.record(result)))

    async def _written(self) -> None:
        writing, self._writing = self._writing, []
        for said in await asyncio.gather(*writing, return_exceptions=True):
            if isinstance(said, BaseException):
                raise said

    async def finish(self, settlement: Settlement) -> Settled:
        """Settle once all records are on their way: both often share one commit."""
        writing, self._writing = self._writing, []
        try:
            settled = await self._link.settle(settlement)
        except BaseException:
            await asyncio.gather(*writing, return_exceptions=True)  # the settlement's own fault tells more
            raise
        for future in writing:
            await future
        return settled


def _json(value: Any) -> str:
    try:
        return _encode(value).decode()
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid("step.json", f"A step's arguments and result are JSON: {error}.") from error


def assemble(
    found: Sequence[tuple[str, Section]], limit: int = PROMPT_TOKENS, denied: frozenset[int] = frozenset()
) -> tuple[list[Section], str]:
    """Order sections by slot, stable parts first, and drop the least important until they fit ``limit`` tokens.

    Those whose places are ``denied`` by safety are left out. Returns the sections and the record of them: who wrote
    what, what was dropped and what was denied. Private texts are left out.
    """
    order = sorted(range(len(found)), key=lambda place: SLOTS.index(found[place][1].slot))
    sizes = [0 if place in denied else count_tokens(section.text) for place, (_, section) in enumerate(found)]
    dropped = (_dropped(found, sizes, limit) if sum(sizes) > limit else set()) | denied
    record = []
    for place in order:
        plugin, section = found[place]
        entry = {"plugin": plugin, "slot": section.slot, "tokens": sizes[place]}
        if place in denied:
            entry["denied"] = True
        elif section.private:
            entry["private"] = True
        else:
            entry["text"] = section.text
        if place in dropped:
            entry["dropped"] = True
        record.append(entry)
    return [found[place][1] for place in order if place not in dropped], _json(record)


def _dropped(found: Sequence[tuple[str, Section]], sizes: Sequence[int], limit: int) -> set[int]:
    """Which sections go: the lowest priority first, of equals the last; the task itself stays."""
    total, dropped = sum(sizes), set()
    for place in sorted(range(len(found)), key=lambda place: (found[place][1].priority, -place)):
        if total <= limit:
            break
        if found[place][1].slot != "task":
            dropped.add(place)
            total -= sizes[place]
    return dropped


@frozen
class Rules:
    """What the village's settings say about a cycle."""

    auto_approve: float = 0.90
    human_review: bool = False
    default_model: str = "scripted:echo"
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
        found = [*sections, ("kernel", Section("task", task.prompt, 100))]
        ordered, prompt, safety = await _prompted(hooks, claimed, found, frozenset())
        if safety.verdict.answer == "deny" and safety.culprit is None and sections:
            # What others say in the prompt is not the task's fault: what is denied of it is left out.
            denied = await _denied(hooks, claimed, sections)
            ordered, prompt, safety = await _prompted(hooks, claimed, found, denied)
        if safety.verdict.answer != "allow":
            stopped = _stopped(safety, claimed, hooks, rules)
            if stopped is not None:
                return stopped
    return Ready(claimed, ordered, prompt, entitlement, recorded)


async def _prompted(
    hooks: Hooks, claimed: Claimed, found: Sequence[tuple[str, Section]], denied: frozenset[int]
) -> tuple[list[Section], str, Safety]:
    """The prompt without the sections that are ``denied``, its record, and what safety says of it."""
    ordered, record = assemble(found, denied=denied)
    return ordered, record, await hooks.check_safety(_subject(claimed, "\n\n".join([s.text for s in ordered])))


async def _denied(hooks: Hooks, claimed: Claimed, sections: Sequence[tuple[str, Section]]) -> frozenset[int]:
    """The places of the sections that safety denies by themselves."""
    verdicts = [await hooks.check_safety(_subject(claimed, section.text)) for _, section in sections]
    return frozenset(place for place, safety in enumerate(verdicts) if safety.verdict.answer == "deny")


def _subject(claimed: Claimed, text: str) -> Subject:
    return Subject("prompt", text, (), claimed.task, claimed.resident.name, claimed.attempt)


def _stopped(safety: Safety, claimed: Claimed, hooks: Hooks, rules: Rules) -> Stopped | None:
    """The ending that a verdict leads to before anything is done; None if a human approved the task before."""
    reason = f"{safety.verdict.rule}: {safety.verdict.reason}"
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


async def act(hooks: Hooks, ready: Ready, link: Link, rules: Rules, now: Callable[[], float]) -> Settled:
    """Run the job, judge what came of it, and settle. Raises LeaseLapsed when the attempt is no longer ours.

    Cancelling it is a halt, quarantine or stop: what the job runs is ended, its open step stays unknown.
    """
    job, outcome = await execute(hooks, ready, link, rules, now)
    return await job.finish(await judge(hooks, ready.claimed, outcome, rules))


async def execute(
    hooks: Hooks, ready: Ready, link: Link, rules: Rules, now: Callable[[], float]
) -> tuple[Job, Outcome]:
    """Run the job; what fails becomes an outcome that says whose fault it was. Raises LeaseLapsed."""
    claimed = ready.claimed
    job = Job(ready, link, claimed.task.model or claimed.resident.model or rules.default_model)
    began = now()
    try:
        async with hooks.around_execution(job):
            found = await hooks.execute_task(job)
    except LeaseLapsed:
        raise
    except (ProviderFault, VivariumError) as error:
        outcome = _failed(error, job)
    else:
        outcome = (
            Outcome(fault="invalid", reason=f"no enabled plugin executes tasks of mode {job.task.mode!r}")
            if found is None
            else found[1]
        )
    if outcome.seconds == 0.0:
        outcome = evolve(outcome, seconds=now() - began)
    return job, outcome


def _failed(error: Exception, job: Job) -> Outcome:
    """Whose fault a failure is (docs/rules.md, "Board")."""
    if isinstance(error, HookFailed):
        cause = error.call.error
        if isinstance(cause, LeaseLapsed):
            raise cause
        if isinstance(cause, ProviderFault | VivariumError) and not isinstance(cause, HookFailed):
            return _failed(cause, job)
        return Outcome(fault="provider", reason=str(error), unknown_effect=job.is_unknown)
    if isinstance(error, ProviderFault | StoreError | RateLimited | Distrusted):
        return Outcome(fault="provider", reason=str(error), unknown_effect=job.is_unknown)
    if isinstance(error, OverBudget | Invalid | Forbidden | NotFound):
        return Outcome(fault="invalid", reason=str(error), unknown_effect=job.is_unknown)
    return Outcome(fault="task", reason=str(error), unknown_effect=job.is_unknown)


async def judge(hooks: Hooks, claimed: Claimed, outcome: Outcome, rules: Rules) -> Settlement:  # noqa: PLR0911
    """Safety of the outcome, then its review, then the ending that follows."""
    task = claimed.task
    if outcome.fault is not None:
        kind: EndingKind = "released" if outcome.fault == "provider" else "failed"
        return _ending(claimed, hooks, rules, kind, outcome.reason, outcome=outcome)
    text = outcome.answer or outcome.stdout
    safety = await hooks.check_safety(Subject("outcome", text, (), task, claimed.resident.name, claimed.attempt))
    if safety.verdict.answer != "allow" or safety.culprit is not None:
        reason = f"{safety.verdict.rule}: {safety.verdict.reason}"
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
