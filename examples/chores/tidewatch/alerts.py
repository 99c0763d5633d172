"""Alerts: which tides the harbour should have been warned of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidewatch.readings import Reading, good_only
from tidewatch.settings import Thresholds

# NOTE(mara): two high waters are never less than ten hours apart here, so three dry hours always end a tide.
TIDE_ENDS_AFTER = timedelta(hours=3)


@dataclass(frozen=True)
class Alert:
    """The top of one tide that reached a threshold."""

    at: datetime
    kind: str
    level_mm: int

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%dT%H:%MZ} {self.kind} {self.level_mm}"


def _tides(readings: Iterable[Reading], watch_mm: int) -> Iterator[list[Reading]]:
    """The good readings above the threshold, one list a tide."""
    tide: list[Reading] = []
    for reading in good_only(readings):
        if reading.level_mm < watch_mm:
            continue
        if tide and reading.at - tide[-1].at > TIDE_ENDS_AFTER:
            yield tide
            tide = []
        tide.append(reading)
    if tide:
        yield tide


def alerts(readings: Iterable[Reading], thresholds: Thresholds) -> list[Alert]:
    """One alert a tide, at its highest reading, oldest first."""
    tops = (max(tide, key=lambda reading: reading.level_mm) for tide in _tides(readings, thresholds.watch_mm))
    return [Alert(top.at, "flood" if top.level_mm >= thresholds.flood_mm else "watch", top.level_mm) for top in tops]
