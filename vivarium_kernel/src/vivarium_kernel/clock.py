"""The room of time, chance and names: everything asks here, so that a simulation can replace all three."""

from __future__ import annotations

import asyncio
import random
import secrets
import selectors
import time
from typing import Any, Protocol

from vivarium_kernel.records import MICROS


class Clock(Protocol):
    """Time and chance. ``now`` is in microseconds of Unix time, ``monotonic`` in seconds."""

    chance: random.Random

    def now(self) -> int: ...

    def monotonic(self) -> float: ...

    def secret(self) -> str: ...


class SystemClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        self.chance = random.Random()  # noqa: S311 - jitter and choices, never secrets

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    def secret(self) -> str:
        """43 characters that nobody can guess."""
        return secrets.token_urlsafe(32)


class SimulatedClock:
    """A clock that only :class:`SimulatedLoop` moves; chance and secrets come from the seed."""

    def __init__(self, seed: int, start_at: int = 1_750_000_000 * MICROS) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - a simulation must repeat
        self._start_at = start_at
        self._elapsed = 0.0

    def now(self) -> int:
        return self._start_at + round(self._elapsed * MICROS)

    def monotonic(self) -> float:
        return self._elapsed

    def secret(self) -> str:
        return f"simulated-{self.chance.getrandbits(128):032x}"

    def advance(self, seconds: float) -> None:
        """Move time on by ``seconds``."""
        self._elapsed += max(0.0, seconds)


class _ImpatientSelector(selectors.DefaultSelector):
    """Never waits: a wait moves the simulated clock on instead."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            # Nothing is scheduled and nobody outside can wake a simulation: it would hang for ever.
            raise RuntimeError("the simulation waits for something that can never happen")
        if not ready and timeout:
            self._clock.advance(timeout)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop on a :class:`SimulatedClock`: an hour of sleeping takes no time at all."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__(_ImpatientSelector(clock))
        self._simulated = clock

    def time(self) -> float:
        return self._simulated.monotonic()


def run_simulated(clock: SimulatedClock, main: Any) -> Any:
    """Run a coroutine to its end on a simulated loop; returns what it returns."""
    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(clock)) as runner:
        return runner.run(main)
