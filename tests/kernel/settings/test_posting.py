"""What a task must be like, whoever posts it: a table of tasks and what is wrong with each."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from vivarium_kernel.posting import TaskError, checked, field_checks, mode_of, validate
from vivarium_kernel.records import NewTask

SOUND = NewTask(id="a", prompt="count the words")
DEEP: list[Any] = []
for _ in range(500):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"id": None},
        {"id": "A.b-c_9"},
        {"id": "x" * 80},
        {"command": ("wc", "-l", "x y", ""), "prompt": ""},
        {"command": ("wc",), "prompt": "what it is for"},
        {"mode": "command", "command": ("wc",)},
        {"mode": "paint", "prompt": "", "data": {"size": [1, 2.5, None, True, {"x": "y"}]}},
        {"max_micros": 0},
        {"max_micros": 5, "min_micros": 5},
        {"priority": -1000},
        {"priority": 1000},
        {"max_attempts": 100},
        {"timeout_seconds": 0.001},
        {"timeout_seconds": 86_400},
        {"effect": "once", "expect": "blocked", "wanted": "ada", "model": "scripted:echo"},
        {"files": ("files/a.txt", "files/..x"), "cwd": "sub/dir"},
        {"labels": tuple(f"label {n}" for n in range(20))},
        {"prompt": "x" * 100_000},
        {"prompt": "two\nlines\tand a tab"},
        {"command": ("echo", "x" * 99_996), "prompt": ""},
        {"retry_seconds": 0},
        {"needs": ("b", "c")},
    ],
)
def test_a_possible_task_is_posted(changes: dict[str, Any]) -> None:
    new = attrs.evolve(SOUND, **changes)
    assert validate(new) == []
    assert checked(new) is new


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"id": ""}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": "a..b"}, "id"),
        ({"id": ".."}, "id"),
        ({"id": "-a"}, "id"),
        ({"id": "a\n"}, "id"),
        ({"id": "é"}, "id"),
        ({"id": "x" * 81}, "id"),
        ({"key": ""}, "key"),
        ({"mode": "Command"}, "mode"),
        ({"mode": ""}, "mode"),
        ({"mode": "command"}, "command"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"mode": "llm", "command": ("wc",)}, "command"),
        ({"prompt": "x" * 1_000_000}, "prompt"),
        ({"prompt": "nul \x00"}, "prompt"),
        ({"prompt": "half a pair \ud800"}, "prompt"),
        ({"title": "two\nlines"}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"command": "wc -l"}, "command"),
        ({"command": ("",)}, "command[0]"),
        ({"command": (" ", "x")}, "command[0]"),
        ({"command": ("wc", 5)}, "command[1]"),
        ({"command": ("wc", "a\x00b")}, "command[1]"),
        ({"command": ("echo", "x" * 60_000, "x" * 60_000)}, "command"),
        ({"needs": ("a/b",)}, "needs[0]"),
        ({"needs": ("b", "b")}, "needs[1]"),
        ({"needs": ("a",)}, "needs[0]"),
        ({"priority": 1001}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 1.0}, "priority"),
        ({"max_micros": -1}, "max_micros"),
        ({"max_micros": 10**15 + 1}, "max_micros"),
        ({"min_micros": -1}, "min_micros"),
        ({"max_micros": 4, "min_micros": 5}, "min_micros"),
        ({"max_micros": 0, "min_micros": 1}, "min_micros"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 101}, "max_attempts"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"timeout_seconds": 86_401}, "timeout_seconds"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds"),
        ({"effect": "twice"}, "effect"),
        ({"expect": "open"}, "expect"),
        ({"files": ("/etc/passwd",)}, "files[0]"),
        ({"files": ("a", "files/../../x")}, "files[1]"),
        ({"files": ("",)}, "files[0]"),
        ({"cwd": ".."}, "cwd"),
        ({"cwd": "/tmp"}, "cwd"),  # noqa: S108 - a path that is refused
        ({"labels": tuple(f"label {n}" for n in range(21))}, "labels"),
        ({"labels": ("x" * 65,)}, "labels[0]"),
        ({"labels": ("x", "x")}, "labels[1]"),
        ({"plugins": ("Hats",)}, "plugins[0]"),
        ({"wanted": "Ada"}, "wanted"),
        ({"not_before_at": -1}, "not_before_at"),
        ({"not_before_at": 10**30}, "not_before_at"),
        ({"model": ""}, "model"),
        ({"human": 1}, "human"),
        ({"retry_seconds": -1}, "retry_seconds"),
        ({"data": []}, "data"),
        ({"data": {"x": float("nan")}}, "data.x"),
        ({"data": {"x": 2**64}}, "data.x"),
        ({"data": {"x": [1, {"y": object()}]}}, "data.x[1].y"),
        ({"data": {"x": "\ud800"}}, "data.x"),
        ({"data": {"x": ["y" * 60_000, "y" * 60_000]}}, "data"),
    ],
)
def test_an_impossible_task_is_refused_with_its_field(changes: dict[str, Any], path: str) -> None:
    new = attrs.evolve(SOUND, **changes)
    [problem] = validate(new)
    assert problem.path == path
    assert problem.message
    assert len(str(problem)) < 400
    with pytest.raises(TaskError):
        checked(new)


def test_data_nested_beyond_measure_is_refused_and_not_a_recursion_error() -> None:
    [problem] = validate(attrs.evolve(SOUND, data={"x": DEEP}))
    assert "nested at most 20 deep" in problem.message


def test_everything_that_is_wrong_is_told_at_once() -> None:
    new = NewTask(id="a/b", priority=9999, min_micros=-1, cwd="..", mode="command", labels=("",))
    assert {problem.path for problem in validate(new)} == {
        "id",
        "priority",
        "min_micros",
        "cwd",
        "command",
        "labels[0]",
    }


def test_an_unknown_mode_is_refused_where_the_modes_are_known() -> None:
    new = attrs.evolve(SOUND, mode="comand")
    assert validate(new) == []
    [problem] = validate(new, modes=("command", "llm"))
    assert (problem.path, problem.next_step) == ("mode", 'did you mean "command"?')
    [stranger] = validate(attrs.evolve(SOUND, mode="paint"), modes=("command", "llm"))
    assert "command or llm" in stranger.next_step


def test_a_minimum_is_measured_against_the_villages_default_budget() -> None:
    new = attrs.evolve(SOUND, min_micros=200_000)
    assert validate(new) == []
    [problem] = validate(new, task_micros=100_000)
    assert "default budget (0.10)" in problem.message


def test_the_mode_follows_from_what_there_is_to_do() -> None:
    assert [mode_of(new) for new in (SOUND, NewTask(command=("ls",)), NewTask(mode="paint"))] == [
        "llm",
        "command",
        "paint",
    ]


def test_every_field_of_a_task_has_its_check() -> None:
    assert set(field_checks()) == {field.name for field in attrs.fields(NewTask)}
