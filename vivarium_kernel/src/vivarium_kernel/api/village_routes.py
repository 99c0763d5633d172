"""The room of the routes about the village itself: health, status, switches, tokens, actions."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from vivarium_kernel import actions, board, budgets, control, people, village_time
from vivarium_kernel.api.operations import Call, Change, Operation, key_of, replied
from vivarium_kernel.api.shapes import (
    ActionRow,
    Actions,
    AddToken,
    Count,
    Healthy,
    Nothing,
    Pace,
    Process,
    Reason,
    Status,
    Switches,
    TokenMade,
    TokenRow,
    Tokens,
)
from vivarium_kernel.audit import read_head
from vivarium_kernel.control import Switch
from vivarium_kernel.people import NewToken
from vivarium_kernel.store import Tx


def operations() -> list[Operation]:
    """The routes of this room."""
    return [
        Operation("GET /healthz", "Say whether the server lives.", _health, reply=Healthy),
        Operation("GET /status", "Say how the village is.", _status, reply=Status),
        *(
            Operation(
                f"POST /control/{word}",
                summary,
                _switching(what, on),
                body=Reason,
                reply=Switches,
                keyed=True,
            )
            for word, what, on, summary in _SWITCHES
        ),
        Operation(
            "POST /control/pace",
            "Set the village's pace.",
            _pace,
            body=Pace,
            reply=Switches,
            keyed=True,
        ),
        Operation(
            "POST /control/residents",
            "Set how many residents are at work.",
            _count,
            body=Count,
            reply=Switches,
            keyed=True,
        ),
        Operation("GET /tokens", "List tokens, without their secrets.", _tokens, reply=Tokens),
        Operation(
            "POST /tokens",
            "Make a token; its secret is shown once.",
            _make_token,
            body=AddToken,
            reply=TokenMade,
            keyed=True,
        ),
        Operation(
            "POST /tokens/{token}/revoke",
            "Revoke a token at once.",
            _revoke,
            reply=Nothing,
            keyed=True,
        ),
        Operation("GET /actions", "List the actions that the caller may do.", _actions, reply=Actions),
        Operation(
            "POST /actions/{action}",
            "Do an action; its own entry says what it takes.",
            _act,
            body=dict,
            keyed=True,
        ),
    ]


_SWITCHES = (
    ("pause", "paused", True, "Let running tasks finish and start no more."),
    ("resume", "paused", False, "End a pause."),
    ("halt", "halted", True, "End everything that runs, at once."),
    ("unhalt", "halted", False, "End a halt."),
)


async def _health(call: Call) -> Healthy:
    with call.village.store.view() as view:
        view.row("SELECT 1 FROM village")
    return Healthy("ok", call.village.settings.name)


async def _status(call: Call) -> Status:
    with call.village.store.view() as view:
        times = village_time.read_times(view)
        residents: dict[str, int] = dict(view.rows("SELECT state, count(*) FROM residents GROUP BY state"))
        running = view.row("SELECT count(*) FROM attempts WHERE state = 'running'")
        processes = [
            Process(row[0], row[1], bool(row[2]), row[3], row[4], row[5])
            for row in view.rows(
                "SELECT id, kind, host, started_at, lease_until_at, "
                "(SELECT count(*) FROM residents WHERE process = processes.id AND state = 'active') FROM processes "
                "WHERE ended_at IS NULL ORDER BY id"
            )
        ]
        return Status(
            call.village.settings.name,
            version("vivarium-kernel"),
            view.now,
            times.day(view.now),
            times.hour(view.now) % village_time.HOURS_A_DAY,
            times.paused,
            times.halted,
            times.halt_reason,
            times.pace_seconds,
            times.residents,
            residents,
            board.counts(view),
            running[0] if running else 0,
            tuple(processes),
            read_head(view)[0],
            budgets.budget(view, "village") if call.caller.kind in ("operator", "human") else None,
        )


# Switches


def _switching(what: str, on: bool) -> Any:
    async def turn(call: Call) -> Change:
        return Change(_switched, (control.switch, Switch(what, on, call.caller.actor, call.body.reason)), _itself)

    return turn


async def _pace(call: Call) -> Change:
    return Change(_switched, (control.set_pace, (call.body.seconds, call.caller.actor)), _itself)


async def _count(call: Call) -> Change:
    return Change(_switched, (control.set_residents, (call.body.count, call.caller.actor)), _itself)


def _switched(tx: Tx, asked: tuple[Any, Any]) -> Switches:
    change, item = asked
    change(tx, item)
    times = village_time.read_times(tx)
    return Switches(times.paused, times.halted, times.halt_reason, times.pace_seconds, times.residents)


def _itself(found: Any) -> Any:
    return found


# Tokens


async def _tokens(call: Call) -> Tokens:
    with call.village.store.view() as view:
        return Tokens(tuple(TokenRow(**found) for found in people.tokens(view)))


async def _make_token(call: Call) -> Change:
    body: AddToken = call.body
    secret = call.village.clock.secret()
    new = NewToken(
        body.role, body.name, secret, call.caller.actor, scope=body.scope, note=body.note, seconds=body.seconds
    )
    return Change(
        people.make_token, new, lambda number: TokenMade(number, secret), lambda number: TokenMade(number, None)
    )


async def _revoke(call: Call) -> Change:
    asked = (call.path["token"], call.caller.actor)
    return Change(people.revoke_token, asked, lambda _: Nothing())


# Actions


async def _actions(call: Call) -> Actions:
    found, _ = actions.actions_of(call.village)
    return Actions(
        tuple(
            ActionRow(a.name, a.doc, a.roles, a.effect, a.cost_micros, a.rate_per_minute, actions.input_schema(a))
            for _, a in sorted(found.items())
            if actions.may_do(a, call.caller.actor)
        )
    )


async def _act(call: Call) -> Any:
    action = actions.action_of(call.village, call.path["action"])
    done = await actions.perform(call.village, action, call.caller.actor, call.body, key_of(call.request))
    call.api.runtime.rounds.kick()
    return replied(done.reply, done.repeated)
