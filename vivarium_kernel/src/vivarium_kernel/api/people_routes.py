"""The room of the routes about residents, money and the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from attrs import field, frozen
from starlette.responses import StreamingResponse

from vivarium_kernel import audit, ledger, people
from vivarium_kernel.api.auth import caller_of
from vivarium_kernel.api.operations import STREAM, Api, Call, Change, Operation
from vivarium_kernel.api.seeing import PUBLIC_ACCOUNTS, Seen, eyes_of, may_see_account
from vivarium_kernel.api.shapes import (
    Account,
    AddResident,
    BalanceQuery,
    Balances,
    Books,
    EventQuery,
    Events,
    History,
    HistoryQuery,
    LogCheck,
    ResidentChange,
    ResidentPage,
    Residents,
    StreamQuery,
)
from vivarium_kernel.errors import Forbidden, Invalid, VivariumError
from vivarium_kernel.people import Change as NewState
from vivarium_kernel.people import NewResident
from vivarium_kernel.records import Resident
from vivarium_kernel.store import View
from vivarium_kernel.village import Said, Village

MOST_OVERHEARD = 65_536  # characters of one attempt between two looks
LOOK_SECONDS = 0.2  # how often a stream looks for new events
QUIET_SECONDS = 15.0  # how long a stream says nothing before it says that it lives
_encode = msgspec.json.Encoder().encode


def operations() -> list[Operation]:
    """The routes of this room."""
    return [
        Operation("GET /residents", "List residents.", _residents, reply=Residents),
        Operation(
            "POST /residents",
            "Add a resident.",
            _add,
            body=AddResident,
            reply=Resident,
            keyed=True,
        ),
        Operation("GET /residents/{resident}", "Read a resident.", _resident, reply=ResidentPage),
        Operation(
            "POST /residents/{resident}/state",
            "Pause, quarantine, ban, retire or bring back a resident.",
            _change,
            body=ResidentChange,
            reply=Resident,
            keyed=True,
        ),
        Operation("GET /ledger/balances", "List accounts.", _balances, query=BalanceQuery, reply=Balances),
        Operation("GET /ledger/history", "List transfers.", _history, query=HistoryQuery, reply=History),
        Operation("GET /ledger/verify", "Check the books.", _verify_books, reply=Books),
        Operation("GET /events", "Read the log.", _events, query=EventQuery, reply=Events),
        Operation(
            "GET /events/stream",
            "Follow the log by server-sent events, and as events `said` what models are writing now.",
            _stream,
            query=StreamQuery,
            gives=STREAM,
        ),
        Operation("GET /events/verify", "Check the chain of the log.", _verify_log, reply=LogCheck),
    ]


# Residents


async def _residents(call: Call) -> Residents:
    with call.village.store.view() as view:
        return Residents(tuple(people.residents(view)))


async def _add(call: Call) -> Change:
    start = call.village.settings.budgets.start_aid_micros
    new = NewResident(call.body.name, call.caller.actor, call.body.model, start)
    return Change(people.add, new, _itself)


async def _resident(call: Call) -> ResidentPage:
    name = call.path["resident"]
    with call.village.store.view() as view:
        found = people.resident(view, name)
        if not may_see_account(call.caller, f"resident:{name}:"):
            return ResidentPage(found, (), None)
        row = view.row("SELECT id FROM attempts WHERE resident = ? AND state = 'running'", (name,))
        return ResidentPage(found, _accounts(view, f"resident:{name}:"), row[0] if row else None)


async def _change(call: Call) -> Change:
    asked = NewState(
        call.path["resident"], call.body.state, call.caller.actor, call.body.reason, call.village.hooks.end_attempt
    )
    return Change(people.change, asked, _itself)


def _itself(resident: Resident) -> Resident:
    return resident


# Money


def _accounts(view: View, prefix: str) -> tuple[Account, ...]:
    return tuple(Account(name, currency, micros) for name, currency, micros in ledger.balances(view, prefix))  # type: ignore[arg-type]


async def _balances(call: Call) -> Balances:
    prefix = call.query.prefix
    eyes = eyes_of(call.caller)
    with call.village.store.view() as view:
        if eyes is None:
            return Balances(_accounts(view, prefix))
        found = [each for name in (*PUBLIC_ACCOUNTS, f"resident:{eyes}:") for each in _accounts(view, name)]
    return Balances(tuple(a for a in found if may_see_account(call.caller, a.account) and a.account.startswith(prefix)))


async def _history(call: Call) -> History:
    query: HistoryQuery = call.query
    account = query.account
    if call.caller.is_resident:
        account = account or f"resident:{call.caller.actor.name}:free"
        if not may_see_account(call.caller, account):
            raise Forbidden(
                "ledger.others",
                f"{account} is not an account of {call.caller.actor.name}.",
                "Leave the account out to see your own.",
                field="account",
            )
    with call.village.store.view() as view:
        return History(tuple(ledger.history(view, account, query.limit)))


async def _verify_books(call: Call) -> Books:
    found = await asyncio.to_thread(_books, call.village)
    return Books(found.accounts, found.transfers, found.problems)


def _books(village: Village) -> ledger.Audit:
    with village.store.view() as view:
        return ledger.verify(view)


# The log


async def _verify_log(call: Call) -> LogCheck:
    number, head, broken = await asyncio.to_thread(_chain, call.village)
    return LogCheck(number, head, None if broken is None else broken.id, None if broken is None else broken.why)


def _chain(village: Village) -> tuple[int, str, audit.Broken | None]:
    with village.store.view() as view:
        return audit.verify(view)


def _seen(query: EventQuery | StreamQuery, eyes: str | None) -> Seen:
    return Seen(query.resident, query.task, query.day, query.kind, query.model, query.attempt, eyes=eyes)


async def _events(call: Call) -> Events:
    query: EventQuery = call.query
    with call.village.store.view() as view:
        found = audit.tail(view, query.after, query.limit, _seen(query, eyes_of(call.caller)))
        return Events(tuple(found), _next(view, query.after, query.limit, found))


def _next(view: View, after: int, limit: int, found: list[Any]) -> int:
    """Where to go on: behind the last that was found, or behind all when there were no more."""
    return int(found[-1].id) if len(found) == limit else max(after, audit.read_head(view)[0])


async def _stream(call: Call) -> StreamingResponse:
    query: StreamQuery = call.query
    after = query.after
    last = call.request.headers.get("last-event-id")
    if last is not None:
        if not last.isascii() or not last.isdigit() or len(last) > 18:
            raise Invalid(
                "events.cursor", "Last-Event-ID is not an event's number.", "Leave it out.", field="Last-Event-ID"
            )
        after = int(last)
    if after is None:
        with call.village.store.view() as view:
            after = audit.read_head(view)[0]
    lines = _follow(call, after, _seen(query, eyes_of(call.caller)))
    return StreamingResponse(lines, media_type=STREAM)


@frozen(eq=False)
class Overheard:
    """What models are writing now in this process, as the reader of a stream may hear it, until it is handed on."""

    only: Seen
    texts: dict[tuple[int, str, str], str] = field(factory=dict)

    def __call__(self, said: Said) -> None:
        only, mine = self.only, (said.attempt, said.task, said.resident)
        if only.kind not in (None, "said") or only.eyes not in (None, said.resident):
            return
        asked = ((only.attempt, said.attempt), (only.task, said.task), (only.resident, said.resident))
        if all(wanted is None or wanted == found for wanted, found in asked):
            self.texts[mine] = (self.texts.get(mine, "") + said.text)[-MOST_OVERHEARD:]

    def taken(self) -> bytes:
        """What was said since, as lines of the stream; they have no id, for they are kept nowhere."""
        found, lines = dict(self.texts), b""
        self.texts.clear()
        for (attempt, task, resident), text in found.items():
            body = _encode({"attempt": attempt, "task": task, "resident": resident, "text": text})
            lines += b"event: said\ndata: %s\n\n" % body
        return lines


async def _follow(call: Call, after: int, only: Seen) -> AsyncIterator[bytes]:
    """Events as they come and what is being written, until the reader leaves, its credential ends, or the server
    closes."""
    overheard = Overheard(only)
    call.village.listeners.append(overheard)
    try:
        async for lines in _followed(call, after, only, overheard):
            yield lines
    finally:
        call.village.listeners.remove(overheard)


async def _followed(call: Call, after: int, only: Seen, overheard: Overheard) -> AsyncIterator[bytes]:
    clock = call.village.clock
    said = clock.monotonic()
    yield b": the log follows\n\n"
    while not call.api.closing.is_set():
        try:
            with call.village.store.view() as view:
                caller_of(view, call.request)
                found = audit.tail(view, after, 200, only)
                after = _next(view, after, 200, found)
        except VivariumError:
            return
        written = overheard.taken()
        if written:
            said = clock.monotonic()
            yield written
        if found:
            said = clock.monotonic()
            yield b"".join(b"id: %d\nevent: %s\ndata: %s\n\n" % (e.id, e.kind.encode(), _encode(e)) for e in found)
        elif clock.monotonic() - said > QUIET_SECONDS:
            said = clock.monotonic()
            yield b": still here\n\n"
        if len(found) < 200:
            await rest(call.api, LOOK_SECONDS)


async def rest(api: Api, seconds: float) -> None:
    """Wait, or until the server closes."""
    try:
        async with asyncio.timeout(seconds):
            await api.closing.wait()
    except TimeoutError:
        return
