"""The room of the command tree: groups that know their commands by name, and import one when it is used.

Distributions add commands by entry points of the group ``vivarium.commands``. A name that the kernel has is the
kernel's; one that two of them have is taken from neither.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from attrs import frozen

Sections = Mapping[str, Mapping[str, "Entry"]]
GUESTS = "vivarium.commands"
ABSENT = {"plan": "vivarium-plugins-intent", "vllm": "vivarium-plugins-vllm"}  # whose a command is that is not here


@frozen
class Entry:
    """One command: where it is (``module:attribute`` below this package) and the first line of its help page."""

    place: str
    line: str


def added() -> dict[str, str]:
    """The commands of installed distributions by name, each with its distribution; a name that two have is left out.

    Read straight from the files that installers write: ``importlib.metadata`` would double a help page.
    """
    owners: dict[str, set[str]] = {}
    for folder in dict.fromkeys(sys.path):
        try:
            there = [entry for entry in os.scandir(folder or ".") if entry.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for entry in there:
            try:
                text = Path(entry.path, "entry_points.txt").read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            lines = text.partition(f"[{GUESTS}]")[2].partition("\n[")[0].splitlines()
            for name in (line.partition("=")[0].strip() for line in lines if "=" in line):
                owners.setdefault(name, set()).add(entry.name.partition("-")[0].replace("_", "-"))
    return {name: next(iter(found)) for name, found in sorted(owners.items()) if len(found) == 1}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used. Its help page shows them by section."""

    def __init__(self, *args: Any, sections: Sections, guests: bool = False, **more: Any) -> None:
        """``guests`` lets in what distributions add."""
        super().__init__(*args, **more)
        self._sections = sections
        self._guests = guests
        self._entries = {name: entry for section in sections.values() for name, entry in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._entries, *self._added()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._entries.get(cmd_name)
        if entry is None:
            return self._guest(cmd_name)
        module, _, attribute = entry.place.partition(":")
        found: click.Command = getattr(import_module(f"vivarium_kernel.cli.{module}"), attribute)
        return found

    def _added(self) -> dict[str, str]:
        """What distributions add: names, and whose they are."""
        return {name: owner for name, owner in added().items() if name not in self._entries} if self._guests else {}

    def _guest(self, name: str) -> click.Command | None:
        if name not in self._added():
            return None
        from vivarium_kernel.installed import claims

        (found,) = claims(GUESTS)[name]
        try:
            command = found.entry_point.load()
        except Exception as error:  # whatever its code raises is its own fault
            raise click.ClickException(f"The command {name} of {found} can't be loaded: {error!r}.") from error
        if not isinstance(command, click.Command):
            raise click.ClickException(
                f"The command {name} of {found} is a {type(command).__name__}, no Click command."
            )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            owner = ABSENT.get(error.command_name) if self._guests else None
            if owner is not None:
                raise click.UsageError(
                    f"The command {error.command_name} comes with {owner}, which is not installed.\n"
                    f"vivarium plugins install {owner}; in a clone: ./plugins/{owner.replace('-', '_')}",
                    ctx=ctx,
                ) from None
            # The names are here, not in click's own table of commands that are imported already.
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=self.list_commands(ctx), ctx=ctx
            ) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, entries in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.line) for name, entry in entries.items()], col_max=12)
        if added := self._added():
            with formatter.section("Added by distributions"):
                formatter.write_dl([(name, f"from {found}") for name, found in added.items()], col_max=12)
