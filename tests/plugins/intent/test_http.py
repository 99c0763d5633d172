"""Promises about planning over HTTP: who may, what is answered, and that only what was seen is posted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kernel.api.scene import HUMAN, OPERATOR, RESIDENT, WORKER, Served, found_village, served, with_tokens
from vivarium_plugins_intent.plugin import IntentPlugin

from .scene import LONG, SHORT

WORK = 'write_policy = "work"\n'


def village(folder: Path, policy: str) -> Path:
    found = found_village(folder) / "vivarium.toml"
    found.write_text(policy + found.read_text())
    return folder


@pytest.fixture
def scene(tmp_path: Path, closing: ExitStack) -> Iterator[Served]:
    """A served village with two residents at work and no model."""
    folder = village(tmp_path / "village", WORK)
    with served(folder, plugins=(IntentPlugin,), residents=2, closing=closing) as found:
        yield with_tokens(found)


def planned(scene: Served, token: str, goal: str = LONG) -> dict[str, Any]:
    name = scene.post("/actions/intent.plan", {"goal": goal}, token).ok()["plan"]
    until = time.monotonic() + 20
    while time.monotonic() < until:
        shown: dict[str, Any] = scene.post("/actions/intent.show", {"plan": name}, token).ok()
        if shown["ready"]:
            return shown
        time.sleep(0.02)
    raise AssertionError(shown)


@pytest.mark.parametrize("token", [OPERATOR, HUMAN])
def test_people_plan_look_and_approve(scene: Served, token: str) -> None:
    shown = planned(scene, token)
    assert len(shown["tasks"]) == 4
    assert [row[0] for row in scene.rows("SELECT id FROM tasks")] == [shown["plan"]]
    body = {"plan": shown["plan"], "digest": shown["digest"]}
    assert scene.post("/actions/intent.approve", body, token).ok()["tasks"] == [task["id"] for task in shown["tasks"]]
    assert len(scene.rows("SELECT id FROM tasks")) == 5


@pytest.mark.parametrize("token", [RESIDENT, WORKER, None])
def test_others_are_refused_before_anything_is_posted(scene: Served, token: str | None) -> None:
    for verb, body in (
        ("plan", {"goal": SHORT}), ("show", {"plan": "t1"}), ("approve", {"plan": "t1", "digest": "x"}),
    ):  # fmt: skip
        reply = scene.post(f"/actions/intent.{verb}", body, token)
        assert reply.status == (401 if token is None else 403)
        assert reply.headers["content-type"] == "application/problem+json"
    assert scene.rows("SELECT id FROM tasks") == []


def test_refusals_are_problem_pages(scene: Served) -> None:
    shown = planned(scene, OPERATOR, SHORT)
    wrong = {"plan": shown["plan"], "digest": "0" * 16}
    assert scene.post("/actions/intent.approve", wrong).problem(409, "plan.digest")["field"] == "digest"
    assert scene.post("/actions/intent.show", {"plan": "t99"}).problem(404, "plan.unknown")
    assert scene.post("/actions/intent.plan", {"goal": " "}).problem(422, "plan.goal")
    assert scene.post("/actions/intent.plan", {"files": "*"}, HUMAN).problem(403, "plan.files")
    assert scene.post("/actions/intent.plan", {"goal": SHORT, "max_micros": -1}).status == 422
    assert len(scene.rows("SELECT id FROM tasks")) == 1


def test_a_key_makes_a_request_once(scene: Served) -> None:
    first = scene.post("/actions/intent.plan", {"goal": SHORT}, key="one").ok()
    assert scene.post("/actions/intent.plan", {"goal": SHORT}, key="one").ok() == first
    assert len(scene.rows("SELECT id FROM tasks")) == 1


def test_a_village_of_documents_answers_403_and_names_the_setting(tmp_path: Path, closing: ExitStack) -> None:
    with served(village(tmp_path / "village", ""), plugins=(IntentPlugin,), closing=closing) as found:
        with_tokens(found)
        for verb, body in (("plan", {"goal": SHORT}), ("approve", {"plan": "t1", "digest": "x"})):
            page = found.post(f"/actions/intent.{verb}", body, HUMAN).problem(403, "plan.write_policy")
            assert page["field"] == "write_policy"
            assert "vivarium.toml" in page["next_step"]
        assert found.rows("SELECT id FROM tasks") == []


def test_openapi_tells_what_planning_takes(scene: Served) -> None:
    page = scene.get("/openapi.json", None).ok()
    asked = page["paths"]["/actions/intent.plan"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"goal", "files", "max_micros", "min_micros", "anti_goals"} <= asked["properties"].keys()
    assert "/actions/intent.approve" in page["paths"]
