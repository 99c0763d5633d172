"""The room of the one clock: village hours and days, counted in the store so that they never go back.

Rules: docs/rules.md, "One clock". An hour's length follows the pace; a halted village, and one that no process hosts,
stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from attrs import frozen

from vivarium_kernel.terms import MICROS

HOURS_A_DAY = 24
_COLUMNS = "paused, halted, pace_seconds, hour_seconds, residents, hours_micros, since_at, halt_reason"


def hour_length_seconds(base_seconds: float, pace_seconds: float) -> float:
    """How long a village hour lasts in real seconds at this pace; at pace 0 it is 3.0 s."""
    if pace_seconds == 0:
        return 3.0
    return min(max(base_seconds * pace_seconds / 2.0, 5.0), 86_400.0)


@frozen
class Times:
    """The village's switches and its clock, as one transaction or snapshot sees them."""

    paused: bool
    halted: bool
    pace_seconds: float
    hour_seconds: float
    residents: int | None
    hours_micros: int
    since_at: int
    halt_reason: str
    hosted_until_at: int | None
    last_event_at: int
    last_event_hour: int

    def hours_micros_at(self, now: int) -> int:
        """Village time at ``now``, in millionths of a village hour."""
        if self.halted or self.hosted_until_at is None:
            return self.hours_micros
        elapsed = max(0, min(now, self.hosted_until_at) - self.since_at)
        return self.hours_micros + int(elapsed / hour_length_seconds(self.hour_seconds, self.pace_seconds))

    def hour(self, now: int) -> int:
        """The village hour; never before the last event's, whatever the machine's clock says."""
        return max(self.hours_micros_at(now) // MICROS, self.last_event_hour)

    def day(self, now: int) -> int:
        return self.hour(now) // HOURS_A_DAY


# A halt that can't be read is a halt: without the village's row nothing runs.
NOT_FOUNDED = Times(False, True, 2.0, 10.0, None, 0, 0, "the village's row is not there", None, 0, 0)


class Source(Protocol):
    """A view or a transaction."""

    def row(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None: ...


def read_times(source: Source) -> Times:
    """The times as a view or transaction sees them."""
    row = source.row(
        f"SELECT {_COLUMNS}, (SELECT lease_until_at FROM processes WHERE host = 1), "
        "coalesce((SELECT at FROM events ORDER BY id DESC LIMIT 1), 0), "
        "coalesce((SELECT hour FROM events ORDER BY id DESC LIMIT 1), 0) FROM village"
    )
    if row is None:
        return NOT_FOUNDED
    return Times(bool(row[0]), bool(row[1]), *row[2:])
