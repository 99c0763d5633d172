"""Task files become tasks to post, or every problem at once with its file, line or task, field and next step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vivarium_kernel.problems import Problem
from vivarium_kernel.records import NewTask
from vivarium_kernel.taskfile import TaskFileError, keys, parse_task, read

FULL = """
[[task]]
id = "count"
title = "Count the words"
prompt = "How many words?"
command = ["wc", "-w", "notes.txt"]
mode = "command"
needs = ["fetch"]
priority = 5
max_budget = 0.07
min_budget = "0.01"
max_attempts = 2
timeout_seconds = 5
effect = "pure"
files = ["files/count.txt"]
labels = ["chore"]
plugins = ["hats"]
wanted = "ada"
not_before = 2030-01-31T10:00:00.5+01:00
expect = "failed"
cwd = "sub"
model = "scripted:echo"
human = true
retry_deadline_seconds = 60
data = {size = 0.5, parts = [1, "two"]}

[[task]]
id = "fetch"
prompt = "Fetch it."
"""


def write(folder: Path, text: str, name: str = "tasks.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems(folder: Path, text: str, name: str = "tasks.toml") -> tuple[Problem, ...]:
    with pytest.raises(TaskFileError) as caught:
        read(write(folder, text, name))
    return caught.value.problems


def test_every_key_reaches_its_field(tmp_path: Path) -> None:
    count, fetch = read(write(tmp_path, FULL))
    assert count == NewTask(
        id="count",
        title="Count the words",
        prompt="How many words?",
        command=("wc", "-w", "notes.txt"),
        mode="command",
        needs=("fetch",),
        priority=5,
        max_micros=70_000,
        min_micros=10_000,
        max_attempts=2,
        timeout_seconds=5.0,
        effect="pure",
        files=("files/count.txt",),
        labels=("chore",),
        plugins=("hats",),
        wanted="ada",
        not_before_at=1_896_080_400_500_000,
        expect="failed",
        cwd="sub",
        model="scripted:echo",
        human=True,
        retry_seconds=60.0,
        data={"size": 0.5, "parts": [1, "two"]},
    )
    assert type(count.data["size"]) is float
    assert fetch == NewTask(id="fetch", prompt="Fetch it.")
    # The idempotency key is the API's: in a file the id is what makes a post happen once.
    assert {name for name, _ in keys().values()} == {field.name for field in attrs.fields(NewTask)} - {"key"}


def test_json_lines_are_the_same_tasks(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": "a", "command": ["ls"], "max_budget": 0.07, "not_before": "2030-01-31T09:00:00Z"}),
        "",
        json.dumps({"id": "b", "prompt": "a line separator \u2028 inside", "needs": ["a"]}, ensure_ascii=False),
    ]
    a, b = read(write(tmp_path, "\ufeff" + "\r\n".join(lines), "tasks.jsonl"))
    assert (a.max_micros, a.not_before_at) == (70_000, 1_896_080_400_000_000)
    assert b == NewTask(id="b", prompt="a line separator \u2028 inside", needs=("a",))


def test_an_empty_file_has_no_tasks(tmp_path: Path) -> None:
    assert read(write(tmp_path, "")) == []
    assert read(write(tmp_path, "\n\n", "tasks.jsonl")) == []


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ('titel = "x"', "titel"),
        ("max_budget = -1", "max_budget"),
        ("max_budget = 1e-3", "max_budget"),
        ('max_budget = "ten"', "max_budget"),
        ("max_budget = nan", "max_budget"),
        ("max_budget = true", "max_budget"),
        ("max_budget = 0.05\nmin_budget = 0.1", "min_budget"),
        ("command = []\nmode = 'command'", "command"),
        ('command = "ls"', "command"),
        ('command = ["ls", 5]', "command[1]"),
        ('command = "ls"\nmode = "command"', "command"),
        ('mode = "no mode"', "mode"),
        ("priority = 1.5", "priority"),
        ("priority = 5000", "priority"),
        ("max_attempts = 0", "max_attempts"),
        ("timeout_seconds = 0", "timeout_seconds"),
        ('timeout_seconds = "5"', "timeout_seconds"),
        ("timeout_seconds = inf", "timeout_seconds"),
        ("retry_deadline_seconds = -1", "retry_deadline_seconds"),
        ('effect = "twice"', "effect"),
        ('expect = "ended"', "expect"),
        ('files = ["/x"]', "files[0]"),
        ('cwd = "../x"', "cwd"),
        ('needs = "a"', "needs"),
        ('needs = ["it"]', "needs[0]"),
        ("needs = [5]", "needs[0]"),
        ("labels = [{}]", "labels[0]"),
        ('wanted = "Ada"', "wanted"),
        ('not_before = "soon"', "not_before"),
        ('not_before = "2030-01-31T09:00:00"', "not_before"),
        ("not_before = 2030-01-31T09:00:00", "not_before"),
        ("not_before = 2030-01-31", "not_before"),
        ("not_before = 5", "not_before"),
        ("not_before = 0001-01-01T00:00:00+14:00", "not_before"),
        ("data = 5", "data"),
        ("data = {at = 2030-01-31}", "data.at"),
        ("human = 1", "human"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(tmp_path: Path, extra: str, field: str) -> None:
    [problem] = problems(tmp_path, f'[[task]]\nid = "it"\nprompt = "x"\n{extra}\n')
    assert problem.path == field
    assert problem.where == f'{tmp_path / "tasks.toml"}, task number 1 ("it")'


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    text = """
        [[task]]
        id = "a/b"
        priority = "high"
        [[task]]
        id = "b"
        prmpt = "x"
        max_attempts = 0
        [[tasks]]
        id = "c"
    """
    found = problems(tmp_path, text)
    assert [(problem.where.partition(", ")[2], problem.path) for problem in found] == [
        ("", "tasks"),
        ('task number 1 ("a/b")', "id"),
        ('task number 1 ("a/b")', "priority"),
        ('task number 1 ("a/b")', "prompt"),
        ('task number 2 ("b")', "prmpt"),
        ('task number 2 ("b")', "max_attempts"),
        ('task number 2 ("b")', "prompt"),
    ]
    assert 'did you mean "task"?' in str(found[0])
    assert 'did you mean "prompt"?' in str(found[4])


def test_a_wrong_line_is_named_and_does_not_hide_the_next(tmp_path: Path) -> None:
    lines = [
        '{"id": "a", "prompt": "x"}',
        '{"id": ',
        "[1]",
        '{"id": "d", "prompt": 5, "x": NaN}',
        '{"id": "e", "id": "f"}',
        '{"prompt": "x"}',
    ]
    found = problems(tmp_path, "\n".join(lines), "tasks.jsonl")
    places = [problem.where.partition(", ")[2].partition(",")[0] for problem in found]
    assert places == ["line 2", "line 4", "line 5", "line 3", "line 6"]
    assert found[-1].path == "id"


def test_a_millon_character_prompt_is_refused_without_repeating_it(tmp_path: Path) -> None:
    text = json.dumps({"id": "a", "prompt": "x" * 1_000_000})
    [problem] = problems(tmp_path, text, "tasks.jsonl")
    assert problem.path == "prompt"
    assert "100,000 characters, not 1,000,000" in problem.message
    assert len(str(problem)) < 400


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    one = '[[task]]\nid = "a"\nprompt = "x"\n'
    [problem] = problems(tmp_path, one + one)
    assert "task number 2" in problem.where
    assert problem.message.endswith("task number 1")


def _needs(*pairs: tuple[str, str]) -> str:
    return "\n".join(json.dumps({"id": name, "prompt": "x", "needs": [*needs]}) for name, needs in pairs)


@pytest.mark.parametrize(
    ("pairs", "named"),
    [
        ([("a", "b"), ("b", "a")], "a -> b -> a"),
        ([("a", "b"), ("b", "c"), ("c", "b")], "b -> c -> b"),
        ([("x", ""), ("a", "xb"), ("b", "xc"), ("c", "xa")], "a -> b -> c -> a"),
    ],
)
def test_a_circle_of_needs_is_named(tmp_path: Path, pairs: list[tuple[str, str]], named: str) -> None:
    [problem] = problems(tmp_path, _needs(*pairs), "tasks.jsonl")
    assert problem.path == "needs"
    assert problem.message.endswith(f": {named}")


def test_a_diamond_is_no_circle_and_a_need_may_lie_outside_the_file(tmp_path: Path) -> None:
    text = _needs(("d", "bc"), ("b", "a"), ("c", "a"), ("a", "z"))
    assert len(read(write(tmp_path, text, "tasks.jsonl"))) == 4


def test_a_chain_longer_than_pythons_stack_is_read(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"t{n}", "prompt": "x", "needs": [f"t{n + 1}"]}) for n in range(5000)]
    assert len(read(write(tmp_path, "\n".join(lines), "tasks.jsonl"))) == 5000
    lines.append(json.dumps({"id": "t5000", "prompt": "x", "needs": ["t0"]}))
    [problem] = problems(tmp_path, "\n".join(lines), "tasks.jsonl")
    assert "in a circle" in problem.message


@pytest.mark.parametrize("name", ["tasks.yaml", "tasks", "tasks.json"])
def test_another_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    [problem] = problems(tmp_path, "", name)
    assert ".toml or .jsonl" in problem.message


def test_a_missing_file_and_malformed_toml_are_told(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match="there is no such file"):
        read(tmp_path / "none.toml")
    [problem] = problems(tmp_path, "[[task]]\nid = = 1\n")
    assert problem.where.endswith("tasks.toml, line 2, column 6")
    [table] = problems(tmp_path, '[task]\nid = "a"\n')
    assert table.next_step == "write [[task]]"


def test_very_many_problems_are_told_in_few_lines(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError) as caught:
        read(write(tmp_path, "5\n" * 3000, "tasks.jsonl"))
    assert len(caught.value.problems) == 3000
    assert len(str(caught.value).splitlines()) == 51


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.datetimes() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
LIKELY: dict[str, Any] = {
    "id": st.sampled_from(["a", "b", "c/d", ""]),
    "prompt": st.text(max_size=5),
    "command": st.lists(st.text(max_size=4), max_size=3),
    "needs": st.lists(st.sampled_from(["a", "b", "c"]), max_size=3),
    "mode": st.sampled_from(["command", "llm", "paint"]),
    "max_budget": st.floats() | st.sampled_from(["0.10", "1", "-1"]),
    "not_before": st.datetimes(timezones=st.timezones()) | st.text(max_size=12),
}
TASKS = st.fixed_dictionaries({}, optional={key: LIKELY.get(key, VALUES) | VALUES for key in [*keys(), "odd"]})


@settings(max_examples=150)
@given(TASKS)
def test_any_table_becomes_a_task_or_a_task_file_error(raw: dict[str, Any]) -> None:
    try:
        new = parse_task(raw, "tasks.toml, task number 1")
    except TaskFileError as error:
        assert all(problem.where.startswith("tasks.toml, task number 1") for problem in error.problems)
        assert all(problem.path and problem.message for problem in error.problems)
        assert all(line.isprintable() for line in str(error).splitlines())
    else:
        assert new.id == raw["id"]


@settings(max_examples=100)
@given(lines=st.lists(TASKS.map(lambda raw: json.dumps(raw, default=str)) | st.text(max_size=20), max_size=5))
def test_any_text_becomes_tasks_or_a_task_file_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name in ("any.jsonl", "any.toml"):
        path = folder / name
        path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        try:
            assert all(isinstance(new, NewTask) for new in read(path))
        except TaskFileError as error:
            assert all(line.isprintable() for line in str(error).splitlines())
