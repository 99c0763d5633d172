"""The room of how panels say things: their templates' environment, and moments, durations, money and JSON in words."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jinja2

from vivarium_kernel.amounts import money_text
from vivarium_kernel.terms import MICROS
from vivarium_kernel.wording import lasting

SHOWN_CHARACTERS = 20_000  # of one output: the whole is at /attempts/NUMBER


@functools.cache
def environment() -> jinja2.Environment:
    """Everything that a template may use. What is put into a page is escaped, whoever wrote it."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("vivarium_kernel.api", "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "ago": ago,
        "compact": compact,
        "json": pretty,
        "lasting": lasting,
        "money": money_text,
        "shell": shell,
        "shortened": shortened,
        "stamp": stamp,
        "took": took,
    }
    return made


@functools.lru_cache(maxsize=256)
def compiled(text: str) -> jinja2.Template:
    """A plugin's template, compiled once for each of its texts."""
    return environment().from_string(text)


def stamp(at: int) -> str:
    """A moment as the ``datetime`` of ``<time>``, in UTC."""
    return datetime.fromtimestamp(at / MICROS, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(at: int, now: int) -> str:
    """How long ago a moment was, or how far off it is."""
    seconds = round((now - at) / MICROS)
    if abs(seconds) < 2:
        return "now"
    length = f"{abs(seconds)} s" if abs(seconds) < 60 else lasting(abs(seconds))
    return f"{length} ago" if seconds > 0 else f"in {length}"


def took(seconds: float) -> str:
    """A short duration in the unit that it is read in: ``120 µs``, ``3.4 ms``, ``2.1 s``."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else lasting(seconds)


def pretty(value: Any) -> str:
    """A value as JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def compact(value: Any) -> str:
    """An event's data in one line: ``state=open, by=ada``."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_word(each)}" for name, each in value.items() if each not in (None, ""))
    return _word(value)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def shell(command: Sequence[str]) -> str:
    """A command as one would type it."""
    return shlex.join(command)


def shortened(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    """The end of a text that is too long to show: where a program says what went wrong."""
    return text if len(text) <= limit else "…" + text[-limit:]
