"""The room of task files: TOML (``[[task]]`` tables) and JSONL (one object a line) as tasks to post.

Every problem of a file is told at once, with its file, line or task, field, value and the next step. What a task must
be like is ``posting.py``'s rule; this room knows how people write one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import attrs

from vivarium_kernel.amounts import amount
from vivarium_kernel.checks import in_brackets, wrong
from vivarium_kernel.documents import json_of, plain, text_of, toml_of
from vivarium_kernel.posting import validate
from vivarium_kernel.problems import InputError, Problem, quoted, unknown
from vivarium_kernel.records import NewTask

Parse = Callable[[Any], Any]


class TaskFileError(InputError):
    """A task file that was refused: ``problems`` has everything that is wrong in it."""

    RULE = "task_file"


def read(path: Path, missing: str = "create it, or remove it from `tasks` in vivarium.toml") -> list[NewTask]:
    """The tasks of a file, in its order; a :class:`TaskFileError` with everything that is wrong in it.

    ``missing`` is the next step where there is no such file.
    """
    if path.suffix not in (".toml", ".jsonl"):
        message = f"must be a file that ends in .toml or .jsonl, not {quoted(path.name)}"
        raise TaskFileError([Problem("", quoted(path.name), message, "rename the file", str(path))])
    try:
        text = text_of(path, missing)
    except InputError as error:
        raise TaskFileError(error.problems) from None
    return read_text(text, str(path), jsonl=path.suffix == ".jsonl")


def read_text(text: str, where: str, *, jsonl: bool) -> list[NewTask]:
    """The tasks of a text, as TOML or JSONL; ``where`` is how problems name it."""
    problems: list[Problem] = []
    found: list[tuple[str, NewTask]] = []
    try:
        entries = list(_entries(text, where, jsonl, problems))
    except InputError as error:
        raise TaskFileError(error.problems) from None
    for place, raw in entries:
        new, wrong_here = _task(raw, place)
        problems += wrong_here
        found.append((_named(raw, place), new))
    problems += _twice(found)
    problems += _cycles(found)
    if problems:
        raise TaskFileError(problems)
    return [new for _, new in found]


def parse_task(mapping: Mapping[str, Any], where: str) -> NewTask:
    """One task as people write it; a :class:`TaskFileError` with everything that is wrong with it."""
    new, problems = _task(mapping, where)
    if problems:
        raise TaskFileError(problems)
    return new


def keys() -> dict[str, tuple[str, Parse]]:
    """The keys of a task in a file: for each the field of :class:`NewTask` that it fills, and how it is read."""
    return {
        "id": ("id", _as_it_is),
        "title": ("title", _as_it_is),
        "prompt": ("prompt", _as_it_is),
        "command": ("command", _list),
        "mode": ("mode", _as_it_is),
        "needs": ("needs", _list),
        "priority": ("priority", _as_it_is),
        "max_budget": ("max_micros", _amount),
        "min_budget": ("min_micros", _amount),
        "max_attempts": ("max_attempts", _as_it_is),
        "timeout_seconds": ("timeout_seconds", _number),
        "effect": ("effect", _as_it_is),
        "files": ("files", _list),
        "labels": ("labels", _list),
        "plugins": ("plugins", _list),
        "wanted": ("wanted", _as_it_is),
        "not_before": ("not_before_at", _moment),
        "expect": ("expect", _as_it_is),
        "cwd": ("cwd", _as_it_is),
        "model": ("model", _as_it_is),
        "human": ("human", _as_it_is),
        "retry_deadline_seconds": ("retry_seconds", _number),
        "data": ("data", plain),
    }


def _entries(text: str, path: str, jsonl: bool, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    """Where each task of the text stands, and what stands there; what can't be read goes to ``problems``."""
    if not jsonl:
        tables = toml_of(text, path)
        problems += (problem.below("", path) for problem in unknown(tables, ("task",), "table"))
        tasks = tables.get("task", [])
        if not isinstance(tasks, list):
            problems.append(Problem("task", quoted(tasks), "must be a list of tables", "write [[task]]", path))
            return
        yield from ((f"{path}, task number {index}", raw) for index, raw in enumerate(tasks, start=1))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            yield where, json_of(line, where)
        except InputError as error:
            problems += error.problems


def _named(raw: Any, where: str) -> str:
    name = raw.get("id") if isinstance(raw, Mapping) else None
    return f"{where} ({quoted(name)})" if isinstance(name, str) else where


def _task(raw: Any, where: str) -> tuple[NewTask, list[Problem]]:
    """The task as far as it can be read, and everything that is wrong with it."""
    where = _named(raw, where)
    if not isinstance(raw, Mapping):
        return NewTask(), [attrs.evolve(wrong(raw, "a table of a task's keys"), where=where)]
    table = keys()
    problems = list(unknown(raw, tuple(table)))
    if "id" not in raw:
        problems.append(Problem("id", "", "is missing", "give each task an id: it is posted once under it"))
    values: dict[str, Any] = {}
    unread: set[str] = set()
    for key, (name, parse) in table.items():
        if key in raw:
            try:
                values[name] = parse(raw[key])
            except InputError as error:
                problems += (problem.below(key) for problem in error.problems)
                unread.add(key)
    new = NewTask(**values)
    written_as = {name: key for key, (name, _) in table.items()}
    for problem in validate(new):
        name = problem.path.split("[")[0].split(".")[0]
        key = written_as.get(name, name)
        # A field that could not be read stands at its default here: what follows from that is not the writer's fault.
        if key in unread or (unread & {"command", "prompt"} and name in ("command", "prompt") and key not in raw):
            continue
        problems.append(attrs.evolve(problem, path=key + problem.path[len(name) :]))
    return new, [problem.below("", where) for problem in problems]


def _as_it_is(value: Any) -> Any:
    if value is None:
        raise InputError([wrong(value, "a value", "leave the key out")])
    return value


def _list(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError([wrong(value, "a list", in_brackets(value))])
    return tuple(value)


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or abs(value) > 1e15:
        raise InputError([wrong(value, "a number of seconds")])
    return float(value)


def _amount(value: Any) -> int:
    return amount(value, "")


def _moment(value: Any) -> int:
    """An ISO time with its offset, as micros of Unix time."""
    next_step = 'write it with its offset, such as "2030-01-31T09:00:00Z"'
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        naive = isinstance(value, (date, time)) or isinstance(moment, datetime)
        must = "a moment with its offset from UTC" if naive else "an ISO time"
        raise InputError([wrong(value, must, next_step)])
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    if micros < 0:
        raise InputError([wrong(value, "a moment after 1970", next_step)])
    return micros


def _twice(found: Iterable[tuple[str, NewTask]]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for where, new in found:
        if isinstance(new.id, str):
            if new.id in first:
                message = f"{quoted(new.id)} is already the id of {first[new.id].rpartition(' (')[0]}"
                yield Problem("id", quoted(new.id), message, "give each task an id of its own", where)
            first.setdefault(new.id, where)


def _cycles(found: Iterable[tuple[str, NewTask]]) -> Iterator[Problem]:
    """Each cycle of ``needs`` in the file, named once; a task that needs itself is told already."""
    tasks: dict[str, tuple[str, NewTask]] = {}
    for where, new in found:
        if isinstance(new.id, str):
            tasks.setdefault(new.id, (where, new))
    done: set[str] = set()
    for start in tasks:
        # A walk with its own stack: a chain of needs may be longer than Python's.
        trail: dict[str, Iterator[Any]] = {} if start in done else {start: iter(tasks[start][1].needs)}
        while trail:
            here, needs = next(reversed(trail.items()))
            need = next(needs, None)
            if need is None:
                done.add(here)
                del trail[here]
            elif not isinstance(need, str) or need not in tasks or need in done or need == here:
                continue
            elif need in trail:
                loop = [*trail]
                path = " -> ".join([*loop[loop.index(need) :], need])
                message = f"the tasks need each other in a circle: {path}"
                yield Problem("needs", quoted(need), message, "remove one of these needs", tasks[here][0])
            else:
                trail[need] = iter(tasks[need][1].needs)
