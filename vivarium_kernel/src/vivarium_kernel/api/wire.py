"""The room of the wire: workers elsewhere claim, say what they intend and what came of it, and are told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from attrs import evolve
from starlette.requests import Request
from starlette.responses import StreamingResponse

from vivarium_kernel import cycle, routing, settling, village_time
from vivarium_kernel.api import wire_attempts, wire_writes
from vivarium_kernel.api.auth import caller_of
from vivarium_kernel.api.operations import STREAM, Api, Call, Operation
from vivarium_kernel.api.people_routes import QUIET_SECONDS, rest
from vivarium_kernel.api.shapes import Nothing
from vivarium_kernel.api.wire_attempts import asked_route
from vivarium_kernel.api.wire_shapes import Claim, ClaimReply, ClaimRequest, Join, Joined, Renewed, Running, ToolShape
from vivarium_kernel.api.wire_writes import Joining
from vivarium_kernel.checks import CLASSES
from vivarium_kernel.claiming import Claimed, token_digest
from vivarium_kernel.errors import Conflict, Forbidden, Invalid, StoreError, VivariumError
from vivarium_kernel.jobs import Ready
from vivarium_kernel.records import Entitlement, Outcome, Resident, Task
from vivarium_kernel.rounds import Seat, Won
from vivarium_kernel.routing import Route
from vivarium_kernel.settings_record import Models
from vivarium_kernel.settling import Settled, Settlement, wake_all_for_keys
from vivarium_kernel.stepping import Holder
from vivarium_kernel.store import View

LOOK_SECONDS = 0.2  # how soon a worker hears that an act of its is to stop
_encode = msgspec.json.Encoder().encode


def operations() -> list[Operation]:
    """The routes of this room."""
    return [
        Operation("POST /wire/workers", "Join as a worker.", _join, body=Join, reply=Joined),
        Operation("POST /wire/workers/{worker}/renew", "Renew a worker's lease.", _renew_worker, reply=Renewed),
        Operation("POST /wire/workers/{worker}/leave", "Leave, giving back what still runs.", _leave, reply=Nothing),
        Operation("GET /wire/workers/{worker}/stops", "Hear what is to be stopped.", _stops, gives=STREAM),
        Operation("POST /wire/claims", "Wait for a task.", _claim, body=ClaimRequest, reply=ClaimReply),
        *wire_attempts.operations(),
    ]


# Workers


async def _join(call: Call) -> Joined:
    settings = call.village.settings
    asked = Joining(
        call.caller.actor, call.body.residents, settings.lease_seconds, settings.budgets.start_aid_micros,
        call.body.before, call.village.hooks.end_attempt, call.village.retries(),
    )  # fmt: skip
    worker, residents = await call.village.store.write(wire_writes.join, asked)
    await wake_all_for_keys(call.village.store, str(call.caller.actor))  # who joins may have the key
    return Joined(worker, tuple(residents), settings.lease_seconds)


async def _renew_worker(call: Call) -> Renewed:
    seconds = call.village.settings.lease_seconds
    await call.village.store.write(wire_writes.renew_worker, (call.path["worker"], call.caller.actor, seconds))
    return Renewed(seconds)


async def _leave(call: Call) -> Nothing:
    asked = (call.path["worker"], call.caller.actor, call.village.hooks.end_attempt, call.village.retries())
    await call.village.store.write(wire_writes.leave, asked)
    call.api.runtime.rounds.kick()
    return Nothing()


async def _stops(call: Call) -> StreamingResponse:
    with call.village.store.view() as view:
        wire_writes.check_worker(view, call.path["worker"], call.caller.actor)
    return StreamingResponse(_running_now(call), media_type=STREAM)


async def _running_now(call: Call) -> AsyncIterator[bytes]:
    """What still runs, whenever that changes, until the worker's token or lease ends or the server closes."""
    worker, clock = call.path["worker"], call.village.clock
    told: tuple[int, ...] | None = None
    said = clock.monotonic()
    while not call.api.closing.is_set():
        try:
            with call.village.store.view() as view:
                wire_writes.check_worker(view, worker, caller_of(view, call.request).actor)
                running = _running(view, worker)
        except VivariumError:
            return
        if running.attempts != told:
            told, said = running.attempts, clock.monotonic()
            yield b"event: running\ndata: %s\n\n" % _encode(running)
        elif clock.monotonic() - said > QUIET_SECONDS:
            said = clock.monotonic()
            yield b": still here\n\n"
        await rest(call.api, LOOK_SECONDS)


def _running(view: View, worker: int) -> Running:
    rows = view.rows(
        "SELECT a.id FROM attempts a JOIN residents r ON r.name = a.resident WHERE a.state = 'running' "
        "AND a.process IS NULL AND r.process = ? ORDER BY a.id",
        (worker,),
    )
    last = view.row("SELECT coalesce(max(id), 0) FROM attempts")
    return Running(tuple(row[0] for row in rows), last[0] if last else 0)


# Claims


async def _claim(call: Call) -> ClaimReply:
    asked: ClaimRequest = call.body
    with call.village.store.view() as view:
        wire_writes.check_worker(view, asked.worker, call.caller.actor)
        _check_resident(view, asked)
    until = asyncio.get_running_loop().time() + asked.wait_seconds
    while True:
        secret = call.village.clock.secret()
        seat = Seat(asked.worker, token_digest(secret), call.village.settings.lease_seconds, _fits(call, asked))
        won = await _won(call, asked.resident, seat, until)
        if won is None:
            return ClaimReply(None)
        ready = await _prepared(call, won)
        if ready is not None:
            return ClaimReply(await _given(call, *ready, secret))


def _check_resident(view: View, asked: ClaimRequest) -> None:
    row = view.row("SELECT process FROM residents WHERE name = ?", (asked.resident,))
    if row is None or row[0] != asked.worker:
        raise Conflict(
            "wire.resident",
            f"Worker {asked.worker} does not live for {asked.resident!r}.",
            "Claim for those that joining gave you.",
            field="resident",
        )


def _fits(call: Call, asked: ClaimRequest) -> Any:
    """Which tasks this worker can do at all: nobody's task is to fail because its worker lacks a plugin."""
    settings, without = call.village.settings, frozenset(asked.without)

    def fits(task: Task, resident: Resident) -> bool:
        if task.id in without or task.mode not in asked.modes or (task.files and not asked.shares_folder):
            return False
        if task.mode != "llm":
            return True
        try:
            models = routing.wishes(task.model or resident.model or settings.model, task, settings.models)
        except Invalid:
            return True  # the village itself says what is wrong with it, when it is claimed
        return all(model.partition(":")[0] in asked.providers for model in models)

    return fits


async def _won(call: Call, resident: str, seat: Seat, until: float) -> Won | None:
    """What the rounds give; None when the time is over, the worker hung up, or the server closes."""
    claiming = asyncio.ensure_future(call.api.runtime.rounds.claim(resident, seat))
    hung_up = asyncio.ensure_future(_hung_up(call.request))
    closing = asyncio.ensure_future(call.api.closing.wait())
    others = (hung_up, closing)
    try:
        left = max(0.0, until - asyncio.get_running_loop().time())
        await asyncio.wait({claiming, *others}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if claiming.done() and not hung_up.done():
            return claiming.result()
        return None
    finally:
        for each in others:
            each.cancel()
        if not claiming.done():
            claiming.cancel()
        elif hung_up.done() and not claiming.cancelled() and claiming.exception() is None:
            await _give_back(call.api, claiming.result().claimed, "its worker hung up")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(claiming, *others, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _prepared(call: Call, won: Won) -> tuple[Ready, Route] | None:
    """The claim made ready for its act, and its model; None when safety or a model that may not be used ended it."""
    api = call.api
    try:
        ready = await api.runtime.prepare(won)
        if isinstance(ready, Settled):
            api.runtime.count(ready)
            return None
        try:
            return ready, cycle.route(won.claimed, ready.entitlement, api.runtime.rules)
        except (Forbidden, Invalid) as error:
            if won.claimed.task.mode != "llm":
                return ready, asked_route(call, won.claimed)
            # It is ended as the village's own would be: not left to a worker, which has other rules.
            outcome = Outcome(fault="invalid", reason=str(error))
            settlement = await cycle.judge(won.hooks, won.claimed, outcome, api.runtime.rules)
            api.runtime.count(await api.village.store.write(settling.settle, settlement))
            return None
    except BaseException as error:
        await _give_back(api, won.claimed, f"it could not be prepared: {error!r}")
        raise


async def _give_back(api: Api, claimed: Claimed, reason: str) -> None:
    asked = Settlement(claimed.attempt, claimed.holder, "released", reason, actor="system:kernel",
                       end_attempt=api.village.hooks.end_attempt)  # fmt: skip
    with contextlib.suppress(VivariumError):
        await api.village.store.write(settling.settle, asked)


async def _given(call: Call, ready: Ready, route: Route, secret: str) -> Claim:
    claimed = ready.claimed
    model = route.model
    if ready.prompt is not None:
        await call.village.store.write(wire_writes.note_prompt, (claimed.attempt, ready.prompt, model))
    return Claim(
        claimed.attempt,
        secret,
        call.village.settings.lease_seconds,
        claimed.task,
        claimed.resident,
        claimed.cycle,
        claimed.number,
        model,
        claimed.day,
        claimed.hour,
        _by_name(ready.entitlement, call.village.settings.models),
        tuple(ready.sections),
        tuple(ready.recorded),
        tuple(ToolShape(tool.name, tool.description, tool.parameters, tool.private) for tool in ready.tools),
        route.instead_of,
    )


def _by_name(right: Entitlement, settings: Models) -> Entitlement:
    """The entitlement with models for their classes: what a class means at the worker is another thing."""
    if right.models is None:
        return right
    named = (getattr(settings, model) if model in CLASSES else model for model in right.models)
    return evolve(right, models=tuple(model for model in named if model))


# What the server itself watches


async def watch(api: Api) -> None:
    """End what runs elsewhere when the village is halted, and workers whose token was revoked."""
    hooks, store = api.village.hooks, api.village.store
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            with store.view() as view:
                halted = village_time.read_times(view).halted
                running = view.rows("SELECT id, token FROM attempts WHERE state = 'running' AND process IS NULL")
                gone = view.rows(
                    "SELECT p.id FROM processes p JOIN tokens t ON t.id = p.pid WHERE p.ended_at IS NULL "
                    "AND p.kind = 'remote' AND t.revoked_at IS NOT NULL"
                )
            for attempt, token in running if halted else ():
                asked = Settlement(attempt, Holder(None, token), "released", "the village was halted",
                                   actor="system:halt", end_attempt=hooks.end_attempt,
                                   retries=api.village.retries())  # fmt: skip
                with contextlib.suppress(VivariumError):
                    await store.write(settling.settle, asked)
            for (worker,) in gone:
                reason = "its worker's token was revoked"
                await store.write(wire_writes.expel, (worker, reason, hooks.end_attempt, api.village.retries()))
        except StoreError:
            continue  # the runtime says so; here it is looked again
