"""The room of time, chance and names: everything asks here, so that a simulation can replace all three."""

from __future__ import annotations

import asyncio
import random
import secrets
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar, TypeVarTuple

from vivarium_kernel.terms import MICROS

JUMP_SECONDS = 1.0  # more than any clock is slewed in one look
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


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


class Jumps:
    """Tells whether a clock's time of day went another way than its seconds did: it was set, or the machine slept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._off = self._difference()

    def jumped(self) -> float:
        """By how many seconds it did since this was last asked; 0 for no more than ``JUMP_SECONDS`` either way."""
        before, self._off = self._off, self._difference()
        return self._off - before if abs(self._off - before) > JUMP_SECONDS else 0.0

    def _difference(self) -> float:
        return self._clock.now() / MICROS - self._clock.monotonic()


class _ImpatientSelector(selectors.DefaultSelector):
    """Never waits: a wait moves the simulated clock on instead, but while something real is at work beside the loop."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__()
        self._clock = clock
        self.threads = 0  # calls in threads that the loop waits for
        self.ends: set[Any] = set()  # what it reads: pipes, and the ends of processes

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.threads or self.ends:
            began = time.monotonic()
            ready = super().select(timeout)
            self._clock.advance(time.monotonic() - began)
            return ready
        ready = super().select(0)
        if not ready and timeout is None:
            # Nothing is scheduled and nobody outside can wake a simulation: it would hang for ever.
            raise RuntimeError("the simulation waits for something that can never happen")
        if not ready and timeout:
            self._clock.advance(timeout)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop on a :class:`SimulatedClock`: an hour of sleeping takes no time at all.

    While a thread or a command is at work, time passes as it really does.
    """

    def __init__(self, clock: SimulatedClock) -> None:
        self._impatient = _ImpatientSelector(clock)
        self._simulated = clock
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._simulated.monotonic()

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        answer = super().run_in_executor(executor, func, *args)
        self._impatient.threads += 1
        answer.add_done_callback(self._thread_is_done)
        return answer

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        self._impatient.threads += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._impatient.threads -= 1

    def _thread_is_done(self, _: asyncio.Future[Any]) -> None:
        self._impatient.threads -= 1

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        super().add_reader(fd, callback, *args)
        self._impatient.ends.add(fd)

    def remove_reader(self, fd: Any) -> bool:
        self._impatient.ends.discard(fd)
        return super().remove_reader(fd)


def run_simulated(clock: SimulatedClock, main: Any) -> Any:
    """Run a coroutine to its end on a simulated loop; returns what it returns."""
    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(clock)) as runner:
        return runner.run(main)
