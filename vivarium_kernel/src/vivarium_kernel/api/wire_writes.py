"""The room of the wire's transactions: what a worker elsewhere may write, each fenced by its attempt's token.

A worker whose reply was lost asks again: the same intent, result or action under the same step number is done once.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from attrs import frozen
from msgspec.structs import replace

from vivarium_kernel import processes, settling, stepping
from vivarium_kernel.actions import taken
from vivarium_kernel.api import wire_shapes as wire
from vivarium_kernel.audit import emit
from vivarium_kernel.claiming import Claimed
from vivarium_kernel.errors import Conflict, NotFound, VivariumError
from vivarium_kernel.meters import Meter
from vivarium_kernel.processes import REMOTE, Drive, Register, Self
from vivarium_kernel.settling import EndAttempt, Retries, Settled, Settlement
from vivarium_kernel.stepping import Holder
from vivarium_kernel.store import Tx, View
from vivarium_kernel.terms import MICROS, Actor

REFUSED_STEP = "step.refused"  # the kind of event
_encode, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


# Workers: a row of ``processes`` each, with the number of its token as its pid


@frozen
class Joining:
    """A worker joins: for how many residents, with which token."""

    actor: Actor
    residents: int
    lease_seconds: float
    start_micros: int
    before: int | None
    end_attempt: EndAttempt
    retries: Retries


def join(tx: Tx, asked: Joining) -> tuple[int, list[str]]:
    """Write the worker's lease row and give it residents; what it was ``before`` is over, if it was this token's."""
    if asked.before is not None and tx.row(
        "SELECT 1 FROM processes WHERE id = ? AND kind = ? AND pid = ?", (asked.before, REMOTE, asked.actor.token)
    ):
        expel(tx, (asked.before, "its worker joined again", asked.end_attempt, asked.retries))
    me = Self(f"{REMOTE}:{asked.actor.name}", asked.actor.token or 0, "")
    number = processes.register(tx, Register(me, REMOTE, asked.lease_seconds))
    return number, processes.drive(tx, Drive(number, asked.residents, asked.start_micros, asked.actor)) or []


def check_worker(source: Tx | View, number: int, actor: Actor) -> None:
    """Refuse a worker's number that is not this token's, or whose lease has lapsed."""
    row = source.row("SELECT pid, kind, lease_until_at, ended_at FROM processes WHERE id = ?", (number,))
    if row is None or row[1] != REMOTE or row[0] != actor.token:
        raise NotFound("wire.worker", f"There is no worker {number} of yours.", "Join with POST /wire/workers.")
    if row[3] is not None or row[2] < source.now:
        raise Conflict("wire.lapsed", f"The lease of worker {number} has lapsed.", "Join again.", field="worker")


def renew_worker(tx: Tx, asked: tuple[int, Actor, float]) -> None:
    """Renew a worker's lease."""
    number, actor, seconds = asked
    check_worker(tx, number, actor)
    processes.renew(tx, [processes.Renewal(number, seconds)])


def leave(tx: Tx, asked: tuple[int, Actor, EndAttempt, Retries]) -> None:
    """A worker goes: what it still runs is given back, its residents are free for others."""
    number, actor, end_attempt, retries = asked
    check_worker(tx, number, actor)
    expel(tx, (number, "its worker left", end_attempt, retries))


def expel(tx: Tx, asked: tuple[int, str, EndAttempt, Retries]) -> None:
    """End a worker and everything that it runs."""
    number, reason, end_attempt, retries = asked
    if tx.row("SELECT 1 FROM processes WHERE id = ? AND ended_at IS NULL", (number,)) is None:
        return
    for (attempt,) in tx.rows(
        "SELECT a.id FROM attempts a JOIN residents r ON r.name = a.resident WHERE a.state = 'running' "
        "AND a.process IS NULL AND r.process = ?",
        (number,),
    ):
        end(tx, Settlement(attempt, None, "released", reason, actor="system:kernel", end_attempt=end_attempt,
                           retries=retries))  # fmt: skip
    processes.leave(tx, (number, end_attempt))


# Attempts


@frozen
class Said:
    """Something that a worker says of an attempt, with the digest of the attempt's token.

    For an intent to call a model, ``meter`` and ``least_aid_micros`` are what the village itself says of the call.
    """

    attempt: int
    digest: bytes
    body: object
    meter: Meter | None = None
    least_aid_micros: int = 0

    @property
    def holder(self) -> Holder:
        return Holder(None, self.digest)


def _fence(tx: Tx, said: Said) -> tuple[str, str]:
    """The resident and task of an attempt that is still the worker's; raises LeaseLapsed."""
    if not stepping.running(tx, [(said.attempt, said.holder)]):
        raise stepping.lapsed(said.attempt)
    row = tx.row("SELECT resident, task FROM attempts WHERE id = ?", (said.attempt,))
    if row is None:
        raise stepping.lapsed(said.attempt)
    return row[0], row[1]


def renew(tx: Tx, asked: tuple[Said, float]) -> None:
    """Renew an attempt's lease."""
    said, seconds = asked
    _fence(tx, said)
    tx.run("UPDATE attempts SET lease_until_at = ? WHERE id = ?", (tx.now + int(seconds * MICROS), said.attempt))


def _intent_of(said: Said, body: wire.Intent, resident: str, task: str) -> stepping.Intent:
    return stepping.Intent(
        said.attempt,
        body.number,
        said.holder,
        body.kind,
        body.name,
        body.effect,
        _encode(body.arguments).decode(),
        resident,
        task,
        body.worst_micros,
        max(body.aid_micros, said.least_aid_micros),
        body.model,
        None,
        body.private,
        said.meter,
    )


def written(tx: Tx | View, said: Said, number: int) -> tuple[str, str, str | None, str] | None:
    """(name, state, result, kind) of a step that is there already."""
    row = tx.row("SELECT name, state, result, kind FROM steps WHERE attempt = ? AND number = ?", (said.attempt, number))
    return None if row is None else (row[0], row[1], row[2], row[3])


def intend(tx: Tx, said: Said) -> None:
    """Write an intent: go. Raises LeaseLapsed, or OverBudget when its worst case does not fit."""
    body = said.body
    if not isinstance(body, wire.Intent):
        raise TypeError("an intent is expected")
    resident, task = _fence(tx, said)
    before = written(tx, said, body.number)
    if before is not None:
        if before[:2] != (body.name, "intended"):
            raise taken(said.attempt, body.number, before[0])
        return
    (refused,) = stepping.intend(tx, [_intent_of(said, body, resident, task)])
    if refused is not None:
        raise refused


def _brought(tx: Tx, said: Said, body: wire.StepResult, intent: stepping.Intent) -> stepping.Intent:
    """An intent that comes with its result: that of a pure step, or of one that is replayed.

    Which it is is for the village to say. Raises Conflict for any other.
    """
    rows = tx.rows(
        "SELECT o.result FROM attempts a JOIN attempts b ON b.task = a.task AND b.id < a.id JOIN steps o "
        "ON o.attempt = b.id AND o.number = ? WHERE a.id = ? AND a.continues IS NOT NULL AND o.kind = ? AND o.name = ? "
        "AND o.state = 'done'",
        (body.number, said.attempt, intent.kind, intent.name),
    )
    free = body.state == "done" and not (body.tokens_in or body.tokens_out or body.spent_micros or body.aid_micros)
    if free and any(_decode(row[0]) == body.result for row in rows):
        return replace(intent, replayed=True)
    if intent.effect != "pure":
        raise Conflict(
            "step.intent", f"Step {body.number} of attempt {said.attempt} is not pure, and was never intended.",
            "Say its intent first.", field="intent",
        )  # fmt: skip
    return intent


def record(tx: Tx, said: Said) -> None:
    """Write a result. Raises LeaseLapsed."""
    body = said.body
    if not isinstance(body, wire.StepResult):
        raise TypeError("a result is expected")
    resident, task = _fence(tx, said)
    result = _encode(body.result).decode()
    before = written(tx, said, body.number)
    if before is not None and before[1] != "intended":
        if before[1:3] != (body.state, result):
            raise taken(said.attempt, body.number, before[0])
        return
    if before is None and body.intent is None:
        raise Conflict(
            "step.intent",
            f"Step {body.number} of attempt {said.attempt} was never intended.",
            "Say its intent first, or send it along for a pure step.",
            field="number",
        )
    if body.intent is not None and (before is not None or body.intent.number != body.number):
        raise taken(said.attempt, body.number, body.intent.name)
    pure = None if body.intent is None else _brought(tx, said, body, _intent_of(said, body.intent, resident, task))
    name, kind = ("", "") if before is None else (before[0], before[3])
    if body.intent is not None:
        name, kind = body.intent.name, body.intent.kind
    (refused,) = stepping.record(
        tx,
        [
            stepping.Result(
                said.attempt,
                body.number,
                said.holder,
                resident,
                task,
                body.state,
                result,
                body.spent_micros,
                body.aid_micros,
                name.partition(":")[0],
                body.tokens_in,
                body.tokens_out,
                name if kind == "model" else None,
                pure,
                body.prompt,
                None if body.hidden is None else _encode(body.hidden).decode(),
            )
        ],
    )
    if refused is not None:
        raise refused


@frozen
class RefusedStep:
    """A step that a worker did and that was not taken: whose fault an outcome is that stands on it, and why."""

    fault: Literal["invalid", "task"]
    reason: str


def note_refused(tx: Tx, asked: tuple[Said, VivariumError]) -> None:
    """Note that a result was refused: the attempt can't be accepted, unless that step is written after all."""
    said, error = asked
    if not isinstance(said.body, wire.StepResult):
        raise TypeError("a result is expected")
    resident, task = _fence(tx, said)
    fault = "task" if isinstance(error, Conflict) else "invalid"
    emit(tx, REFUSED_STEP, f"resident:{resident}", resident=resident, task=task, attempt=said.attempt,
         number=said.body.number, fault=fault, reason=str(error)[:500])  # fmt: skip


def refused_step(view: View, claimed: Claimed) -> RefusedStep | None:
    """The first step of a running attempt whose result was refused and that was not written after that."""
    row = view.row(
        "SELECT json_extract(e.data, '$.fault'), json_extract(e.data, '$.reason') FROM events e "
        "WHERE e.task = ? AND e.attempt = ? AND e.kind = ? AND NOT EXISTS (SELECT 1 FROM steps s "
        "WHERE s.attempt = e.attempt AND s.number = json_extract(e.data, '$.number') AND s.state <> 'intended') "
        "ORDER BY e.id LIMIT 1",
        (claimed.task.id, claimed.attempt, REFUSED_STEP),
    )
    return None if row is None else RefusedStep(row[0], row[1])


def note_distrust(tx: Tx, said: Said) -> None:
    """Note once what a worker says of a provider of its own; those of the village are not touched by it."""
    body = said.body
    if not isinstance(body, wire.Distrust):
        raise TypeError("a distrust is expected")
    resident, task = _fence(tx, said)
    sql = "SELECT data FROM events WHERE task = ? AND attempt = ? AND kind = 'model.distrusted'"
    if any(_decode(data)["provider"] == body.provider for (data,) in tx.rows(sql, (task, said.attempt))):
        return
    emit(tx, "model.distrusted", f"resident:{resident}", resident=resident, task=task, attempt=said.attempt,
         provider=body.provider, reason=body.reason)  # fmt: skip


@frozen
class GivingUp:
    """A worker parks or releases its attempt."""

    said: Said
    settlement: Settlement


def give_up(tx: Tx, asked: GivingUp) -> Settled:
    """End an attempt without an outcome: its open steps are closed as unknown, as if its worker had died."""
    _fence(tx, asked.said)
    return end(tx, asked.settlement)


def end(tx: Tx, settlement: Settlement) -> Settled:
    """Settle one attempt; raises LeaseLapsed."""
    (answer,) = settling.settle(tx, [settlement])
    if isinstance(answer, Exception):
        raise answer
    settled: Settled = answer
    return settled


def note_prompt(tx: Tx, asked: tuple[int, str, str]) -> None:
    """Keep the record of the prompt that a worker was sent: who wrote what."""
    tx.run("UPDATE attempts SET prompt = ?2, model = ?3 WHERE id = ?1", asked)
