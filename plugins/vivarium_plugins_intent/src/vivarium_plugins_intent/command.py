"""The room of ``vivarium plan``: a goal becomes a plan that is shown, and tasks when it is approved."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from vivarium_kernel.cli.opening import acting, as_option, json_option, village_option
from vivarium_kernel.cli.showing import money, print_json, safe, table

if TYPE_CHECKING:
    from vivarium_kernel.village import Village

    from vivarium_kernel import Actor

_ROUTE = "POST /plan"
_LIMITS = (
    ("constraints", "has to keep to"),
    ("preferences", "if possible"),
    ("anti_goals", "must not"),
    ("clarifications", "taken so"),
)


@click.command()
@click.argument("goal", required=False)
@click.option("--files", metavar="GLOB", help="Plan what these files of the village's folder ask for.")
@click.option("--budget", metavar="USD", help="The budget of all tasks together; by default that of one task.")
@click.option("--min-budget", metavar="USD", help="What each task has at least.")
@click.option("--must", "constraints", multiple=True, metavar="TEXT", help="A constraint; may be given again.")
@click.option("--prefer", "preferences", multiple=True, metavar="TEXT", help="A preference; may be given again.")
@click.option("--never", "anti_goals", multiple=True, metavar="TEXT", help="An anti-goal; may be given again.")
@click.option("--clarify", "clarifications", multiple=True, metavar="TEXT", help="How an open point is meant.")
@click.option("--model", metavar="PROVIDER:NAME", help="The model that plans, and does the tasks.")
@click.option("--yes", is_flag=True, help="Post the plan without asking.")
@click.option(
    "--list", "listed", is_flag=True, help="List the plans that there are; those that wait to be posted come first."
)
@click.option("--drop", metavar="ID", help="Drop a plan that is not to be posted.")
@click.option(
    "--wait",
    type=click.FloatRange(0, 86_400),
    default=600.0,
    metavar="SECONDS",
    help="How long to wait for the plan; by default 600.",
)
@village_option
@as_option
@json_option
def plan(
    goal: str | None, files: str | None, budget: str | None, min_budget: str | None, model: str | None, yes: bool,
    listed: bool, drop: str | None, wait: float, village: Path | None, token: str | None, as_json: bool,
    **limits: tuple[str, ...],
) -> int:  # fmt: skip
    """Turn a goal into tasks with dependencies and budgets.

    The plan is shown first, and posted when it is approved: with --yes, or by an answer where this is a terminal.
    GOAL - is read from standard input. With a scripted model the goal is split by its words, without any LLM.
    """
    if drop is not None:
        if goal is not None or files is not None or listed:
            raise click.UsageError("--drop takes no GOAL, no --files and no --list.")
        return _drop(drop, village, token, as_json)
    if listed:
        if goal is not None or files is not None:
            raise click.UsageError("--list takes no GOAL and no --files.")
        return _list(village, token, as_json)
    asked: dict[str, Any] = {name: list(lines) for name, lines in limits.items() if lines}
    asked |= {
        name: value
        for name, value in (
            ("goal", sys.stdin.read() if goal == "-" else goal),
            ("files", files),
            ("model", model),
            ("max_micros", _micros(budget, "--budget")),
            ("min_micros", _micros(min_budget, "--min-budget")),
        )
        if value is not None
    }
    if goal is None and files is None:
        raise click.UsageError("Give a GOAL, or --files GLOB, or --list.")
    with acting(village, token, _ROUTE, plugins=True) as (opened, actor):
        shown = asyncio.run(_made(opened, actor, asked, wait))
        if not shown["ready"]:
            return _not_ready(shown, as_json)
        if not as_json:
            _show(shown)
        if yes or (not as_json and _is_terminal() and click.confirm("Post these tasks?", default=False)):
            posted = asyncio.run(_do(opened, actor, "approve", {"plan": shown["plan"], "digest": shown["digest"]}))
            shown = {**shown, "posted": True}
            if not as_json:
                click.echo(f"Posted: {', '.join(posted['tasks'])}")
        elif not as_json:
            click.echo("Nothing was posted. To post this very plan:")
            click.echo(f"  vivarium do intent.approve plan={shown['plan']} digest={shown['digest']}")
    if as_json:
        print_json(shown)
    return 0


def _drop(name: str, village: Path | None, token: str | None, as_json: bool) -> int:
    with acting(village, token, _ROUTE, plugins=True) as (opened, actor):
        done = asyncio.run(_do(opened, actor, "drop", {"plan": name}))
    if as_json:
        print_json(done)
    else:
        click.echo(f"Dropped {name}: it can't be posted any more")
    return 0


def _list(village: Path | None, token: str | None, as_json: bool) -> int:
    with acting(village, token, _ROUTE, plugins=True) as (opened, actor):
        found = asyncio.run(_do(opened, actor, "list", {}))
    if as_json:
        print_json(found)
        return 0
    plans = found["plans"]
    if not plans:
        click.echo("There is no plan yet: vivarium plan GOAL")
        return 0
    table(("!plan", "!state", "*goal"), [(one["plan"], _state(one), one["goal"]) for one in plans])
    if found["more"]:
        click.echo("There are older ones: vivarium do intent.list most=500")
    click.echo("See one: vivarium do intent.show plan=ID. Not to be posted: vivarium plan --drop ID")
    return 0


def _state(one: dict[str, Any]) -> str:
    if one["dropped"]:
        return "dropped"
    if one["state"] != "done":
        return str(one["state"])
    return "posted" if one["posted"] else "to be approved"


def _micros(text: str | None, option: str) -> int | None:
    from vivarium_kernel.amounts import money as micros_of

    return None if text is None else micros_of(text, option)


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


async def _made(village: Village, actor: Actor, asked: dict[str, Any], wait: float) -> dict[str, Any]:
    """Let the plan be made now: by whoever is at work on the village, or by a free resident in this process."""
    from vivarium_kernel.api.app import api_of
    from vivarium_kernel.api.now import end_of, refuse_at_rest
    from vivarium_kernel.runtime import Runtime

    from vivarium_kernel import board

    refuse_at_rest(village.times())
    name = (await _do(village, actor, "plan", asked))["plan"]
    with village.store.view() as view:
        task = board.task(view, name)
    try:
        async with Runtime(village, 0, kind="serve") as runtime:
            await end_of(api_of(village, runtime), task, wait)
    finally:
        await village.close_providers()
    return await _do(village, actor, "show", {"plan": name})


async def _do(village: Village, actor: Actor, verb: str, asked: dict[str, Any]) -> dict[str, Any]:
    from vivarium_kernel import actions

    done = await actions.perform(village, actions.action_of(village, f"intent.{verb}"), actor, asked)
    found: dict[str, Any] = json.loads(done.reply)
    return found


def _not_ready(shown: dict[str, Any], as_json: bool) -> int:
    from vivarium_kernel.terms import ENDED_STATES

    if as_json:
        print_json(shown)
        return 1
    why = f": {safe(shown['reason'])}" if shown["reason"] else ""
    said = "No plan was made" if shown["state"] in ENDED_STATES else "The plan is not ready"
    click.echo(f"{said}: its task {shown['plan']} is {shown['state']}{why}", err=True)
    click.echo(f"See `vivarium task show {shown['plan']}`. Nothing was posted.", err=True)
    return 1


def _show(shown: dict[str, Any]) -> None:
    """The plan as people read it."""
    intent = shown["intent"]
    click.echo(f"Plan {shown['plan']} by {shown['made_by']}, digest {shown['digest']}")
    click.echo(f"Goal: {safe(intent['goal'])}")
    for name, words in _LIMITS:
        for line in intent[name]:
            click.echo(f"  {words}: {safe(line)}")
    table(
        ("!id", "*title", "!needs", ">budget"),
        [
            (task["id"], task["title"], ", ".join(task["needs"]), money(task["max_micros"], "usd"))
            for task in shown["tasks"]
        ],
    )
    click.echo(f"Together {money(shown['max_micros'], 'usd')}")
