"""The room of what wraps a job: the context managers of ``around_execution``, entered and left under its policy."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import attrs

from vivarium_kernel import answers
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.health import Call, describe
from vivarium_kernel.plugins import switch_off
from vivarium_kernel.records import Task
from vivarium_kernel.runs import Implementation, Runner


class HookFailed(VivariumError):
    """An implementation failed where its failure is the attempt's: ``call`` has the plugin, the hook and the error."""

    def __init__(self, call: Call) -> None:
        super().__init__(
            "plugins.failed",
            f"plugin {call.plugin!r} failed in {call.hook}: {describe(call.error)}",
            f"Mend it, or switch it off: {switch_off(call.plugin)}",
        )
        self.call = call


class OfTask(Protocol):
    """What the loop needs of a job."""

    @property
    def task(self) -> Task: ...


class Around:
    """The context managers of a job, entered in order and left in reverse, every one that was entered."""

    def __init__(self, runner: Runner, around: Sequence[Implementation], job: OfTask) -> None:
        self._runner, self._around, self._job = runner, around, job
        self._entered: list[tuple[Implementation, Any]] = []

    async def __aenter__(self) -> None:
        try:
            for each in self._around:
                if each.tally.off is None:
                    await self._enter(each)
                elif each.plugin in self._job.task.plugins:
                    raise HookFailed(self._runner.skipped(each))
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    async def _enter(self, each: Implementation) -> None:
        call = self._runner.run(each, (self._job,))
        manager = call.value
        if call.error is None:
            call = await self._runner.wait(_step(each, manager.__aenter__), (), self._runner.limit)
        if call.error is not None:
            raise HookFailed(call) from call.error
        self._entered.append((each, manager))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> Literal[False]:
        """Never swallows the job's own error; a failure to leave counts only if the job itself went well."""
        first: BaseException | None = None
        while self._entered:
            each, manager = self._entered.pop()
            leave = _step(each, manager.__aexit__, error)
            try:
                call = await self._runner.wait(leave, (kind, error, trace), self._runner.limit)
            except asyncio.CancelledError as cancelled:
                first = cancelled  # the others are left all the same
                continue
            if call.error is not None and first is None:
                first = HookFailed(call)
                first.__cause__ = call.error
        if first is not None and (error is None or isinstance(first, asyncio.CancelledError)):
            raise first
        return False


def _step(each: Implementation, function: Callable[..., Any], passing: BaseException | None = None) -> Implementation:
    """Entering or leaving a manager, timed and blamed like the implementation that gave it.

    Leaving may raise the job's own error again (``passing``): that is no failure of the plugin.
    """

    async def step(*arguments: Any) -> None:
        try:
            await function(*arguments)
        except BaseException as error:
            if error is not passing:
                raise

    return attrs.evolve(each, function=step, read=answers.nothing, holds=False)
