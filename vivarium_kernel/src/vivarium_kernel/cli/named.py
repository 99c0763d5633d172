"""The room of tables whose names are copied: a table where the terminal has room for it, else a name a line and the
rest below it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import click

from vivarium_kernel.cli import showing

LEAST = 24  # columns that a text which gives way keeps; with less, it goes below its name
MOST_CHARACTERS = 500  # of a reason in a terminal: that of a budget has figures and a next step
BELOW = "    "


def named_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table that fits the terminal and never cuts a name. Columns without anything in them are left out.

    The first column is the name. A column that begins with ``>`` is of figures; one that begins with ``*`` may be cut,
    with a mark, but for its first characters. Where that is not enough, nothing is cut.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    kept = [place for place in range(len(columns)) if place == 0 or any(row[place] for row in cells)]
    titles, shown = [columns[place] for place in kept], [[row[place] for place in kept] for row in cells]
    room = showing.terminal_width()
    if not shown or _least(titles, shown) <= room:
        showing.table(titles, shown)
        return
    names = [title.lstrip(">*") for title in titles]
    for row in shown:
        click.echo(click.style(showing.safe(row[0]), bold=True))
        pairs = [f"{name}: {showing.safe(cell)}" for name, cell in zip(names[1:], row[1:], strict=True) if cell]
        for line in _packed(pairs, room - len(BELOW)):
            click.echo(f"{BELOW}{line}")


def _least(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The columns that the table needs when all that may give way has done so."""
    from rich.cells import cell_len

    widths = 2 * (len(titles) - 1)
    for place, title in enumerate(titles):
        widest = max(cell_len(title.lstrip(">*")), *(cell_len(showing.safe(row[place])) for row in rows))
        widths += min(widest, LEAST) if title.startswith("*") else widest
    return widths


def _packed(pairs: Iterable[str], room: int) -> list[str]:
    """As many pairs a line as there is room for; a longer one is folded between its words."""
    from rich.cells import cell_len

    lines: list[str] = []
    for pair in pairs:
        if lines and cell_len(lines[-1]) + 2 + cell_len(pair) <= room:
            lines[-1] += f"; {pair}"
        else:
            lines += textwrap.wrap(pair, max(room, LEAST), break_on_hyphens=False, break_long_words=False)
    return lines
