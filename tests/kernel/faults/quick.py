"""Time that runs faster than time: pauses shrink, while the real files, threads and processes are as slow as ever.

The clock is the same for every process of this machine, so that a village can be opened again in another one.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import selectors
import time
from collections.abc import Coroutine
from typing import Any

from vivarium_kernel.terms import MICROS

FASTER = 40.0  # a second of the village is 25 ms
START_AT = 1_750_000_000 * MICROS


class QuickClock:
    """The machine's monotonic clock, so many times as fast; ``ahead_seconds`` is how far this one runs ahead."""

    def __init__(self, ahead_seconds: float = 0.0, seed: int = 1) -> None:
        self.chance = random.Random(seed)
        self.ahead_seconds = ahead_seconds

    def now(self) -> int:
        return START_AT + int((self.monotonic() + self.ahead_seconds) * MICROS)

    def monotonic(self) -> float:
        return time.monotonic() * FASTER

    def secret(self) -> str:
        return secrets.token_urlsafe(32)


class _QuickSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout / FASTER if timeout else timeout)


class QuickLoop(asyncio.SelectorEventLoop):
    """An event loop whose sleeps and timeouts go by the quick clock."""

    def __init__(self) -> None:
        super().__init__(_QuickSelector())

    def time(self) -> float:
        return time.monotonic() * FASTER


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run to its end on a quick loop."""
    with asyncio.Runner(loop_factory=QuickLoop) as runner:
        return runner.run(main)


def timeout(real_seconds: float) -> asyncio.Timeout:
    """A timeout in the test's own seconds."""
    return asyncio.timeout(real_seconds * FASTER)
