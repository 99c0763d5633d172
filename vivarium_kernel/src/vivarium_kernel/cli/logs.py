"""The room of ``vivarium log``: reading, following, exporting and verifying the log."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from attrs import asdict

from vivarium_kernel.cli.lazy import Entry, LazyGroup
from vivarium_kernel.cli.opening import folder_of, json_option, looking, spare, village_option
from vivarium_kernel.cli.showing import plain, print_json, print_json_list, safe, several
from vivarium_kernel.wording import when

if TYPE_CHECKING:
    from vivarium_kernel.audit import Filter
    from vivarium_kernel.records import Event
    from vivarium_kernel.store import View

LOOK_SECONDS = 0.25
_PAGE = 2_000

log = LazyGroup(
    "log",
    help="Read, follow, export and verify the log.",
    no_args_is_help=True,
    sections={
        "Commands": {
            "tail": Entry("logs:tail", "Show the newest events, and follow them with -f."),
            "show": Entry("logs:show", "Show events from the oldest on, or one whole event."),
            "export": Entry("logs:export", "Write events to a file as JSONL."),
            "verify": Entry("logs:verify", "Check the chain of hashes over every event."),
            "head": Entry("logs:head", "Note the newest event's hash in a file outside the database."),
        }
    },
)


def _filters(command: Any) -> Any:
    for option, metavar, text in reversed(
        (
            ("--resident", "NAME", "Only events about this resident."),
            ("--task", "ID", "Only events about this task."),
            ("--kind", "KIND", "Only events of this kind; task.* is every kind that begins so."),
            ("--model", "NAME", "Only events about this model."),
        )
    ):
        command = click.option(option, metavar=metavar, help=text)(command)
    return click.option("--day", type=int, metavar="N", help="Only events of this village day.")(command)


def _only(filters: dict[str, Any]) -> Filter:
    from vivarium_kernel.audit import Filter

    return Filter(**filters)


@click.command()
@click.option("-n", "--lines", type=click.IntRange(0), default=20, show_default=True, metavar="N", help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Go on as new events come, until Ctrl-C.")
@_filters
@village_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one list, or with -f one event a line.")
def tail(lines: int, follow: bool, village: Path | None, as_json: bool, **filters: Any) -> None:
    """Show the newest events, and follow them with -f."""
    from vivarium_kernel import audit

    folder = folder_of(village)
    only = _only(filters)
    with looking(folder) as view:
        events = audit.last(view, lines, only)
        seen, now = audit.read_head(view)[0], view.now
    if not follow:
        _print(events, now, as_json)
        return
    show = _jsonl if as_json else _line
    for event in events:
        click.echo(show(event, now))
    try:
        for event, now in _coming(folder, seen, only):
            click.echo(show(event, now))
    except KeyboardInterrupt:
        return  # how following ends


def _coming(folder: Path, seen: int, only: Filter) -> Iterator[tuple[Event, int]]:
    from vivarium_kernel import audit

    while True:
        with looking(folder) as view:
            events = audit.tail(view, seen, _PAGE, only)
            head, now = audit.read_head(view)[0], view.now
        yield from ((event, now) for event in events)
        seen = events[-1].id if len(events) == _PAGE else head
        if len(events) < _PAGE:
            time.sleep(LOOK_SECONDS)


@click.command()
@click.argument("number", type=int, required=False, metavar="[NUMBER]")
@click.option("--after", type=click.IntRange(0), default=0, metavar="N", help="Only events after this number.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N; by default 100, with --json all.")
@_filters
@village_option
@json_option
def show(
    number: int | None, after: int, limit: int | None, village: Path | None, as_json: bool, **filters: Any
) -> None:
    """Show events from the oldest on, or one whole event."""
    from vivarium_kernel import audit
    from vivarium_kernel.errors import NotFound

    with looking(folder_of(village)) as view:
        if number is not None:
            found = audit.tail(view, number - 1, 1)
            if not found or found[0].id != number:
                raise NotFound("log.event", f"There is no event {number}.", "See `vivarium log tail`.")
            print_json(plain(found[0]))
            return
        if as_json:
            print_json_list(plain(event) for event in _all(view, _only(filters), after, limit))
            return
        shown = limit or 100
        events = list(_all(view, _only(filters), after, shown + 1))
        _print(events[:shown], view.now, False)
    if len(events) > shown:
        click.echo(f"There are more; go on with --after {events[shown - 1].id}", err=True)


def _all(view: View, only: Filter, after: int = 0, limit: int | None = None) -> Iterator[Event]:
    from vivarium_kernel import audit

    left = limit
    while left is None or left > 0:
        events = audit.tail(view, after, _PAGE if left is None else min(_PAGE, left), only)
        if not events:
            return
        yield from events
        after = events[-1].id
        left = None if left is None else left - len(events)


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--after", type=click.IntRange(0), default=0, metavar="N", help="Only events after this number.")
@_filters
@village_option
def export(file: str, after: int, village: Path | None, **filters: Any) -> None:
    """Write events to a file as JSONL.

    FILE may be - for standard output. A file that is there already is replaced when everything has been written.
    """
    only = _only(filters)
    folder = folder_of(village)
    if file != "-":
        spare(Path(file), folder, "log.file")
    with looking(folder) as view:
        if file == "-":
            _write(sys.stdout, _all(view, only, after))
            return
        count = _replace(Path(file), lambda out: _write(out, _all(view, only, after)))
    click.echo(f"Wrote {several(count, 'event')} to {safe(file)}")


def _write(out: TextIO, events: Iterable[Event]) -> int:
    count = 0
    for event in events:
        out.write(f"{_jsonl(event, 0)}\n")
        count += 1
    return count


def _replace(path: Path, write: Callable[[TextIO], int]) -> int:
    """Write a file beside its place and move it there whole. A pipe or a device is written to, never replaced."""
    place = path.resolve()
    if place.exists() and not place.is_file():
        with place.open("w", encoding="utf-8") as out:
            return write(out)
    beside = place.with_name(f".{place.name}.part")
    try:
        with beside.open("w", encoding="utf-8") as out:
            count = write(out)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    return count


@click.command()
@click.option(
    "--heads", type=click.Path(path_type=Path), metavar="FILE", help="Compare with the heads kept in this file."
)
@village_option
@json_option
def verify(heads: Path | None, village: Path | None, as_json: bool) -> int:
    """Check the chain of hashes over every event.

    Exit status 1 if an event is not as it was written.
    """
    from vivarium_kernel import audit

    with looking(folder_of(village)) as view:
        number, head, broken = audit.verify(view)
        if broken is None and heads is not None:
            broken = audit.check_heads(view, heads)
    if as_json:
        print_json({"events": number, "head": head, "broken": None if broken is None else asdict(broken)})
    elif broken is None:
        agrees = " and agree with the heads that were kept" if heads is not None else ""
        click.echo(f"All {number:,} events are as they were written{agrees}\nThe head is {head}")
    else:
        click.echo(f"Event {broken.id} is not as it was written: {broken.why}", err=True)
        click.echo(
            f"  {number:,} events before it are right. Restore a backup; `vivarium doctor` tells more.", err=True
        )
    return 0 if broken is None else 1


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@village_option
def head(file: Path, village: Path | None) -> None:
    """Note the newest event's hash in a file outside the database.

    Each call adds a line. `vivarium log verify --heads FILE` then also finds a log that was cut short or rewritten.
    """
    from vivarium_kernel import audit

    folder = folder_of(village)
    spare(file, folder, "log.file")
    with looking(folder) as view:
        number, digest = audit.write_head(view, file)
    click.echo(f"Noted event {number:,}, {digest}")


def _print(events: list[Event], now: int, as_json: bool) -> None:
    if as_json:
        print_json_list(plain(event) for event in events)
        return
    for event in events:
        click.echo(_line(event, now))


def _jsonl(event: Event, _now: int) -> str:
    return json.dumps(plain(event), ensure_ascii=False, separators=(",", ":"))


def _line(event: Event, now: int) -> str:
    """An event as a line: number, time, kind, what it is about, by whom, and its data."""
    about = " ".join(
        text
        for text in (
            event.task, f"#{event.attempt}" if event.attempt is not None else None,
            event.resident if event.actor != f"resident:{event.resident}" else None, event.model,
        )
        if text
    )  # fmt: skip
    data = " ".join(f"{key}={_value(value)}" for key, value in event.data.items() if value not in (None, ""))
    kind = click.style(event.kind.ljust(18), fg="cyan")
    parts = [f"{event.id:>6}", when(event.at, now), f"d{event.day}", kind, about, f"by {event.actor}", data]
    return safe_keeping_style(" ".join(part for part in parts if part))


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = text if len(text) <= 100 else f"{text[:99]}…"
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


def safe_keeping_style(text: str) -> str:
    """Control characters shown, but for the colours that this program put there itself."""
    return "\x1b".join(safe(part) for part in text.split("\x1b"))
