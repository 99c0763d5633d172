"""The room of the scripted model: no LLM. It answers by a script, so that a village runs without key and network."""

from __future__ import annotations

import asyncio
from typing import Any

from vivarium_kernel import models
from vivarium_kernel.cycle import Job
from vivarium_kernel.errors import NotFound
from vivarium_kernel.models import Price, Reply, Request
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Outcome, Usage

LABEL = "[scripted model, no LLM]"


class Scripted:
    """``scripted:echo`` repeats the task; ``scripted:wait-SECONDS`` answers after that time, for measurements."""

    name = "scripted"

    def price(self, model: str) -> Price | None:
        if model != "echo" and not model.startswith("wait-"):
            raise NotFound(
                "model.unknown",
                f"There is no model scripted:{model}.",
                "There are scripted:echo and scripted:wait-SECONDS.",
            )
        return Price(0, 0)

    async def complete(self, request: Request) -> Reply:
        model = request.model.partition(":")[2]
        if model.startswith("wait-"):
            await asyncio.sleep(float(model[5:]))
        task = request.sections[-1].text if request.sections else ""
        text = f"{LABEL} {task[:200]}"
        return Reply(text, Usage(models.count_tokens(task), models.count_tokens(text)))


class ModelExecution(Plugin):
    """Does ``llm`` tasks: one call of the model with the assembled prompt."""

    name = "model_execution"

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        if job.task.mode != "llm":
            return None
        request = Request(job.model, job.sections, timeout_seconds=job.task.timeout_seconds,
                          priority=job.entitlement.priority, key=f"{job.task.id}:{job.attempt}")  # fmt: skip
        reply = await models.call(job, request)
        return Outcome(answer=reply.text, model=job.model, usage=reply.usage)


def builtin_provider(name: str) -> Any | None:
    """The kernel's own model provider, if that is its name."""
    return Scripted() if name == Scripted.name else None
