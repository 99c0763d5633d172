"""Promises about `POST /plan`, whose plan is made within the request, and `vivarium plan` as it is typed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kernel.api.scene import HUMAN, OPERATOR, RESIDENT, WORKER, Served, found_village, served, with_tokens
from kernel.cli.running import vivarium
from vivarium_plugins_intent.plugin import IntentPlugin

from .scene import LONG, SHORT


@pytest.fixture
def scene(tmp_path: Path, closing: ExitStack) -> Iterator[Served]:
    """A served village without a model, whose residents nobody drives."""
    folder = found_village(tmp_path / "village")
    (folder / "vivarium.toml").write_text('write_policy = "work"\n' + (folder / "vivarium.toml").read_text())
    with served(folder, plugins=(IntentPlugin,), closing=closing) as found:
        yield with_tokens(found)


@pytest.mark.parametrize("token", [OPERATOR, HUMAN])
def test_a_plan_is_made_within_the_request_and_posted_on_approval(scene: Served, token: str) -> None:
    shown = scene.post("/plan", {"goal": LONG}, token).ok()
    assert shown["ready"]
    assert len(shown["tasks"]) == 4
    assert len(scene.rows("SELECT id FROM tasks")) == 1
    assert scene.get(f"/plan/{shown['plan']}", token).ok() == shown
    way = f"/plan/{shown['plan']}/approve"
    assert scene.post(way, {"digest": "0"}, token).problem(409, "plan.digest")
    assert len(scene.post(way, {"digest": shown["digest"]}, token).ok()["tasks"]) == 4


@pytest.mark.parametrize("token", [RESIDENT, WORKER, None])
def test_others_are_refused(scene: Served, token: str | None) -> None:
    for path, body in (("/plan", {"goal": SHORT}), ("/plan/t1/approve", {"digest": "x"})):
        assert scene.post(path, body, token).status == (401 if token is None else 403)
    assert scene.get("/plan/t1", token).status == (401 if token is None else 403)
    assert scene.rows("SELECT id FROM tasks") == []


def test_a_token_for_planning_alone_plans_and_does_no_other_action(scene: Served) -> None:
    scene.token("operator", "planner", "plans", scope=("plan", "read"))
    shown = scene.post("/plan", {"goal": LONG}, "plans").ok()
    assert scene.get(f"/plan/{shown['plan']}", "plans").ok() == shown
    way = f"/plan/{shown['plan']}/approve"
    assert len(scene.post(way, {"digest": shown["digest"]}, "plans").ok()["tasks"]) == 4
    scene.post("/actions/intent.show", {"plan": shown["plan"]}, "plans").problem(403, "action.role")
    scene.token("operator", "reader", "reads", scope=("read",))
    scene.post("/plan", {"goal": LONG}, "reads").problem(403, "auth.scope")


def test_a_key_makes_one_plan(scene: Served) -> None:
    first = scene.post("/plan", {"goal": SHORT}, key="one").ok()
    assert scene.post("/plan", {"goal": SHORT}, key="one").ok() == first


def test_without_the_plugin_planning_says_what_is_missing(tmp_path: Path, closing: ExitStack) -> None:
    with served(found_village(tmp_path / "village"), closing=closing) as found:
        with_tokens(found)
        page = found.post("/plan", {"goal": SHORT}).problem(404, "plan.plugin")
        assert "vivarium-plugins-intent" in page["next_step"]


def test_plan_is_a_command_of_vivarium(installed: Path, tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(installed)}
    helped = vivarium("--help", cwd=tmp_path, env=env).out
    assert re.search(r"^  plan +from vivarium-plugins-intent$", helped, re.M)
    assert vivarium("init", "town", "--work", cwd=tmp_path, env=env).status == 0
    done = vivarium("plan", LONG, "--yes", cwd=tmp_path / "town", env=env)
    assert done.status == 0, done.err
    assert "Posted: t1-part-1, t1-part-2, t1-part-3, t1-whole" in done.out
    assert vivarium("plan", SHORT, cwd=tmp_path / "town").status == 2, "there is no such command without it"
