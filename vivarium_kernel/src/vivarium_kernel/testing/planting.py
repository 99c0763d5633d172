"""The room of planted faults: a hook of a plugin under test fails, before or after it did its work."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from attrs import define

from vivarium_kernel.calls import Hooks
from vivarium_kernel.errors import Invalid
from vivarium_kernel.problems import near
from vivarium_kernel.runs import Implementation


class PlantedFault(Exception):
    """The fault that a test planted."""


@define
class Planted:
    """What became of a planted fault."""

    failures: int = 0


class Failing(Protocol):
    """The fixture ``failing``."""

    def __call__(
        self,
        hook: str,
        plugin: str | None = None,
        *,
        error: BaseException | None = None,
        times: int | None = None,
        after: bool = False,
        village: Any = None,
    ) -> Any: ...


@contextmanager
def failing(
    hooks: Hooks,
    hook: str,
    plugins: Sequence[str],
    *,
    error: BaseException | None = None,
    times: int | None = None,
    after: bool = False,
) -> Iterator[Planted]:
    """Let these plugins' implementations of a hook raise while the block runs, the first ``times`` or each time.

    ``after`` True lets them do their work first: what they wrote must then be left out whole.
    """
    chosen = [each for each in _all_of(hooks, hook) if each.plugin in plugins]
    if not chosen:
        raise Invalid(
            "testing.failing", f"None of {', '.join(plugins) or 'no plugin'} implements {hook}.",
            "Name the plugin that does: failing(hook, plugin).",
        )  # fmt: skip
    planted = Planted()
    kept = [(each, each.function) for each in chosen]
    for each, function in kept:
        each.function = _failing(function, planted, error or PlantedFault(f"{each.plugin} was made to fail in {hook}"),
                                 times, after, is_async=inspect.iscoroutinefunction(function))  # fmt: skip
    try:
        yield planted
    finally:
        for each, function in kept:
            each.function = function


def _all_of(hooks: Hooks, hook: str) -> Sequence[Implementation]:
    by_hook = hooks._by_hook
    if hook not in by_hook:
        close = near(hook, by_hook)
        cure = f"Did you mean {close}?" if close else f"The hooks are {', '.join(by_hook)}."
        raise Invalid("testing.failing", f"There is no hook {hook}.", cure)
    return by_hook[hook]


def _failing(
    function: Callable[..., Any],
    planted: Planted,
    error: BaseException,
    times: int | None,
    after: bool,
    *,
    is_async: bool,
) -> Callable[..., Any]:
    undone: list[Any] = []  # what failed in a transaction that may run again, which must fail in the same way

    def due(arguments: Sequence[Any]) -> bool:
        tx = getattr(arguments[-1], "_tx", None) if arguments else None
        subject = arguments[:-1]
        if tx is not None and tx.careful and subject in undone:
            undone.remove(subject)
            return True
        if times is not None and planted.failures >= times:
            return False
        planted.failures += 1
        if tx is not None and not tx.careful:
            undone.append(subject)
        return True

    async def waits(*arguments: Any) -> Any:
        fails = due(arguments)
        value = await function(*arguments) if after or not fails else None
        if fails:
            raise error
        return value

    def runs(*arguments: Any) -> Any:
        fails = due(arguments)
        value = function(*arguments) if after or not fails else None
        if fails:
            raise error
        return value

    return waits if is_async else runs
