"""The room of ``vivarium plugins enable`` and ``disable``: switching by name, with what is refused and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vivarium_kernel.cli.choosing import installed_on, surroundings
from vivarium_kernel.cli.opening import acting, as_option, village_option

if TYPE_CHECKING:
    from vivarium_kernel.enabling import Held
    from vivarium_kernel.registry import Choice
    from vivarium_kernel.settings import Settings

ROUTE = "PUT /plugins/{name}"


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@village_option
@as_option
def enable(names: tuple[str, ...], village: Path | None, token: str | None) -> None:
    """Switch plugins on, and record them as they are now.

    Distribution, version, hash of the files, hooks and settings go into plugins.json; to find them, the plugin is
    imported in a process of its own. Enabling one that is on accepts its files as they are now. A running village
    takes a switch up at once.
    """
    from vivarium_kernel import enabling

    folder, settings, choice = surroundings(village)
    may_switch(folder, token)
    records = enabling.records_of(names, choice, settings.plugins if settings is not None else {})
    with acting(folder or village, token, ROUTE) as (opened, actor), enabling.whole(opened.folder):
        opened.store.call(enabling.enable, enabling.On(opened.folder, records, actor))
    for name, recorded in records.items():
        click.echo(f"{name} is on" + (f": {recorded.distribution} {recorded.version}" if recorded else ""))


def may_switch(folder: Path | None, token: str | None) -> None:
    """Refuse a token that may not switch plugins, before anything is imported, asked or installed."""
    if folder is not None and token is not None:
        with acting(folder, token, ROUTE):
            pass


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--drain", is_flag=True, help="Give back first what they hold: money, and open tasks.")
@village_option
@as_option
def disable(names: tuple[str, ...], drain: bool, village: Path | None, token: str | None) -> None:
    """Switch plugins off.

    Refused while others that are on require one, while the settings name it, and while it holds money or open tasks.
    A running village takes a switch up at once; cycles in flight end with the plugins that they began with.

    \b
    --drain gives back what a plugin holds, in one transaction with the switch:
      1. what its own drain(tx) gives back, if it has one;
      2. open tasks that it posted are cancelled;
      3. what it set aside (holds) returns to the payers;
      4. of its accounts the newest payments go back to the residents and operators who made them,
         all else to the commons (in usd to the operator).
    Open tasks of others that need it stay on the board until it is on again. What a cycle in flight still sets aside
    afterwards, a second --drain gives back.
    """
    folder, settings, choice = surroundings(village)
    may_switch(folder, token)
    switch_off(folder or village, settings, choice, names, drain=drain, token=token)


def switch_off(
    village: Path | None, settings: Settings | None, choice: Choice, names: Sequence[str], *, drain: bool,
    token: str | None,
) -> None:  # fmt: skip
    """Switch plugins off and tell what came of it."""
    from vivarium_kernel import enabling

    names = list(dict.fromkeys(names))
    enabling.refuse_unknown(names, choice.registry)
    requires = {} if settings is None else requirements(choice, settings, besides=names)
    # With --drain the plugins are loaded: the endings of tasks and their own way of giving back are theirs.
    with acting(village, token, ROUTE, plugins=drain) as (opened, actor), enabling.whole(opened.folder):
        own = {name: plugin.drain for name, plugin in opened.plugins.items() if hasattr(plugin, "drain")}
        end_attempt = opened.hooks.end_attempt if drain else None
        asked = enabling.Off(opened.folder, names, actor, opened.settings, requires, drain, end_attempt, own)
        held = opened.store.call(enabling.disable, asked)
    for name, what in held.items():
        click.echo(f"{name} is off" + (f": {_given_back(what)}" if what else ""))


def requirements(choice: Choice, settings: Settings, besides: Collection[str]) -> dict[str, Collection[str]]:
    """What each installed plugin that is on requires: as it is recorded of this very version, else by looking."""
    from vivarium_kernel.inspecting import look

    found: dict[str, Collection[str]] = {}
    unrecorded = []
    for name, one in installed_on(choice).items():
        recorded = choice.registry.plugins.get(name)
        if name in besides:
            continue
        if recorded is not None and recorded.version == one.version:
            found[name] = recorded.requires
        else:
            unrecorded.append(name)
    return found | {name: what.requires for name, what in look(unrecorded, settings.plugins).items()}


def _given_back(what: Held) -> str:
    from vivarium_kernel.cli.showing import several

    parts = []
    if what.posted:
        parts.append(f"{several(len(what.posted), 'task')} cancelled")
    if what.holds:
        parts.append(f"{several(len(what.holds), 'hold')} returned")
    if what.accounts:
        parts.append(f"{several(len(what.accounts), 'account')} emptied")
    if what.needing:
        parts.append(f"{several(len(what.needing), 'task')} held until it is on again")
    return ", ".join(parts)
