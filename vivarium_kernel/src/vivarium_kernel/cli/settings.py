"""The room of ``vivarium settings``: every setting's value, and where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import click
from attrs import asdict

from vivarium_kernel.cli.lazy import Entry, LazyGroup
from vivarium_kernel.cli.named import named_table
from vivarium_kernel.cli.opening import folder_of, json_option, village_option
from vivarium_kernel.cli.showing import print_json_list

settings = LazyGroup(
    "settings",
    help="Show what is set, and where.",
    no_args_is_help=True,
    sections={"Commands": {"show": Entry("settings:show", "Show every setting, its value, and where it came from.")}},
)


@click.command()
@click.argument("prefix", default="", metavar="[PREFIX]")
@village_option
@json_option
def show(prefix: str, village: Path | None, as_json: bool) -> None:
    """Show every setting, its value, and where it came from.

    PREFIX shows only settings that begin so, such as commands. A variable is stronger than vivarium.toml, the file
    stronger than a default.
    """
    from vivarium_kernel.settings import load
    from vivarium_kernel.settings_text import rows

    found = [row for row in rows(load(folder_of(village))) if row.path.startswith(prefix)]
    if as_json:
        print_json_list(asdict(row) for row in found)
        return
    named_table(
        ("setting", "*value", "from", "variable"),
        (
            (
                row.path,
                json.dumps(row.value, ensure_ascii=False),
                _source(row.source.kind, row.source.where),
                row.variable,
            )
            for row in found
        ),
    )


def _source(kind: str, where: str) -> str:
    return {"file": Path(where).name, "environment": "environment"}.get(kind, kind)
