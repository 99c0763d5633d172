"""The room of ``vivarium report``: what a night came to, on one page, for whoever comes in the morning."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.amounts import money_text
from vivarium_kernel.cli.named import MOST_CHARACTERS, named_table
from vivarium_kernel.cli.opening import folder_of, json_option, looking, spare, village_option
from vivarium_kernel.cli.showing import WIDE, fields, money, print_json, safe, several, shortened
from vivarium_kernel.errors import Invalid
from vivarium_kernel.terms import ENDED_STATES, MICROS
from vivarium_kernel.wording import lasting, when

if TYPE_CHECKING:
    from vivarium_kernel.cli.night import Entry, Night

_SPAN = re.compile(r"(\d{1,6})\s*(s|m|min|h|d)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}


@click.command()
@click.option(
    "--since",
    default="24h",
    show_default=True,
    metavar="SPAN",
    help="From when on: a span such as 12h, 90m or 2d, or a moment such as 2026-01-31T20:00.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it as one page that loads nothing from elsewhere.",
)
@village_option
@json_option
def report(since: str, html: Path | None, village: Path | None, as_json: bool) -> None:
    """Tell what was done, spent, refused and parked, and why.

    For the morning after: what ended in the span, what it cost, which models failed, and what is left now, each with
    its reason and the next step. A call of a model is one that was made, answered or not, as in `vivarium costs`; one
    that failed without having been made is counted with the failed alone.
    """
    from vivarium_kernel.cli.night import as_plain, night
    from vivarium_kernel.settings import load

    folder = folder_of(village)
    if html is not None:
        spare(html, folder, "report.file")
    with looking(folder) as view:
        found = night(view, _moment(since, view.now))
    name = load(folder).settings.name
    if html is not None:
        _write(html, page(name, found))
    if as_json:
        print_json({"village": name, "folder": str(folder)} | as_plain(found))
    elif html is not None:
        click.echo(f"Written: {html}")
    else:
        _tell(name, found)


def _moment(since: str, now: int) -> int:
    """When a span began, as micros of Unix time; a moment without an offset is of this machine's time."""
    span = _SPAN.fullmatch(since.strip())
    if span:
        return max(0, now - int(span[1]) * _SECONDS[span[2]] * MICROS)
    try:
        moment = datetime.fromisoformat(since).astimezone()
        return max(0, (moment - datetime.fromtimestamp(0).astimezone()) // timedelta(microseconds=1))
    except (ValueError, OverflowError, OSError):
        raise Invalid(
            "report.since", f"--since is a span or a moment, not {since!r:.80}.",
            "Such as 24h, 90m, 2d or 2026-01-31T20:00.", field="--since",
        ) from None  # fmt: skip


def _tell(name: str, found: Night) -> None:
    from vivarium_kernel.cli.thoughts import stood_in

    fields(head(name, found))
    now = found.until_at
    _part("Waits for a person", ("task", "state", "for", "next step"),
          [(one.task, one.state, _cut(one.what), one.next_step) for one in found.people])  # fmt: skip
    _part("Refused", ("task", "state", "why"), [(one.task, one.state, _cut(one.why)) for one in found.refused])
    _part("Failed", ("task", "state", ">attempts", "why"),
          [(one.task, one.state, one.attempts, _cut(one.why)) for one in found.failed])  # fmt: skip
    _part("Left for later", ("task", "state", "waits for", "next step"),
          [(one.task, one.state, _cut(one.what), one.next_step) for one in found.parked])  # fmt: skip
    _part("Trouble with models and limits", ("what", "about", ">times", "first", "last", "reason"),
          [(one.what, one.about, one.times, when(one.first_at, now), when(one.last_at, now), _cut(one.reason))
           for one in found.troubles])  # fmt: skip
    _part("Models", ("model", ">calls made", ">failed", ">tokens in", ">out", ">usd"), _used(found))
    _part("Told by residents", ("task", "kind", "resident", "text"),
          [(one.task, one.kind, one.resident, _cut(one.text)) for one in found.told])  # fmt: skip
    _part("Done", ("task", "resident", ">usd", ">cited", "*answer"), [_done(one) for one in found.done])
    for one in found.done:
        if one.thought is not None and one.thought.instead_of:
            click.echo(safe(stood_in(one.thought)))
    if found.more:
        click.echo(f"\nand {several(found.more, 'task')} more; `vivarium task list` has them all")


def head(name: str, found: Night) -> list[tuple[str, str]]:
    """The figures above all else, as people read them."""
    now = found.until_at
    ended = [f"{found.counts[state]:,} {state}" for state in ENDED_STATES if found.counts.get(state)]
    cited = f"{found.verified:,} of {found.citations:,} hold" if found.citations else ""
    caps = [
        f"{money(cap.left_micros, 'usd')} left of {money(cap.cap_micros, 'usd')} ({cap.scope.partition(':')[0]})"
        for cap in found.caps
    ]
    return [
        ("village", f"{name}, {found.standing}"),
        ("span", f"{when(found.since_at, now)} to {when(now, now)} ({lasting((now - found.since_at) / MICROS)})"),
        ("ended", ", ".join(ended) or "nothing"),
        ("left", f"{len(found.people)} for a person, {len(found.parked)} for other things"),
        ("spent", "; ".join([money(found.spent_micros, "usd"), *caps])),
        ("citations", cited),
    ]


def _part(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        click.echo(f"\n{click.style(f'{title} ({len(rows)})', bold=True)}")
        named_table(columns, rows)


def _used(found: Night) -> list[tuple[Any, ...]]:
    return [
        (one.model, f"{one.calls:,}", f"{one.failures:,}", f"{one.tokens_in:,}", f"{one.tokens_out:,}",
         money_text(one.spent_micros))
        for one in found.models
    ]  # fmt: skip


def _done(one: Entry) -> tuple[Any, ...]:
    from vivarium_kernel.cli.thoughts import cited

    cost = money_text(one.thought.spent_micros) if one.thought and one.thought.spent_micros else ""
    return (one.task, one.resident, cost, cited(one.thought) if one.thought else "", shortened(one.said, 80))


def _cut(text: str) -> str:
    return shortened(text, MOST_CHARACTERS if sys.stdout.isatty() else WIDE)


def page(name: str, found: Night) -> str:
    """One page of HTML with all of it, which loads nothing from elsewhere and runs nothing."""
    from jinja2 import Environment, StrictUndefined

    from vivarium_kernel.cli.thoughts import cited, named, stood_in

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shown: dict[str, Callable[..., str]] = {
        "usd": money_text, "when": partial(_when, found.until_at), "plain": partial(safe, lines=True),
        "cited": cited, "named": named, "stood_in": stood_in,
    }  # fmt: skip
    environment.filters.update(shown)
    template = environment.from_string(Path(__file__).with_name("morning.html").read_text(encoding="utf-8"))
    return template.render(name=name, night=found, head=head(name, found))


def _when(now: int, at: int) -> str:
    return when(at, now)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Invalid(
            "report.file", f"{path} can't be written: {error.strerror or error}.", "Name another file.", field="--html"
        ) from error
