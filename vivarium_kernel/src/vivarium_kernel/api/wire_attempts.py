"""The room of what a worker elsewhere says of one attempt: steps, actions, and how it ended."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
from attrs import evolve

from vivarium_kernel import actions, board, cycle, model_calls, people, routing, settling, stepping, village_time
from vivarium_kernel.actions import Action
from vivarium_kernel.api import wire_writes
from vivarium_kernel.api.operations import Call, Operation
from vivarium_kernel.api.shapes import Nothing
from vivarium_kernel.api.wire_shapes import (
    Act,
    Acted,
    Distrust,
    Ended,
    Intent,
    Park,
    Release,
    Renewed,
    Settle,
    StepResult,
)
from vivarium_kernel.api.wire_writes import GivingUp, Said
from vivarium_kernel.claiming import Claimed
from vivarium_kernel.errors import Conflict, Forbidden, Invalid, LeaseLapsed, RateLimited, VivariumError
from vivarium_kernel.jobs import Job, Ready, accepted
from vivarium_kernel.links import LocalLink
from vivarium_kernel.records import Entitlement, Outcome
from vivarium_kernel.routing import Route
from vivarium_kernel.settling import Settled, Settlement
from vivarium_kernel.stepping import Holder

_ATTEMPT = "/wire/attempts/{attempt}"


def operations() -> list[Operation]:
    """The routes of this room."""
    return [
        Operation(f"POST {_ATTEMPT}/renew", "Renew an attempt's lease.", _renew, reply=Renewed),
        Operation(f"POST {_ATTEMPT}/intent", "Say what is about to be done.", _intent, body=Intent, reply=Nothing),
        Operation(f"POST {_ATTEMPT}/result", "Say what came of a step.", _result, body=StepResult, reply=Nothing),
        Operation(f"POST {_ATTEMPT}/act", "Do an action as a step.", _Acts().act, body=Act, reply=Acted),
        Operation(
            f"POST {_ATTEMPT}/distrust", "Say whose report can't be true.", _distrust, body=Distrust, reply=Nothing
        ),
        Operation(f"POST {_ATTEMPT}/park", "Park the task.", _park, body=Park, reply=Ended),
        Operation(f"POST {_ATTEMPT}/release", "Give the task back.", _release, body=Release, reply=Ended),
        Operation(f"POST {_ATTEMPT}/settle", "Hand in the outcome.", _settle, body=Settle, reply=Ended),
    ]


def asked_route(call: Call, claimed: Claimed) -> Route:
    """The model as it was asked for, where it is refused or can't be told: a call of it is refused, then."""
    return Route(claimed.task.model or claimed.resident.model or call.api.runtime.rules.default_model)


def _route(call: Call, claimed: Claimed, right: Entitlement) -> Route:
    try:
        return cycle.route(claimed, right, call.api.runtime.rules)
    except VivariumError:
        return asked_route(call, claimed)


def _said(call: Call) -> Said:
    """What is said of an attempt: the number in the path is the fence, and must be the token's own."""
    if call.path["attempt"] != call.caller.actor.attempt:
        raise stepping.lapsed(call.path["attempt"])
    return Said(call.path["attempt"], call.caller.digest, call.body)


async def _renew(call: Call) -> Renewed:
    seconds = call.village.settings.lease_seconds
    await call.village.store.write(wire_writes.renew, (_said(call), seconds))
    return Renewed(seconds)


async def _intent(call: Call) -> Nothing:
    await call.village.store.write(wire_writes.intend, _metered(call, _said(call), call.body))
    return Nothing()


async def _result(call: Call) -> Nothing:
    asked: StepResult = call.body
    said = _said(call)
    try:
        if asked.intent is not None:
            said = _metered(call, said, asked.intent)
        await call.village.store.write(wire_writes.record, said)
    except (LeaseLapsed, RateLimited):
        raise
    except (Conflict, Forbidden, Invalid) as error:
        # It was done without leave, so no outcome may stand on it, whatever its worker makes of this answer.
        await call.village.store.write(wire_writes.note_refused, (said, error))
        raise
    return Nothing()


def _metered(call: Call, said: Said, intent: Intent) -> Said:
    """What the village itself says of a call of a model: whether the resident may make it, its limits and price."""
    if intent.kind != "model":
        return said
    with call.village.store.view() as view:
        resident = people.resident(view, call.caller.actor.name)
        right = call.village.hooks.entitle(resident, view)
    routing.check(intent.name, right, call.village.settings.models)
    meter = model_calls.meter_of(right, intent.worst_tokens)
    rate = right.aid_micros_per_1k.get(intent.name, 0)
    if intent.effect == "pure" and (meter is not None or rate or intent.worst_micros):
        raise Conflict(
            "wire.pure",
            f"A call of {intent.name} costs something or counts towards a limit, so it is not pure.",
            "Say its intent first.",
            field="effect",
        )
    return evolve(said, meter=meter, least_aid_micros=math.ceil(intent.worst_tokens * rate / 1000))


class _Acts:
    """The acts that are under way for workers, by attempt and step: who asks again waits for the same one."""

    def __init__(self) -> None:
        self._running: dict[tuple[int, int], tuple[Act, asyncio.Task[Acted]]] = {}

    async def act(self, call: Call) -> Acted:
        """Do it beside the request, which may give up waiting: what was begun is done to its end."""
        said, asked = _said(call), call.body
        place = (said.attempt, asked.number)
        if place not in self._running:
            self._running[place] = (asked, call.api.run(_acted(call, said, asked)))
            self._running[place][1].add_done_callback(lambda _: self._running.pop(place))
        same, task = self._running[place]
        if same != asked:
            raise actions.taken(said.attempt, asked.number, same.action)
        return await asyncio.shield(task)


async def _acted(call: Call, said: Said, asked: Act) -> Acted:
    village = call.village
    action = actions.action_of(village, asked.action)
    claimed = _claimed(call, said)
    with village.store.view() as view:
        before = None if action.act is None else wire_writes.written(view, said, asked.number)
        right = village.hooks.entitle(claimed.resident, view)
    if before is not None:
        return await _again(call, said, asked, action, before)
    if right.tool_calls == 0:
        raise Forbidden(
            "tool.entitlement",
            f"{claimed.resident.name} may use no tools, so {action.name} is not done.",
            "Do the task without them, or ask the operator for another tier.",
        )
    job = Job(
        Ready(claimed, (), None, right),
        LocalLink(village),
        lambda: _route(call, claimed, right),
        after=asked.number - 1,
    )
    done = await actions.perform(village, action, call.caller.actor, dict(asked.input), job=job)
    return Acted(msgspec.json.decode(done.reply), job.number, done.ended)


async def _again(
    call: Call, said: Said, asked: Act, action: Action[Any], before: tuple[str, str, str | None, str]
) -> Acted:
    """The answer to a slow act that was done before, and whose answer was lost."""
    name, state, result, _ = before
    if name != action.name:
        raise actions.taken(said.attempt, asked.number, name)
    if state == "intended":
        # It was begun by a server that is gone: nobody knows its end, as if the worker itself had died in it.
        reason = f"the village was stopped in the middle of step {asked.number} ({name})"
        lost = Settlement(said.attempt, None, "lapsed", reason, actor="system:kernel",
                          end_attempt=call.village.hooks.end_attempt, retries=call.village.retries())  # fmt: skip
        _ended(call, await call.village.store.write(wire_writes.give_up, GivingUp(said, lost)))
        raise stepping.lapsed(said.attempt)
    return Acted(accepted(msgspec.json.decode(result or "null")), asked.number)


async def _distrust(call: Call) -> Nothing:
    await call.village.store.write(wire_writes.note_distrust, _said(call))
    return Nothing()


async def _park(call: Call) -> Ended:
    asked: Park = call.body
    if asked.waits_for == "time" and asked.wake_at is None:
        raise Conflict("wire.wake_at", "What waits for a time must say which.", "Send wake_at.", field="wake_at")
    return await _gave_up(call, "parked", asked.reason, parked_for=asked.waits_for, wake_at=asked.wake_at, hold=True)


async def _release(call: Call) -> Ended:
    return await _gave_up(call, "released", call.body.reason, declined=call.body.declined)


async def _gave_up(call: Call, kind: Any, reason: str, **more: Any) -> Ended:
    said = _said(call)
    settlement = Settlement(
        said.attempt,
        None,
        kind,
        reason,
        actor=str(call.caller.actor),
        end_attempt=call.village.hooks.end_attempt,
        retries=call.village.retries(),
        **more,
    )
    return _ended(call, await call.village.store.write(wire_writes.give_up, GivingUp(said, settlement)))


async def _settle(call: Call) -> Ended:
    said = _said(call)
    claimed = _claimed(call, said)
    outcome: Outcome = call.body.outcome
    with call.village.store.view() as view:
        refused = wire_writes.refused_step(view, claimed)
    if refused is not None and outcome.fault is None:
        outcome = Outcome(fault=refused.fault, reason=refused.reason, model=outcome.model, seconds=outcome.seconds)
    settlement = await cycle.judge(call.village.hooks, claimed, outcome, call.api.runtime.rules)
    return _ended(call, await call.village.store.write(settling.settle, settlement))


def _ended(call: Call, settled: Settled) -> Ended:
    call.api.runtime.count(settled)
    return Ended(settled.attempt, settled.task, settled.ending, settled.task_state, settled.reason)


def _claimed(call: Call, said: Said) -> Claimed:
    """The claim that an attempt's token stands for, as it is on the board now; raises LeaseLapsed."""
    with call.village.store.view() as view:
        row = view.row(
            "SELECT task, resident, cycle, number, reserved_micros FROM attempts WHERE id = ? AND token = ? "
            "AND state = 'running' AND lease_until_at >= ?",
            (said.attempt, said.digest, view.now),
        )
        if row is None:
            raise stepping.lapsed(said.attempt)
        times = village_time.read_times(view)
        return Claimed(
            said.attempt,
            board.task(view, row[0]),
            people.resident(view, row[1]),
            row[2],
            row[3],
            Holder(None, said.digest),
            row[4],
            times.day(view.now),
            times.hour(view.now),
        )
