"""Promises about who sees what: a resident sees what is public and what is about itself."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from vivarium_kernel.records import NewTask

from .scene import HUMAN, OPERATOR, OTHER, RESIDENT, Served

HIDDEN = "the-plan-for-ben"


@pytest.fixture
def lived(scene: Served) -> Served:
    """Ada and ben have each done a task of their own."""
    for name in ("ada", "ben"):
        asked = {"command": ["echo", f"{name} was here"], "resident": name, "title": HIDDEN if name == "ben" else ""}
        assert scene.post("/cycle", asked).ok()["status"] == "done"
    scene.add(NewTask(id="for-all", prompt="x"), NewTask(id="for-ben", prompt=HIDDEN, wanted="ben"))
    return scene


def pages(scene: Served, path: str, what: str, token: str) -> Iterator[dict[str, object]]:
    """Everything that a paged route gives, three at a time."""
    cursor = 0
    while True:
        page = scene.get(f"{path}?limit=3&after={cursor}", token).ok()
        yield from page[what]
        if page["cursor"] is None or not page[what]:
            return
        cursor = page["cursor"]


@pytest.mark.promise("a resident sees only what is public or about itself")
def test_a_resident_sees_its_own_and_what_is_public(lived: Served) -> None:
    everything = list(pages(lived, "/events", "events", OPERATOR))
    seen = list(pages(lived, "/events", "events", RESIDENT))
    assert [e["id"] for e in everything] == list(range(1, len(everything) + 1))
    assert {e["resident"] for e in seen} == {None, "ada"}
    assert {str(e["kind"]).partition(".")[0] for e in seen if e["resident"] is None} <= {"village", "task"}
    assert any(e["kind"] == "attempt.ended" for e in seen)
    assert {a["resident"] for a in pages(lived, "/attempts", "attempts", RESIDENT)} == {"ada"}
    assert {a["resident"] for a in pages(lived, "/attempts", "attempts", HUMAN)} == {"ada", "ben"}


@pytest.mark.promise("a resident sees only what is public or about itself")
def test_no_route_shows_a_resident_what_is_for_another_alone(lived: Served) -> None:
    theirs = lived.rows("SELECT id, task FROM attempts WHERE resident = 'ben'")[0]
    for path in ("/tasks", "/attempts", "/events", "/residents", "/ledger/balances", "/ledger/history", "/status"):
        assert HIDDEN not in lived.get(path, RESIDENT).raw.decode(), path
    lived.get("/tasks/for-ben", RESIDENT).problem(404, "board.task")
    lived.get(f"/tasks/{theirs[1]}", RESIDENT).problem(404, "board.task")
    lived.get(f"/attempts/{theirs[0]}", RESIDENT).problem(404, "board.attempt")
    lived.post("/tasks/for-ben/decline", {"reason": "no"}, RESIDENT).problem(404, "board.task")
    assert lived.get("/tasks/for-ben", OTHER).ok()["task"]["prompt"] == HIDDEN
    assert lived.get(f"/attempts/{theirs[0]}", OTHER).ok()["attempt"]["stdout"] == "ben was here\n"
    assert {task["id"] for task in pages(lived, "/tasks", "tasks", RESIDENT)} >= {"for-all"}
    assert "for-ben" in {task["id"] for task in pages(lived, "/tasks", "tasks", HUMAN)}


def test_a_resident_sees_its_own_money_and_what_belongs_to_all(lived: Served) -> None:
    accounts = {a["account"] for a in lived.get("/ledger/balances", RESIDENT).ok()["accounts"]}
    assert accounts == {"treasury", "resident:ada:free"}
    moved = lived.get("/ledger/history", RESIDENT).ok()["transfers"]
    assert moved
    assert all("resident:ada:free" in (t["payer"], t["payee"]) for t in moved)
    assert {a["account"] for a in lived.get("/ledger/balances?prefix=resident:", HUMAN).ok()["accounts"]} == {
        "resident:ada:free", "resident:ben:free", "resident:cyn:free",
    }  # fmt: skip
    assert lived.get("/residents/ben", RESIDENT).ok()["accounts"] == []
    assert lived.get("/residents/ada", RESIDENT).ok()["accounts"][0]["micros"] > 100_000_000
    assert lived.get("/ledger/verify", HUMAN).ok()["problems"] == []


def test_events_are_filtered_and_a_cursor_goes_on_behind_what_was_not_shown(lived: Served) -> None:
    head = lived.get("/status").ok()["last_event"]
    page = lived.get("/events?kind=attempt.*&resident=ben").ok()
    assert [e["kind"] for e in page["events"]] == ["attempt.judged", "attempt.ended"]
    assert page["cursor"] == head
    assert lived.get(f"/events?after={head}").ok() == {"events": [], "cursor": head}
    assert lived.get("/events/verify").ok()["broken"] is None


@pytest.mark.promise("declining-is-free")
def test_a_resident_declines_a_task_at_no_cost(lived: Served) -> None:
    before = lived.get("/residents/ada", RESIDENT).ok()["accounts"]
    found = lived.post("/tasks/for-all/decline", {"reason": "not mine to do"}, RESIDENT).ok()
    assert found["declined"] == ["ada"]
    assert found["state"] == "open"
    assert lived.get("/residents/ada", RESIDENT).ok()["accounts"] == before
    (event,) = lived.rows("SELECT actor, resident, data FROM events WHERE kind = 'task.declined'")
    assert (event[0], event[1], json.loads(event[2])["reason"]) == ("resident:ada", "ada", "not mine to do")
    lived.post("/tasks/for-all/decline", {"reason": ""}, OTHER).problem(422, "input")
    assert lived.post("/tasks/for-ben/decline", {"reason": "busy"}, OTHER).ok()["state"] == "parked"
