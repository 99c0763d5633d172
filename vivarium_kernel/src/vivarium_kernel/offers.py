"""The room of calls of offered hooks: what happens when a plugin calls a hook of its own in those that implement it.

Kept from the plugin that calls is everything that an implementation does wrong: it is recorded under the
implementation's name, and breakers, timings, timeouts and the watchdog hold as for the kernel's hooks.

| kind | given back | an implementation fails |
| register | (plugin, item), asked for once whenever the plugins are composed | its plugin is failed |
| collect | (plugin, item) of all, in their order | skipped |
| first | (plugin, answer) of the first that is not None, or None | passed over |
| notify | nothing | skipped |
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from vivarium_kernel.grants import PluginTx, PluginView, for_reading
from vivarium_kernel.health import Call
from vivarium_kernel.offering import HookSpec, offered_by
from vivarium_kernel.plugins import Plugin
from vivarium_kernel.runs import Implementation, Runner
from vivarium_kernel.watchdog import Mark

WRITER = "vivarium-commit"  # the name of the thread that the writer runs on


class Offers:
    """The hooks that one set of plugins offers, ready to be called."""

    def __init__(
        self,
        plugins: Sequence[Plugin],
        runner: Runner,
        by_hook: Mapping[str, tuple[Implementation, ...]],
        registered: Callable[[str], list[tuple[str, Any]]],
        mark: Mark | None,
    ) -> None:
        self._specs = {id(spec) for plugin in plugins for spec in offered_by(type(plugin))}
        self._runner = runner
        self._by_hook = by_hook
        self._registered = registered
        self._loop = threading.get_ident()
        self._mark = mark

    def call(self, spec: HookSpec[..., Any], args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """What is given back is of the spec's kind; an awaitable of it where the spec is a coroutine."""
        arguments = inspect.signature(spec.function).bind(*args, **named).args  # a wrong call is the caller's own fault
        on = id(spec) in self._specs
        chosen = [each for each in self._by_hook[spec.name] if each.tally.off is None] if on else []
        if spec.waits:
            return self._wait(spec, chosen, arguments)
        if spec.kind == "register":
            return self._registered(spec.name) if on else []
        calls = []
        for each in chosen:
            calls.append(self._run(spec, each, arguments))
            if _is_answer(spec, calls[-1]):
                break
        return _joined(spec, calls)

    async def _wait(
        self, spec: HookSpec[..., Any], chosen: Sequence[Implementation], arguments: tuple[Any, ...]
    ) -> Any:
        calls = []
        for each in chosen:
            calls.append(await self._runner.wait(each, arguments, self._runner.limit))
            if _is_answer(spec, calls[-1]):
                break
        return _joined(spec, calls)

    def _run(self, spec: HookSpec[..., Any], each: Implementation, arguments: tuple[Any, ...]) -> Call:
        """Run a plain one on whichever thread the caller is: the loop's, the writer's, or one of its own."""
        if "view" in spec.parameters:
            place = spec.parameters.index("view")
            given = arguments[place]
            if not isinstance(given, (PluginView, PluginTx)):
                raise TypeError(f"{spec.name} is handed {type(given).__name__} as its view; hand over your view or tx")
            own = for_reading(given, each.plugin) if each.granted else None
            arguments = (*arguments[:place], own, *arguments[place + 1 :])
        here = threading.get_ident()
        if here != self._loop:
            is_writer = threading.current_thread().name == WRITER
            slot = self._mark.writer if is_writer and self._mark is not None else None
            each = attrs.evolve(each, slot=slot, thread="writer" if is_writer else "thread")
        return self._runner.run(each, arguments)


def _is_answer(spec: HookSpec[..., Any], call: Call) -> bool:
    return spec.kind == "first" and call.value is not None


def _joined(spec: HookSpec[..., Any], calls: Sequence[Call]) -> Any:
    if spec.kind == "notify":
        return None
    if spec.kind == "first":
        return next(((call.plugin, call.value) for call in calls if call.value is not None), None)
    return [(call.plugin, item) for call in calls if call.error is None for item in call.value]
