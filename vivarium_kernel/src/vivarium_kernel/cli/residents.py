"""The room of ``vivarium resident``: who lives in the village, and in which state."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from vivarium_kernel.cli.lazy import Entry, LazyGroup
from vivarium_kernel.cli.opening import acting, as_option, folder_of, json_option, looking, village_option
from vivarium_kernel.cli.showing import ago, fields, money, plain, print_json, print_json_list, table
from vivarium_kernel.wording import lasting, when

_FOR_GOOD = ("banned", "retired")
_reason = click.option("--reason", default="", help="Why; it is kept with the resident and in the log.")
_yes = click.option("--yes", "-y", is_flag=True, help="Don't ask.")

resident = LazyGroup(
    "resident",
    help="Who lives here.",
    no_args_is_help=True,
    sections={
        "Commands": {
            "add": Entry("residents:add", "Add a resident."),
            "list": Entry("residents:list_", "List the residents."),
            "show": Entry("residents:show", "Show one resident."),
            "pause": Entry("residents:pause", "Let a resident finish its task and begin no other."),
            "quarantine": Entry("residents:quarantine", "Stop a resident at once, until it is let back."),
            "resume": Entry("residents:resume", "Let a paused or quarantined resident work again."),
            "ban": Entry("residents:ban", "Stop a resident at once, for good, because of what it did."),
            "retire": Entry("residents:retire", "Let a resident go, for good and in honour."),
        }
    },
)


@click.command()
@click.argument("name")
@click.option("--model", help="Its model, as PROVIDER:NAME; by default the village's.")
@village_option
@as_option
def add(name: str, model: str | None, village: Path | None, token: str | None) -> None:
    """Add a resident."""
    from attrs import fields as fields_of

    from vivarium_kernel import people
    from vivarium_kernel.settings_record import Settings

    rule = fields_of(Settings).model  # what the setting of the same name must be
    if model is not None and rule.validator is not None:
        rule.validator(None, rule, model)
    with acting(village, token, "POST /residents") as (opened, actor):
        with opened.store.view() as view:
            known = {one.name for one in people.residents(view)}
        start = opened.settings.budgets.start_aid_micros
        opened.store.call(people.add, people.NewResident(name, actor, model, start))
    click.echo(f"{name} lives here already" if name in known else f"{name} lives here now, with {money(start, 'aid')}")


@click.command("list")
@village_option
@json_option
def list_(village: Path | None, as_json: bool) -> None:
    """List the residents."""
    with looking(folder_of(village)) as view:
        found = [
            dict(
                zip(
                    ("name", "state", "cycles", "model", "reason", "created_at", "aid_micros", "task"), row, strict=True
                )
            )
            for row in view.rows(
                "SELECT r.name, r.state, r.cycles, r.model, r.reason, r.created_at, coalesce(b.balance, 0), a.task "
                "FROM residents r LEFT JOIN accounts b ON b.name = 'resident:' || r.name || ':free' "
                "AND b.currency = 'aid' LEFT JOIN attempts a ON a.resident = r.name AND a.state = 'running' "
                "ORDER BY r.name"
            )
        ]
    if as_json:
        print_json_list(found)
        return
    table(
        ("!resident", "state", ">cycles", ">holds", "*at", "reason"),
        (
            (one["name"], one["state"], one["cycles"], money(one["aid_micros"], "aid"), one["task"], one["reason"])
            for one in found
        ),
    )


@click.command()
@click.argument("name")
@village_option
@json_option
def show(name: str, village: Path | None, as_json: bool) -> None:
    """Show one resident."""
    from vivarium_kernel import ledger, people

    with looking(folder_of(village)) as view:
        one = people.resident(view, name)
        held = ledger.balances(view, f"resident:{name}:")
        endings: dict[str, int] = dict(
            view.rows(
                "SELECT ending, count(*) FROM attempts WHERE resident = ? AND state = 'ended' GROUP BY ending", (name,)
            )
        )
        last = view.rows(
            "SELECT task, number, coalesce(ending, state), started_at, seconds FROM attempts WHERE resident = ? "
            "ORDER BY id DESC LIMIT 10",
            (name,),
        )
        now = view.now
    if as_json:
        names = ("task", "number", "ending", "started_at", "seconds")
        print_json(
            plain(one)
            | {"balances": [dict(zip(("account", "currency", "micros"), row, strict=True)) for row in held]}
            | {"endings": endings, "last": [dict(zip(names, row, strict=True)) for row in last]}
        )
        return
    fields(
        [
            ("resident", one.name), ("state", one.state + (f": {one.reason}" if one.reason else "")),
            ("model", one.model or "the village's"), ("cycles", one.cycles), ("here since", when(one.created_at, now)),
            ("attempts", ", ".join(f"{count} {ending}" for ending, count in endings.items())),
            ("holds", "\n".join(f"{money(micros, currency)} in {account}" for account, currency, micros in held)),
        ]
    )  # fmt: skip
    if last:
        click.echo()
        rows = ((task, number, ending, ago(at, now), lasting(seconds)) for task, number, ending, at, seconds in last)
        table(("!task", ">attempt", "ending", ">begun", ">took"), rows)


def _change(name: str, state: Any, reason: str, village: Path | None, token: str | None, *, yes: bool = True) -> None:
    from vivarium_kernel import people

    folder = folder_of(village)
    if state in _FOR_GOOD and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{name} would be {state} for good, and nobody is here to be asked: say --yes.")
        click.confirm(f"{name} will be {state} for good. Go on?", abort=True)
    with acting(folder, token, "POST /residents/{resident}/state", plugins=True) as (opened, actor):
        with opened.store.view() as view:
            before = people.resident(view, name).state
        asked = people.Change(name, state, actor, reason, opened.hooks.end_attempt)
        opened.store.call(people.change, asked)
    click.echo(f"{name} was {state} already" if before == state else f"{name} is {state} now (was {before})")


@click.command()
@click.argument("name")
@_reason
@village_option
@as_option
def pause(name: str, reason: str, village: Path | None, token: str | None) -> None:
    """Let a resident finish its task and begin no other."""
    _change(name, "paused", reason, village, token)


@click.command()
@click.argument("name")
@_reason
@village_option
@as_option
def resume(name: str, reason: str, village: Path | None, token: str | None) -> None:
    """Let a paused or quarantined resident work again."""
    _change(name, "active", reason, village, token)


@click.command()
@click.argument("name")
@_reason
@village_option
@as_option
def quarantine(name: str, reason: str, village: Path | None, token: str | None) -> None:
    """Stop a resident at once, until it is let back.

    Its tokens are revoked, what it runs is ended and settled, and its task is put back on the board.
    """
    _change(name, "quarantined", reason, village, token)


@click.command()
@click.argument("name")
@_reason
@_yes
@village_option
@as_option
def ban(name: str, reason: str, yes: bool, village: Path | None, token: str | None) -> None:
    """Stop a resident at once, for good, because of what it did."""
    _change(name, "banned", reason, village, token, yes=yes)


@click.command()
@click.argument("name")
@_reason
@_yes
@village_option
@as_option
def retire(name: str, reason: str, yes: bool, village: Path | None, token: str | None) -> None:
    """Let a resident go, for good and in honour."""
    _change(name, "retired", reason, village, token, yes=yes)
