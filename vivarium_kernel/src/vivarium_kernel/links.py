"""The room of the local link: how residents of this process reach their village. Remote ones use ``api.wire``."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from vivarium_kernel import actions, settling, stepping
from vivarium_kernel.audit import emit
from vivarium_kernel.circuit import Circuit
from vivarium_kernel.jobs import Acted
from vivarium_kernel.models import Provider
from vivarium_kernel.records import Entitlement, Resident
from vivarium_kernel.settling import Settled, Settlement
from vivarium_kernel.store import Tx
from vivarium_kernel.terms import Actor
from vivarium_kernel.village import Said, Village

if TYPE_CHECKING:
    from vivarium_kernel.jobs import Job


class LocalLink:
    """The functions of ``jobs.Link`` on a village that is open in this process."""

    def __init__(self, village: Village) -> None:
        self._village = village
        self._write = village.store.write

    def intend(self, intent: stepping.Intent) -> Awaitable[None]:
        return self._write(stepping.intend, intent)

    def record(self, result: stepping.Result) -> Awaitable[None]:
        return self._write(stepping.record, result)

    def settle(self, settlement: Settlement) -> Awaitable[Settled]:
        return self._write(settling.settle, settlement)

    def provider(self, name: str) -> Provider:
        return self._village.provider(name)

    def entitled(self, resident: Resident) -> Entitlement | None:
        """What the resident may use now; None when no plugin says anything of it."""
        if not self._village.hooks.has("entitle"):
            return None
        with self._village.store.view() as view:
            return self._village.hooks.entitle(resident, view)

    def circuit(self, model: str) -> Circuit:
        return self._village.circuit(model)

    def note_circuit(self, model: str, reason: str) -> None:
        self._write(_note_circuit, (model, reason))

    @property
    def is_heard(self) -> bool:
        return bool(self._village.listeners)

    def say(self, job: Job, text: str) -> None:
        self._village.hear(Said(job.attempt, job.task.id, job.resident.name, text))

    async def act(self, job: Job, action: str, asked: Mapping[str, Any]) -> Acted:
        """Do an action as the job's resident, in a step of its own."""
        actor = Actor("resident", job.resident.name, attempt=job.attempt)
        done = await actions.perform(
            self._village, actions.action_of(self._village, action), actor, dict(asked), job=job
        )
        return Acted(msgspec.json.decode(done.reply), done.ended)

    def distrust(self, provider: str, reason: str) -> None:
        self._village.distrust(provider, reason)
        self._write(_note_distrust, (provider, reason))


def _note_distrust(tx: Tx, asked: tuple[str, str]) -> Any:
    emit(tx, "model.distrusted", "system:kernel", provider=asked[0], reason=asked[1])


def _note_circuit(tx: Tx, asked: tuple[str, str]) -> Any:
    model, reason = asked
    emit(tx, "model.left_alone" if reason else "model.tried_again", "system:kernel", model=model, reason=reason)
