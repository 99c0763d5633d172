"""A resident's hand for the tools, and words for what a scripted model says of them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from vivarium_kernel.actions import action_of
from vivarium_kernel.inputs import read
from vivarium_kernel.testing import ScriptedModel, StagedVillage

from vivarium_kernel import Reply, ToolCall, Usage

HIDDEN = "the sea is deep"


def use(action: str, **asked: Any) -> Reply:
    """A reply that wants one tool used."""
    return use_all((action, asked))


def use_all(*calls: tuple[str, dict[str, Any]]) -> Reply:
    """A reply that wants several tools used, one after the other."""
    asked = [ToolCall(f"c{n}", name.replace(".", "__"), json.dumps(words)) for n, (name, words) in enumerate(calls)]
    return Reply("", Usage(10, 5), asked, "tool_calls")


def heard(model: ScriptedModel) -> list[str]:
    """What the tools told the model, as its last request has it."""
    return [message.text for message in model.requests[-1].messages if message.role == "tool"]


class Hand:
    """Uses the tools of files for a resident, past the loop of thought: for thousands of paths."""

    def __init__(self, village: StagedVillage, resident: str = "ada") -> None:
        self._village = village
        self._job: Any = SimpleNamespace(resident=SimpleNamespace(name=resident))

    async def does(self, action: str, **asked: Any) -> Any:
        found = action_of(self._village, f"files.{action}")
        assert found.act is not None
        return await found.act(self._job, read(found.Input, asked))

    def do(self, action: str, **asked: Any) -> Any:
        return self._village.stage.run(self.does(action, **asked))
