"""Promises about the routes that explain: they say what the command line says, and private texts are on none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kernel.cli.running import Here
from vivarium_kernel.prompting import MARKING
from vivarium_kernel.records import NewTask, Section, Task

from vivarium_kernel import Plugin, PluginView, Reject, Resident, explaining, hookimpl

from .scene import HUMAN, RESIDENT, Served, found_village, served, with_tokens

DREAM = "I dreamt of the sea"
ROUTES = ("/explain/claim?task=a", "/explain/prompt?attempt=1", "/plugins/profile")


class Diary(Plugin):
    """Writes into prompts, some of it for nobody else's eyes, and keeps ben from tasks."""

    name = "diary"

    @hookimpl
    def enrich_prompt(self, resident: Resident) -> list[Section]:
        return [Section("memory", DREAM, private=True), Section("rules", "Be kind.")]

    @hookimpl
    def claim_filter(self, resident: Resident, tasks: Sequence[Task], view: PluginView) -> list[Reject]:
        return [Reject(task.id, "ben rests") for task in tasks if resident.name == "ben"]


@pytest.fixture
def scene(tmp_path: Path, closing: ExitStack) -> Iterator[Served]:
    """A served village that has done a task."""
    folder = found_village(tmp_path / "village")
    with served(folder, plugins=(Diary,), residents=1, closing=closing) as found:
        with_tokens(found)
        found.add(NewTask(id="a", prompt="Do it."))
        until(lambda: found.task("a").state == "done")
        yield found


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def plain(document: Any) -> Any:
    """Without what is measured anew each time."""
    if isinstance(document, dict):
        return {key: plain(value) for key, value in document.items() if key != "milliseconds"}
    return [plain(each) for each in document] if isinstance(document, list) else document


@pytest.mark.promise("explained-claims")
def test_a_claim_is_explained_as_by_the_command(scene: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.add(NewTask(id="b", prompt="Do it.", wanted="cyn"), NewTask(id="c", prompt="Do it.", needs=("b",)))
    here = Here(scene.village.folder, monkeypatch)
    for task in ("a", "b"):
        (attempt, *_) = scene.get("/explain/claim?task=a").ok()["past"]
        assert (attempt["number"], attempt["ending"], attempt["kept"]["place"]) == (1, "accepted", 1)
        told = scene.get(f"/explain/claim?task={task}").ok()
        said = here("explain", "claim", task, "--json").document
        for each in told["now"]:  # the command's village has no such plugin
            each["filters"] = [found for found in each["filters"] if found["plugin"] != "diary"]
        ours = [each for each in told["now"] if each["resident"] != "ben"]
        theirs = [each for each in said["now"] if each["resident"] != "ben"]
        assert plain({**told, "now": ours}) == plain({**said, "now": theirs})
    (ben,) = scene.get("/explain/claim?task=c&resident=ben").ok()["now"]
    assert (ben["resident"], ben["may"]) == ("ben", False)
    assert [(each["answer"], each["refuses"]) for each in ben["filters"]] == [("refuses: ben rests", True)]
    assert "it needs b, which is open" in [each["what"] for each in ben["reasons"]]
    assert scene.village.health.trace is None


@pytest.mark.promise("explained-prompts")
def test_a_prompt_is_explained_as_by_the_command_and_its_private_text_to_nobody(
    scene: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((attempt,),) = scene.rows("SELECT id FROM attempts WHERE task = 'a'")
    answer = scene.get(f"/explain/prompt?attempt={attempt}")
    found = answer.ok()
    assert found == Here(scene.village.folder, monkeypatch)("explain", "prompt", "a", "--json").document
    assert [(each["plugin"], each["private"], each["text"]) for each in found["sections"]] == [
        ("kernel", False, MARKING), ("diary", False, "Be kind."), ("diary", True, None), ("kernel", False, "Do it."),
    ]  # fmt: skip
    for route in ROUTES:
        assert DREAM.encode() not in scene.get(route).raw


@pytest.mark.promise("profile")
def test_a_profile_is_the_commands_and_of_those_that_live_or_of_all(
    scene: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    until(lambda: bool(scene.get("/plugins/profile").ok()["timings"]))
    here = Here(scene.village.folder, monkeypatch)
    for query, option in (("", ()), ("?processes=all", ("--all",))):
        before = scene.get(f"/plugins/profile{query}").ok()
        said = here("plugins", "profile", *option, "--json").document
        after = scene.get(f"/plugins/profile{query}").ok()
        assert said in (before, after)
        assert {"plugin", "hook", "mean_seconds", "share"} <= before["timings"][0].keys()


def test_what_is_not_there_is_refused_with_the_next_step(scene: Served) -> None:
    scene.get("/explain/claim").problem(422, "input")
    scene.get("/explain/claim?task=nobody").problem(404, "board.task")
    scene.get("/explain/claim?task=a&resident=nobody").problem(404, "resident.unknown")
    scene.get("/explain/prompt?attempt=no").problem(422, "input")
    scene.get("/explain/prompt?attempt=999").problem(404, "board.attempt")
    scene.get("/plugins/profile?processes=some").problem(422, "input")


@pytest.mark.promise("role-on-every-route")
def test_explanations_are_for_operators(scene: Served) -> None:
    for route in ROUTES:
        for token in (HUMAN, RESIDENT):
            scene.get(route, token).problem(403, "auth.role")
    assert json.loads(scene.get("/openapi.json").raw)["paths"]["/explain/claim"]["get"]["x-roles"] == ["operator"]


def test_the_wanted_cap_of_the_village_is_in_its_status_for_people_alone(scene: Served) -> None:
    assert scene.get("/status").ok()["village_usd"] is None

    def lower(tx: Any, _: None) -> None:
        tx.books.make_budget("village", "usd", 5_000_000)
        tx.books.reserve(("village",), "usd", 4_000_000)
        tx.books.make_budget("village", "usd", 1_000_000)

    scene.write(lower, None)
    told = {"cap_micros": 4_000_000, "reserved_micros": 4_000_000, "spent_micros": 0, "wanted_micros": 1_000_000}
    assert scene.get("/status", HUMAN).ok()["village_usd"] == told
    assert scene.get("/status", RESIDENT).ok()["village_usd"] is None


def test_whoever_traces_calls_is_told_of_those_that_an_explanation_makes(scene: Served) -> None:
    calls: list[str] = []
    scene.village.health.trace = lambda call: calls.append(call.plugin)
    explaining.explain(scene.village, "a", "ada")
    assert "diary" in calls
