"""The room of ``vivarium costs``: what models cost, equal to the ledger to the millionth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.cli.opening import folder_of, json_option, looking, village_option
from vivarium_kernel.cli.showing import fields, money, print_json, several, table
from vivarium_kernel.wording import lasting

if TYPE_CHECKING:
    from vivarium_kernel.costing import By, Cap, Costs, Line

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
    attempt began.
    """
    from attrs import asdict

    from vivarium_kernel import costing

    with looking(folder_of(village)) as view:
        found = costing.costs(view, by, limit or (None if as_json else _SHOWN))
    if as_json:
        print_json(asdict(found))
        return
    _tell(found)


def _tell(found: Costs) -> None:
    total = found.total
    fields(
        [
            ("spent", f"{money(total.spent_micros, 'usd')} in {several(total.calls, 'call')}, "
                      f"{total.tokens_in:,} tokens read, {total.tokens_out:,} written"),
            ("reserved", money(total.reserved_micros, "usd")),
            ("rate", f"{money(total.rate_micros, 'usd')} an hour"),
            *((f"cap {cap.scope.partition(':')[0]}", _cap(cap)) for cap in found.caps),
        ]
    )  # fmt: skip
    if found.lines:
        click.echo()
    table(
        (f"*{found.by}", ">spent", ">reserved", ">last hour", ">calls", ">tokens in", ">tokens out", ">left", "to cap"),
        (_row(line) for line in found.lines),
    )
    if found.more:
        click.echo(f"and {found.more:,} more; see --limit")


def _row(line: Line) -> tuple[Any, ...]:
    cap = line.cap
    return (
        line.name or "?", money(line.spent_micros, "usd"), money(line.reserved_micros, "usd"),
        money(line.rate_micros, "usd"), f"{line.calls:,}", f"{line.tokens_in:,}", f"{line.tokens_out:,}",
        "" if cap is None else money(cap.left_micros, "usd"), "" if cap is None else lasting(cap.seconds),
    )  # fmt: skip


def _cap(cap: Cap) -> str:
    said = f"{money(cap.cap_micros, 'usd')}, {money(cap.left_micros, 'usd')} left"
    return said if cap.seconds is None else f"{said}, used up in {lasting(cap.seconds)} at this rate"
