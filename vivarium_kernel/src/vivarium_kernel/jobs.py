"""The room of the job: a claimed task with its prompt, and the steps that are written before and after they are done.

A :class:`Link` is how the act phase reaches the village: directly for residents of this process, over HTTP for those
of another machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from vivarium_kernel import stepping
from vivarium_kernel.circuit import Circuit
from vivarium_kernel.claiming import Claimed
from vivarium_kernel.errors import Conflict, Invalid, LeaseLapsed, RateLimited, StoreError, VivariumError
from vivarium_kernel.meters import Meter
from vivarium_kernel.models import Provider, Tool
from vivarium_kernel.records import Entitlement, Resident, Section, Step, Task
from vivarium_kernel.routing import Route
from vivarium_kernel.settings_record import Models
from vivarium_kernel.settling import Settled, Settlement
from vivarium_kernel.terms import Effect

_encode = msgspec.json.Encoder().encode
UNKEPT = "private"  # in place of the reply of an action that is done anew for it
REFUSED = "refused"  # the key of a recorded refusal


class Link(Protocol):
    """How an act reaches the board: each function answers after the commit, or raises LeaseLapsed."""

    def intend(self, intent: stepping.Intent) -> Awaitable[None]: ...

    def record(self, result: stepping.Result) -> Awaitable[None]: ...

    def settle(self, settlement: Settlement) -> Awaitable[Settled]: ...

    def provider(self, name: str) -> Provider: ...

    def entitled(self, resident: Resident) -> Entitlement | None: ...

    def distrust(self, provider: str, reason: str) -> None: ...

    def circuit(self, model: str) -> Circuit: ...

    def note_circuit(self, model: str, reason: str) -> None: ...

    @property
    def is_heard(self) -> bool: ...

    def say(self, job: Job, text: str) -> None: ...

    async def act(self, job: Job, action: str, asked: Mapping[str, Any]) -> Acted: ...


class Diverged(VivariumError):
    """A continued attempt went another way than its record, behind which lie steps that must not be done twice."""


class Acted(Struct, frozen=True):
    """What came of an action: its reply, and whether it ended the attempt that did it (it was parked, or given up)."""

    reply: Any
    ended: bool = False


class Ready(Struct, frozen=True):
    """A claimed task that passed safety, with its prompt: what the act phase needs."""

    claimed: Claimed
    sections: Sequence[Section]
    prompt: str | None
    entitlement: Entitlement
    recorded: Sequence[Step] = ()
    tools: Sequence[Tool] = ()


class Job:
    """What ``execute_task`` gets: the task, the prompt, and steps that are written before and after they are done.

    ``tools`` are those that the resident may use; ``now`` is a clock in seconds.
    """

    def __init__(
        self,
        ready: Ready,
        link: Link,
        route: Callable[[], Route],
        models: Models | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        after: int = 0,
    ) -> None:
        """``route`` chooses the model, once it is asked for: not every job needs one.

        ``after`` is the number of the last step that somebody else took for this job: a worker elsewhere.
        """
        self.task: Task = ready.claimed.task
        self.resident: Resident = ready.claimed.resident
        self.attempt = ready.claimed.attempt
        self.cycle = ready.claimed.cycle
        self.sections = ready.sections
        self.entitlement = ready.entitlement
        self.tools = ready.tools
        self._choose = route
        self._route: Route | None = None
        self.models = models or Models()
        self.now = now
        self._holder = ready.claimed.holder
        self._prompt = ready.prompt
        self._link = link
        self._recorded = {step.number: step for step in ready.recorded if step.state == "done"}
        self._number = after
        self._open: stepping.Intent | None = None
        self._writing: list[asyncio.Future[None]] = []
        self._wrote = after

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

    @property
    def route(self) -> Route:
        """Which model the task is done with, and why if it is not the one that was asked for.

        Raises Forbidden or Invalid, saying what may be used.
        """
        if self._route is None:
            self._route = self._choose()
        return self._route

    @property
    def model(self) -> str:
        """The model that the task is done with, as PROVIDER:NAME. Raises what ``route`` does."""
        return self.route.model

    def circuit(self, model: str) -> Circuit:
        """The breaker of a model."""
        return self._link.circuit(model)

    def note_circuit(self, model: str, reason: str) -> None:
        """Tell that a model's breaker opened, or closed (no reason)."""
        self._link.note_circuit(model, reason)

    @property
    def is_heard(self) -> bool:
        """Whether anybody watches what is being written: only then is it worth streaming."""
        return self._link.is_heard

    def say(self, text: str) -> None:
        """Show a piece of what is being written to whoever watches; it is kept nowhere."""
        self._link.say(self, text)

    async def act(self, action: str, asked: Mapping[str, Any]) -> Any:
        """Do an action as the resident, as a step of this attempt, on the path of every tool; returns its reply.

        Raises what is wrong with it, having changed nothing; that is a step too, and an attempt that continues this
        one is refused likewise. Raises LeaseLapsed when the action ended the attempt.
        """
        number = self._number
        before = self._recorded.get(number + 1)
        if before is not None and before.result != UNKEPT:
            found = await self.begin("tool", action, "pure", asked)
            if found is not None:
                await self._written()
                return accepted(found)
            self._number, self._open = number, None  # it went another way: nothing of what was recorded holds now
        try:
            acted = await self._link.act(self, action, asked)
        except (LeaseLapsed, StoreError, RateLimited, Diverged):
            raise
        except VivariumError as error:
            if self._number > number and self._open is None and self._wrote >= self._number:
                raise  # a slow action has told its fault itself
            self._number, self._open = number, None
            await self.refuse(action, error)
            raise
        if acted.ended:
            raise stepping.lapsed(self.attempt)
        return acted.reply

    def has_recorded(self, action: str) -> bool:
        """Whether the next step is recorded, and is a use of this action that was not refused."""
        before = self._recorded.get(self._number + 1)
        return before is not None and (before.kind, before.name) == ("tool", action) and not _was_refused(before)

    async def refuse(self, tool: str, error: VivariumError) -> None:
        """Write down that a tool was refused, as the step that it was: the next attempt is refused likewise.

        What was asked is in the step of the model that asked it, and may be private: it is not written again.
        """
        if await self.begin("tool", tool, "pure", {}) is None:
            told = {"rule": error.rule, "message": error.message, "next_step": error.next_step}
            self.end("done", {REFUSED: told})
        await self._written()

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
        if before is not None and _is_same(before, intent):
            hidden = before.arguments is None
            copied = replace(
                intent, private=private or hidden, arguments="{}" if _was_refused(before) else intent.arguments
            )
            self._replay(copied, before)
            return before.result
        if before is not None:
            self._diverge(before, intent)
        self._open = intent
        self._prompt = None  # it is recorded once, with the first step
        if effect != "pure":
            try:
                await self._written()
                await self._link.intend(intent)
            except BaseException:
                self._open = None  # it was not begun
                raise
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
        prompt: str = "",
        hidden: Any = None,
    ) -> None:
        """End the step that was begun. Its record is on the way; it is waited for before anything follows from it.

        ``hidden`` is the whole of a result of which ``result`` may be shown: only a continued attempt reads it.
        """
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
                prompt,
                None if hidden is None else _json(hidden),
            )
        )

    def step_key(self, number: int) -> str:
        """A step by a name that it keeps when a continued attempt does it again."""
        return f"{self.task.id}:{self.resident.name}.{self.task.failures}.{number}"

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

    def _diverge(self, before: Step, intent: stepping.Intent) -> None:
        """This attempt goes another way than the one that it continues: nothing recorded from here on is its own.

        Raises Diverged when some of that must not be done twice: that is for a person to judge.
        """
        lost = [step for number, step in self._recorded.items() if number >= intent.number]
        self._recorded = {number: step for number, step in self._recorded.items() if number < intent.number}
        if any(step.effect == "once" and not _was_refused(step) for step in lost):
            raise Diverged(
                "step.diverged",
                f"Step {intent.number} was {before.name} before and would be {intent.name} now; what followed must not "
                "be done twice.",
                "Look at the steps of the attempts, then requeue or cancel the task.",
            )

    def _replay(self, intent: stepping.Intent, before: Step) -> None:
        # The result is copied into this attempt, so that the next one can continue from here too; it cost nothing now.
        copied = replace(intent, effect=before.effect, worst_micros=0, aid_micros=0, replayed=True)
        self._write(
            stepping.Result(
                self.attempt,
                intent.number,
                self._holder,
                self.resident.name,
                self.task.id,
                "done",
                _json({"private": True}) if before.private else _json(before.result),
                intent=copied,
                hidden=_json(before.result) if before.private else None,
            )
        )

    def _write(self, result: stepping.Result) -> None:
        self._wrote = result.number
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


def _is_same(before: Step, intent: stepping.Intent) -> bool:
    """Whether a recorded step is the one that is begun now.

    Of a model's only the place counts: a continued attempt goes on with the replies that there are, whoever gave them
    and whatever the prompt would be by now. A tool's has the same arguments; those of a refused one are not kept.
    """
    if before.kind != intent.kind:
        return False
    if intent.kind == "model":
        return True
    same = sha256(intent.arguments.encode()).hexdigest() == before.digest
    return before.name == intent.name and (same or _was_refused(before))


def _was_refused(step: Step) -> bool:
    return isinstance(step.result, dict) and isinstance(step.result.get(REFUSED), dict) and len(step.result) == 1


def accepted(result: Any) -> Any:
    """A recorded reply; a recorded refusal is raised again."""
    if isinstance(result, dict) and isinstance(result.get(REFUSED), dict) and len(result) == 1:
        told = result[REFUSED]
        raise Conflict(told.get("rule", ""), told.get("message", ""), told.get("next_step", ""))
    return result


def _json(value: Any) -> str:
    try:
        return _encode(value).decode()
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid("step.json", f"A step's arguments and result are JSON: {error}.") from error
