"""The room of ``vivarium do``: any action that a plugin declares, as a command."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.cli.opening import acting, as_option, folder_of, json_option, refuse_lost, village_option
from vivarium_kernel.cli.showing import money, print_json, print_json_list, table
from vivarium_kernel.problems import InputError, Problem, quoted

if TYPE_CHECKING:
    from vivarium_kernel.actions import Action
    from vivarium_kernel.terms import Actor
    from vivarium_kernel.village import Village


@click.command()
@click.argument("name", required=False, metavar="[NAME]")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--input", "text", metavar="JSON", help="The whole input as a JSON object; - reads standard input.")
@click.option("--key", metavar="TEXT", help="Doing it again with the same key does nothing and answers the same.")
@village_option
@as_option
@json_option
def do(
    name: str | None, pairs: tuple[str, ...], text: str | None, key: str | None, village: Path | None,
    token: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Do an action of a plugin, or list what can be done.

    A VALUE that is JSON (a number, true, a list) is taken as such, unless only text will do; anything else is text.
    The reply is JSON.
    """
    from vivarium_kernel import actions

    if name is None:
        if text is not None or key is not None:
            raise click.UsageError("--input and --key take the NAME of an action; without one all are listed.")
        refuse_lost(folder_of(village))
    with acting(village, token, "POST /actions/{action}", plugins=True) as (opened, actor):
        if name is None:
            _list(opened, actor, as_json)
            return
        action = actions.action_of(opened, name)
        done = asyncio.run(actions.perform(opened, action, actor, _input(pairs, text, action), key))
    print_json(json.loads(done.reply))
    if done.repeated:
        click.echo("It was done before under this key: this is the answer that was given then.", err=True)


def _input(pairs: tuple[str, ...], text: str | None, action: Action[Any]) -> dict[str, Any]:
    if text is not None and pairs:
        raise click.UsageError("Give the input as KEY=VALUE or as --input, not both.")
    if text is not None:
        from vivarium_kernel.documents import json_of, plain

        found = plain(json_of(sys.stdin.read() if text == "-" else text, "--input"))
        if not isinstance(found, dict):
            raise InputError([Problem("--input", quoted(found), "must be a JSON object", 'write {"key": "value"}')])
        return found
    from vivarium_kernel.actions import input_schema

    kinds = input_schema(action).get("properties", {})
    values: dict[str, Any] = {}
    problems = []
    for pair in pairs:
        key, mark, value = pair.partition("=")
        if not mark or not key or key in values:
            problems.append(
                Problem(quoted(pair), quoted(pair), "must be KEY=VALUE, each key once", "write hat=Builder")
            )
        else:
            values[key] = _value(value, kinds.get(key, {}))
    if problems:
        raise InputError(problems)
    return values


def _value(text: str, kind: Mapping[str, Any]) -> Any:
    """JSON as what it is, unless only text will do."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    kinds = {each.get("type") for each in kind.get("anyOf", [kind])}
    only_text = "string" in kinds <= {"string", "null"} or all(isinstance(word, str) for word in kind.get("enum", [0]))
    fits = isinstance(value, str) or (value is None and "null" in kinds)
    return text if only_text and not fits else value


def _list(village: Village, actor: Actor, as_json: bool) -> None:
    from vivarium_kernel.actions import actions_of, input_schema, may_do

    found, refused = actions_of(village)
    mine = [action for _, action in sorted(found.items()) if may_do(action, actor)]
    if as_json:
        print_json_list(
            {"name": a.name, "doc": a.doc, "roles": a.roles, "effect": a.effect, "input": input_schema(a)} for a in mine
        )
        return
    table(("!action", "*input", "cost", "*what it does"), map(_row, mine))
    others = len(found) - len(mine)
    if not found:
        click.echo("No plugin that is on declares an action.")
    elif others:
        click.echo(f"{others} more {'is' if others == 1 else 'are'} for other roles; --as TOKEN does what a token may")
    for fault in refused:
        click.echo(fault, err=True)


def _row(action: Action[Any]) -> tuple[str, str, str, str]:
    from attrs import fields

    names = " ".join(f"{field.name}=" for field in fields(action.Input))
    return action.name, names, money(action.cost_micros, "aid") if action.cost_micros else "", action.doc.split("\n")[0]
