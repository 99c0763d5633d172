"""The room of walks: a way over walkable tiles, and where on it somebody is at a time of the village's clock.

A walk is a segment with a start and an end, in millionths of a village hour. Nothing is written while it lasts: where
a resident is follows from its last walk and the clock, in every process and after every restart alike.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence

from attrs import frozen

from vivarium_plugins_world.tiles import Tile, Tiles


@frozen
class Walk:
    """Tile after tile from ``begins`` to ``ends``; before it one stands on the first, after it on the last."""

    path: tuple[Tile, ...]
    begins: int
    ends: int

    def progress(self, now: int) -> tuple[int, float]:
        """How many tiles of the way are behind one, and which part of the next."""
        steps = len(self.path) - 1
        if now >= self.ends:
            return steps, 0.0
        span = self.ends - self.begins
        done, rest = divmod(steps * max(0, now - self.begins), span)
        return done, rest / span

    def tile(self, now: int) -> Tile:
        return self.path[self.progress(now)[0]]

    def under_way(self, now: int) -> bool:
        return now < self.ends


def standing(tile: Tile, now: int = 0) -> Walk:
    return Walk((tile,), now, now)


def onward(before: Walk, tiles: Tiles, goal: Tile, now: int, tiles_per_hour: float) -> Walk | None:
    """The walk from where one is to a goal; None if there is no way.

    One who is between two tiles finishes that step first, so that nobody jumps: at ``now`` both walks agree.
    """
    done, part = before.progress(now)
    begun = before.path[done : done + 2] if part else before.path[done : done + 1]
    way = find_way(tiles, begun[-1], goal)
    if way is None:
        return None
    path = (*begun[:-1], *way)
    hours_micros_a_tile = 1_000_000 / tiles_per_hour
    begins = now - int(part * hours_micros_a_tile)
    return Walk(path, begins, begins + round((len(path) - 1) * hours_micros_a_tile))


def find_way(tiles: Tiles, start: Tile, goal: Tile) -> tuple[Tile, ...] | None:
    """A shortest way in steps to the four neighbours (A*), with both ends; the same one everywhere. None if there is
    none."""
    if tiles.area(goal) == 0 or (tiles.area(start) not in (0, tiles.area(goal))):
        return None
    came: dict[Tile, Tile] = {}
    cost = {start: 0}
    # Of equally short ways the one that is nearly there is followed first: over open ground it is found at once.
    ahead = [(_far(start, goal), 0, start)]
    while ahead:
        _, left, tile = heapq.heappop(ahead)
        if tile == goal:
            return _way(came, goal)
        if -left > cost[tile]:
            continue
        x, y = tile
        for other in ((x, y - 1), (x + 1, y), (x, y + 1), (x - 1, y)):
            steps = cost[tile] + 1
            if tiles.area(other) and steps < cost.get(other, 1 << 60):
                cost[other], came[other] = steps, tile
                heapq.heappush(ahead, (steps + _far(other, goal), -steps, other))
    return None


def pack(path: Sequence[Tile]) -> str:
    """A way as its corners, in JSON."""
    corners = [
        tile for n, tile in enumerate(path) if n in (0, len(path) - 1) or not _straight(path[n - 1], tile, path[n + 1])
    ]
    return json.dumps(corners, separators=(",", ":"))


def unpack(text: str) -> tuple[Tile, ...]:
    """The way, tile after tile, between corners."""
    corners = json.loads(text)
    path: list[Tile] = [(corners[0][0], corners[0][1])]
    for x, y in corners[1:]:
        while path[-1] != (x, y):
            at = path[-1]
            path.append((at[0] + (x > at[0]) - (x < at[0]), at[1] + (y > at[1]) - (y < at[1])))
    return tuple(path)


def apart(one: Tile, other: Tile) -> int:
    """How far two tiles are from each other: neighbours, also at a corner, are 1 apart."""
    return max(abs(one[0] - other[0]), abs(one[1] - other[1]))


def _far(one: Tile, other: Tile) -> int:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


def _straight(before: Tile, tile: Tile, after: Tile) -> bool:
    return (tile[0] - before[0], tile[1] - before[1]) == (after[0] - tile[0], after[1] - tile[1])


def _way(came: dict[Tile, Tile], goal: Tile) -> tuple[Tile, ...]:
    way = [goal]
    while way[-1] in came:
        way.append(came[way[-1]])
    return tuple(reversed(way))
