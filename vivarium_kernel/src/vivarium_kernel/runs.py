"""The room of one run: calls one implementation, contains whatever it does wrong, and records it.

Everything that can be decided before a call is decided when a plugin set is made: which arguments an implementation
takes, whose answer is read how, where its figures go. A call then costs about a microsecond.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import types
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import itemgetter
from time import perf_counter
from typing import Any, Protocol

import attrs
import pluggy

from vivarium_kernel import answers, hookspecs
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.fitting import Registry, place
from vivarium_kernel.health import SLOW_SECONDS, Call, Health, SwitchedOff, Tally, describe, where
from vivarium_kernel.offering import offered_by, reader_of
from vivarium_kernel.plugins import Plugin
from vivarium_kernel.watchdog import Mark, Slot, label

TRANSACT = frozenset(("claim_reserve", "end_attempt", "on_tick"))
# How long an implementation may tidy up after its timeout before its coroutine is closed under it.
GRACE_SECONDS = 2.0


class Refuse(Exception):
    """Raised by a ``claim_reserve`` implementation: this resident can't have this task now."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Tx(Protocol):
    """What the loop needs of a write transaction: a part of it that is undone whole when its body raises."""

    def part(self, plugin: str, /) -> AbstractContextManager[Any]: ...


@attrs.define(eq=False, weakref_slot=False)
class Implementation:
    """One plugin's implementation of one hook, with everything decided that can be decided before a call."""

    plugin: str
    hook: str
    function: Callable[..., Any]  # takes all of the spec's arguments, in their order
    read: answers.Reader
    tally: Tally
    granted: bool  # it takes the view
    holds: bool  # it is plain code, which holds its thread
    weight: float
    slot: Slot | None
    label: bytes
    place: str  # file:line of the plugin's code
    thread: str  # which one it holds while it runs


class Runner:
    """Runs implementations and records each run. ``limit`` is the seconds that a coroutine may take, None for ever."""

    def __init__(self, health: Health, limit: float | None) -> None:
        self._health = health
        self.limit = limit

    def skipped(self, each: Implementation) -> Call:
        """The call of an implementation that is off."""
        return Call(each.hook, each.plugin, None, 0.0, SwitchedOff(each.plugin, each.hook, each.tally.off or ""))

    def in_part(self, each: Implementation, arguments: tuple[Any, ...], tx: Tx) -> Call:
        """Run a plain function in a part of ``tx`` that is left out whole if it fails."""
        call: Call | None = None
        try:
            with tx.part(each.plugin) as part:
                call = self.run(each, (*arguments, part), counted=False)
                if call.error is not None:
                    raise call.error
        except BaseException as error:
            # Anything else is the store's own: the transaction ended or runs again, and so will this call.
            if call is None or error is not call.error:
                raise
            if each.hook == "claim_reserve" and isinstance(error, Refuse):
                self._well(each, call.seconds, None)
            else:
                self._failed(each, call.seconds, error)
            # The error travels on as data; its frames would keep the transaction and this call alive.
            return Call(each.hook, each.plugin, None, call.seconds, error.with_traceback(None))
        return call

    def run(self, each: Implementation, arguments: tuple[Any, ...], counted: bool = True) -> Call:
        """Run a plain function to its end."""
        slot = each.slot
        outer = slot.hold(each.label) if slot is not None else b""
        started = perf_counter()
        try:
            value = each.read(each.function(*arguments), arguments)
        except BaseException as error:
            seconds = perf_counter() - started
            return self._failed(each, seconds, error) if counted else Call(each.hook, each.plugin, None, seconds, error)
        finally:
            if slot is not None:
                slot.hold(outer)
        # What _well does, again: this is the path of nearly every call, and calling it costs a tenth of one.
        seconds = perf_counter() - started
        tally = each.tally
        if tally.streak or seconds > SLOW_SECONDS or self._health.trace is not None:
            return self._well(each, seconds, value)
        tally.calls += 1
        tally.seconds += seconds
        if seconds > tally.slowest_seconds:  # noqa: PLR1730 - max() takes three times as long
            tally.slowest_seconds = seconds
        return Call(each.hook, each.plugin, value, seconds, None)

    async def wait(self, each: Implementation, arguments: tuple[Any, ...], limit: float | None) -> Call:
        """Run a coroutine. One that ends without suspending, as most do, pays for no timeout."""
        slot = each.slot
        suspended = False
        outer = slot.hold(each.label) if slot is not None else b""
        started = perf_counter()
        try:
            coroutine = each.function(*arguments)
            if not isinstance(coroutine, types.CoroutineType):
                raise answers.Nonsense(f"is not a coroutine function: it answered a {type(coroutine).__name__}")
            try:
                waits_for = coroutine.send(None)
                suspended = True
            except StopIteration as done:
                value = each.read(done.value, arguments)
        except BaseException as error:
            if _cancelled_from_outside(error):
                raise
            seconds = perf_counter() - started
            self._watch(each, seconds)
            return self._failed(each, seconds, error)
        finally:
            if slot is not None:
                slot.hold(outer)
        seconds = perf_counter() - started
        if seconds > SLOW_SECONDS:
            self._watch(each, seconds)
        if suspended:
            try:
                value = each.read(await _to_its_end(coroutine, waits_for, each, self._watch, limit), arguments)
            except BaseException as error:
                if isinstance(error, GeneratorExit) or _cancelled_from_outside(error):
                    raise
                return self._failed(each, perf_counter() - started, error)
            seconds = perf_counter() - started
        return self._well(each, seconds, value)

    def _watch(self, each: Implementation, held_seconds: float) -> None:
        """Note an implementation that held its thread for long at one go."""
        if held_seconds > SLOW_SECONDS:
            self._health.slow(each.tally, held_seconds, each.thread, each.place)

    def _well(self, each: Implementation, seconds: float, value: Any) -> Call:
        tally = each.tally
        tally.took(seconds)
        if tally.streak:
            self._health.recovered(tally)
        if seconds > SLOW_SECONDS and each.holds:
            self._watch(each, seconds)
        call = Call(each.hook, each.plugin, value, seconds, None)
        if self._health.trace is not None:
            self._health.trace(call)
        return call

    def _failed(self, each: Implementation, seconds: float, error: BaseException) -> Call:
        if each.hook == "execute_task" and isinstance(error, VivariumError):
            # The job's own refusals come through here (a lapsed lease, a budget, a provider's outage): recorded, but
            # an outage must not switch off who runs the jobs.
            each.tally.took(seconds)
            self._health.note(each.tally, seconds, describe(error), where(error, each.place))
        else:
            self._health.failed(each.tally, seconds, error, each.place)
        if each.holds:
            self._watch(each, seconds)
        call = Call(each.hook, each.plugin, None, seconds, error)
        if self._health.trace is not None:
            self._health.trace(call)
        return call


def implementations(
    plugins: Sequence[Plugin], health: Health, mark: Mark | None, weights: Mapping[str, float]
) -> dict[str, tuple[Implementation, ...]]:
    """The implementations of each hook in the order of their calls: tryfirst, the plugins' order, trylast."""
    manager = Registry()
    manager.add_hookspecs(hookspecs)
    specs = {hook: (getattr(hookspecs, hook), read) for hook, read in answers.READERS.items()}
    for spec in (spec for plugin in plugins for spec in offered_by(type(plugin))):
        manager.add_hookspecs(type(spec.name, (), {spec.name: staticmethod(spec.function)}))
        specs[spec.name] = (spec.function, reader_of(spec))
    for plugin in plugins:
        manager.register(plugin, plugin.name)
    turns = {plugin.name: index for index, plugin in enumerate(plugins)}

    def turn(registered: pluggy.HookImpl) -> tuple[int, int]:
        return (0 if registered.tryfirst else 2 if registered.trylast else 1), turns[registered.plugin_name]

    found = {}
    for hook, (function, read) in specs.items():
        arguments = tuple(inspect.signature(function).parameters)
        slot = None if mark is None else mark.writer if hook in TRANSACT else mark.loop
        found[hook] = tuple(
            Implementation(
                plugin=each.plugin_name,
                hook=hook,
                function=_taking(each.function, each.argnames, arguments),
                read=read,
                tally=health.tally(each.plugin_name, hook),
                granted="view" in each.argnames,
                holds=not inspect.iscoroutinefunction(function),
                weight=weights.get(each.plugin_name, 1.0),
                slot=slot,
                label=label(each.plugin_name, hook),
                place=place(each.function),
                thread="writer" if hook in TRANSACT else "loop",
            )
            for each in sorted(getattr(manager.hook, hook).get_hookimpls(), key=turn)
        )
    return found


def _taking(function: Callable[..., Any], wanted: Sequence[str], spec: tuple[str, ...]) -> Callable[..., Any]:
    """The function as one of all the spec's arguments, whichever of them it wants and in whatever order."""
    if tuple(wanted) == spec:
        return function
    if not wanted:
        return lambda *_: function()
    if len(wanted) == 1:
        index = spec.index(wanted[0])
        return lambda *arguments: function(arguments[index])
    pick = itemgetter(*(spec.index(name) for name in wanted))
    return lambda *arguments: function(*pick(arguments))


async def _to_its_end(
    coroutine: types.CoroutineType[Any, Any, Any],
    first: Any,
    each: Implementation,
    watch: Callable[[Implementation, float], None],
    limit: float | None,
) -> Any:
    """Continue a coroutine that suspended; ``TimeoutError`` after ``limit`` seconds, also if it eats a cancellation."""
    task = asyncio.current_task()
    asked = task.cancelling() if task is not None else 0
    if limit is None:
        value = await _driven(coroutine, first, each, watch, None)
    else:
        patience = asyncio.timeout(limit + GRACE_SECONDS)
        timeout = asyncio.timeout(limit)
        try:
            async with patience, timeout:
                value = await _driven(coroutine, first, each, watch, patience)
        except TimeoutError as error:
            if timeout.expired():
                raise TimeoutError(f"no answer within {limit:g} s") from error
            raise
        if timeout.expired():
            raise TimeoutError(f"no answer within {limit:g} s")
    if task is not None and task.cancelling() > asked:
        raise asyncio.CancelledError  # the plugin ate a cancellation that was the village's
    return value


@types.coroutine
def _driven(
    coroutine: types.CoroutineType[Any, Any, Any],
    waits_for: Any,
    each: Implementation,
    watch: Callable[[Implementation, float], None],
    patience: asyncio.Timeout | None,
) -> Generator[Any, Any, Any]:
    """Yield what the coroutine waits for and hand it what comes back, until it ends or patience does."""
    slot = each.slot
    while True:
        thrown: BaseException | None = None
        sent = None
        try:
            sent = yield waits_for
        except BaseException as error:
            if isinstance(error, GeneratorExit) or (patience is not None and patience.expired()):
                with contextlib.suppress(RuntimeError):  # it may refuse even this; then it is left to rot
                    coroutine.close()
                raise
            thrown = error
        outer = slot.hold(each.label) if slot is not None else b""
        began = perf_counter()
        try:
            waits_for = coroutine.send(sent) if thrown is None else coroutine.throw(thrown)
        except StopIteration as done:
            return done.value
        except GeneratorExit as error:
            # Its own doing: nobody closes this generator while it runs.
            raise RuntimeError("raised GeneratorExit") from error
        finally:
            thrown = None  # its frames hold this one
            watch(each, perf_counter() - began)
            if slot is not None:
                slot.hold(outer)


def _cancelled_from_outside(error: BaseException) -> bool:
    """A plugin may raise ``CancelledError`` itself; only a task that was asked to stop is being cancelled."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
