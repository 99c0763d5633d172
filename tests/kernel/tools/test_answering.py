"""How people answer what residents ask: by the command line, over HTTP, and on the task's page."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kernel.api.scene import HUMAN, OPERATOR, RESIDENT, WORKER, Served, claim, served, with_tokens
from kernel.cli.running import Here
from kernel.panels.scene import look, session
from vivarium_kernel.records import NewTask
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage, rows

from .scene import HIDDEN, heard, use, use_all

EDITION = "Which <b>edition</b>?"


@pytest.fixture
def asking(
    make_village: Callable[..., StagedVillage], tmp_path: Path, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> StagedVillage:
    """A village that was closed while the task `book` waits for an answer."""
    village = make_village(folder=tmp_path / "v")
    scripted_model.says(
        use_all(("desk.report", {"text": HIDDEN}), ("desk.flag", {"text": "A <i>worry</i>."})),
        use("desk.ask", question=EDITION),
    )
    village.task("Find the book.", id="book")
    run_cycles(village=village)
    assert village.state("book") == "parked"
    village.close()
    return village


@pytest.fixture
def here(asking: StagedVillage, monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(asking.folder, monkeypatch)


@pytest.fixture
def scene(asking: StagedVillage, closing: ExitStack) -> Iterator[Served]:
    with served(asking.folder, closing=closing) as found:
        yield with_tokens(found)


# The command line


def test_status_and_task_show_have_the_question_and_what_to_do(here: Here) -> None:
    status, shown, listed = here("status"), here("task", "show", "book"), here("task", "list")
    assert f"book: {EDITION}" in status.out
    for done in (status, shown):
        assert "vivarium task answer book TEXT" in done.out
    assert f"a person's answer: {EDITION}" in shown.out
    assert EDITION in listed.out
    assert here("status", "--json").document["asking"] == [{"task": "book", "question": EDITION, "until_at": None}]


def test_an_answer_by_command_is_what_the_model_is_told(
    here: Here, asking: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    done = here("task", "answer", "book", "The second.")
    assert (done.status, done.out) == (0, "book is answered: it is open now\n")
    village = asking.stage.open(asking.opening)
    (attempt,) = run_cycles(village=village)
    assert attempt.ending == "accepted"
    assert '"answer":"The second.","by":"cli:' in heard(scripted_model)[-1]
    assert here("status", "--json").document["asking"] == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("nothing", "x"), 2, "There is no task"),
        (("book", ""), 2, "TEXT"),
        (("book", "x" * 10_001), 2, "at most 10,000 characters"),
        (("book", "a\0b"), 2, "TEXT"),
        (("book",), 2, "Missing argument"),
    ],
)
def test_an_answer_that_is_none_changes_nothing(here: Here, words: tuple[str, ...], status: int, said: str) -> None:
    done = here("task", "answer", *words)
    assert said in done.err
    assert done.status == status
    assert here("status", "--json").document["asking"]


def test_a_task_that_asks_nothing_is_not_answered(here: Here) -> None:
    here("task", "answer", "book", "The second.")
    again = here("task", "answer", "book", "The third.")
    assert again.status == 2
    assert "is open and can't be answered" in again.err


def test_what_was_told_is_read_by_command(here: Here) -> None:
    assert HIDDEN in here("do", "desk.told").out
    flagged = here("do", "desk.told", "kind=flag").out
    assert "A <i>worry</i>." in flagged
    assert HIDDEN not in flagged


# HTTP


def test_people_answer_over_http_and_the_same_key_answers_once(scene: Served) -> None:
    found = scene.post("/tasks/book/answer", {"text": "The second."}, HUMAN, key="k").ok()
    assert found["state"] == "open"
    assert scene.post("/tasks/book/answer", {"text": "The second."}, HUMAN, key="k").ok() == found
    scene.post("/tasks/book/answer", {"text": "The third."}, HUMAN).problem(409, "board.state")
    ((result,),) = scene.rows("SELECT result FROM steps WHERE name = 'desk.ask'")
    assert '"answer": "The second.", "by": "human:hana"' in result


@pytest.mark.parametrize("token", [RESIDENT, WORKER])
def test_no_resident_or_worker_answers(scene: Served, token: str) -> None:
    assert scene.post("/tasks/book/answer", {"text": "Mine."}, token).status == 403
    assert scene.task("book").state == "parked"


@pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": "x" * 10_001}, {"text": 5}, {"text": "x", "more": 1}])
def test_a_bad_answer_is_refused_and_changes_nothing(scene: Served, body: object) -> None:
    assert scene.post("/tasks/book/answer", body, OPERATOR).status in (400, 422)
    assert scene.task("book").state == "parked"


# From another machine


def test_a_worker_elsewhere_writes_files_here_and_goes_on_with_the_answer(scene: Served) -> None:
    scene.post("/tasks/book/cancel", {}).ok()
    held = claim(scene, NewTask(id="far", prompt="Write a poem.", model="scripted:echo"))
    name, attempt = held["resident"]["name"], held["attempt"]
    poem = f"files/library/community_library/resident_suggestions/{name}/poem.md"

    def act(number: int, action: str, **words: object) -> Any:
        asked = {"number": number, "action": action, "input": words}
        return scene.post(f"/wire/attempts/{attempt}/act", asked, held["token"])

    assert act(1, "files.write", path=poem, text="Sea.").ok()["reply"] == {"path": poem, "bytes": 4}
    assert (scene.village.folder / poem).read_text() == "Sea."
    act(2, "files.write", path="~/poem.md", text="Sea.").problem(403, "files.write_policy")
    asked = act(3, "desk.ask", question=EDITION).ok()
    assert asked["ended"]
    scene.post("/tasks/far/answer", {"text": "The second."}, HUMAN).ok()
    again = scene.post("/wire/claims", {"worker": held["worker"], "resident": name, "wait_seconds": 5}, WORKER).ok()
    steps = again["claim"]["recorded"]
    assert [step["name"] for step in steps] == ["files.write", "files.write", "desk.ask"]
    assert steps[2]["result"]["answer"] == "The second."


# Pages


def test_the_task_s_page_shows_the_question_and_a_place_for_the_answer(scene: Served) -> None:
    headers = session(scene)
    page = look(scene, "/panels/tasks?task=book", headers).raw.decode()
    assert html.escape(EDITION) in page
    assert EDITION not in page
    assert 'data-do="POST /tasks/book/answer"' in page
    scene.post("/tasks/book/answer", {"text": "The second."}, HUMAN).ok()
    assert "/answer" not in look(scene, "/panels/tasks?task=book", headers).raw.decode()


def test_the_desk_s_page_shows_what_residents_told(scene: Served) -> None:
    page = look(scene, "/panels/desk", session(scene)).raw.decode()
    assert HIDDEN in page
    assert "A &lt;i&gt;worry&lt;/i&gt;." in page
    assert "<i>worry" not in page


def test_an_answer_stays_in_the_record_of_the_attempt_that_went_on(
    asking: StagedVillage, here: Here, run_cycles: RunCycles
) -> None:
    """The answered step is copied into the attempt that goes on, so that one that follows it goes on too."""
    here("task", "answer", "book", "The second.")
    village = asking.stage.open(asking.opening)
    run_cycles(village=village)
    found = rows(village, "SELECT attempt, result FROM steps WHERE name = 'desk.ask' ORDER BY attempt")
    assert len(found) == 2
    assert all("The second." in row[1] for row in found)
