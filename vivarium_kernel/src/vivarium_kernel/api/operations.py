"""The room of the routes' common part: what a route declares, and everything that is done for each of them once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args, get_type_hints
from urllib.parse import parse_qs

import msgspec
from attrs import define, field, frozen
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from vivarium_kernel import inputs, replies
from vivarium_kernel.actions import check_credential
from vivarium_kernel.api import problem
from vivarium_kernel.api.auth import Allowances, Caller, caller_of, is_open, let_in
from vivarium_kernel.errors import Invalid, NotFound
from vivarium_kernel.problems import InputError, Problem, quoted
from vivarium_kernel.store import Tx

if TYPE_CHECKING:
    from vivarium_kernel.runtime import Runtime
    from vivarium_kernel.village import Village

JSON, FORM, HTML, STREAM, FILE = (
    "application/json",
    "application/x-www-form-urlencoded",
    "text/html; charset=utf-8",
    "text/event-stream",
    "*/*",
)
NUMBERS = ("attempt", "token", "worker")  # names in paths that are numbers; others are words
KEY_HEADER = "Idempotency-Key"
_KEY = re.compile(r"[!-~]{1,200}")
_LARGEST_ID = 2**63 - 1
_WIRE = "/wire/"
_encode = msgspec.json.Encoder().encode


@define
class Api:
    """What every route is handed: the open village, its runtime, and what ends when the server closes."""

    village: Village
    runtime: Runtime
    allowances: Allowances
    closing: asyncio.Event = field(factory=asyncio.Event)
    tasks: set[asyncio.Task[Any]] = field(factory=set)

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something that outlives the request that asked for it."""
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


@frozen
class Call:
    """One request that was let in, with its input read."""

    api: Api
    request: Request
    path: Mapping[str, Any]
    query: Any = None
    body: Any = None
    _caller: Caller | None = None

    @property
    def village(self) -> Village:
        return self.api.village

    @property
    def caller(self) -> Caller:
        if self._caller is None:
            raise RuntimeError("a route that is open to anyone has no caller")
        return self._caller


Handler = Callable[[Call], Awaitable[Any]]


@frozen
class Operation:
    """A route as it is declared: its handler, and the attrs types of what it takes and answers.

    Who may use it stands in ``roles.py``. The handler returns a record, an :class:`Answer`, a Response, or a
    :class:`Change` that is then done in one transaction with its reply under the request's key. A ``query`` that is
    ``dict`` takes whatever comes, as texts. ``refused`` answers in place of the problem page.
    """

    route: str
    summary: str
    handler: Handler
    body: type | None = None
    query: type | None = None
    reply: type | None = None
    takes: str = JSON
    gives: str = JSON
    keyed: bool = False
    refused: Callable[[Api, Request, Exception], Response] | None = None

    @property
    def method(self) -> str:
        return self.route.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.route.partition(" ")[2]


@frozen
class Answer:
    """A reply with its status and headers."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)


@frozen
class Change:
    """A change to be done: a write function with its item, and how its result is shown.

    ``kept`` is what is stored under the idempotency key where that must differ: a secret is shown once.
    """

    fn: Callable[[Tx, Any], Any]
    item: Any
    show: Callable[[Any], Any]
    kept: Callable[[Any], Any] | None = None


async def respond(api: Api, operation: Operation, request: Request) -> Response:
    """Let in, read, do and answer one request; whatever goes wrong becomes a problem page."""
    try:
        if operation.path.startswith(_WIRE):
            await api.runtime.feel_jump()
        caller = _let_in(api, operation, request)
        call = Call(
            api, request, _path_of(request), _query_of(operation, request), await _body_of(operation, request), caller
        )
        found = await operation.handler(call)
        if isinstance(found, Change):
            found = await _carry_out(call, operation, found)
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads it
    except Exception as error:
        return problem.answer(error) if operation.refused is None else operation.refused(api, request, error)
    if isinstance(found, Response):
        return found
    if not isinstance(found, Answer):
        found = Answer(found)
    return Response(_encode(found.body), found.status, dict(found.headers), JSON)


def _let_in(api: Api, operation: Operation, request: Request) -> Caller | None:
    client = request.client.host if request.client else "?"
    now = api.village.clock.monotonic()
    if is_open(operation.route):
        api.allowances.spend(f"from:{client}", now)
        return None
    try:
        with api.village.store.view() as view:
            caller = caller_of(view, request)
    except Exception:
        api.allowances.spend(f"from:{client}", now)  # guesses are counted by where they come from
        raise
    # A worker's calls are many and small; each attempt has its own token, and so its own allowance.
    api.allowances.spend(caller.id, now, share=0.1 if operation.path.startswith(_WIRE) else 1.0)
    let_in(caller, operation.route, request)
    return caller


def _path_of(request: Request) -> dict[str, Any]:
    for name, value in request.path_params.items():
        if isinstance(value, int) and value > _LARGEST_ID:
            raise NotFound("request.path", f"There is no {name} {value}.")
    return dict(request.path_params)


def _query_of(operation: Operation, request: Request) -> Any:
    """The query as the operation's record; texts of numbers become numbers, nothing else is converted."""
    given = request.query_params.multi_items()
    if operation.query is None:
        if given:
            name, value = given[0]
            raise InputError([Problem(name, quoted(value), "unknown parameter", "this route takes none")])
        return None
    hints = {} if operation.query is dict else get_type_hints(operation.query)
    raw: dict[str, Any] = {}
    for name, value in given:
        if name in raw:
            raise InputError([Problem(name, quoted(value), "stands twice in the query", "send it once")])
        whole = int in (hints.get(name), *get_args(hints.get(name)))
        number = whole and re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII)
        raw[name] = int(value) if number else value
    if operation.query is dict:
        return raw
    return inputs.read(operation.query, raw)


async def _body_of(operation: Operation, request: Request) -> Any:
    if operation.body is None:
        return None
    media = request.headers.get("content-type", operation.takes).partition(";")[0].strip().lower()
    if media != operation.takes:
        raise problem.WrongMedia(
            "request.media", f"The body is {media!r}.", f"Send {operation.takes}.", field="Content-Type"
        )
    raw = await request.body()
    if operation.takes == FORM:
        try:
            form = parse_qs(raw.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict")
        except ValueError as error:
            raise Invalid("request.form", "The form can't be read.", "Send it as a browser does.") from error
        return inputs.read(operation.body, {name: values[-1] for name, values in form.items()})
    return inputs.read(operation.body, inputs.from_json(raw) if raw.strip() else {})


def key_of(request: Request) -> str | None:
    """The request's idempotency key; raises for one that can't be kept."""
    key = request.headers.get(KEY_HEADER)
    if key is not None and not _KEY.fullmatch(key):
        raise Invalid("request.key", "An idempotency key has 1 to 200 printable ASCII characters and no spaces.",
                      "A random UUID is a good one.", field=KEY_HEADER)  # fmt: skip
    return key


@frozen
class _Asked:
    caller: Caller
    change: Change
    key: replies.Key | None


async def _carry_out(call: Call, operation: Operation, change: Change) -> Response:
    what = f"{operation.method} {call.request.url.path}"
    key = replies.key_of(call.caller.actor, key_of(call.request), what, call.body)
    reply, repeated = await call.village.store.write(_do, _Asked(call.caller, change, key))
    call.api.runtime.rounds.kick()
    return replied(reply, repeated)


def replied(reply: str, repeated: bool) -> Response:
    """A reply that may have been given before."""
    return Response(reply, headers={"Idempotency-Replayed": "true"} if repeated else None, media_type=JSON)


def _do(tx: Tx, asked: _Asked) -> tuple[str, bool]:
    """The change and its reply, in one transaction."""
    check_credential(tx, asked.caller.actor)
    known = replies.before(tx, asked.key)
    if known is not None:
        return known, True
    change = asked.change
    result = change.fn(tx, change.item)
    reply = _encode(change.show(result)).decode()
    replies.keep(tx, asked.key, reply if change.kept is None else _encode(change.kept(result)).decode())
    return reply, False


def one(setwise: Callable[[Tx, list[Any]], Sequence[Any]]) -> Callable[[Tx, Any], Any]:
    """A setwise write function as one for a single item, which raises what it answers as an error."""

    def alone(tx: Tx, item: Any) -> Any:
        (answer,) = setwise(tx, [item])
        if isinstance(answer, Exception):
            raise answer
        return answer

    return alone
