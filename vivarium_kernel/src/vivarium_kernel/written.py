"""The room of what was written: which plugin wrote which section of an attempt's prompt, and what became of it."""

from __future__ import annotations

import json

from attrs import frozen

from vivarium_kernel import board
from vivarium_kernel.errors import NotFound
from vivarium_kernel.store import View


@frozen
class Written:
    """One section of a recorded prompt. ``text`` is None where it is private, and where it was ``denied``: safety
    left it out."""

    plugin: str
    slot: str
    tokens: int
    dropped: bool
    private: bool
    denied: bool
    text: str | None


@frozen
class Prompt:
    """A recorded prompt: its sections in their order, the limit in tokens that it had to fit, and those it has."""

    attempt: int
    task: str
    number: int
    resident: str
    limit: int
    sections: tuple[Written, ...]
    tokens: int


def prompt(view: View, attempt: int, limit: int) -> Prompt:
    """Who wrote which section of an attempt's prompt; ``limit`` is the settings' for prompts, in tokens.

    Raises NotFound where no prompt was recorded.
    """
    found = board.attempt(view, attempt)
    row = view.row("SELECT prompt FROM attempts WHERE id = ?", (attempt,))
    if row is None or row[0] is None:
        mode = board.task(view, found.task).mode
        why = (
            "a command has none"
            if mode == "command"
            else "it is recorded with the attempt's first step, and there was none"
        )
        raise NotFound(
            "explain.prompt", f"Attempt {attempt} (of {found.task}) has no recorded prompt: {why}.",
            f"See `vivarium task show {found.task}`.",
        )  # fmt: skip
    sections = tuple(
        Written(
            entry["plugin"], entry["slot"], entry["tokens"], bool(entry.get("dropped")), bool(entry.get("private")),
            bool(entry.get("denied")),
            None if entry.get("private") or entry.get("denied") else entry.get("text", ""),
        )
        for entry in json.loads(row[0])
    )  # fmt: skip
    tokens = sum(section.tokens for section in sections if not section.dropped)
    return Prompt(attempt, found.task, found.number, found.resident, limit, sections, tokens)
