"""The room of the map: Tiled maps (.tmj), read as they are into walkable tiles and landmarks.

What can be walked on, from the bottom layer to the top: a tile that says ``walkable`` (or ``collides``), else the layer
it lies in, decides over what is below it; a tile of which nobody says anything is walkable where nothing is below it;
where there is no tile at all there is nothing to stand on. A layer whose name begins with ``collision`` blocks.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from attrs import frozen

from vivarium_kernel import Invalid

Tile = tuple[int, int]
MOST_TILES = 250_000
_GID = 0x0FFFFFFF  # the upper bits say how the tile is turned
_OPEN: Mapping[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "zlib": zlib.decompress, "": bytes}


class MapError(Invalid):
    """A map that can't be read as it is."""

    def __init__(self, path: Path, fault: str, cure: str) -> None:
        super().__init__("world.map", f"{path}: {fault}.", cure, field="plugins.world.map")


@frozen
class Landmark:
    """A named place: its rectangle in tiles, and the tile on which one stands who went there."""

    name: str
    kind: str
    tile: Tile
    left: int
    top: int
    right: int
    bottom: int

    def holds(self, tile: Tile) -> bool:
        return self.left <= tile[0] <= self.right and self.top <= tile[1] <= self.bottom


@frozen
class Tiles:
    """A map as residents meet it. ``areas`` numbers each tile's connected area; 0 is no place to stand."""

    width: int
    height: int
    areas: tuple[int, ...]
    landmarks: tuple[Landmark, ...]

    def area(self, tile: Tile) -> int:
        """The number of the connected area that a tile belongs to, the largest is 1; 0 where nobody can stand."""
        x, y = tile
        return self.areas[y * self.width + x] if 0 <= x < self.width and 0 <= y < self.height else 0

    def named(self, name: str) -> list[Landmark]:
        """The landmarks of this name, whatever its accents and capitals."""
        return [landmark for landmark in self.landmarks if _plain(landmark.name) == _plain(name)]

    def place(self, tile: Tile) -> Landmark | None:
        """The smallest landmark that a tile lies in."""
        at = [landmark for landmark in self.landmarks if landmark.holds(tile)]
        return min(at, key=lambda each: (each.right - each.left) * (each.bottom - each.top), default=None)

    def nearest(self, tile: Tile) -> Tile:
        """The tile itself, or the nearest of the largest area to one where nobody can stand."""
        if self.area(tile):
            return tile
        standing = [(n % self.width, n // self.width) for n, area in enumerate(self.areas) if area == 1]
        return min(standing, key=lambda other: ((other[0] - tile[0]) ** 2 + (other[1] - tile[1]) ** 2, other))

    def homes(self) -> list[Tile]:
        """Where residents begin: the tiles of the homes, or of the first landmark, or any."""
        homes = [each for each in self.landmarks if "home" in (each.kind, _plain(each.name)[:4])]
        standing = [(n % self.width, n // self.width) for n, area in enumerate(self.areas) if area == 1]
        for places in (homes, self.landmarks[:1]):
            found = [tile for tile in standing if any(place.holds(tile) for place in places)]
            if found:
                return found
        return standing


def read_map(path: Path, root: Path) -> Tiles:
    """Read a Tiled map and its tilesets, all of which lie in ``root``; raises MapError."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise MapError(path, f"is not inside {root}", "copy it into the village's folder")
    raw = _json(path)
    if raw.get("type", "map") != "map" or "layers" not in raw:
        raise MapError(path, "is no map of Tiled", "save it in Tiled as JSON map file (.tmj)")
    if raw.get("orientation", "orthogonal") != "orthogonal":
        raise MapError(path, f"is {raw['orientation']}", "make it orthogonal: Map > Map Properties in Tiled")
    try:
        return _Reader(path, root, raw).tiles()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError, zlib.error, struct.error) as error:
        raise MapError(path, f"can't be read: {error!r}", "open it in Tiled and save it again") from error


class _Reader:
    """Reads one map, layer by layer."""

    def __init__(self, path: Path, root: Path, raw: Mapping[str, Any]) -> None:
        self.path, self.root, self.raw = path, root.resolve(), raw
        self.width, self.height = int(raw["width"]), int(raw["height"])
        self.size = (float(raw["tilewidth"]), float(raw["tileheight"]))
        self.left, self.top = 0, 0
        self.says: dict[int, bool] = {}
        self.objects: list[tuple[Mapping[str, Any], float, float]] = []

    def tiles(self) -> Tiles:
        for tileset in self.raw.get("tilesets", ()):
            self._read_tileset(tileset)
        layers = list(_flat(self.raw["layers"]))
        self._measure(layers)
        if not 0 < self.width * self.height <= MOST_TILES:
            raise MapError(self.path, f"has {self.width * self.height} tiles", f"give it 1 to {MOST_TILES:,}")
        walk: list[bool | None] = [None] * (self.width * self.height)
        for layer, said, right, down in layers:
            if layer["type"] == "tilelayer":
                self._lay(walk, layer, said)
            elif layer["type"] == "objectgroup":
                for each in layer["objects"]:
                    self._place(walk, each, said, right + self.size[0] * -self.left, down + self.size[1] * -self.top)
        areas = _areas([bool(can) for can in walk], self.width)
        if not any(areas):
            raise MapError(self.path, "has no tile to stand on", "give its ground layer tiles that can be walked on")
        ground = Tiles(self.width, self.height, areas, ())
        landmarks = tuple(self._landmark(ground, *each) for each in self.objects)
        return Tiles(self.width, self.height, areas, landmarks)

    def _read_tileset(self, tileset: Mapping[str, Any]) -> None:
        first = tileset["firstgid"]
        if "source" in tileset:
            source = (self.path.parent / tileset["source"]).resolve()
            if not source.is_relative_to(self.root):
                raise MapError(self.path, f"its tileset {tileset['source']} is elsewhere", "put it beside the map")
            tileset = _xml_tileset(source) if source.suffix == ".tsx" else _json(source)
        for tile in tileset.get("tiles", ()):
            says = _says(tile)
            if says is not None:
                self.says[first + int(tile["id"])] = says

    def _measure(self, layers: Sequence[tuple[Mapping[str, Any], Any, float, float]]) -> None:
        """An infinite map is as large as its chunks."""
        chunks = [chunk for layer, *_ in layers for chunk in layer.get("chunks", ())]
        if chunks:
            self.left, self.top = min(c["x"] for c in chunks), min(c["y"] for c in chunks)
            self.width = max(c["x"] + c["width"] for c in chunks) - self.left
            self.height = max(c["y"] + c["height"] for c in chunks) - self.top

    def _lay(self, walk: list[bool | None], layer: Mapping[str, Any], said: bool | None) -> None:
        whole = [{**layer, "x": 0, "y": 0}]
        for part in layer.get("chunks", whole):
            for number, gid in enumerate(_gids(self.path, part["data"], layer)):
                if gid & _GID:
                    x = part["x"] - self.left + number % part["width"]
                    y = part["y"] - self.top + number // part["width"]
                    place = y * self.width + x
                    says = self.says.get(gid & _GID, said)
                    walk[place] = says if says is not None else walk[place] is not False

    def _place(
        self, walk: list[bool | None], each: Mapping[str, Any], said: bool | None, right: float, down: float
    ) -> None:
        """An object is a landmark if it has a name, and a wall or a way if it or its layer says so."""
        says = _says(each)
        says = said if says is None else says
        if says is None:
            if each.get("name"):
                self.objects.append((each, right, down))
            return
        if "polygon" in each or "polyline" in each or each.get("ellipse"):
            raise MapError(self.path, f"object {each.get('id')} blocks and is no rectangle", "use rectangles or tiles")
        left, top, last, bottom = self._rectangle(each, right, down)
        for y in range(max(0, top), min(self.height - 1, bottom) + 1):
            for x in range(max(0, left), min(self.width - 1, last) + 1):
                walk[y * self.width + x] = says

    def _rectangle(self, each: Mapping[str, Any], right: float, down: float) -> tuple[int, int, int, int]:
        """The tiles that an object covers: left, top, right and bottom, inclusive."""
        x, y = each["x"] + right, each["y"] + down
        width, height = each.get("width", 0), each.get("height", 0)
        if "gid" in each:
            y -= height  # an object with a picture stands on its lower left corner
        left, top = int(x // self.size[0]), int(y // self.size[1])
        last, bottom = -int(-(x + width) // self.size[0]) - 1, -int(-(y + height) // self.size[1]) - 1
        return left, top, max(left, last), max(top, bottom)

    def _landmark(self, ground: Tiles, each: Mapping[str, Any], right: float, down: float) -> Landmark:
        left, top, last, bottom = self._rectangle(each, right, down)
        middle = ((left + last) // 2, (top + bottom) // 2)
        inside = [
            (x, y)
            for y in range(max(0, top), min(ground.height - 1, bottom) + 1)
            for x in range(max(0, left), min(ground.width - 1, last) + 1)
            if ground.area((x, y))
        ]
        tile = min(
            inside, default=ground.nearest(middle),
            key=lambda t: (ground.area(t), abs(t[0] - middle[0]) + abs(t[1] - middle[1]), t),
        )  # fmt: skip
        kind = _plain(each.get("type") or each.get("class") or "")
        return Landmark(str(each["name"]), kind, tile, left, top, last, bottom)


def _flat(
    layers: Sequence[Mapping[str, Any]], said: bool | None = None, right: float = 0.0, down: float = 0.0
) -> Iterator[tuple[Mapping[str, Any], bool | None, float, float]]:
    """Every layer from the bottom up, with what it or its group says of walking and how far it is moved, in pixels."""
    for layer in layers:
        own = _says(layer)
        blocks = _plain(layer.get("name", "")).startswith("collision")
        says = own if own is not None else False if blocks else said
        moved = right + layer.get("offsetx", 0), down + layer.get("offsety", 0)
        if layer["type"] == "group":
            yield from _flat(layer["layers"], says, *moved)
        else:
            yield layer, says, *moved


def _says(thing: Mapping[str, Any]) -> bool | None:
    """Whether a tile, layer or object says that it can be walked on, by its properties."""
    properties = thing.get("properties", ())
    if isinstance(properties, Mapping):  # as Tiled wrote it before 1.2
        properties = [{"name": name, "value": value} for name, value in properties.items()]
    for each in properties:
        name = str(each["name"]).casefold()
        if name in ("walkable", "collides"):
            return bool(each["value"]) is (name == "walkable")
    return None


def _gids(path: Path, data: Any, layer: Mapping[str, Any]) -> Sequence[int]:
    if isinstance(data, list):
        return data
    packing = layer.get("compression", "")
    if packing not in _OPEN:
        raise MapError(path, f"is compressed with {packing}", "choose zlib or gzip in the map's properties in Tiled")
    raw = _OPEN[packing](base64.b64decode(data))
    return struct.unpack(f"<{len(raw) // 4}I", raw)


def _json(path: Path) -> Any:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MapError(
            path, f"can't be opened: {error.strerror}", "name a .tmj file of the village's folder"
        ) from error
    except ValueError as error:
        raise MapError(path, f"is no JSON: {error}", "save it in Tiled as JSON map file (.tmj)") from error
    if not isinstance(raw, dict):
        raise MapError(path, "is no map of Tiled", "save it in Tiled as JSON map file (.tmj)")
    return raw


def _xml_tileset(path: Path) -> Mapping[str, Any]:
    """A tileset file of Tiled's own format; only what tiles say of themselves is read."""
    try:
        root = ElementTree.fromstring(path.read_bytes())  # noqa: S314 - the operator's own file; expat limits entities
    except OSError as error:
        raise MapError(path, f"can't be opened: {error.strerror}", "put the tileset beside the map") from error
    except ElementTree.ParseError as error:
        raise MapError(path, f"is no tileset: {error}", "save it in Tiled again") from error
    tiles = []
    for tile in root.iter("tile"):
        said = {each.get("name", ""): each.get("value") == "true" for each in tile.iter("property")}
        tiles.append({"id": int(tile.get("id", "0")), "properties": said})
    return {"tiles": tiles}


def _areas(walk: Sequence[bool], width: int) -> tuple[int, ...]:
    """The connected areas of a map, numbered by their size: 1 is the largest."""
    areas = [0] * len(walk)
    sizes: list[tuple[int, int]] = []
    for start, can in enumerate(walk):
        if not can or areas[start]:
            continue
        number = -len(sizes) - 1
        areas[start] = number
        reached = [start]
        for place in reached:
            x = place % width
            for other, beside in ((place - width, True), (place + width, True), (place - 1, x > 0),
                                  (place + 1, x < width - 1)):  # fmt: skip
                if beside and 0 <= other < len(walk) and walk[other] and not areas[other]:
                    areas[other] = number
                    reached.append(other)
        sizes.append((-len(reached), number))
    order = {number: place for place, (_, number) in enumerate(sorted(sizes, key=lambda s: (s[0], -s[1])), 1)}
    return tuple(order.get(number, 0) for number in areas)


def _plain(text: str) -> str:
    """A name without accents and capitals."""
    parts = unicodedata.normalize("NFKD", str(text))
    return "".join(part for part in parts if not unicodedata.combining(part)).casefold().strip()
