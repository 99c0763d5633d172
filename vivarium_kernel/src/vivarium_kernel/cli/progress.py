"""The room of progress: what people see while residents work, drawn in a terminal or as plain lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import click

from vivarium_kernel import board
from vivarium_kernel.cli import reading
from vivarium_kernel.cli.living import say_if_it_stands
from vivarium_kernel.cli.reading import Held, News
from vivarium_kernel.cli.showing import COLOURS, console, safe, shortened
from vivarium_kernel.errors import StoreError
from vivarium_kernel.terms import ENDED_STATES, MICROS
from vivarium_kernel.wording import lasting

if TYPE_CHECKING:
    from rich.live import Live

    from vivarium_kernel.village import Village

LOOK_SECONDS = 0.2
SHOWN_RESIDENTS = 8


class Progress(Protocol):
    """Where progress is shown."""

    def say(self, line: str) -> None: ...

    def tell(self, news: Sequence[News]) -> None: ...

    def draw(self, counts: Mapping[str, int], held: Sequence[Held], now: int) -> None: ...

    def close(self) -> None: ...


class Lines:
    """Plain lines, one an ending: for pipes, files and logs."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._stderr = stderr
        self._endings = Endings()

    def say(self, line: str) -> None:
        click.echo(line, err=self._stderr)

    def tell(self, news: Sequence[News]) -> None:
        if news:
            click.echo("\n".join(self._endings.line(item) for item in news), err=self._stderr)

    def draw(self, counts: Mapping[str, int], held: Sequence[Held], now: int) -> None:
        pass

    def close(self) -> None:
        pass


class Endings:
    """Endings as lines, one after the other: a reason that the one before had is not said again."""

    def __init__(self) -> None:
        self._last = ""

    def line(self, item: News) -> str:
        """Time, what the task is now, who, which task, how long, and why if it isn't done."""
        said, self._last = self._last, item.reason
        return _line(item, "as above" if item.reason == said else shortened(item.reason, 160))


def _line(item: News, reason: str) -> str:
    clock = f"{datetime.fromtimestamp(item.at / MICROS):%H:%M:%S}"
    parts = [clock, _word(item).ljust(9), (item.resident or "-").ljust(5), item.task]
    if item.seconds is not None:
        parts.append(lasting(item.seconds))
    if item.exit_code:
        parts.append(f"exit {item.exit_code}")
    if item.reason and item.state != "done":
        parts.append(f"({reason})")
    return "  ".join(safe(part) for part in parts)


def _word(item: News) -> str:
    if item.state in (*ENDED_STATES, "review"):
        return item.state
    return "retried" if item.state == "parked" and item.exit_code is not None else "put back"


class Drawn:
    """A bar and who is at what, redrawn in place; what went wrong stays above it as lines."""

    def __init__(self, name: str, *, stderr: bool = False) -> None:
        from rich.live import Live

        self._name = name
        self._console = console(stderr=stderr)
        self._endings = Endings()
        self._began = time.monotonic()
        self._live: Live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def say(self, line: str) -> None:
        self._console.print(line)

    def tell(self, news: Sequence[News]) -> None:
        from rich.text import Text

        told = [item for item in news if item.state != "done"]
        for item in told[:20]:
            self._console.print(Text(self._endings.line(item), style=COLOURS.get(item.state, "yellow")), no_wrap=True)
        if len(told) > 20:
            self._console.print(f"and {len(told) - 20} more that are not done")

    def draw(self, counts: Mapping[str, int], held: Sequence[Held], now: int) -> None:
        from rich.console import Group

        self._live.update(Group(self._bar(counts), *self._residents(held, now)), refresh=True)

    def close(self) -> None:
        self._live.stop()

    def _bar(self, counts: Mapping[str, int]) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        total, over = sum(counts.values()), sum(counts[state] for state in ENDED_STATES)
        states = Text("  ").join(
            Text(f"{counts[state]:,} {state}", style=COLOURS.get(state, ""))
            for state in (*ENDED_STATES, "review", "parked", "waiting")
            if counts[state]
        )
        line = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(5):
            line.add_column(no_wrap=True, overflow="ellipsis")
        line.add_row(
            Text(safe(self._name), style="bold"),
            ProgressBar(total=max(total, 1), completed=over, width=20),
            Text(f"{over:,}/{total:,}"),
            Text(lasting(time.monotonic() - self._began), style="bright_black"),
            states,
        )
        return line

    def _residents(self, held: Sequence[Held], now: int) -> list[Any]:
        from rich.table import Table
        from rich.text import Text

        if not held:
            return []
        lines = Table.grid(padding=(0, 2, 0, 0))
        for one in held[:SHOWN_RESIDENTS]:
            tried = f"{one.task} (try {one.number})" if one.number > 1 else one.task
            lines.add_row(
                Text(f"  {one.resident}", style="cyan"), Text(tried), Text(lasting((now - one.started_at) / MICROS))
            )
        more = len(held) - SHOWN_RESIDENTS
        return [lines, Text(f"  and {more:,} more at work")] if more > 0 else [lines]


async def watch(village: Village, progress: Progress, after: int, drawn: bool, stands: tuple[str, ...] = ()) -> None:
    """Show what happens on the board from the event ``after`` on, until cancelled; then what happened last.

    ``stands`` is what was said of a village that is paused or halted.
    """
    seen, pause = after, LOOK_SECONDS
    try:
        seen = look(village, progress, seen, drawn)  # apart: the first drawing imports what it draws with
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            seen = look(village, progress, seen, drawn)
            with contextlib.suppress(StoreError):
                stands = say_if_it_stands(village, progress.say, stands)
            # On a very large board a look costs more: it never takes more than a fiftieth of the time.
            pause = max(LOOK_SECONDS, 50 * (time.monotonic() - began))
    finally:
        look(village, progress, seen, False)


def look(village: Village, progress: Progress, seen: int, drawn: bool) -> int:
    """Tell what happened after the event ``seen``; returns the newest that was looked at."""
    try:
        while True:
            with village.store.view() as view:
                newest = reading.last_event(view)
                news = reading.news(view, seen)
                if drawn and len(news) < 5_000:
                    progress.draw(board.counts(view), reading.claimed(view), view.now)
            progress.tell(news)
            if len(news) < 5_000:
                return newest
            seen = news[-1].event
    except StoreError:
        return seen  # the runtime tells of it; the next look catches up


def progress_for(name: str, *, as_json: bool) -> tuple[Progress, bool]:
    """What suits this terminal, and whether it is drawn. With JSON on stdout, progress goes to stderr as lines."""
    if as_json or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return Lines(stderr=as_json), False
    return Drawn(name), True
