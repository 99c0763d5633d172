"""Measures how long each job takes."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from vivarium_kernel import Job, Plugin, hookimpl


class Stopwatch(Plugin):
    name = "stopwatch"

    def __init__(self, village: Any, config: Any) -> None:
        super().__init__(village, config)
        self.seconds: dict[str, float] = {}

    @hookimpl
    def around_execution(self, job: Job) -> AbstractAsyncContextManager[None]:
        return self._measured(job.task.id)

    @asynccontextmanager
    async def _measured(self, task_id: str) -> AsyncIterator[None]:
        began = self.village.clock.monotonic()
        try:
            yield
        finally:
            self.seconds[task_id] = self.village.clock.monotonic() - began
