"""The room of which plugins a command is about: the village's choice of them, and the options that change it once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import frozen

from vivarium_kernel.errors import Invalid

if TYPE_CHECKING:
    from vivarium_kernel.installed import Found
    from vivarium_kernel.registry import Choice
    from vivarium_kernel.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])


@frozen
class Once:
    """Which plugins are left out this time: those of ``--without``, and all installed ones but ``--with-only``."""

    without: frozenset[str] = frozenset()
    only: frozenset[str] | None = None


def once_options(command: Command) -> Command:
    """``--without NAME`` and ``--with-only A,B``: the parameters ``without`` and ``with_only``."""
    command = click.option(
        "--with-only", metavar="A,B", help="Of the installed plugins leave only these on, this time."
    )(command)
    return click.option(
        "--without", multiple=True, metavar="NAME", help="Leave this plugin out, this time; may be given several times."
    )(command)


def once(folder: Path, without: tuple[str, ...], with_only: str | None) -> Once:
    """What the options and VIVARIUM_PLUGINS say; raises NotFound for a name that no plugin has."""
    import os

    from vivarium_kernel import registry
    from vivarium_kernel.builtin import builtin_places
    from vivarium_kernel.enabling import unknown
    from vivarium_kernel.installed import claims

    only = registry.only_of(os.environ) if with_only is None else registry.names_of(with_only)
    if without or only:
        known = {*claims(), *builtin_places(), *registry.read(folder).plugins}
        for name in (*without, *sorted(only or ())):
            if name not in known:
                raise unknown(name, known)
    return Once(frozenset(without), only)


def surroundings(village: Path | None) -> tuple[Path | None, Settings | None, Choice]:
    """The village's folder, its settings and its choice of plugins; without a village around, that of a new one."""
    import os

    from vivarium_kernel import registry
    from vivarium_kernel.cli.opening import folder_of
    from vivarium_kernel.registry import Choice
    from vivarium_kernel.settings import load

    only = registry.only_of(os.environ)
    try:
        folder = folder_of(village)
    except Invalid as error:
        if error.rule != "village.none":
            raise
        return None, None, Choice(only=only)
    settings = load(folder).settings
    choice = Choice(registry.read(folder), settings.plugins_allow, only=only, configured=tuple(settings.plugins))
    return folder, settings, choice


def installed_on(choice: Choice) -> dict[str, Found]:
    """The installed plugins that are on, by name: what one distribution alone claims, and is not off."""
    from vivarium_kernel.installed import claims

    return {
        name: claim[0]
        for name, claim in claims().items()
        if len(claim) == 1 and not choice.why_off(name, installed=True)
    }


def breakers_of(folder: Path | None) -> Mapping[str, Mapping[str, str]]:
    """The hooks that plugins are switched off on, with the cause of each; empty where no village has lived yet."""
    from vivarium_kernel.breakers import breakers
    from vivarium_kernel.cli.opening import is_founded, looking

    found: dict[str, dict[str, str]] = {}
    if folder is None or not is_founded(folder):
        return found
    with looking(folder) as view:
        for each in breakers(view):
            found.setdefault(each.plugin, {})[each.hook] = each.cause
    return found
