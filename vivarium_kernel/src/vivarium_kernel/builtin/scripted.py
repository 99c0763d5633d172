"""The room of the scripted model: no LLM. It answers by a script, so that a village runs without key and network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from vivarium_kernel import models
from vivarium_kernel.builtin.scripted_tools import LABEL, scripted_reply
from vivarium_kernel.errors import NotFound
from vivarium_kernel.models import ModelInfo, Price, Reply, Request
from vivarium_kernel.records import Usage

TOOLS = "scripted:tools"


class Scripted:
    """``scripted:echo`` repeats the task; ``scripted:tools`` uses tools by a fixed script; ``scripted:wait-SECONDS``
    answers after that time, for measurements."""

    name = "scripted"

    def price(self, model: str) -> Price | None:
        if model not in ("echo", "tools") and not model.startswith("wait-"):
            raise NotFound(
                "model.unknown",
                f"There is no model scripted:{model}.",
                "There are scripted:echo, scripted:tools and scripted:wait-SECONDS.",
            )
        return Price(0, 0)

    async def models(self) -> Sequence[ModelInfo]:
        return (
            ModelInfo("echo", note="no LLM: it repeats the task"),
            ModelInfo("tools", note="no LLM: it uses tools by a fixed script"),
            ModelInfo("wait-1", note="no LLM: it answers after 1 s, or after as many as the name says"),
        )

    async def complete(self, request: Request) -> Reply:
        model = request.model.partition(":")[2]
        if model == "tools":
            return scripted_reply(request)
        if model.startswith("wait-"):
            await asyncio.sleep(float(model[5:]))
        task = request.messages[-1].text if request.messages else ""
        text = f"{LABEL} {task[:200]}"
        return Reply(text, Usage(models.count_tokens(task), models.count_tokens(text)))


def builtin_provider(name: str) -> Any | None:
    """The kernel's own model provider, if that is its name."""
    return Scripted() if name == Scripted.name else None
