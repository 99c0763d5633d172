"""The room of plugin health: what each implementation's runs cost, how they failed, and what is switched off for it.

One :class:`Health` serves the successive plugin sets of one village, so that switching a plugin forgets nothing.
Hooks with a ``tx`` run on the writer's thread and the others on the loop's; ``on_change`` is called on that thread.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
from msgspec import Struct

FAILURES_IN_A_ROW = 5
PROBE_SECONDS = 30.0
SLOW_SECONDS = 0.05
TOLD_SECONDS = 60.0  # between two lines of the log about one implementation that holds its thread
REMEMBERED = 64
log = logging.getLogger("vivarium")

# What goes on counting as strictest while it is off, and is therefore probed until it works again.
STRICTEST = frozenset(("entitle", "check_safety", "review_outcome"))


class Call(Struct, eq=False):
    """One run of one implementation. ``value`` is its answer, read and clean; None when ``error`` is set."""

    hook: str
    plugin: str
    value: Any
    seconds: float
    error: BaseException | None


@attrs.frozen
class Fault:
    """A run that failed, answered out of range or was slow: text only, so that it keeps no transaction alive."""

    hook: str
    plugin: str
    seconds: float
    what: str
    where: str = ""


@attrs.define(eq=False, weakref_slot=False)
class Tally:
    """The figures of one implementation. ``off`` is the cause while it is switched off.

    ``probe_at`` is the monotonic second from which one run may find out whether it works again. ``slow`` counts the
    runs that held their thread for over ``SLOW_SECONDS``; ``told_at`` and ``untold`` are about the log's lines on them.
    """

    plugin: str
    hook: str
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    streak: int = 0
    last_error: str = ""
    off: str | None = None
    probe_at: float | None = None
    slow: int = 0
    told_at: float | None = None
    untold: int = 0

    def took(self, seconds: float) -> None:
        """Count a call, however it ended."""
        self.calls += 1
        self.seconds += seconds
        if seconds > self.slowest_seconds:  # noqa: PLR1730 - max() takes three times as long
            self.slowest_seconds = seconds


class SwitchedOff(Exception):
    """The error of a call that was not made, because its implementation is off."""

    def __init__(self, plugin: str, hook: str, cause: str) -> None:
        super().__init__(f"plugin {plugin!r} is off on {hook}: {cause}")
        self.plugin, self.hook, self.cause = plugin, hook, cause


Changed = Callable[[str, str, Literal["on", "off"], str], None]


class Health:
    """Consecutive failures, breakers and totals of every implementation that a village ran."""

    def __init__(
        self,
        on_change: Changed | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        trace: Callable[[Call], None] | None = None,
    ) -> None:
        self.on_change = on_change
        self.trace = trace  # given every call, for tracing and `explain`; None costs nothing
        self.recent: deque[Fault] = deque(maxlen=REMEMBERED)
        self.switched_off: dict[str, dict[str, str]] = {}  # plugin -> hook -> cause
        self.kept: set[tuple[str, str]] = set()  # what is switched off in the store, as this process last saw it
        self._monotonic = monotonic
        self._tallies: dict[tuple[str, str], Tally] = {}

    def tally(self, plugin: str, hook: str) -> Tally:
        """The figures of this implementation, made at the first question."""
        return self._tallies.setdefault((plugin, hook), Tally(plugin, hook))

    def cause(self, plugin: str, hook: str) -> str | None:
        """Why this implementation is off; None while it is on."""
        return self.switched_off.get(plugin, {}).get(hook)

    def off(self, plugin: str, hook: str, cause: str, *, probed: bool = False, tell: bool = True) -> None:
        """Switch an implementation off until :meth:`on`: the watchdog's and the operator's way.

        ``probed`` lets a run find out now and then whether it works again; ``tell`` False is for what is known already.
        """
        self._switch_off(
            self.tally(plugin, hook), cause, self._monotonic() + PROBE_SECONDS if probed else None, tell=tell
        )

    def on(self, plugin: str, hook: str, cause: str = "switched on", *, tell: bool = True) -> None:
        """Switch an implementation on again, with a clean slate of failures."""
        tally = self.tally(plugin, hook)
        tally.streak = 0
        tally.probe_at = None
        if tally.off is None:
            return
        tally.off = None
        hooks = {name: why for name, why in self.switched_off[plugin].items() if name != hook}
        self.switched_off = {name: why for name, why in self.switched_off.items() if name != plugin}
        if hooks:
            self.switched_off[plugin] = hooks
        if tell and self.on_change is not None:
            self.on_change(plugin, hook, "on", cause)

    def view(self) -> list[dict[str, Any]]:
        """The figures of every implementation as plain data, by plugin and hook."""
        return [attrs.asdict(tally) for _, tally in sorted(self._tallies.items())]

    def failed(self, tally: Tally, seconds: float, error: BaseException, written: str = "") -> None:
        """Record a failed run; the fifth in a row switches the implementation off on its hook.

        ``written`` is where the implementation is, as ``file:line``.
        """
        tally.took(seconds)
        tally.streak += 1
        what, place = describe(error), where(error, written)
        if tally.streak == 1 and what != tally.last_error:  # one that fails at every other call is told of once
            log.warning("plugin %r failed in %s: %s (%s)", tally.plugin, tally.hook, what, place)
        self.note(tally, seconds, what, place)
        if tally.off is None and tally.streak >= FAILURES_IN_A_ROW:
            cause = f"{tally.streak} failures in a row, the last: {tally.last_error}"
            self._switch_off(tally, cause, self._monotonic() + PROBE_SECONDS if tally.hook in STRICTEST else None)

    def recovered(self, tally: Tally) -> None:
        """A run went well after others had failed."""
        tally.streak = 0
        if tally.off is not None and tally.probe_at is not None:
            self.on(tally.plugin, tally.hook, "a probe passed")

    def note(self, tally: Tally, seconds: float, what: str, where: str = "") -> None:
        """Record what went wrong without counting it towards the breaker."""
        tally.errors += 1
        tally.last_error = what
        self.recent.append(Fault(tally.hook, tally.plugin, seconds, what, where))

    def slow(self, tally: Tally, seconds: float, thread: str, place: str) -> None:
        """Remember and log a run that held its thread for long; ``place`` is the implementation's ``file:line``."""
        tally.slow += 1
        what = f"slow: held the {thread} for {seconds:.3f} s"
        self.recent.append(Fault(tally.hook, tally.plugin, seconds, what, place))
        now = self._monotonic()
        if tally.told_at is not None and now - tally.told_at < TOLD_SECONDS:
            tally.untold += 1  # one that is always slow must not fill the disk with saying so
            return
        more = f", and {tally.untold} times more since that was last said" if tally.untold else ""
        tally.told_at, tally.untold = now, 0
        log.warning(
            "plugin %r held the %s for %.0f ms in %s (%s)%s",
            tally.plugin, thread, seconds * 1000, tally.hook, place, more,
        )  # fmt: skip

    def probes(self, tally: Tally) -> bool:
        """Whether this run may be the probe of an implementation that is off; only one run gets it."""
        if tally.probe_at is None or self._monotonic() < tally.probe_at:
            return False
        tally.probe_at = self._monotonic() + PROBE_SECONDS
        return True

    def _switch_off(self, tally: Tally, cause: str, probe_at: float | None, *, tell: bool = True) -> None:
        known = tally.off
        tally.off, tally.probe_at = cause, probe_at
        # Replaced, not changed: the other thread may be reading it.
        hooks: Mapping[str, str] = self.switched_off.get(tally.plugin, {})
        self.switched_off = {**self.switched_off, tally.plugin: {**hooks, tally.hook: cause}}
        if tell and self.on_change is not None and known != cause:
            self.on_change(tally.plugin, tally.hook, "off", cause)


def describe(error: BaseException | None) -> str:
    """An error in one line, cut where a plugin wrote a novel."""
    try:
        text = str(error)
    except BaseException as worse:  # its __str__ is the plugin's code too
        text = f"(its text raised {type(worse).__name__})"
    text = " ".join(text.split())
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:500]


def where(error: BaseException, place: str = "") -> str:
    """The last line of a plugin's own package on the way to an error, as ``file:line``.

    ``place`` is where its function is written; that is the answer where the kernel refused what it had returned.
    Without it, the line that raised; empty when the error never travelled.
    """
    # A coroutine may not raise these two: what replaced them comes from the call loop.
    first = error.__cause__ if isinstance(error.__cause__, (StopIteration, GeneratorExit)) else error
    frames = [
        (frame.f_code.co_filename, line, str(frame.f_globals.get("__name__")).partition(".")[0])
        for frame, line in traceback.walk_tb(first.__traceback__)
    ]
    if place:
        own = {package for file, _, package in frames if file == place.rpartition(":")[0]}
        frames = [frame for frame in frames if frame[2] in own]
    return f"{frames[-1][0]}:{frames[-1][1]}" if frames else place
