"""A clock that somebody sets, planted: the rest of the machine's time goes on evenly."""

from __future__ import annotations

from vivarium_kernel.clock import SystemClock
from vivarium_kernel.terms import MICROS


class JumpingClock(SystemClock):
    """The machine's clock, as somebody sets it forward and back by ``off_seconds``."""

    off_seconds = 0.0

    def now(self) -> int:
        return super().now() + int(self.off_seconds * MICROS)
