"""The room of the context: how many tokens an answer may have beside its prompt. All of it is pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vivarium_kernel import Invalid

LEAST_ANSWER = 64  # tokens; with less room an answer is not worth its prompt
TEMPLATE_TOKENS = 16  # what a chat template puts around a message or a tool, at the most


def prompt_bytes(body: Mapping[str, Any]) -> int:
    """The most tokens that a body's prompt can have: a token is a byte at least."""
    parts = [*body["messages"], *body.get("tools", ())]
    return len(json.dumps(parts, ensure_ascii=False).encode()) + TEMPLATE_TOKENS * (len(parts) + 1)


def fitted(asked: int, prompt_tokens: int, context: int, model: str) -> int:
    """The most tokens of an answer: what is asked, or else what the prompt leaves of the context.

    Raises Invalid where it leaves too few.
    """
    room = context - prompt_tokens
    if room < min(asked, LEAST_ANSWER):
        raise Invalid(
            "model.context",
            f"The prompt has {prompt_tokens:,} tokens, and {model} reads {context:,} together with its answer.",
            "Shorten the task, or name a model with a longer context.",
        )
    return min(asked, room)
