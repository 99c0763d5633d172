"""The room of ``vivarium costs``: what models cost, equal to the ledger to the millionth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.amounts import money_text
from vivarium_kernel.cli.named import named_table
from vivarium_kernel.cli.opening import folder_of, json_option, looking, village_option
from vivarium_kernel.cli.showing import fields, money, print_json, several
from vivarium_kernel.wording import lasting

if TYPE_CHECKING:
    from vivarium_kernel.costing import By, Cap, Costs, Line
    from vivarium_kernel.store import View

_GROUPS = ("resident", "task", "model", "day")
_SHOWN = 50


@click.command()
@click.option("--by", type=click.Choice(_GROUPS), default="resident", show_default=True, help="What a line is of.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="The N that cost most; by default 50, with --json all."
)
@village_option
@json_option
def costs(by: By, limit: int | None, village: Path | None, as_json: bool) -> None:
    """Show what models cost: spent, reserved, the rate, and when a cap is reached.

    The rate is what was spent in the last hour. Days are real days, in UTC, and a call belongs to the day in which its
    attempt began. A call is one that was made, answered or not: what a continued attempt took over counts once. Sums of
    lines are in US dollars; the cap is the line's own, and a task that has ended needs none any more.
    """
    from attrs import asdict

    from vivarium_kernel import costing

    with looking(folder_of(village)) as view:
        found = costing.costs(view, by, limit or (None if as_json else _SHOWN))
        over = _ended(view, found) if not as_json else frozenset()
    if as_json:
        print_json(asdict(found))
        return
    _tell(found, over)


def _ended(view: View, found: Costs) -> frozenset[str]:
    """The lines of tasks that have ended: what is left of their budgets is nobody's."""
    from vivarium_kernel.cli.reading import ENDED

    if found.by != "task":
        return frozenset()
    names = json.dumps([line.name for line in found.lines])
    ended = view.rows(
        f"SELECT id FROM tasks WHERE state IN {ENDED} AND id IN (SELECT value FROM json_each(?))", (names,)
    )
    return frozenset(name for (name,) in ended)


def _tell(found: Costs, over: frozenset[str]) -> None:
    total = found.total
    fields(
        [
            ("spent", f"{money(total.spent_micros, 'usd')} in {several(total.calls, 'call')} made, "
                      f"{total.tokens_in:,} tokens read, {total.tokens_out:,} written"),
            ("reserved", money(total.reserved_micros, "usd")),
            ("rate", f"{money(total.rate_micros, 'usd')} an hour"),
            *((f"cap {cap.scope.partition(':')[0]}", _cap(cap)) for cap in found.caps),
        ]
    )  # fmt: skip
    if found.lines:
        click.echo()
    named_table(
        (found.by, ">usd", ">reserved", ">last hour", ">calls", ">tokens in", ">out", ">left of cap", ">cap lasts"),
        (_row(line, line.name in over) for line in found.lines),
    )
    if found.more:
        click.echo(f"and {found.more:,} more; see --limit")


def _row(line: Line, over: bool) -> tuple[Any, ...]:
    cap = None if over else line.cap
    return (
        line.name or "?", money_text(line.spent_micros), _some(line.reserved_micros), _some(line.rate_micros),
        f"{line.calls:,}", f"{line.tokens_in:,}", f"{line.tokens_out:,}",
        "" if cap is None else money_text(cap.left_micros), "" if cap is None else lasting(cap.seconds),
    )  # fmt: skip


def _some(micros: int) -> str:
    return money_text(micros) if micros else ""


def _cap(cap: Cap) -> str:
    said = f"{money(cap.cap_micros, 'usd')}, {money(cap.left_micros, 'usd')} left"
    return said if cap.seconds is None else f"{said}, used up in {lasting(cap.seconds)} at this rate"
