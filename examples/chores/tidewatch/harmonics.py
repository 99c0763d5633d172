"""Harmonics: the tide that sun and moon alone would make."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

EPOCH = datetime(2025, 3, 1, tzinfo=UTC)
MEAN_LEVEL_MM = 3100


@dataclass(frozen=True)
class Constituent:
    """One wave of the tide: its height, how fast it turns and where it stood at the epoch."""

    name: str
    amplitude_mm: float
    degrees_per_hour: float
    phase_degrees: float


def load_constituents(path: Path) -> list[Constituent]:
    """The table that the last harmonic analysis of this gauge gave us."""
    with path.open(newline="") as table:
        return [
            Constituent(
                row["name"], float(row["amplitude_mm"]), float(row["degrees_per_hour"]), float(row["phase_degrees"])
            )
            for row in csv.DictReader(table)
        ]


def height_mm(at: datetime, constituents: Sequence[Constituent]) -> float:
    """The predicted height above datum."""
    hours = (at - EPOCH).total_seconds() / 3600
    # NOTE(ines): no nodal corrections. Over one month they are smaller than the swell.
    return MEAN_LEVEL_MM + sum(
        wave.amplitude_mm * math.cos(math.radians(wave.degrees_per_hour * hours - wave.phase_degrees))
        for wave in constituents
    )


@dataclass(frozen=True)
class Turn:
    """A moment at which the tide turns."""

    at: datetime
    kind: str
    level_mm: int


def turns(start: datetime, end: datetime, constituents: Sequence[Constituent]) -> list[Turn]:
    """Every predicted high and low water from start up to end, to the nearest five minutes."""
    step = timedelta(minutes=5)
    found: list[Turn] = []
    at = start
    while at < end:
        before, here, after = (height_mm(at + offset, constituents) for offset in (-step, 0 * step, step))
        if before < here >= after:
            found.append(Turn(at, "high", round(here)))
        elif before > here <= after:
            found.append(Turn(at, "low", round(here)))
        at += step
    return found
