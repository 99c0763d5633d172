"""Promises about maps: Tiled's files are read as they are, and a map that can't be is named with its fault."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import struct
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivarium_kernel.village import Village, With
from vivarium_plugins_world.tiles import MapError, Tile, Tiles, read_map
from vivarium_plugins_world.walking import Walk, apart, find_way, onward, pack, standing, unpack
from vivarium_plugins_world.world import World

from .scene import Scene, drawn, found, with_map

ROWS = ["....#..", ".##.#..", "....#. "]


def read(folder: Path, raw: Any) -> Tiles:
    path = folder / "map.tmj"
    path.write_text(raw if isinstance(raw, str) else json.dumps(raw))
    return read_map(path, folder)


def seen(tiles: Tiles) -> list[str]:
    """The map as a drawing: ``.`` where one can stand."""
    return [
        "".join(".#"[not tiles.area((x, y))] for x in range(tiles.width)) for y in range(tiles.height)
    ]  # fmt: skip


def said(**properties: bool) -> list[dict[str, Any]]:
    return [{"name": name, "type": "bool", "value": value} for name, value in properties.items()]


def layer(gids: list[int], **more: Any) -> dict[str, Any]:
    return {"type": "tilelayer", "name": "more", "width": 7, "height": 3, "data": gids, **more}


def cells(*places: int, gid: int = 1) -> list[int]:
    return [gid if n in places else 0 for n in range(21)]


def test_walls_holes_and_connected_areas_are_read(tmp_path: Path) -> None:
    tiles = read(tmp_path, drawn(ROWS, café=(0, 0), hall=(5, 1)))
    assert seen(tiles) == ["....#..", ".##.#..", "....#.#"]
    assert (tiles.area((0, 0)), tiles.area((6, 1)), tiles.area((1, 1)), tiles.area((7, 0))) == (1, 2, 0, 0)
    assert [place.tile for place in tiles.named("CAFE")] == [(0, 0)]
    assert tiles.place((5, 1)) == tiles.named("hall")[0]
    assert tiles.nearest((4, 0)) == (3, 0)


def raw_with(change: Callable[[dict[str, Any], Path], None], folder: Path) -> dict[str, Any]:
    raw = drawn(ROWS)
    change(raw, folder)
    return raw


def packed(pack_up: Callable[[bytes], bytes], name: str) -> Callable[[dict[str, Any], Path], None]:
    def change(raw: dict[str, Any], folder: Path) -> None:
        data = raw["layers"][0]["data"]
        turned = [gid | 0xA0000000 if gid else 0 for gid in data]  # flipped tiles are the same tiles
        text = base64.b64encode(pack_up(struct.pack("<21I", *turned))).decode()
        raw["layers"][0] |= {"data": text, "encoding": "base64", "compression": name}

    return change


def chunked(raw: dict[str, Any], folder: Path) -> None:
    data = raw["layers"][0].pop("data")
    rows = [data[7 * y : 7 * y + 7] for y in range(3)]
    raw["layers"][0]["chunks"] = [
        {"x": -4, "y": -1, "width": 4, "height": 3, "data": [gid for row in rows for gid in row[:4]]},
        {"x": 0, "y": -1, "width": 3, "height": 3, "data": [gid for row in rows for gid in row[4:]]},
    ]
    raw |= {"infinite": True, "width": 1, "height": 1}


def in_json_file(raw: dict[str, Any], folder: Path) -> None:
    (folder / "set.tsj").write_text(json.dumps(raw["tilesets"][0]))
    raw["tilesets"] = [{"firstgid": 1, "source": "set.tsj"}]


def in_xml_file(raw: dict[str, Any], folder: Path) -> None:
    (folder / "set.tsx").write_text(
        '<?xml version="1.0"?><tileset name="s"><tile id="1"><properties>'
        '<property name="walkable" type="bool" value="false"/></properties></tile></tileset>'
    )
    raw["tilesets"] = [{"firstgid": 1, "source": "set.tsx"}]


def old(raw: dict[str, Any], folder: Path) -> None:
    raw["tilesets"] = [{"firstgid": 1, "tiles": [{"id": 1, "properties": {"collides": True}}]}]


def in_a_group(raw: dict[str, Any], folder: Path) -> None:
    raw["layers"] = [{"type": "group", "name": "all", "layers": raw["layers"]}]


@pytest.mark.parametrize(
    "change",
    [packed(bytes, ""), packed(zlib.compress, "zlib"), packed(gzip.compress, "gzip"), chunked, in_json_file,
     in_xml_file, old, in_a_group],
)  # fmt: skip
def test_every_way_in_which_tiled_writes_a_map_reads_the_same(tmp_path: Path, change: Any) -> None:
    assert seen(read(tmp_path, raw_with(change, tmp_path))) == ["....#..", ".##.#..", "....#.#"]


WALL = {"id": 1, "x": 0, "y": 0, "width": 32, "height": 17}


@pytest.mark.parametrize(
    ("more", "row"),
    [
        (layer(cells(0, 1)), "....#.."),
        (layer(cells(0, 1), properties=said(walkable=False)), "##..#.."),
        (layer(cells(0, 1), properties=said(collides=True)), "##..#.."),
        (layer(cells(0, 1), name="Collisions", visible=False), "##..#.."),
        (layer(cells(4), properties=said(walkable=True)), "......."),  # a bridge over what can't be walked on
        (layer(cells(4)), "....#.."),
        (layer(cells(0, gid=2), properties=said(walkable=True)), "#...#.."),  # a tile's own word is stronger
        ({"type": "group", "name": "g", "properties": said(walkable=False), "layers": [layer(cells(2))]}, "..#.#.."),
        ({"type": "objectgroup", "name": "walls", "properties": said(walkable=False), "objects": [WALL]}, "##..#.."),
        ({"type": "objectgroup", "name": "o", "offsetx": 16, "objects": [WALL | {"properties": said(collides=True)}]},
         ".##.#.."),
        ({"type": "imagelayer", "name": "sky"}, "....#.."),
    ],
)  # fmt: skip
def test_layers_tiles_and_objects_say_where_one_can_walk(tmp_path: Path, more: Any, row: str) -> None:
    raw = drawn(ROWS)
    raw["layers"].insert(1, more)
    assert seen(read(tmp_path, raw))[0] == row


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("{", "is no JSON"),
        ("[]", "is no map of Tiled"),
        ({"type": "tileset"}, "is no map of Tiled"),
        (drawn(ROWS) | {"orientation": "isometric"}, "is isometric"),
        (drawn(["##"]), "has no tile to stand on"),
        (drawn(ROWS) | {"width": 9_999, "height": 9_999}, "tiles"),
        (drawn(ROWS) | {"layers": [layer([1], encoding="base64", compression="zstd") | {"data": "eA=="}]}, "zstd"),
        (drawn(ROWS) | {"layers": [layer([1]) | {"data": ["x"]}]}, "can't be read"),
        (drawn(ROWS) | {"tilesets": [{"firstgid": 1, "source": "../set.tsj"}]}, "is elsewhere"),
        (drawn(ROWS) | {"tilesets": [{"firstgid": 1, "source": "gone.tsx"}]}, "can't be opened"),
        (drawn(ROWS) | {"layers": [{"type": "objectgroup", "name": "collision",
                                    "objects": [WALL | {"polygon": []}]}]}, "is no rectangle"),
    ],
)  # fmt: skip
def test_a_map_that_cannot_be_read_says_why(tmp_path: Path, raw: Any, told: str) -> None:
    with pytest.raises(MapError, match=told) as caught:
        read(tmp_path, raw)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.next_step


def test_the_small_map_has_every_landmark_and_each_can_be_reached(tmp_path: Path) -> None:
    scene = Scene(found(tmp_path / "village"))
    tiles = scene.world.tiles
    names = {"board", "café", "market", "workshop", "rules", "hall", "home"}
    assert {place.name for place in tiles.landmarks} == names
    assert {tiles.area(place.tile) for place in tiles.landmarks} == {1}
    assert len(tiles.homes()) >= 20
    scene.close()


def test_a_village_may_bring_its_own_map_and_one_outside_its_folder_is_refused(tmp_path: Path) -> None:
    folder = with_map(tmp_path / "village", drawn(["....."], inn=(4, 0)))
    scene = Scene(folder)
    assert [place["name"] for place in scene.do("world.look", "ada")["landmarks"]] == ["inn"]
    scene.close()
    (tmp_path / "map.tmj").write_text(json.dumps(drawn(["."])))
    for wrong in ("../map.tmj", "gone.tmj"):
        found(folder, f'[plugins.world]\nmap = "{wrong}"\n')
        with Village(folder, With(installed=False, plugins=(World,)), environ={}) as village:
            assert "world" not in village.plugins, "the others live"
            (failed,) = village.failed
            assert "map" in str(failed)


# Ways over a map


@st.composite
def maps(draw: st.DrawFn) -> Tiles:
    width = draw(st.integers(1, 9))
    rows = draw(st.lists(st.text("..#", min_size=width, max_size=width), min_size=1, max_size=9))
    walk = [sign == "." for row in rows for sign in row]
    reader = Tiles(width, len(rows), tuple(map(int, walk)), ())
    areas = [0] * len(walk)
    for n, can in enumerate(walk):
        if can and not areas[n]:
            for x, y in flood(reader, (n % width, n // width)):
                areas[y * width + x] = n + 1
    return Tiles(width, len(rows), tuple(areas), ())


def flood(tiles: Tiles, start: Tile) -> dict[Tile, int]:
    """How many steps away everything is that can be reached: breadth first, without any cleverness."""
    far = {start: 0}
    ahead = deque([start])
    while ahead:
        x, y = ahead.popleft()
        for other in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            if other not in far and tiles.area(other):
                far[other] = far[(x, y)] + 1
                ahead.append(other)
    return far


@given(tiles=maps(), data=st.data())
def test_a_way_is_a_shortest_one_over_walkable_tiles(tiles: Tiles, data: st.DataObject) -> None:
    places = [(x, y) for y in range(tiles.height) for x in range(tiles.width)]
    start, goal = data.draw(st.sampled_from(places)), data.draw(st.sampled_from(places))
    if not tiles.area(start):
        return
    way = find_way(tiles, start, goal)
    far = flood(tiles, start)
    if goal not in far:
        assert way is None
        return
    assert way is not None
    assert (way[0], way[-1], len(way) - 1) == (start, goal, far[goal])
    assert all(tiles.area(tile) for tile in way)
    assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in itertools.pairwise(way))
    assert unpack(pack(way)) == way


@given(
    goals=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 5)), min_size=1, max_size=6),
    pauses=st.lists(st.integers(0, 900_000), min_size=6, max_size=6),
    speeds=st.lists(st.floats(0.5, 500.0), min_size=6, max_size=6),
)
def test_whoever_changes_course_never_jumps(goals: list[Tile], pauses: list[int], speeds: list[float]) -> None:
    tiles = Tiles(12, 6, (1,) * 72, ())
    walk, now = standing((0, 0)), 0
    for goal, pause, speed in zip(goals, pauses, speeds, strict=False):
        now += pause
        after = onward(walk, tiles, goal, now, speed)
        assert after is not None
        assert after.tile(now) == walk.tile(now)
        (_, part), (_, before) = after.progress(now), walk.progress(now)
        assert abs(part - before) < 0.01 or after.ends <= now
        assert after.path[-1] == goal
        assert after.tile(after.ends) == goal
        walk = after


def test_a_walk_is_on_its_first_tile_before_it_begins_and_on_its_last_after_it_ends() -> None:
    walk = Walk(((0, 0), (1, 0), (2, 0)), 100, 300)
    assert [walk.tile(at) for at in (0, 100, 199, 200, 299, 300, 9_999)] == [
        (0, 0), (0, 0), (0, 0), (1, 0), (1, 0), (2, 0), (2, 0),
    ]  # fmt: skip
    assert apart((0, 0), (1, 1)) == 1
