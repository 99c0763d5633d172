"""The room of Groq's rate limits: what its headers say of a model, and how long the next call has to wait for it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from attrs import define, field

LONGEST_SECONDS = 86_400.0  # what is said beyond it is not believed
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?", re.ASCII)
_UNITS = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)


def duration_seconds(text: str) -> float | None:
    """A duration such as ``2m59.56s`` or ``120ms``; None for what is none."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        return None
    total = sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part)
    return min(total, LONGEST_SECONDS)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """How long ``retry-after`` asks to wait, as seconds or as a date; None when it says nothing that can be meant."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        seconds = _until(text, headers.get("date", ""))
    return min(seconds, LONGEST_SECONDS) if math.isfinite(seconds) and seconds >= 0 else None


def _until(text: str, date: str) -> float:
    """Seconds to a date from the server's own, so that our clock need not be right."""
    try:
        then = parsedate_to_datetime(text)
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError):
        return math.nan


@define
class _Left:
    """What is left of one limit until it is reset. Times are seconds of a monotonic clock."""

    left: int | None = None
    reset_at: float = 0.0

    def wait_seconds(self, now: float) -> float:
        return max(0.0, self.reset_at - now) if self.left is not None and self.left <= 0 else 0.0


@define
class Limit:
    """The limits of one model under one key, as the last answer told them."""

    requests: _Left = field(factory=_Left)
    tokens: _Left = field(factory=_Left)
    barred_until: float = 0.0

    def wait_seconds(self, now: float) -> float:
        """How long a call has to wait so that it is not refused."""
        return max(self.barred_until - now, self.requests.wait_seconds(now), self.tokens.wait_seconds(now), 0.0)

    def take(self, now: float) -> None:
        """A call is sent: of what was told to be left there is one less, until the next answer."""
        for each in (self.requests, self.tokens):
            if each.reset_at <= now:
                each.left = None
        if self.requests.left is not None:
            self.requests.left -= 1

    def learn(self, headers: Mapping[str, str], now: float) -> None:
        """Take up what an answer's headers say; what they don't say, or say wrongly, changes nothing."""
        for name, each in (("requests", self.requests), ("tokens", self.tokens)):
            left = headers.get(f"x-ratelimit-remaining-{name}", "").strip()
            reset = duration_seconds(headers.get(f"x-ratelimit-reset-{name}", ""))
            if re.fullmatch(r"\d{1,12}", left, re.ASCII) and reset is not None:
                each.left, each.reset_at = int(left), now + reset

    def bar(self, seconds: float, now: float) -> None:
        """A call was refused for now: until then every other would be too."""
        self.barred_until = max(self.barred_until, now + seconds)
