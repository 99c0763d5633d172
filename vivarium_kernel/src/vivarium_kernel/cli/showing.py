"""The room of output: amounts and tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.amounts import money_text
from vivarium_kernel.terms import MICROS
from vivarium_kernel.wording import lasting

if TYPE_CHECKING:
    from rich.console import Console

UNITS = {"aid": "aiDollar", "usd": "USD"}
WIDE = 10_000  # no terminal: nothing is cut
COLOURS = {
    "done": "green", "active": "green", "claimed": "cyan", "review": "yellow", "parked": "yellow", "paused": "yellow",
    "failed": "red", "blocked": "magenta", "cancelled": "bright_black", "quarantined": "red", "banned": "red",
    "retired": "bright_black",
}  # fmt: skip


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=plain))


def print_json_list(items: Iterable[Any]) -> None:
    """One JSON list on stdout, an item a line, written as it is read."""
    click.echo("[", nl=False)
    between = "\n"
    for item in items:
        click.echo(f"{between}  {json.dumps(item, ensure_ascii=False, default=plain)}", nl=False)
        between = ",\n"
    click.echo("]" if between == "\n" else "\n]")


def plain(value: Any) -> Any:
    """A record as plain data, for JSON."""
    import msgspec

    return msgspec.to_builtins(value, enc_hook=str)


def safe(text: str, *, lines: bool = False) -> str:
    """Text from outside for a terminal: control characters are shown, never obeyed."""
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def ago(at: int | None, now: int) -> str:
    """How long ago a moment was."""
    return "" if at is None else f"{lasting(max(0, now - at) / MICROS)} ago"


def money(micros: int, currency: str) -> str:
    """An amount with its currency."""
    return f"{money_text(micros)} {UNITS.get(currency, currency)}"


def console(*, stderr: bool = False) -> Console:
    """Where tables and progress go: as wide as the terminal; without one nothing is cut."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else WIDE, highlight=False, markup=False, emoji=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table that fits the terminal. A column's name that begins with ``>`` is of figures; one that begins with ``*``
    gives way when the terminal is narrow, cut with a mark; one with ``!`` is folded then and never cut."""
    from rich.cells import cell_len

    cells = [[safe("" if cell is None else str(cell)) for cell in row] for row in rows]
    if not cells:
        return
    marks = [name[0] if name[0] in ">!*" else "" for name in columns]
    titles = [name[1:] if mark else name for name, mark in zip(columns, marks, strict=True)]
    natural = [max(map(cell_len, column)) for column in zip(titles, *cells, strict=True)]
    widths = _fitting(natural, marks, terminal_width() - 2 * (len(columns) - 1))
    lines = [click.style(line, bold=True) for line in _lines(titles, marks, widths, coloured=False)]
    for row in cells:
        lines += _lines(row, marks, widths, coloured=True)
    click.echo("\n".join(lines))


def terminal_width() -> int:
    """The columns of the terminal that output goes to, or those that COLUMNS says; else so many that nothing is cut."""
    told = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return shutil.get_terminal_size().columns if told else WIDE


def _fitting(natural: Sequence[int], marks: Sequence[str], room: int) -> list[int]:
    """Widths that fit into ``room``: the widest column that gives way becomes narrower first."""
    widths = list(natural)
    for mark, least in (("*", 8), ("!", 12)):
        shrinking = [place for place, its in enumerate(marks) if its == mark and widths[place] > least]
        while shrinking and sum(widths) > room:
            widest = max(shrinking, key=widths.__getitem__)
            widths[widest] -= 1
            if widths[widest] <= least:
                shrinking.remove(widest)
    return widths


def _lines(row: Sequence[str], marks: Sequence[str], widths: Sequence[int], *, coloured: bool) -> list[str]:
    """One row of a table: one line, or more where a cell is folded."""
    from rich.cells import cell_len, set_cell_size

    folded = []
    for cell, mark, width in zip(row, marks, widths, strict=True):
        if cell_len(cell) <= width:
            folded.append([cell])
        elif mark == "!":
            folded.append(_folded(cell, width))
        else:
            folded.append([set_cell_size(cell, width - 1) + "…"])
    lines = []
    for line in range(max(map(len, folded))):
        shown = []
        for parts, mark, width in zip(folded, marks, widths, strict=True):
            text = parts[line] if line < len(parts) else ""
            blanks = " " * (width - cell_len(text))
            colour = COLOURS.get(text) if coloured else None
            text = click.style(text, fg=colour) if colour else text
            shown.append(f"{blanks}{text}" if mark == ">" else f"{text}{blanks}")
        lines.append("  ".join(shown).rstrip())
    return lines


def _folded(cell: str, width: int) -> list[str]:
    """A cell in lines of this width, broken between words where there are any."""
    from rich.cells import chop_cells

    lines = textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)
    return [part for line in lines for part in chop_cells(line, width)]


def fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """Lines of a name and a value; those without a value are left out."""
    shown = [(name, str(value)) for name, value in pairs if value not in (None, "", (), [])]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        first, *rest = safe(value, lines=True).split("\n")
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {first}")
        for line in rest:
            click.echo(f"{' ' * width}  {line}")


def state_text(state: str) -> str:
    """A state in its colour."""
    colour = COLOURS.get(state)
    return click.style(state, fg=colour) if colour else state


def several(count: int, one: str, many: str | None = None) -> str:
    """``1 task``, ``12 tasks``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def shortened(text: str, width: int) -> str:
    """The first line of a text, cut with a mark where it is longer."""
    line = safe(" ".join(text.split()))
    return line if len(line) <= width else f"{line[: width - 1]}…"
