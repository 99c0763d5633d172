"""Promises about the task that is run now, and about decisions by people."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .scene import HUMAN, OPERATOR, Served, found_village, served, with_tokens


def test_a_command_is_run_now_and_everything_about_it_is_answered(scene: Served) -> None:
    found = scene.post("/cycle", {"command": ["echo", "hi"], "max_micros": 50_000, "resident": "ben"}, HUMAN).ok()
    assert found["finished"]
    assert found["status"] == "done"
    assert (found["resident"], found["exit_code"], found["stdout"], found["result"]) == ("ben", 0, "hi\n", "hi\n")
    assert found["cost_micros"] == 0
    assert found["confidence"] == 0.95
    assert {(v["subject"], v["answer"]) for v in found["verdicts"]} == {
        ("task", "allow"), ("command", "allow"), ("outcome", "allow"),
    }  # fmt: skip
    kinds = [e["kind"] for e in found["events"]]
    assert kinds == ["task.posted", "task.claimed", "step.ended", "attempt.judged", "attempt.ended", "money.moved"]
    assert {e["cycle"] for e in found["events"][1:5]} == {1}
    assert scene.task(found["task"]).by == "human:hana"


def test_a_prompt_is_run_now(scene: Served) -> None:
    found = scene.post("/cycle", {"prompt": "say hi"}).ok()
    assert found["result"] == "[scripted model, no LLM] say hi"
    assert found["model"] == "scripted:echo"
    assert found["usage"]["tokens_out"] > 0


def test_a_command_that_fails_says_so_after_one_try(scene: Served) -> None:
    found = scene.post("/cycle", {"command": ["sh", "-c", "echo no >&2; exit 3"]}).ok()
    assert (found["status"], found["exit_code"], found["stderr"]) == ("failed", 3, "no\n")
    assert "exit code 3" in found["reason"]


@pytest.mark.promise("failed-check-is-no-allow")
def test_what_safety_denies_is_not_run(scene: Served) -> None:
    found = scene.post("/cycle", {"command": ["cat", "/etc/passwd"]}).ok()
    assert found["status"] == "blocked"
    assert found["stdout"] in ("", None)
    denied = [v for v in found["verdicts"] if v["answer"] == "deny"]
    assert [(v["subject"], v["plugin"], v["rule"]) for v in denied] == [("command", "command_policy", "command.path")]


def test_a_wait_that_is_over_answers_with_what_there_is(scene: Served) -> None:
    began = time.monotonic()
    answer = scene.post("/cycle", {"command": ["sleep", "2"], "effect": "pure", "wait_seconds": 0.3}, key="slow")
    assert time.monotonic() - began < 1.9
    found = answer.ok(202)
    assert (found["finished"], found["status"], found["result"]) == (False, "claimed", None)
    # The same request under the same key waits for the same task.
    again = scene.post("/cycle", {"command": ["sleep", "2"], "effect": "pure"}, key="slow").ok()
    assert (again["task"], again["status"]) == (found["task"], "done")
    assert scene.rows("SELECT count(*) FROM attempts") == [(1,)]
    scene.post("/cycle", {"command": ["sleep", "2"]}, key="slow").problem(409, "board.posted")


def test_a_resident_that_is_not_there_or_may_not_act_is_named(scene: Served) -> None:
    scene.post("/cycle", {"command": ["echo"], "resident": "zoe"}).problem(404, "resident.unknown")
    scene.post("/residents/ben/state", {"state": "paused"}).ok()
    scene.post("/cycle", {"command": ["echo"], "resident": "ben"}).problem(409, "resident.state")
    scene.post("/cycle", {}).problem(422, "task")
    for switch, back in (("pause", "resume"), ("halt", "unhalt")):
        scene.post(f"/control/{switch}").ok()
        page = scene.post("/cycle", {"command": ["echo"]}).json
        assert (page["status"], page["rule"].partition(".")[0], back in page["next_step"]) == (409, "village", True)
        scene.post(f"/control/{back}").ok()
    assert scene.rows("SELECT count(*) FROM tasks") == [(0,)]


def test_residents_that_are_at_work_take_it_in_their_rounds(tmp_path: Path) -> None:
    with served(found_village(tmp_path), residents=3) as scene:
        with_tokens(scene)
        for number in range(5):
            began = time.monotonic()
            found = scene.post("/cycle", {"command": ["echo", str(number)]}).ok()
            assert (found["status"], found["stdout"]) == ("done", f"{number}\n")
            assert time.monotonic() - began < 2.0
        (process,) = scene.get("/status").ok()["processes"]
        assert (process["kind"], process["residents"], process["host"]) == ("up", 3, True)


@pytest.mark.promise("halt")
def test_a_halt_ends_a_task_that_is_run_now_within_a_second(scene: Served) -> None:
    scene.post("/cycle", {"command": ["sleep", "30"], "effect": "pure", "wait_seconds": 0.2}).ok(202)
    began = time.monotonic()
    assert scene.post("/control/halt", {"reason": "enough"}).ok()["halted"]
    while scene.get("/status").ok()["running"]:
        assert time.monotonic() - began < 1.0
    assert scene.get("/status").ok()["tasks"]["open"] == 1


def test_people_decide_about_outcomes(tmp_path: Path) -> None:
    folder = found_village(tmp_path)
    toml = folder / "vivarium.toml"
    toml.write_text("human_review = true\n" + toml.read_text())
    with served(folder) as scene:
        with_tokens(scene)
        for decide, ends in (("approve", "done"), ("reject", "failed"), ("requeue", "open"), ("cancel", "cancelled")):
            found = scene.post("/cycle", {"command": ["echo", decide]}).ok()
            assert (found["status"], found["finished"]) == ("review", True)
            page = scene.post(f"/tasks/{found['task']}/{decide}", {"reason": "looked"}, HUMAN).ok()
            assert page["state"] == ends, (decide, page)
            if ends == "open":
                scene.post(f"/tasks/{found['task']}/cancel", {}, HUMAN).ok()
            if ends == "done":
                scene.post(f"/tasks/{found['task']}/approve", {}, HUMAN).problem(409, "board.state")
                attempts = scene.get(f"/tasks/{found['task']}", OPERATOR).ok()["attempts"]
                assert [(a["ending"], a["stdout"]) for a in attempts] == [("accepted", "approve\n")]
