"""The room of the circuit breaker: a model that fails again and again is left alone for a while, then tried once."""

from __future__ import annotations

from attrs import define

FAILURES = 5  # in a row (docs/rules.md, "Safety")
PAUSE_SECONDS, PAUSE_MAX_SECONDS = 15.0, 300.0


@define
class Circuit:
    """The breaker of one model in one process. Times are seconds of a monotonic clock."""

    failures: int = 0
    open_until: float = 0.0
    probing: bool = False
    reason: str = ""

    @property
    def is_open(self) -> bool:
        return self.failures >= FAILURES

    def wait_seconds(self, now: float) -> float:
        """0 for a call that may be made now: the breaker is closed, or this is the one probe. Else how long to wait."""
        if not self.is_open:
            return 0.0
        if self.probing:
            return PAUSE_SECONDS
        if now < self.open_until:
            return self.open_until - now
        self.probing = True
        return 0.0

    def went_well(self) -> bool:
        """A call was answered. True if that closed the breaker."""
        was_open = self.is_open
        self.failures, self.probing, self.reason = 0, False, ""
        return was_open

    def failed(self, now: float, reason: str) -> bool:
        """A call failed through the provider's fault. True if that opened the breaker; a failed probe doubles its
        pause. A call that was under way when the breaker opened tells nothing new."""
        if self.is_open and not self.probing:
            return False
        self.failures += 1
        self.probing = False
        self.reason = reason
        if not self.is_open:
            return False
        self.open_until = now + min(PAUSE_MAX_SECONDS, PAUSE_SECONDS * 2.0 ** min(self.failures - FAILURES, 10))
        return self.failures == FAILURES

    def undecided(self) -> None:
        """A call ended without a word about the provider (the task was cancelled): the probe is free again."""
        self.probing = False
