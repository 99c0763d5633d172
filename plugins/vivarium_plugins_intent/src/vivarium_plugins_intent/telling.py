"""The room of what prompts are told: how to plan, what a task is part of, and what came of the tasks before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vivarium_kernel import PluginView, Section, Task
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


def planning(wanted: Wanted, refused: str) -> list[Section]:
    """The sections of a planning task. ``refused`` is why its last plan could not be used."""
    found = [Section("rules", f"{_HOW} {_SPLIT if wanted.split else _ONE}", 90)]
    stated = [line for name, words in _LINES for line in _listed(words, getattr(wanted, name))]
    if stated:
        found.append(Section("situation", "\n".join(["Stated with the request:", *stated]), 80))
    if wanted.files:
        # All of them are named, also those whose texts have no room in the prompt.
        names = "\n".join(name for name, _ in wanted.files)
        found.append(Section("situation", names, 70, untrusted="the files' names"))
    found += [Section("situation", text, 40, untrusted=f"file {name}") for name, text in wanted.files if text]
    return [*found, *_again(refused)]


def working(task: Task, view: PluginView, refused: str, characters: int) -> list[Section]:
    """The sections of a task of a plan: what it is part of, the results that it builds on, and why it was sent back."""
    intent: Mapping[str, Any] = task.data["intent"]
    lines = [f"This task is part of a plan. Its goal: {intent['goal']}"]
    lines += [line for name, words in _LINES for line in _listed(words, intent[name])]
    original = intent["original"]
    if original not in (task.prompt, intent["goal"]) and not task.prompt.startswith(original):
        cut = "" if len(original) <= _ORIGINAL_CHARACTERS else "\n[cut]"
        lines.append(f"What was asked for, in its own words:\n{original[:_ORIGINAL_CHARACTERS]}{cut}")
    found = [Section("situation", "\n".join(lines), 80)]
    for name, text in _results(task, view):
        shown = text if len(text) <= characters else f"{text[:characters]}\n[cut]"
        found.append(Section("situation", shown, 60, untrusted=f"result of task {name}"))
    return [*found, *_again(refused)]


def last_refusal(task: Task, view: PluginView) -> str:
    """Why the last attempt at a task was not accepted; empty where none was made."""
    if not task.failures:
        return ""
    rows = view.read(
        "SELECT reason FROM attempts WHERE task = ? AND ending IN ('failed', 'rejected') ORDER BY id DESC LIMIT 1",
        (task.id,),
    )
    return str(rows[0][0] or "") if rows else ""


def _again(refused: str) -> list[Section]:
    return [Section("situation", f"What came of this before was refused: {refused}", 85)] if refused else []


def _listed(words: str, lines: Sequence[str]) -> list[str]:
    return [f"{words}:", *(f"- {line}" for line in lines)] if lines else []


def _results(task: Task, view: PluginView) -> list[tuple[str, str]]:
    """The accepted results of the tasks that this one needs, in the order in which they were posted."""
    rows = view.read(
        "SELECT t.id, (SELECT coalesce(nullif(a.answer, ''), a.stdout, '') FROM attempts a WHERE a.task = t.id "
        "AND a.ending = 'accepted' ORDER BY a.id DESC LIMIT 1) FROM dependencies d JOIN tasks t ON t.id = d.needs "
        "WHERE d.task = ? ORDER BY t.seq",
        (task.id,),
    )
    return [(name, text) for name, text in rows if text]
