"""Bulletin: the sheet that hangs in the harbour office every morning."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from tidewatch.harmonics import Constituent, Turn, turns

SPRING_RANGE_MM = 4000
NEAP_RANGE_MM = 2200


def kind_of_day(found: Sequence[Turn]) -> str:
    """Springs, neaps or something between, by the day's range."""
    levels = [turn.level_mm for turn in found]
    spread = max(levels) - min(levels)
    if spread >= SPRING_RANGE_MM:
        return "springs"
    return "neaps" if spread <= NEAP_RANGE_MM else "between springs and neaps"


def bulletin(day: date, constituents: Sequence[Constituent]) -> str:
    """The sheet for one day: a heading, one line for each turn of the tide, and the kind of day."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    found = turns(start, start + timedelta(days=1), constituents)
    lines = [f"Greyling Point, {day.isoformat()}"]
    # NOTE(mara): metres with a comma, please. The harbour office has complained about the point since 1987.
    lines += [f"{turn.at:%H:%M}  {turn.kind:<4}  {turn.level_mm / 1000:.2f} m".replace(".", ",") for turn in found]
    lines.append(f"A day of {kind_of_day(found)}.")
    return "\n".join(lines)
