"""The room of the actions: one declared act becomes a tool, a route, a command and an OpenAPI entry.

Whatever is true of every act is checked here once: who acts and with which scope, the input with every problem at its
path, amounts, the safety of its texts, its rate, its cost, its idempotency key; and what was done is an event. The
transaction that does it also writes its reply, its event and, for a resident at work, its step.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

import attrs
import msgspec
from attrs import frozen
from msgspec import Meta as Meta  # noqa: PLC0414 - plugin authors have it from here
from msgspec.structs import replace

from vivarium_kernel import holds, inputs, replies, stepping
from vivarium_kernel.audit import emit
from vivarium_kernel.errors import Conflict, Forbidden, Invalid, LeaseLapsed, NotFound, Unauthorized, VivariumError
from vivarium_kernel.grants import PluginTx
from vivarium_kernel.health import describe
from vivarium_kernel.jobs import REFUSED, UNKEPT
from vivarium_kernel.models import Tool
from vivarium_kernel.plugins import switch_off
from vivarium_kernel.problems import InputError, near
from vivarium_kernel.records import Subject
from vivarium_kernel.runs import Refuse
from vivarium_kernel.settling import EndAttempt, Settlement, settle
from vivarium_kernel.terms import MICROS, Actor, Effect, Role
from vivarium_kernel.transaction import Restart, Tx

if TYPE_CHECKING:
    from vivarium_kernel.jobs import Job
    from vivarium_kernel.village import Village

I = TypeVar("I")  # noqa: E741 - the input
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\.[a-z][a-z0-9_]{0,39}")
_HOLD_SECONDS = 3600  # how long the price of an act that never ended is set aside
_encode = msgspec.json.Encoder().encode


@frozen(kw_only=True)
class Action(Generic[I]):
    """One act that can be done, as a plugin declares it.

    ``name`` is ``PLUGIN.VERB``. ``Input`` is an attrs class; a whole number in it whose name ends in ``_micros`` is an
    amount and must be positive. ``roles`` may do it; ``effect`` ``pure`` changes nothing and is not kept.
    ``cost_micros`` of ``aid`` are paid by a resident who does it. Exactly one of two does it: ``run(tx, actor, input)``
    in a transaction, or ``act(job, input)`` for slow tools of a resident at work. Both return what JSON can say.

    Limits of an input are said in its types, ``Annotated[str, Meta(max_length=280)]``, and shown wherever it is.
    ``private`` is for texts that only the actor may see: the step keeps the digest of the input, and of a ``pure`` act
    no reply (it is given anew); the reply of any other is kept, so it may hold nothing private.
    """

    name: str
    doc: str
    Input: type[I]
    roles: tuple[Role, ...] = ("resident",)
    effect: Effect = "once"
    cost_micros: int = 0
    rate_per_minute: int | None = None
    private: bool = False
    run: Callable[[PluginTx, Actor, I], Any] | None = None
    act: Callable[[Job, I], Awaitable[Any]] | None = None

    def __attrs_post_init__(self) -> None:
        faults = [
            (not _NAME.fullmatch(self.name), "its name is not PLUGIN.VERB in small letters, digits and _"),
            (not self.doc.strip(), "it says nothing about itself in doc"),
            (not (isinstance(self.Input, type) and attrs.has(self.Input)), "its Input is not an attrs class"),
            (not self.roles or not set(self.roles) <= set(get_args(Role)), f"its roles are not of {get_args(Role)}"),
            (self.effect not in get_args(Effect), f"its effect is not one of {get_args(Effect)}"),
            (self.cost_micros < 0, "its cost is negative"),
            (self.rate_per_minute is not None and self.rate_per_minute < 1, "its rate is less than 1 a minute"),
            ((self.run is None) == (self.act is None), "it needs exactly one of run and act"),
            (self.private and self.act is not None, "it is private and slow: only what run does can be private"),
        ]
        found = [fault for wrong, fault in faults if wrong]
        if found:
            raise Invalid("action.declaration", f"Action {self.name!r}: {'; '.join(found)}.", "Mend its declaration.")

    @property
    def plugin(self) -> str:
        return self.name.partition(".")[0]


class ActionFailed(VivariumError):
    """A plugin's own code failed in an action. Nothing was changed."""

    status = 500

    def __init__(self, action: Action[Any], error: BaseException) -> None:
        super().__init__(
            "action.failed",
            f"Plugin {action.plugin!r} failed in its action {action.name}: {describe(error)}.",
            f"Mend it, or switch it off: {switch_off(action.plugin)}.",
        )


@frozen
class Performed:
    """An act that was done: its reply as JSON text, and whether that was given before under the same key."""

    reply: str
    repeated: bool = False
    ended: bool = False


def actions_of(village: Village) -> tuple[dict[str, Action[Any]], list[str]]:
    """The actions of the enabled plugins by name, and what is wrong with those that are left out."""
    found: dict[str, Action[Any]] = {}
    refused = []
    for plugin, action in village.hooks.register_actions():
        if not isinstance(action, Action):
            refused.append(f"{plugin} registers a {type(action).__name__}, which is no Action")
        elif action.plugin != plugin:
            refused.append(f"{plugin} registers {action.name!r}: the name of its actions begins with {plugin}.")
        elif action.name in found:
            refused.append(f"{plugin} registers {action.name!r} twice")
        else:
            found[action.name] = action
    return found, refused


def action_of(village: Village, name: str) -> Action[Any]:
    """One action by name; raises NotFound with the one that was probably meant."""
    found, _ = actions_of(village)
    if name not in found:
        meant = near(name, found)
        raise NotFound(
            "action.unknown",
            f"There is no action {name!r}.",
            f"Did you mean {meant}?" if meant else "See GET /actions, or switch on the plugin that has it.",
        )
    return found[name]


def may_do(action: Action[Any], actor: Actor) -> bool:
    """Whether the actor's role and its token's scope allow this action."""
    scoped = actor.scope is None or "actions" in actor.scope or action.name in actor.scope
    return actor.role in action.roles and scoped


def input_schema(action: Action[Any]) -> dict[str, Any]:
    """The JSON Schema of an action's input, complete in itself."""
    schema = msgspec.json.decode(_encode(msgspec.json.schema(action.Input)))
    kinds: dict[str, Any] = schema["$defs"]
    for kind in kinds.values():
        if "properties" in kind:
            kind["additionalProperties"] = False
            for name, field in kind["properties"].items():
                if name.endswith("_micros"):
                    for choice in field.get("anyOf", [field]):
                        if choice.get("type") == "integer":
                            choice.setdefault("minimum", 1)
    if _encode(schema["$ref"]) in _encode(list(kinds.values())):
        return dict(schema)  # a type that holds itself
    root = kinds.pop(schema["$ref"].rpartition("/")[2])
    return {**root, "$defs": kinds} if kinds else dict(root)


def tool_of(action: Action[Any]) -> Tool:
    """The action as a model's tool. Names of tools have no dots: ``hats.wear`` is ``hats__wear``."""
    return Tool(action.name.replace(".", "__"), action.doc, input_schema(action), action.private)


def action_name(tool: str) -> str:
    """The action behind a tool's name."""
    return tool.replace("__", ".", 1)


def tools_of_residents(village: Village) -> tuple[Tool, ...]:
    """The tools that residents may use, in the order of their names."""
    found, _ = actions_of(village)
    return tuple(tool_of(action) for _, action in sorted(found.items()) if "resident" in action.roles)


async def perform(
    village: Village, action: Action[Any], actor: Actor, body: object, key: str | None = None, *, job: Job | None = None
) -> Performed:
    """Do an action for whoever the credential belongs to. ``body`` is the input as plain data.

    ``key`` is the caller's idempotency key: the same key and body give the same reply and do nothing again. ``job`` is
    given for a resident at work: the act is then one of its steps. Raises what is wrong, having changed nothing.
    """
    if not may_do(action, actor):
        raise Forbidden(
            "action.role",
            f"{actor} may not do {action.name}.",
            f"It is for: {', '.join(action.roles)}" + ("." if actor.scope is None else ", within the token's scope."),
        )
    asked = inputs.read(action.Input, body)
    if problems := list(inputs.positive_amounts(asked)):
        raise InputError(problems)
    await _check_texts(village, action, actor, asked)
    ticket = _Ticket(
        action, actor, asked, replies.key_of(actor, key, action.name, body), village.clock.secret(),
        end_attempt=village.hooks.end_attempt,
    )  # fmt: skip
    if action.act is not None:
        if job is None:
            raise Conflict(
                "action.job", f"{action.name} is a tool of a resident at work.", "Use it within a running attempt."
            )
        return await _act(village, ticket, job, body)
    if job is not None:
        recorded = await job.begin("tool", action.name, "pure", _arguments(body), private=action.private)
        if recorded is not None and not _is_unkept(action):
            return Performed(_encode(recorded).decode(), repeated=True)
        await job.recorded()
        if recorded is None:
            ticket = attrs.evolve(ticket, intent=job.hand_over(action.effect))
    done: Performed = await village.store.write(_run, ticket)
    return done


@frozen
class _Ticket:
    """An act that passed every check that needs no transaction. ``unique`` names its payment."""

    action: Action[Any]
    actor: Actor
    input: Any
    key: replies.Key | None
    unique: str
    intent: stepping.Intent | None = None
    end_attempt: EndAttempt | None = None


def _arguments(body: object) -> Mapping[str, Any]:
    return body if isinstance(body, Mapping) else {}


async def _check_texts(village: Village, action: Action[Any], actor: Actor, asked: Any) -> None:
    resident = actor.name if actor.role == "resident" else None
    for path, text in inputs.texts(asked):
        if not text:
            continue
        subject = Subject("message", text, resident=resident, attempt=actor.attempt)
        safety = await village.hooks.check_safety(subject)
        if safety.verdict.answer != "allow":
            raise Forbidden(
                safety.verdict.rule,
                f"{action.name}: {path}: {safety.verdict.reason}",
                safety.verdict.next_step or "Say it otherwise, or ask a person to do it.",
                field=path,
            )


def _run(tx: Tx, ticket: _Ticket) -> Performed:
    """Do a plain action: effect, payment, reply, step and event in this one transaction."""
    action, actor, intent = ticket.action, ticket.actor, ticket.intent
    if action.run is None:
        raise Invalid("action.run", f"{action.name} is no plain action.")
    check_credential(tx, actor)
    if tx.times.halted and actor.role == "resident" and action.effect != "pure":
        raise Conflict(
            "village.halted", f"{action.name} is not done: the village is halted.", "Wait until a person unhalts it."
        )
    known = replies.before(tx, ticket.key) or _recorded(tx, intent)
    if known is not None:
        if not _is_unkept(action):
            return Performed(known, repeated=True)
        intent = None  # its step is written
    if action.rate_per_minute is not None:
        replies.pace(tx, actor, action.name, action.rate_per_minute)
    _pay(tx, ticket)
    endings: list[Settlement] = []
    granted = PluginTx(tx, action.plugin, actor, endings)
    reply = _guarded(tx, action, lambda: action.run(granted, actor, ticket.input))  # type: ignore[misc]
    if intent is not None:
        result = stepping.Result(
            intent.attempt, intent.number, intent.holder, intent.resident, intent.task, "done",
            _encode(UNKEPT).decode() if _is_unkept(action) else reply, intent=intent,
        )  # fmt: skip
        (refused,) = stepping.record(tx, [result])
        if refused is not None:
            raise refused
    if action.effect != "pure":
        _note(tx, ticket)
        replies.keep(tx, ticket.key, reply)
    for ending in endings:
        (answer,) = settle(tx, [replace(ending, end_attempt=ticket.end_attempt)])
        if isinstance(answer, Exception):
            raise answer
    return Performed(reply, ended=bool(endings))


def _is_unkept(action: Action[Any]) -> bool:
    """Whether the replies of an action are kept nowhere: it changes nothing, so it can be done again for them."""
    return action.private and action.effect == "pure"


def check_credential(tx: Tx, actor: Actor) -> None:
    """Refuse a credential that was revoked, or an attempt that ended, since the request was let in."""
    if actor.token is not None:
        row = tx.row(
            "SELECT 1 FROM tokens WHERE id = ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)",
            (actor.token, tx.now),
        )
        if row is None:
            raise Unauthorized("auth.token", "This token is not valid any more.", "Ask the operator for a new one.")
    if actor.attempt is not None:
        row = tx.row(
            "SELECT 1 FROM attempts a LEFT JOIN processes p ON p.id = a.process WHERE a.id = ? AND a.resident = ? "
            "AND a.state = 'running' AND coalesce(a.lease_until_at, p.lease_until_at) >= ?",
            (actor.attempt, actor.name, tx.now),
        )
        if row is None:
            raise stepping.lapsed(actor.attempt)


def _recorded(tx: Tx, intent: stepping.Intent | None) -> str | None:
    """The result of a step that was written before: the same request came twice."""
    if intent is None:
        return None
    row = tx.row("SELECT name, result FROM steps WHERE attempt = ? AND number = ?", (intent.attempt, intent.number))
    if row is None:
        return None
    if row[0] != intent.name or row[1] is None:
        raise taken(intent.attempt, intent.number, row[0])
    return str(row[1])


def taken(attempt: int, number: int, name: str) -> Conflict:
    """The refusal of a number that another step has."""
    return Conflict(
        "step.number", f"Step {number} of attempt {attempt} is another one: {name}.",
        "Number the steps of an attempt from 1 on, each once.", field="number",
    )  # fmt: skip


def _guarded(tx: Tx, action: Action[Any], run: Callable[[], Any]) -> str:
    """The reply of a plugin's own code as JSON; whatever it does instead is its own failure."""
    try:
        return _encode(run()).decode()
    except (VivariumError, Restart):
        raise
    except Refuse as refused:
        raise Conflict("action.refused", f"{action.name}: {refused.reason}") from refused
    except sqlite3.Error as error:
        # Full disks and interrupts end the whole transaction; what is the plugin's shows when it runs alone.
        if not tx.careful or not _of_plugin(error):
            raise
        raise ActionFailed(action, error) from error
    except BaseException as error:  # SystemExit too is the plugin's fault
        raise ActionFailed(action, error) from error


def _of_plugin(error: sqlite3.Error) -> bool:
    text = str(error)
    own = ("no such", "syntax error", "has no column", "not authorized", "prohibited", "incomplete input")
    return not isinstance(error, sqlite3.OperationalError) or any(word in text for word in own)


def _pay(tx: Tx, ticket: _Ticket) -> None:
    if _costs(ticket):
        tx.books.transfer(
            f"action:{ticket.unique}", _purse(ticket), "commons", "aid", ticket.action.cost_micros, "action",
            ticket.action.plugin, str(ticket.actor), f"action:{ticket.action.name}",
        )  # fmt: skip


def _costs(ticket: _Ticket) -> bool:
    return ticket.action.cost_micros > 0 and ticket.actor.role == "resident"


def _purse(ticket: _Ticket) -> str:
    return f"resident:{ticket.actor.name}:free"


def _note(tx: Tx, ticket: _Ticket) -> None:
    actor, intent = ticket.actor, ticket.intent
    emit(
        tx, "action.performed", actor, action=ticket.action.name,
        resident=actor.name if actor.role == "resident" else None,
        attempt=actor.attempt if intent is None else intent.attempt, task=None if intent is None else intent.task,
    )  # fmt: skip


# Slow tools


async def _act(village: Village, ticket: _Ticket, job: Job, body: object) -> Performed:
    """Do a slow action as a step of its job: its price is set aside before, and paid or returned after."""
    action = ticket.action
    if action.act is None:
        raise Invalid("action.act", f"{action.name} is no slow action.")
    hold = await village.store.write(_admit, (ticket, job.attempt, job.number + 1))
    try:
        recorded = await job.begin("tool", action.name, action.effect, _arguments(body))
    except Exception:
        await village.store.write(_release, (hold, ticket))  # nothing was begun
        raise
    if recorded is not None:
        await village.store.write(_release, (hold, ticket))
        return Performed(_encode(recorded).decode(), repeated=True)
    try:
        found = await action.act(job, ticket.input)
        reply = _encode(found).decode()
    except Exception as error:
        await village.store.write(_release, (hold, ticket))
        if isinstance(error, LeaseLapsed):
            raise
        told = error if isinstance(error, VivariumError) else ActionFailed(action, error)
        job.end("done", {REFUSED: {"rule": told.rule, "message": told.message, "next_step": told.next_step}})
        await job.recorded()
        if told is error:
            raise
        raise told from error
    job.end("done", msgspec.json.decode(reply))
    await job.recorded()
    await village.store.write(_settle, (hold, ticket))
    return Performed(reply)


def _admit(tx: Tx, asked: tuple[_Ticket, int, int]) -> int | None:
    """Set the price of a step aside that is not written yet: one that is was admitted before."""
    ticket, attempt, number = asked
    check_credential(tx, ticket.actor)
    action = ticket.action
    row = tx.row("SELECT name FROM steps WHERE attempt = ? AND number = ?", (attempt, number))
    if row is not None:
        raise taken(attempt, number, row[0])
    if action.rate_per_minute is not None:
        replies.pace(tx, ticket.actor, action.name, action.rate_per_minute)
    if not _costs(ticket):
        return None
    return holds.hold(
        tx, _purse(ticket), "aid", action.cost_micros, key=f"action:{ticket.unique}", owner="kernel",
        actor=str(ticket.actor), ref=f"action:{action.name}", expires_at=tx.now + _HOLD_SECONDS * MICROS,
    )  # fmt: skip


def _release(tx: Tx, asked: tuple[int | None, _Ticket]) -> None:
    if asked[0] is not None:
        holds.release_hold(tx, asked[0], owner="kernel", actor=str(asked[1].actor))


def _settle(tx: Tx, asked: tuple[int | None, _Ticket]) -> None:
    hold, ticket = asked
    if hold is not None:
        payees: Sequence[tuple[str, int]] = [("commons", ticket.action.cost_micros)]
        holds.settle_hold(tx, hold, payees, owner="kernel", reason="action", actor=str(ticket.actor))
    _note(tx, ticket)
