"""What the tests of plans share: a village that may post them, and the answers of a planner."""

from __future__ import annotations

import json
from typing import Any

LONG = "Read every note in the folder, then list the names in them; finally write a page about each name."
SHORT = "Count the notes."
WORK = {"write_policy": "work"}


def part(name: str, *needs: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "title": f"Do {name}", "prompt": f"Please do {name}.", "needs": list(needs), "share": 1} | more


def answer(*parts: dict[str, Any], share: int = 1, **intent: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "goal": "Know the names.", "constraints": [], "preferences": [], "anti_goals": [], "clarifications": [],
    }  # fmt: skip
    return {"intent": record | intent, "share": share, "subtasks": list(parts)}


def text(*parts: dict[str, Any], **more: Any) -> str:
    return json.dumps(answer(*parts, **more))
