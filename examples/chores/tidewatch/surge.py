"""Surge: what the wind and the air add to the tide, or take from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tidewatch.harmonics import Constituent, height_mm
from tidewatch.readings import Reading, good_only


@dataclass(frozen=True)
class Residual:
    """Observed minus predicted height at one moment."""

    at: datetime
    observed_mm: int
    surge_mm: int


def residuals(readings: Iterable[Reading], constituents: Sequence[Constituent]) -> list[Residual]:
    """One residual for every good reading."""
    return [
        Residual(reading.at, reading.level_mm, round(reading.level_mm - height_mm(reading.at, constituents)))
        for reading in good_only(readings)
    ]


def largest(found: Sequence[Residual]) -> Residual:
    """The strongest surge upwards; the first one, if two are equal."""
    # NOTE(tobias): a strong east wind makes a surge downwards, and the ferry grounds. That one is a page of its own.
    return max(found, key=lambda residual: residual.surge_mm)
