"""The room of ``vivarium init``: a new village's folder, with settings and tasks to begin from."""

from __future__ import annotations

import contextlib
from pathlib import Path
from shlex import quote

import click

from vivarium_kernel.errors import Conflict, Invalid

_TASKS = """\
# What there is to do. `vivarium run` posts each task once, by its id; `vivarium task add` posts others at any time.

[[task]]
id = "hello"
title = "Is anybody there?"
command = ["echo", "Hello from the village"]

[[task]]
id = "what-lies-here"
title = "What lies in this folder?"
command = ["ls"]
needs = ["hello"]           # it waits until that one is done
"""


@click.command()
@click.argument("village", type=click.Path(path_type=Path))
@click.option("--name", help="The village's name; by default the folder's.")
@click.option(
    "--work", is_flag=True, help='Set write_policy = "work": tools write more than documents, plans are posted.'
)
def init(village: Path, name: str | None, work: bool) -> None:
    """Make a new village in a folder.

    Writes vivarium.toml, where every setting stands with its explanation, and tasks.toml with two tasks to try.
    """
    from vivarium_kernel.settings import settle
    from vivarium_kernel.settings_text import example_toml

    folder = village.resolve()
    called = (name if name is not None else folder.name) or "village"
    settle({"name": called}, {}, "--name" if name is not None else str(folder), called)
    set_to = {"tasks": ["tasks.toml"], "residents": ["ada", "ben", "cyn"]} | ({"write_policy": "work"} if work else {})
    files = {
        "vivarium.toml": example_toml(called, set_to),
        "tasks.toml": _TASKS,
    }
    for file in files:
        if (folder / file).exists():
            raise Conflict(
                "init.exists", f"{folder / file} is there already.",
                f"Choose another folder, or let this village live: `vivarium run {quote(str(village))}`.",
                field="village",
            )  # fmt: skip
    _write(folder, files)
    click.echo(f"A new village lies in {folder}:")
    click.echo("  vivarium.toml  its settings, each explained")
    click.echo("  tasks.toml     what there is to do")
    click.echo(f"Let it live: vivarium run {quote(str(village))}")


def _write(folder: Path, files: dict[str, str]) -> None:
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                written.append(folder / name)
                file.write(text)
    except OSError as error:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise Invalid(
            "init.folder", f"No village can be made in {folder}: {error.strerror or error}.",
            "Choose a folder that you may write in.", field="village",
        ) from error  # fmt: skip
