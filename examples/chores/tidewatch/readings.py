"""Readings: what the float gauge wrote down, one line every quarter of an hour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

STEP = timedelta(minutes=15)


class BadLine(ValueError):
    """A line of the gauge's log that is no reading."""

    def __init__(self, number: int, line: str) -> None:
        super().__init__(f"line {number} is no reading: {line!r}; expected 'TIME LEVEL mm q=ok|bad batt=VOLTS'")
        self.number = number


@dataclass(frozen=True)
class Reading:
    """The height of the sea above the station's datum at one moment."""

    at: datetime
    level_mm: int
    good: bool
    battery_volts: float


def parse(line: str, number: int = 1) -> Reading:
    """One line as a reading, such as '2025-03-01T00:15Z 3127 mm q=ok batt=12.6'."""
    try:
        at, level, unit, quality, battery = line.split()
        if unit != "mm" or quality not in {"q=ok", "q=bad"} or not battery.startswith("batt="):
            raise BadLine(number, line)
        return Reading(datetime.fromisoformat(at), int(level), quality == "q=ok", float(battery.removeprefix("batt=")))
    except BadLine:
        raise
    except ValueError as error:
        raise BadLine(number, line) from error


def load(path: Path) -> list[Reading]:
    """All readings of a log, in the order in which the gauge wrote them."""
    return [parse(line, number) for number, line in enumerate(path.read_text().splitlines(), start=1)]


def good_only(readings: Iterable[Reading]) -> list[Reading]:
    """What may be used for figures: a spike from a boat's wake says nothing about the tide."""
    return [reading for reading in readings if reading.good]


@dataclass(frozen=True)
class Gap:
    """A silence of the gauge: the first reading that is missing, and how many."""

    first_missing: datetime
    missing: int


def gaps(readings: Iterable[Reading]) -> Iterator[Gap]:
    """Where two neighbours are further apart than one step."""
    before: Reading | None = None
    for reading in readings:
        if before is not None and reading.at - before.at > STEP:
            yield Gap(before.at + STEP, (reading.at - before.at) // STEP - 1)
        before = reading


@dataclass(frozen=True)
class Day:
    """One day of good readings; levels in millimetres above datum."""

    day: date
    readings: int
    lowest_mm: int
    highest_mm: int

    @property
    def range_mm(self) -> int:
        """How far the sea moved that day."""
        return self.highest_mm - self.lowest_mm


def by_day(readings: Iterable[Reading]) -> list[Day]:
    """Lowest and highest water of every day that has a good reading."""
    levels: dict[date, list[int]] = {}
    for reading in good_only(readings):
        levels.setdefault(reading.at.date(), []).append(reading.level_mm)
    return [Day(day, len(found), min(found), max(found)) for day, found in sorted(levels.items())]
