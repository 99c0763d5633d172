"""The room of what prompts are told: how to plan, and what a task is part of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vivarium_kernel import Section, Task
from vivarium_plugins_intent.planning import Wanted
from vivarium_plugins_intent.splitting import MOST_SUBTASKS

_ORIGINAL_CHARACTERS = 2_000
_LINES = (
    ("constraints", "It has to keep to"),
    ("preferences", "If possible"),
    ("anti_goals", "It must not"),
    ("clarifications", "Open points, and how they are taken"),
)
_HOW = (
    "You plan work for others; you do none of it. Answer with one JSON object and nothing else: intent (goal, "
    "constraints, preferences, anti_goals, clarifications: lists of short sentences; goal is one sentence; "
    "clarifications are points that the request leaves open, each with how you take it), share, and subtasks."
)
_SPLIT = (
    f"Give 2 to {MOST_SUBTASKS} subtasks: each with an id (small letters, digits and -), a title, a prompt that can "
    "be understood without the others, needs (the ids of those whose results it builds on; no circles), and share, "
    "from 1 to 100: how much of the budget it needs against the others. The share beside intent is that of putting "
    "the results together, which is a task that comes after all of them."
)
_ONE = "The request is done as one task: leave subtasks empty and let share be 1."


def planning(wanted: Wanted) -> list[Section]:
    """The sections of a planning task."""
    found = [Section("rules", f"{_HOW} {_SPLIT if wanted.split else _ONE}", 90)]
    stated = [line for name, words in _LINES for line in _listed(words, getattr(wanted, name))]
    if stated:
        found.append(Section("situation", "\n".join(["Stated with the request:", *stated]), 80))
    if wanted.files:
        # All of them are named, also those whose texts have no room in the prompt.
        names = "\n".join(name for name, _ in wanted.files)
        found.append(Section("situation", names, 70, untrusted="the files' names"))
    found += [Section("situation", text, 40, untrusted=f"file {name}") for name, text in wanted.files if text]
    return found


def working(task: Task) -> list[Section]:
    """The sections of a task of a plan: what it is part of. (The kernel tells the results that it builds on.)"""
    intent: Mapping[str, Any] = task.data["intent"]
    lines = [f"This task is part of a plan. Its goal: {intent['goal']}"]
    lines += [line for name, words in _LINES for line in _listed(words, intent[name])]
    original = intent["original"]
    if original not in (task.prompt, intent["goal"]) and not task.prompt.startswith(original):
        cut = "" if len(original) <= _ORIGINAL_CHARACTERS else "\n[cut]"
        lines.append(f"What was asked for, in its own words:\n{original[:_ORIGINAL_CHARACTERS]}{cut}")
    return [Section("situation", "\n".join(lines), 80)]


def _listed(words: str, lines: Sequence[str]) -> list[str]:
    return [f"{words}:", *(f"- {line}" for line in lines)] if lines else []
