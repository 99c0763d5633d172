"""Promises about tasks that are a walk or words: each is the act of whoever takes it, in a step of its attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.errors import Invalid
from vivarium_kernel.records import Attempt, NewTask
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With
from vivarium_plugins_world.world import World

from vivarium_kernel import board

from .scene import drawn, with_map

MAP = drawn(["...#.", "...#."], inn=(0, 0), well=(2, 1), isle=(4, 0))
SETTINGS = 'residents = ["ada"]\npace_seconds = 0.1\n'


@pytest.fixture
def village(tmp_path: Path) -> Iterator[Village]:
    folder = with_map(tmp_path / "village", MAP, settings=SETTINGS)
    with Village(folder, With(threaded=True, installed=False, plugins=(World,)), environ={}) as opened:
        yield opened


def done(village: Village, **new: Any) -> Attempt:
    """Post a task, let residents live until the board is empty; the last attempt at it."""
    new = {"id": "a", "mode": "world", "prompt": "Good day.", "max_attempts": 1} | new
    village.post([NewTask(**new)])

    async def live() -> None:
        async with Runtime(village, 1, until_done=True) as runtime:
            await runtime.run()

    asyncio.run(live())
    with village.store.view() as view:
        return board.attempts(view, "a")[-1]


def rows(village: Village, sql: str) -> list[tuple[Any, ...]]:
    with village.store.view() as view:
        return view.rows(sql)


@pytest.mark.parametrize(
    ("data", "action"),
    [({"do": "walk", "to": "well"}, "walk"), ({"do": "walk", "x": 2, "y": 1}, "walk"), ({"do": "talk"}, "talk"),
     ({"do": "shout"}, "shout")],
)  # fmt: skip
def test_a_task_of_the_world_is_an_act_of_its_resident(village: Village, data: dict[str, Any], action: str) -> None:
    attempt = done(village, data=data)
    assert attempt.ending == "accepted"
    with village.store.view() as view:
        assert [(step.name, step.state) for step in board.steps(view, attempt.id)] == [(f"world.{action}", "done")]
    assert rows(village, f"SELECT actor FROM events WHERE kind = 'world.{action}'") != []
    said = [] if action == "walk" else [("ada", "Good day.", action == "shout")]
    assert rows(village, "SELECT speaker, text, loud FROM world_said") == said


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ({"data": {"do": "walk", "to": "moon"}}, "There is no place 'moon'"),
        ({"data": {"do": "walk", "to": "isle"}}, "No way leads from"),
        ({"data": {"do": "walk", "to": 7}}, "to"),
        ({"data": {"do": "walk"}}, "A walk needs a goal"),
        ({"data": {"do": "swim"}}, "are neither a walk nor words"),
        ({"data": {}}, "are neither a walk nor words"),
        ({"data": {"do": "talk"}, "prompt": "a" * 281}, "text"),
    ],
)
def test_a_task_that_can_not_be_done_fails_with_the_reason_and_moves_nobody(
    village: Village, new: dict[str, Any], why: str
) -> None:
    attempt = done(village, **new)
    assert (attempt.ending, attempt.reason[: len(why)] == why or why in attempt.reason) == ("failed", True), attempt
    with village.store.view() as view:
        assert board.task(view, "a").state == "failed"
    assert rows(village, "SELECT kind FROM events WHERE kind IN ('world.walk', 'world.talk')") == []
    assert rows(village, "SELECT * FROM world_said") == []


def test_a_mode_that_is_nearly_the_worlds_is_refused(village: Village) -> None:
    village.check_modes([NewTask(id="a", mode="world", prompt="Go.")])
    with pytest.raises(Invalid, match="wrold"):
        village.check_modes([NewTask(id="a", mode="wrold", prompt="Go.")])
