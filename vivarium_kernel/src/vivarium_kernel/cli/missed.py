"""The room of ``vivarium missed``: plugins' parts of endings that failed, and running them later, once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vivarium_kernel.cli.lazy import Entry, LazyGroup
from vivarium_kernel.cli.opening import acting, as_option, folder_of, json_option, looking, village_option
from vivarium_kernel.cli.showing import print_json_list, several, shortened, table
from vivarium_kernel.errors import NotFound
from vivarium_kernel.wording import when

if TYPE_CHECKING:
    from vivarium_kernel.records import Ending, Task
    from vivarium_kernel.store import Tx

missed = LazyGroup(
    "missed",
    help="Plugins' parts of endings that failed and are still to be run.",
    no_args_is_help=True,
    sections={
        "Commands": {
            "list": Entry("missed:list_", "List what failed, and why."),
            "retry": Entry("missed:retry", "Run what failed again; what succeeds is done for good."),
        }
    },
)
_NAMES = ("number", "plugin", "hook", "task", "attempt", "tries", "error", "at")
_SELECT = "SELECT id, plugin, hook, task, attempt, tries, error, at FROM missed"


@click.command("list")
@village_option
@json_option
def list_(village: Path | None, as_json: bool) -> None:
    """List what failed, and why."""
    with looking(folder_of(village)) as view:
        found = view.rows(f"{_SELECT} ORDER BY id")
        now = view.now
    if as_json:
        print_json_list(dict(zip(_NAMES, row, strict=True)) for row in found)
        return
    if not found:
        click.echo("Nothing is missed.")
    table(
        (">number", "plugin", "hook", "!task", ">tries", "since", "*error"),
        ((row[0], row[1], row[2], row[3], row[5], when(row[7], now), shortened(row[6], 120)) for row in found),
    )


@click.command()
@click.argument("numbers", nargs=-1, type=int, metavar="[NUMBER]...")
@village_option
@as_option
def retry(numbers: tuple[int, ...], village: Path | None, token: str | None) -> int:
    """Run what failed again; what succeeds is done for good.

    Without a NUMBER, everything. Exit status 1 if something failed again.
    """
    from vivarium_kernel import settling

    with acting(village, token, "POST /missed", plugins=True) as (opened, _):
        with opened.store.view() as view:
            known = [row[0] for row in view.rows("SELECT id FROM missed ORDER BY id")]
        unknown = set(numbers) - set(known)
        if unknown:
            raise NotFound("missed.unknown", f"Nothing is missed under {min(unknown)}.", "See `vivarium missed list`.")
        hooks = opened.hooks

        def again(plugin: str, task: Task, ending: Ending, tx: Tx) -> BaseException | None:
            call = hooks.end_attempt_of(plugin, task, ending, tx)
            return NotFound("missed.plugin", f"{plugin} is off or has no such part.") if call is None else call.error

        failed = [
            number
            for number in numbers or known
            if not opened.store.call(lambda tx, item: settling.run_missed(tx, item, again), number)
        ]
    done = len(numbers or known) - len(failed)
    click.echo(f"{several(done, 'part')} made up for" + (f"; {len(failed)} failed again" if failed else ""))
    return 1 if failed else 0
