"""Promises about the stream of events: in order, from where one left off, and only as long as one may listen."""

from __future__ import annotations

import json
import time
from http.client import HTTPResponse
from typing import Any

import pytest
from vivarium_kernel.records import NewTask
from vivarium_kernel.village import Said

from vivarium_kernel import people

from .scene import OPERATOR, RESIDENT, Served


def read(answer: HTTPResponse, count: int) -> list[dict[str, Any]]:
    """The next events of a stream, each with its id, name and data."""
    found: list[dict[str, Any]] = []
    now: dict[str, Any] = {}
    while len(found) < count:
        line = answer.readline().decode().rstrip("\n")
        if not line and now:
            found.append(now)
            now = {}
        elif line and not line.startswith(":"):
            field, _, value = line.partition(": ")
            now[field] = json.loads(value) if field == "data" else value
    return found


def test_events_come_as_they_happen_and_go_on_where_one_left_off(scene: Served) -> None:
    with scene.stream("/events/stream", OPERATOR) as answer:
        assert answer.getheader("content-type", "").startswith("text/event-stream")
        scene.add(NewTask(id="a", prompt="x"), NewTask(id="b", prompt="x"))
        began = time.monotonic()
        first, second = read(answer, 2)
        assert time.monotonic() - began < 2.0
    assert [e["data"]["task"] for e in (first, second)] == ["a", "b"]
    assert first["event"] == "task.posted"
    assert int(second["id"]) == int(first["id"]) + 1 == second["data"]["id"]
    with scene.stream("/events/stream", OPERATOR, {"Last-Event-ID": first["id"]}) as answer:
        assert read(answer, 1) == [second]
    with scene.stream(f"/events/stream?after={first['id']}&task=b", OPERATOR) as answer:
        assert read(answer, 1) == [second]


@pytest.mark.promise("a resident sees only what is public or about itself")
def test_a_residents_stream_holds_nothing_about_others(scene: Served) -> None:
    for name in ("ben", "ada"):
        scene.post("/cycle", {"command": ["echo"], "resident": name}).ok()
    with scene.stream("/events/stream?after=0", RESIDENT) as answer:
        seen = read(answer, 6)
    assert {e["data"]["resident"] for e in seen} == {None, "ada"}
    assert all(e["data"]["resident"] == "ada" or e["event"].startswith(("task.", "village.")) for e in seen)


def test_a_stream_ends_with_the_credential_it_came_with(scene: Served) -> None:
    number = scene.token("operator", "listener", "listens")
    with scene.stream("/events/stream", "listens") as answer:
        scene.write(people.revoke_token, (number, "test"))
        began = time.monotonic()
        rest = answer.read()
        assert time.monotonic() - began < 3.0
    assert b"token.revoked" not in rest


def test_a_bad_cursor_is_refused(scene: Served) -> None:
    sent = {"Last-Event-ID": "yesterday"}
    scene.ask("GET", "/events/stream", headers=sent).problem(422, "events.cursor")


def test_what_a_model_is_writing_is_heard_by_whoever_may(scene: Served) -> None:
    with scene.stream("/events/stream", OPERATOR) as answer, scene.stream("/events/stream", RESIDENT) as mine:
        answer.readline(), mine.readline()  # both listen
        for resident, text in (("ben", "One "), ("ben", "two."), ("ada", "Mine.")):
            scene.village.hear(Said(7, "t1", resident, text))
        heard = read(mine, 1)
        assert [each["data"] for each in heard] == [{"attempt": 7, "task": "t1", "resident": "ada", "text": "Mine."}]
        assert "id" not in heard[0]
        whole = read(answer, 2)
    assert "".join(e["data"]["text"] for e in whole if e["data"]["resident"] == "ben").startswith("One")
    assert {e["event"] for e in whole} == {"said"}
    with scene.stream("/events/stream?task=t2", OPERATOR) as answer:
        answer.readline()
        scene.village.hear(Said(7, "t1", "ben", "elsewhere"))
        scene.add(NewTask(id="t2", prompt="x"))
        assert read(answer, 1)[0]["event"] == "task.posted"
