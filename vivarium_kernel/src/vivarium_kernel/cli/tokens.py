"""The room of ``vivarium token``: credentials for people, workers and programs that are not at this folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from vivarium_kernel.cli.lazy import Entry, LazyGroup
from vivarium_kernel.cli.opening import acting, as_option, folder_of, json_option, looking, village_option
from vivarium_kernel.cli.showing import print_json, print_json_list, table
from vivarium_kernel.terms import MICROS, Actor, Role
from vivarium_kernel.wording import lasting, url_of, when

if TYPE_CHECKING:
    from vivarium_kernel.store import Tx

LOGIN_SECONDS = 600.0

token = LazyGroup(
    "token",
    help="Make, list and revoke credentials.",
    no_args_is_help=True,
    sections={
        "Commands": {
            "create": Entry("tokens:create", "Make a token, or a one-time login link."),
            "list": Entry("tokens:list_", "List the tokens; their secrets are shown only once, when made."),
            "revoke": Entry("tokens:revoke", "Make tokens worthless at once."),
        }
    },
)


@click.command()
@click.argument("name", required=False)
@click.option("--role", type=click.Choice(get_args(Role)), help="What it may do; by default human, a login operator.")
@click.option(
    "--scope", multiple=True, metavar="NAME",
    help="Narrow it to this; may be given several times. It is read, an area of the API such as tasks, or the name of "
    "an action.",
)  # fmt: skip
@click.option("--note", default="", help="What it is for.")
@click.option("--days", type=click.FloatRange(0, min_open=True), metavar="N", help="After how many days it ends.")
@click.option("--login", is_flag=True, help="A link that opens the village in a browser, once, within ten minutes.")
@village_option
@as_option
@json_option
def create(
    name: str | None, role: Role | None, scope: tuple[str, ...], note: str, days: float | None, login: bool,
    village: Path | None, token: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Make a token, or a one-time login link.

    NAME is whom it speaks for: a resident's name with --role resident. The secret is shown once.
    """
    from vivarium_kernel import people, processes
    from vivarium_kernel.api.roles import SCOPES
    from vivarium_kernel.errors import Invalid
    from vivarium_kernel.problems import quoted

    for each in scope:
        if each not in SCOPES and "." not in each:
            raise Invalid(
                "token.scope", f"There is no scope {quoted(each)}.",
                f"There are {', '.join(SCOPES)}, and the name of each action, such as desk.ask.", field="--scope",
            )  # fmt: skip
    with acting(village, token, "POST /tokens") as (opened, actor):
        role = role or ("operator" if login else "human")
        if role == "resident" and name is None:
            raise click.UsageError("A resident's token needs the resident's NAME.")
        secret = opened.clock.secret()
        seconds = LOGIN_SECONDS if login else None if days is None else days * 86_400
        asked = people.NewToken(
            role, name or actor.name.partition(":")[2] or actor.name, secret, actor, "login" if login else "bearer",
            scope or None, note, seconds,
        )  # fmt: skip
        number = opened.store.call(people.make_token, asked)
        with opened.store.view() as view:
            here = processes.this_process().machine
            there = [
                one.address for one in processes.present(view) if one.address and one.machine == here and not one.gone
            ]
        address = there[-1] if there else url_of(opened.settings.api.host, opened.settings.api.port)
        link = f"{address}/login?token={secret}" if login else None
    if as_json:
        print_json({"number": number, "role": role, "name": asked.name, "secret": secret, "link": link})
    elif link is not None:
        until = "" if there else "; nothing serves it now: begin with `vivarium up`, which opens at that address"
        if not there and not opened.settings.api.port:
            until = "; nothing serves it now, and only `vivarium up` will know its port: begin, then make a link"
        click.echo(link)
        click.echo(f"Good once, for {lasting(seconds)}{until}", err=True)
    else:
        click.echo(secret)
        click.echo(f"Token {number}, {role} {asked.name}. Keep it: it is not shown again.", err=True)


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that are worthless, too.")
@village_option
@json_option
def list_(everything: bool, village: Path | None, as_json: bool) -> None:
    """List the tokens; their secrets are shown only once, when made."""
    from vivarium_kernel import people

    with looking(folder_of(village)) as view:
        now = view.now
        found = [
            one
            for one in people.tokens(view)
            if everything or (one["revoked_at"] is None and (one["expires_at"] is None or one["expires_at"] > now))
        ]
    if as_json:
        print_json_list(found)
        return
    if not found:
        click.echo("There are no tokens.")
    narrowed = any(one["scope"] is not None for one in found)
    table(
        (">number", "role", "name", "kind", *(["!scope"] if narrowed else []), "made", "ends", "*note"),
        (
            (
                one["id"], one["role"], one["name"], one["kind"], *([_scope(one["scope"])] if narrowed else []),
                when(one["created_at"], now),
                "revoked" if one["revoked_at"] else _ends(one["expires_at"], now), one["note"],
            )
            for one in found
        ),
    )  # fmt: skip


def _scope(scope: tuple[str, ...] | None) -> str:
    """What a token is narrowed to; nothing for one that is good for all that its role may do."""
    return "" if scope is None else ", ".join(scope) or "nothing"


def _ends(at: int | None, now: int) -> str:
    if at is None:
        return "never"
    return f"in {lasting((at - now) / MICROS)}" if at > now else "has ended"


@click.command()
@click.argument("numbers", nargs=-1, required=True, type=int, metavar="NUMBER...")
@village_option
@as_option
def revoke(numbers: tuple[int, ...], village: Path | None, token: str | None) -> None:
    """Make tokens worthless at once."""
    with acting(village, token, "POST /tokens/{token}/revoke") as (opened, actor):
        asked = [(number, actor) for number in dict.fromkeys(numbers)]
        opened.store.call(_revoke, asked)
    click.echo(f"Revoked {', '.join(str(number) for number, _ in asked)}")


def _revoke(tx: Tx, asked: list[tuple[int, Actor]]) -> None:
    from vivarium_kernel import people

    for item in asked:
        people.revoke_token(tx, item)
