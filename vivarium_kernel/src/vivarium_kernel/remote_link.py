"""The room of the remote link: how an act on another machine reaches its village, over the wire."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from vivarium_kernel import stepping
from vivarium_kernel.api import wire_shapes as wire
from vivarium_kernel.api.shapes import Nothing
from vivarium_kernel.circuit import Circuit
from vivarium_kernel.errors import Distrusted, StoreError, Unauthorized
from vivarium_kernel.jobs import Acted
from vivarium_kernel.models import Provider
from vivarium_kernel.records import Entitlement, Outcome, Resident
from vivarium_kernel.remote_http import Server, Unreachable
from vivarium_kernel.replies import TooOften
from vivarium_kernel.settling import Settled, Settlement

if TYPE_CHECKING:
    from vivarium_kernel.jobs import Job

log = logging.getLogger("vivarium.remote")
T = TypeVar("T")
PAUSES_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)  # between tries while the village can't be reached; the last one repeats
_decode = msgspec.json.Decoder().decode


class RemoteLink:
    """The functions of ``jobs.Link`` over HTTP, for one attempt.

    What is said goes out in its order, and again until it is answered or the lease is over: the village does the same
    thing under the same step number once.
    """

    def __init__(
        self,
        server: Server,
        claim: wire.Claim,
        providers: Callable[[str], Provider],
        circuits: dict[str, Circuit],
        distrusted: dict[str, str],
    ) -> None:
        self.attempt = claim.attempt
        self.settling = False
        self._server = server
        self._token = claim.token
        self._lease = claim.lease_seconds
        self._until = time.monotonic() + claim.lease_seconds
        self._providers = providers
        self._circuits = circuits
        self._distrusted = distrusted
        self._last: asyncio.Future[Any] | None = None

    # jobs.Link

    def intend(self, intent: stepping.Intent) -> Awaitable[None]:
        return self._in_order("intent", _intent(intent), Nothing, _nothing)

    def record(self, result: stepping.Result) -> Awaitable[None]:
        body = wire.StepResult(
            result.number,
            result.state,  # type: ignore[arg-type]
            _decode(result.result),
            result.spent_micros,
            result.aid_micros,
            result.tokens_in,
            result.tokens_out,
            None if result.intent is None else _intent(result.intent),
            result.prompt,
            None if result.hidden is None else _decode(result.hidden),
        )
        return self._in_order("result", body, Nothing, _nothing)

    def settle(self, settlement: Settlement) -> Awaitable[Settled]:
        """Hand in the outcome; what the settlement says beside it is not ours to say: the village judges."""
        if settlement.outcome is None:
            return self.fail(settlement.reason)
        self.settling = True
        return self._in_order("settle", wire.Settle(settlement.outcome), wire.Ended, _settled)

    def provider(self, name: str) -> Provider:
        if name in self._distrusted:
            raise Distrusted(
                "model.distrusted", f"{name} is refused: {self._distrusted[name]}.",
                "Look at it; a worker that is begun anew asks it again.",
            )  # fmt: skip
        return self._providers(name)

    def entitled(self, resident: Resident) -> Entitlement | None:
        """None: what was granted with the claim stands, and the village checks each intent anew."""
        return None

    def distrust(self, provider: str, reason: str) -> None:
        if provider not in self._distrusted:
            self._distrusted[provider] = reason
            log.error("%s is asked no more until this worker is begun anew: %s", provider, reason)
            self._in_order("distrust", wire.Distrust(provider, reason[:2000]), Nothing, _nothing)

    def circuit(self, model: str) -> Circuit:
        return self._circuits.setdefault(model, Circuit())

    def note_circuit(self, model: str, reason: str) -> None:
        log.warning("%s %s", model, f"is left alone for a while: {reason}" if reason else "answers again")

    @property
    def is_heard(self) -> bool:
        return False

    def say(self, job: Job, text: str) -> None:
        """Nobody watches here: what is written is seen with the step's result."""

    # What else may be said of an attempt

    async def act(self, job: Job, action: str, asked: Mapping[str, Any]) -> Acted:
        """Let the village do an action as the job's next step."""
        number = job.number + 1
        job.took(number)
        acted: wire.Acted = await self._in_order("act", wire.Act(number, action, asked), wire.Acted, _itself)
        job.took(acted.number)
        return Acted(acted.reply, acted.ended)

    def fail(self, reason: str) -> Awaitable[Settled]:
        """The worker itself failed: the task is tried again after a pause, which is longer each time."""
        self.settling = True
        return self._in_order("settle", wire.Settle(Outcome(fault="provider", reason=reason)), wire.Ended, _settled)

    def release(self, reason: str, *, declined: bool = False) -> Awaitable[Settled]:
        """Give the task back."""
        self.settling = True
        return self._in_order("release", wire.Release(reason, declined), wire.Ended, _settled)

    async def renew(self) -> None:
        """Renew the lease. Raises LeaseLapsed, or Unreachable: the lease may still stand then."""
        began = time.monotonic()
        try:
            renewed = await self._post("renew", {}, wire.Renewed, max(1.0, self._lease / 3))
        except Unauthorized as error:
            raise stepping.lapsed(self.attempt) from error
        self._until = began + renewed.lease_seconds

    @property
    def has_lapsed(self) -> bool:
        """Whether the lease is over as far as this machine's clock tells."""
        return time.monotonic() > self._until

    def _in_order(self, verb: str, body: object, kind: type[T], made: Callable[[T], Any]) -> asyncio.Future[Any]:
        """Say it after everything that was said before, whether or not anybody waits for it."""
        before = self._last
        self._last = asyncio.ensure_future(self._after(before, verb, body, kind, made))
        self._last.add_done_callback(_heard)
        return self._last

    async def _after(
        self, before: asyncio.Future[Any] | None, verb: str, body: object, kind: type[T], made: Callable[[T], Any]
    ) -> Any:
        if before is not None:
            await asyncio.wait({before})
        tries = 0
        while True:
            try:
                return made(await self._post(verb, body, kind, 30.0))
            except Unauthorized as error:
                # The token is dead: the attempt was ended, perhaps by this very request whose answer was lost.
                raise stepping.lapsed(self.attempt) from error
            except (Unreachable, StoreError, TooOften) as error:
                pause = PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)]
                tries += 1
                if time.monotonic() + pause > self._until:
                    raise stepping.lapsed(self.attempt) from error
                await asyncio.sleep(pause)

    async def _post(self, verb: str, body: object, kind: type[T], seconds: float) -> T:
        path = f"/wire/attempts/{self.attempt}/{verb}"
        return await self._server.post(path, body, kind, token=self._token, seconds=seconds)


def _intent(intent: stepping.Intent) -> wire.Intent:
    return wire.Intent(
        intent.number,
        intent.kind,  # type: ignore[arg-type]
        intent.name,
        intent.effect,
        _decode(intent.arguments),
        intent.worst_micros,
        intent.aid_micros,
        0 if intent.meter is None else intent.meter.worst_tokens,
        intent.model,
        intent.private,
    )


def _heard(future: asyncio.Future[Any]) -> None:
    """An act that was ended waits for nothing that it said."""
    if not future.cancelled():
        future.exception()


def _itself(found: Any) -> Any:
    return found


def _nothing(_: Nothing) -> None:
    return None


def _settled(ended: wire.Ended) -> Settled:
    return Settled(ended.attempt, ended.task, ended.ending, ended.task_state, ended.reason)
