"""The room of the tasks that a model does: mode ``llm`` is a loop of thought with the resident's tools."""

from __future__ import annotations

from vivarium_kernel import thinking
from vivarium_kernel.errors import Invalid
from vivarium_kernel.jobs import Job
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.posting import schema_problem
from vivarium_kernel.records import Outcome


class ModelExecution(Plugin):
    """Does ``llm`` tasks: the model and the resident's tools in turn, until there is an answer."""

    name = "model_execution"
    modes = ("llm",)

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        if job.task.mode != "llm":
            return None
        schema = job.task.data.get("schema")
        fault = "" if schema is None else schema_problem(schema)
        if fault:
            raise Invalid("task.schema", f"data.schema {fault}.", "Post it with a JSON Schema.", field="data.schema")
        return await thinking.think(job, schema=schema)
