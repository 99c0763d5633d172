"""The room of the post counter: what a task must be like before the board sees it, whoever posts it.

Task files, the command line and the API all ask :func:`validate`; it reads no database. What only the board can know
(whether the needed tasks exist, whether the resident does) the board checks.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, get_args

from vivarium_kernel.amounts import LARGEST_MICROS, money_text
from vivarium_kernel.checks import (
    Check,
    between,
    each,
    inside_path,
    mode_name,
    model_wish,
    one_of,
    plugin_name,
    resident_name,
    task_id,
    text,
    wrong,
)
from vivarium_kernel.problems import InputError, Problem, key_path, listed, near, quoted
from vivarium_kernel.records import NewTask
from vivarium_kernel.terms import ANY_ENDING, ENDED_STATES, Effect

MOST_CHARACTERS = 100_000
MOST_DEPTH = 20


class TaskError(InputError):
    """A task that was refused: ``problems`` has everything that is wrong with it."""

    RULE = "task"


def mode_of(new: NewTask) -> str:
    """The mode of a task: the one that it states, else ``command`` when it has a command and ``llm`` when not."""
    return new.mode if new.mode is not None else "command" if new.command else "llm"


def validate(new: NewTask, *, modes: Collection[str] | None = None, task_micros: int | None = None) -> list[Problem]:
    """Everything that is wrong with a task, each with its field; an empty list when it can be posted.

    ``modes`` are the modes that some plugin executes, where the caller knows them; ``task_micros`` is the village's
    default budget, against which a task without a maximum has its minimum checked.
    """
    problems: list[Problem] = []
    for name, check in field_checks().items():
        problems += (problem.below(name) for problem in check(getattr(new, name)))
    flawed = {problem.path.split("[")[0].split(".")[0] for problem in problems}
    # A rule about several fields is asked only where each of them is sound.
    for fields, found in (
        ({"mode"}, _known_mode(new, modes)),
        ({"mode", "command", "prompt"}, _something_to_do(new)),
        ({"max_micros", "min_micros"}, _budget(new, task_micros)),
        ({"id", "needs"}, _not_itself(new)),
    ):
        if not fields & flawed:
            problems += found
    return problems


def checked(new: NewTask, *, modes: Collection[str] | None = None, task_micros: int | None = None) -> NewTask:
    """The task itself; a :class:`TaskError` with everything that is wrong with it."""
    if problems := validate(new, modes=modes, task_micros=task_micros):
        raise TaskError(problems)
    return new


@functools.cache
def field_checks() -> Mapping[str, Check]:
    """What each field of a new task must be like, whatever the others are."""
    micros = between(0, LARGEST_MICROS, "micros", whole=True)
    return {
        "id": _unless_none(task_id),
        "key": _unless_none(text(200)),
        "mode": _unless_none(mode_name),
        "title": text(200, empty=True),
        "prompt": text(MOST_CHARACTERS, lines=True, empty=True),
        "command": _argv,
        "needs": each(task_id, 1_000),
        "priority": between(-1_000, 1_000, whole=True),
        "max_micros": _unless_none(micros),
        "min_micros": micros,
        "max_attempts": between(1, 100, whole=True),
        "timeout_seconds": _unless_none(between(0, 86_400, "seconds", above=True)),
        "effect": _unless_none(one_of(*get_args(Effect))),
        "files": each(inside_path, 1_000),
        "labels": each(text(64), 20),
        "plugins": each(plugin_name, 100),
        "wanted": _unless_none(resident_name),
        "not_before_at": _unless_none(between(0, 253_402_300_800_000_000, "micros of Unix time", whole=True)),
        "model": _unless_none(model_wish),
        "cwd": inside_path,
        "expect": one_of(*ENDED_STATES, ANY_ENDING),
        "human": _true_or_false,
        "retry_seconds": _unless_none(between(0, 31_536_000, "seconds")),
        "data": _data,
    }


def _unless_none(check: Check) -> Check:
    return lambda value: () if value is None else check(value)


def _true_or_false(value: Any) -> Iterator[Problem]:
    if not isinstance(value, bool):
        yield wrong(value, "true or false")


def _argv(value: Any) -> Iterator[Problem]:
    if not isinstance(value, (list, tuple)):
        yield wrong(value, "a list of the program and its arguments", 'there is no shell: write ["wc", "-l", "FILE"]')
        return
    sound = True
    for index, word in enumerate(value):
        for problem in text(MOST_CHARACTERS, lines=True, empty=True)(word):
            sound = False
            yield problem.below(f"[{index}]")
    length = sum(len(word) for word in value) if sound else 0
    if length > MOST_CHARACTERS:
        message = f"must have at most {MOST_CHARACTERS:,} characters together, not {length:,}"
        yield Problem("", quoted(value), message, "put long material into a file")
    if sound and value and not value[0].strip():
        yield Problem("[0]", quoted(value[0]), "must name a program", 'write ["wc", "-l", "FILE"]')


def _known_mode(new: NewTask, modes: Collection[str] | None) -> Iterator[Problem]:
    if new.mode is None or modes is None or new.mode in modes:
        return
    meant = near(new.mode, modes)
    next_step = f'did you mean "{meant}"?' if meant else f"use {listed(sorted(modes))}, or enable its plugin"
    yield Problem("mode", quoted(new.mode), f"unknown mode {quoted(new.mode)}", next_step)


def _something_to_do(new: NewTask) -> Iterator[Problem]:
    mode = mode_of(new)
    if mode == "command" and not new.command:
        yield Problem("command", quoted(new.command), "must not be empty", 'write ["wc", "-l", "FILE"]')
    elif mode == "llm" and new.command:
        message = f"can't be run in mode llm: {quoted(new.command)}"
        yield Problem("command", quoted(new.command), message, 'remove it, or use mode "command"')
    elif mode == "llm" and not new.prompt.strip():
        yield Problem("prompt", quoted(new.prompt), "a task needs a prompt or a command", "write one of the two")
    # What a plugin's own mode needs, that plugin says.


def _budget(new: NewTask, task_micros: int | None) -> Iterator[Problem]:
    most = task_micros if new.max_micros is None else new.max_micros
    if most is not None and new.min_micros > most:
        whose = "the village's default budget" if new.max_micros is None else "the maximum budget"
        message = f"must be at most {whose} ({money_text(most)}), not {money_text(new.min_micros)}"
        yield Problem("min_micros", money_text(new.min_micros), message, "lower the minimum or raise the maximum")


def _not_itself(new: NewTask) -> Iterator[Problem]:
    if new.id is not None and new.id in new.needs:
        where = f"needs[{new.needs.index(new.id)}]"
        yield Problem(where, quoted(new.id), "a task can't need itself", "remove it from needs")


def _data(value: Any) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        yield wrong(value, "a table")
        return
    found = list(_json(value, 0))
    yield from found[:20]
    if not found:
        yield from _known_data(value)
    if not found and (size := _size(value)) > MOST_CHARACTERS:
        message = f"must have at most {MOST_CHARACTERS:,} characters, not {size:,}"
        yield Problem("", quoted(value), message, "put long material into a file")


def _known_data(value: Mapping[str, Any]) -> Iterator[Problem]:
    """What the kernel itself reads of it: a schema that the answer must fit, and how many citations must hold."""
    if "schema" in value:
        fault = schema_problem(value["schema"])
        if fault:
            yield Problem("schema", quoted(value["schema"]), fault, "write a JSON Schema (draft 2020-12)")
    if "citations" in value:
        yield from (problem.below("citations") for problem in between(0, 500, whole=True)(value["citations"]))


def schema_problem(schema: object) -> str:
    """Why this is no JSON Schema that an answer could be held against; empty when it is one."""
    from jsonschema import Draft202012Validator, SchemaError  # costs 60 ms, and few tasks have one

    if not isinstance(schema, Mapping):
        return "must be a table"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"is no JSON Schema: at {error.json_path}: {error.message[:200]}"
    return next(iter(_unreadable(schema)), "")


def _unreadable(part: object) -> Iterator[str]:
    """References to elsewhere, which nobody fetches, and patterns that are none."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
                yield f"refers to {quoted(value)}, and nothing is fetched from elsewhere"
            elif key == "pattern" and isinstance(value, str):
                try:
                    re.compile(value)
                except re.error as error:
                    yield f"has the pattern {quoted(value)}, which is none: {error}"
            else:
                yield from _unreadable(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _unreadable(value)


def _json(value: Any, depth: int) -> Iterable[Problem]:  # noqa: PLR0911 - one a type
    """What the event log could not keep of it."""
    if depth > MOST_DEPTH:
        return [wrong(value, f"nested at most {MOST_DEPTH} deep", "flatten it")]
    match value:
        case str():
            return text(MOST_CHARACTERS, lines=True, empty=True)(value)
        case int() | float() if not isinstance(value, bool):
            return between(-(2**63), 2**63 - 1)(value)
        case Mapping():
            return _json_items([(key_path(key), key, item) for key, item in value.items()], depth)
        case list() | tuple():
            return _json_items([(f"[{index}]", "", item) for index, item in enumerate(value)], depth)
    if value is None or isinstance(value, bool):
        return []
    return [wrong(value, "text, a number, true, false, a list or a table", "write a moment as text in quotes")]


def _json_items(items: list[tuple[str, Any, Any]], depth: int) -> Iterator[Problem]:
    key_check: Callable[[Any], Iterable[Problem]] = text(200, empty=True)
    for path, key, item in items:
        yield from (problem.below(path) for problem in (*key_check(key), *_json(item, depth + 1)))


def _size(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_size(key) + _size(item) for key, item in value.items())
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else len(str(value))
