"""`vivarium run` on the researchers as a newcomer runs it, without any model; and that the records hold the answers."""

from __future__ import annotations

import json
import re
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from end_to_end.newcomer import EXAMPLES, Done, copied, typed
from vivarium_kernel.builtin.citations import citations, fault_of
from vivarium_kernel.builtin.scripted_tools import LABEL

VILLAGE = EXAMPLES / "researchers"
LIBRARY = Path("files", "library", "community_library", "swarm_docs")


def questions() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((VILLAGE / "tasks.toml").read_text(encoding="utf-8"))["task"]
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A village whose questions the scripted model has gone through, and how that ended."""
    village = copied("researchers", tmp_path_factory.mktemp("finished"))
    return village, typed("run", village, "--scripted", place=village.parent)


@pytest.mark.promise("Without a model `run` names the three ways to one and changes nothing")
def test_without_a_model_it_says_so_names_three_ways_and_changes_nothing(tmp_path: Path) -> None:
    village = copied("researchers", tmp_path)
    before = sorted(path.relative_to(village) for path in village.rglob("*"))
    done = typed("run", "researchers", place=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert "No model is configured" in done.err
    assert re.findall(r'model = "(vllm|groq|openai):MODEL"', done.err) == ["vllm", "groq", "openai"]
    assert "vivarium run researchers --scripted" in done.err
    assert sorted(path.relative_to(village) for path in village.rglob("*")) == before


def test_the_scripted_model_runs_it_to_the_end_and_is_labelled_as_what_it_is(finished: tuple[Path, Done]) -> None:
    village, done = finished
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(LABEL)
    assert f"scripted:... is the {LABEL}" in done.out
    assert f"{len(questions())} tasks: {len(questions())} done; each ended as it was expected to" in done.out
    with closing(sqlite3.connect(village / "vivarium.db")) as db:
        answers = [answer for (answer,) in db.execute("SELECT answer FROM attempts WHERE ending = 'accepted'")]
        tools = {name for (name,) in db.execute("SELECT DISTINCT name FROM steps WHERE kind = 'tool'")}
    assert len(answers) == len(questions())
    assert all(answer.startswith(LABEL) for answer in answers)
    assert tools == {"files.list", "files.search", "files.read", "files.write"}


def test_the_table_has_cost_tokens_steps_and_citations_of_each_question(finished: tuple[Path, Done]) -> None:
    _, done = finished
    header, *rows = done.out[done.out.index("What models did:\n") :].split("\n\n")[0].splitlines()[1:]
    assert re.split(r"\s{2,}", header) == ["task", "model", "usd", "tokens in", "out", "steps", "cited"]
    table = {row.split()[0]: row.split() for row in rows}
    assert {*table} == {task["id"] for task in questions()} | {"total", "scripted:..."}
    for task in questions():
        _, model, cost, tokens_in, tokens_out, steps, cited = table[task["id"]]
        assert (model, cost) == ("scripted:tools", "0")
        assert int(tokens_in.replace(",", "")) > 500 and int(tokens_out.replace(",", "")) > 100
        assert int(steps) >= 10
        assert int(cited) >= task["data"]["citations"]


def test_each_page_is_where_documents_are_allowed_and_its_citations_stand(finished: tuple[Path, Done]) -> None:
    village, _ = finished
    written = {path.relative_to(village).as_posix() for path in (village / "files").rglob("*") if path.is_file()}
    assert written == {name for task in questions() for name in task["files"]}
    for name in written:
        text = (village / name).read_text(encoding="utf-8")
        assert LABEL in text
        for citation in citations(text):
            lines = (village / citation.path).read_text(encoding="utf-8").splitlines()
            assert fault_of(citation, lines) == "", f"{name}: {citation}"


def test_what_programs_read_holds_all_of_it(tmp_path: Path, finished: tuple[Path, Done]) -> None:
    village, _ = finished
    found = json.loads(typed("run", village, "--scripted", "--json", place=tmp_path).out)
    by_task = {one["task"]: one["thought"] for one in found["tasks"]}
    assert {one["task"] for one in found["thoughts"]} == {*by_task}
    keys = {"model", "instead_of", "calls", "steps", "tokens_in", "tokens_out", "spent_micros", "citations", "verified"}
    assert all(keys <= thought.keys() for thought in by_task.values())
    sums = found["totals"]["thoughts"]
    for key in ("calls", "steps", "tokens_in", "tokens_out", "spent_micros", "citations", "verified"):
        assert sums[key] == sum(thought[key] for thought in by_task.values()), key


def test_a_scripted_run_refuses_to_stand_in_for_a_model_that_a_task_names_itself(tmp_path: Path) -> None:
    village = copied("researchers", tmp_path)
    tasks = village / "tasks.toml"
    tasks.write_text(tasks.read_text().replace('labels = ["horn"]', 'labels = ["horn"]\nmodel = "groq:big"'))
    done = typed("run", village, "--scripted", place=tmp_path)
    assert done.status == 2
    assert "task silent-horn names groq:big itself" in done.err
    assert not (village / "vivarium.db").exists()


@pytest.mark.parametrize("task", questions(), ids=lambda task: str(task["id"]))
def test_the_records_hold_the_answer_on_the_lines_that_are_named(task: dict[str, Any]) -> None:
    expected = tomllib.loads((VILLAGE / "expected.toml").read_text(encoding="utf-8"))[task["id"]]
    assert expected["answer"]
    assert len(expected["sources"]) >= task["data"]["citations"]
    for source in expected["sources"]:
        line = (VILLAGE / source["path"]).read_text(encoding="utf-8").splitlines()[source["line"] - 1]
        assert source["words"] in line, source
