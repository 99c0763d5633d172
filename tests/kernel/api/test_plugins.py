"""Promises about GET and PUT /plugins: who may, what is refused, and that a running village takes it up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kernel.plugins.shelf import Shelf

from vivarium_kernel import Plugin, hookimpl

from .scene import HUMAN, OPERATOR, RESIDENT, Served, found_village, served, with_tokens


class Guest(Plugin):
    """Brings a hook that is called for every attempt."""

    name = "guest"

    @hookimpl
    def end_attempt(self, task: Any, ending: Any, tx: Any) -> None:
        return None


@pytest.fixture
def scene(tmp_path: Path, closing: ExitStack) -> Iterator[Served]:
    with served(found_village(tmp_path / "village"), plugins=(Guest,), closing=closing) as found:
        yield with_tokens(found)


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def states(scene: Served) -> dict[str, str]:
    return {row["name"]: row["state"] for row in scene.get("/plugins", HUMAN).json["plugins"]}


def test_the_list_says_how_each_stands(scene: Served) -> None:
    rows = {row["name"]: row for row in scene.get("/plugins", OPERATOR).json["plugins"]}
    assert rows["guest"]["state"] == rows["oldest_first"]["state"] == "on"
    assert rows["oldest_first"]["distribution"] == "vivarium-kernel"
    assert [hook["hook"] for hook in rows["oldest_first"]["hooks"]] == ["claim_score"]
    scene.get("/plugins", RESIDENT).problem(403, "auth.role")


@pytest.mark.promise("switching-under-load")
def test_a_plugin_is_switched_off_and_on_in_the_running_village(scene: Served) -> None:
    scene.ask("PUT", "/plugins/verifier", {"enabled": False}, HUMAN).problem(403, "auth.role")
    answer = scene.ask("PUT", "/plugins/verifier", {"enabled": False}, OPERATOR)
    assert (answer.status, answer.json["enabled"]) == (200, False)
    assert json.loads((scene.village.folder / "plugins.json").read_text())["disabled"] == ["verifier"]
    until(lambda: states(scene)["verifier"] == "off" and "verifier" not in scene.village.plugins)
    assert scene.ask("PUT", "/plugins/verifier", {"enabled": True}, OPERATOR).json["enabled"] is True
    until(lambda: "verifier" in scene.village.plugins)
    kinds = [event["kind"] for event in scene.get("/events?kind=plugin.*", OPERATOR).json["events"]]
    assert kinds[-2:] == ["plugin.disabled", "plugin.enabled"]


def test_what_cannot_be_switched_is_refused_with_its_reason(scene: Served) -> None:
    before = (scene.village.folder / "plugins.json").exists()
    scene.ask("PUT", "/plugins/text_policy", {"enabled": False}, OPERATOR).problem(409, "plugins.safety")
    scene.ask("PUT", "/plugins/nobody", {"enabled": True}, OPERATOR).problem(404, "plugins.unknown")
    scene.ask("PUT", "/plugins/verifier", {"enabled": "no"}, OPERATOR).problem(422, "input")
    scene.ask("PUT", "/plugins/verifier", {"on": True}, OPERATOR).problem(422, "input")
    assert (scene.village.folder / "plugins.json").exists() == before
    assert states(scene)["text_policy"] == "on"


def test_what_plugins_allow_does_not_name_is_not_switched_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: ExitStack
) -> None:
    shelf = Shelf(tmp_path / "shelf")
    shelf.folder.mkdir()
    monkeypatch.syspath_prepend(shelf.folder)
    shelf.put("hat-shop", "1.0", hats="", scarves="")
    settings = found_village(tmp_path / "village") / "vivarium.toml"
    settings.write_text('plugins_allow = ["hats"]\n' + settings.read_text())
    with served(tmp_path / "village", closing=closing) as bare:
        scene = with_tokens(bare)
        page = scene.ask("PUT", "/plugins/scarves", {"enabled": True}, OPERATOR).problem(409, "plugins.allow")
        assert "plugins_allow" in page["detail"] and "scarves" in page["next_step"]
        assert not (scene.village.folder / "plugins.json").exists()
        assert shelf.imported() == []
        assert scene.ask("PUT", "/plugins/hats", {"enabled": True}, OPERATOR).json["enabled"] is True
        recorded = json.loads((scene.village.folder / "plugins.json").read_text())["plugins"]
        assert (list(recorded), recorded["hats"]["version"]) == (["hats"], "1.0")
