"""Promises about repeated requests: the same key and body do nothing twice and give the same reply."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from .scene import HUMAN, OPERATOR, Reply, Served

CHANGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/tasks", {"tasks": [{"prompt": "one"}]}, {"tasks": [{"prompt": "two"}]}),
    ("/residents", {"name": "dov"}, {"name": "eli"}),
    ("/control/pause", {"reason": "a"}, {"reason": "b"}),
    ("/control/pace", {"seconds": 1.0}, {"seconds": 2.0}),
    ("/tokens", {"role": "human", "name": "x"}, {"role": "human", "name": "y"}),
]


@pytest.mark.promise("a POST that is repeated under its key is done once and answered the same")
@pytest.mark.parametrize(("path", "body", "other"), CHANGES)
def test_a_key_does_a_thing_once(scene: Served, path: str, body: dict[str, Any], other: dict[str, Any]) -> None:
    first = scene.post(path, body, key="k1")
    events = scene.rows("SELECT count(*) FROM events")
    again = scene.post(path, body, key="k1")
    assert first.ok() == {**again.ok(), **({"token": first.json["token"]} if path == "/tokens" else {})}
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    assert scene.rows("SELECT count(*) FROM events") == events
    scene.post(path, other, key="k1").problem(409, "request.key")
    scene.post(path, other, key="k2").ok()


def test_a_key_belongs_to_its_actor_and_route(scene: Served) -> None:
    one = {"tasks": [{"prompt": "the same"}]}
    mine = scene.post("/tasks", one, OPERATOR, key="k").ok()["tasks"][0]["id"]
    theirs = scene.post("/tasks", one, HUMAN, key="k").ok()["tasks"][0]["id"]
    assert mine != theirs
    scene.post("/control/pause", {}, OPERATOR, key="k").problem(409, "request.key")


def test_a_refusal_is_not_kept_under_its_key(scene: Served) -> None:
    scene.post("/tasks", {"tasks": [{"id": "x", "prompt": "x", "needs": ["y"]}]}, key="k").problem(422, "board.needs")
    scene.post("/tasks", {"tasks": [{"id": "y", "prompt": "y"}]}).ok()
    scene.post("/tasks", {"tasks": [{"id": "x", "prompt": "x", "needs": ["y"]}]}, key="k").ok()


def test_the_same_request_at_the_same_moment_is_done_once(scene: Served) -> None:
    answers: list[Reply] = []

    def ask() -> None:
        answers.append(scene.post("/tasks", {"tasks": [{"prompt": "once"}]}, key="race"))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.ok()["tasks"][0]["id"] for answer in answers}) == 1
    assert scene.rows("SELECT count(*) FROM tasks") == [(1,)]


@pytest.mark.promise("hidden-values")
def test_a_tokens_secret_is_shown_once_and_kept_nowhere(scene: Served) -> None:
    made = scene.post("/tokens", {"role": "human", "name": "once"}, key="k").ok()
    assert scene.get("/status", made["token"]).status == 200
    assert scene.post("/tokens", {"role": "human", "name": "once"}, key="k").ok() == {**made, "token": None}
    for (table,) in scene.rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
        for row in scene.rows(f"SELECT * FROM {table}"):
            assert made["token"] not in str(row)
    assert made["token"] not in scene.get("/tokens").raw.decode()
    scene.post(f"/tokens/{made['number']}/revoke").ok()
    scene.get("/status", made["token"]).problem(401, "auth.token")


@pytest.mark.promise("idempotent-post")
def test_posting_a_task_under_its_own_id_again_posts_it_once(scene: Served) -> None:
    task = {"id": "t", "prompt": "x", "max_micros": 7}
    assert scene.post("/tasks", {"tasks": [task]}).ok() == scene.post("/tasks", {"tasks": [task]}).ok()
    scene.post("/tasks", {"tasks": [{**task, "prompt": "y"}]}).problem(409, "board.posted")


@pytest.mark.promise("cycles-are-refused")
def test_tasks_that_wait_for_each_other_are_refused_together(scene: Served) -> None:
    tasks = [{"id": "a", "prompt": "a", "needs": ["b"]}, {"id": "b", "prompt": "b", "needs": ["a"]}]
    page = scene.post("/tasks", {"tasks": tasks}).problem(422, "board.cycle")
    assert "a → b → a" in page["detail"] or "b → a → b" in page["detail"]
    assert scene.rows("SELECT count(*) FROM tasks") == [(0,)]
