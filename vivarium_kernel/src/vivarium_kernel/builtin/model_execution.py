"""The room of the tasks that a model does: mode ``llm`` is a loop of thought with the resident's tools."""

from __future__ import annotations

from vivarium_kernel import thinking
from vivarium_kernel.jobs import Job
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Outcome


class ModelExecution(Plugin):
    """Does ``llm`` tasks: the model and the resident's tools in turn, until there is an answer."""

    name = "model_execution"

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        if job.task.mode != "llm":
            return None
        return await thinking.think(job, schema=job.task.data.get("schema"))
