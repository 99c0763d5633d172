"""A journey of many acts finds nothing wrong with the world, and finds each bug that is planted in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vivarium_plugins_world.walking import Walk, find_way
from vivarium_plugins_world.world import World

from vivarium_plugins_world import tables, world

from .journey import faults_of_a_journey


@pytest.mark.parametrize("seed", range(3))
def test_a_long_journey_breaks_no_rule(tmp_path: Path, seed: int) -> None:
    assert faults_of_a_journey(tmp_path / "village", World, seed) == []


def teleport(before: Walk, tiles: Any, goal: Any, now: int, tiles_per_hour: float) -> Walk:
    return Walk((goal, goal), now - 1, now)


def through_walls(before: Walk, tiles: Any, goal: Any, now: int, tiles_per_hour: float) -> Walk:
    (x, y), (to_x, to_y) = before.tile(now), goal
    across = [(each, y) for each in range(x, to_x, 1 if to_x > x else -1)]
    path = (*across, *((to_x, each) for each in range(y, to_y, 1 if to_y > y else -1)), goal)
    return Walk(path, now, now + round((len(path) - 1) * 1_000_000 / tiles_per_hour))


def from_the_start(before: Walk, tiles: Any, goal: Any, now: int, tiles_per_hour: float) -> Walk | None:
    way = find_way(tiles, before.path[0], goal)  # it forgets that one is on the way
    return None if way is None else Walk(way, now, now + round((len(way) - 1) * 1_000_000 / tiles_per_hour))


def deaf(*arguments: Any) -> list[Any]:
    return [(name, tile) for name, tile in near(*arguments) if name != "ben"]


def far(source: Any, resident: str, here: Any, reach: int, at: int) -> list[Any]:
    return near(source, resident, here, reach + 1, at)


near = tables.near
PLANTED = {
    "teleport": (world, "onward", teleport),
    "through walls": (world, "onward", through_walls),
    "from the start": (world, "onward", from_the_start),
    "deaf": (tables, "near", deaf),
    "too far": (tables, "near", far),
    "told again": (tables, "tell", lambda tx, hearer, attempt: tx.execute(
        "UPDATE world_heard SET attempt = ? WHERE hearer = ?", (attempt, hearer))),
    "impatient": (tables, "last_tick", lambda tx: None),
}  # fmt: skip


@pytest.mark.promise("harnesses-find-planted-bugs")
@pytest.mark.parametrize("bug", sorted(PLANTED))
def test_a_planted_bug_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    where, name, planted = PLANTED[bug]
    monkeypatch.setattr(where, name, planted)
    assert faults_of_a_journey(tmp_path / "village", World, 1) != []
