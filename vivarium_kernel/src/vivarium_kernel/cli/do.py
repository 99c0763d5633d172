"""The room of the command that does an action: whatever a plugin declares can be done from the command line too."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from vivarium_kernel.cli.opening import acting, as_option, village_option

ROUTE = "POST /actions/{action}"


@click.command()
@click.argument("name", required=False)
@click.option("--json", "body", default="{}", metavar="JSON", help="The action's input, as one JSON object.")
@click.option("--key", metavar="KEY", help="Idempotency key: the same key and input do nothing twice.")
@as_option
@village_option
def do(name: str | None, body: str, key: str | None, token: str | None, village: Path | None) -> None:
    """Do an action of a plugin; without NAME, list those that you may do.

    The reply is printed as JSON. What an action takes is shown by the list, as a JSON Schema.
    """
    from vivarium_kernel import actions, inputs

    with acting(village, token, ROUTE, plugins=True) as (opened, actor):
        if name is None:
            found, _ = actions.actions_of(opened)
            for action in (found[each] for each in sorted(found) if actions.may_do(found[each], actor)):
                click.echo(f"{action.name}  {action.doc.strip().splitlines()[0]}")
                click.echo(f"    {json.dumps(actions.input_schema(action))}")
            return
        action = actions.action_of(opened, name)
        asked = inputs.from_json(body.encode(errors="surrogatepass"), "--json")
        done = asyncio.run(actions.perform(opened, action, actor, asked, key))
    click.echo(json.dumps(json.loads(done.reply), indent=2, ensure_ascii=False))
