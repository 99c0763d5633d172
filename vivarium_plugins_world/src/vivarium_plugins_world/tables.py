"""The room of the world's tables: each resident's last walk, what was said, who heard it, and the last tick.

Times in them are of the village's clock, in millionths of a village hour; only ``world_ticks.at`` is Unix time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attrs import frozen
from sqlite_utils import Migrations

from vivarium_kernel import PluginTx, PluginView
from vivarium_plugins_world.tiles import Tile
from vivarium_plugins_world.walking import Walk, apart, pack, unpack

Source = PluginTx | PluginView
migrations = Migrations("world")

_TABLES = """
CREATE TABLE world_places (
  resident TEXT PRIMARY KEY, path TEXT NOT NULL, begins INTEGER NOT NULL, ends INTEGER NOT NULL CHECK (ends >= begins),
  left INTEGER NOT NULL, top INTEGER NOT NULL, right INTEGER NOT NULL, bottom INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX world_places_ends ON world_places (ends);
CREATE TABLE world_said (
  id INTEGER PRIMARY KEY AUTOINCREMENT, speaker TEXT NOT NULL, loud INTEGER NOT NULL CHECK (loud IN (0, 1)),
  text TEXT NOT NULL, x INTEGER NOT NULL, y INTEGER NOT NULL, at INTEGER NOT NULL
);
CREATE INDEX world_said_at ON world_said (at);
CREATE INDEX world_said_speaker ON world_said (speaker, at);
CREATE TABLE world_heard (
  hearer TEXT NOT NULL, said INTEGER NOT NULL REFERENCES world_said (id) ON DELETE CASCADE, attempt INTEGER,
  PRIMARY KEY (hearer, said)
) WITHOUT ROWID;
CREATE INDEX world_heard_attempt ON world_heard (hearer, attempt);
CREATE INDEX world_heard_said ON world_heard (said);
CREATE TABLE world_ticks (
  id INTEGER PRIMARY KEY CHECK (id = 1), hours INTEGER NOT NULL, at INTEGER NOT NULL, said INTEGER NOT NULL,
  map TEXT NOT NULL
)
"""


@migrations()
def m001_world(db: Any) -> None:
    for statement in _TABLES.split(";\n"):
        db.execute(statement)


# Where residents are


def walk_of(source: Source, resident: str) -> Walk | None:
    """A resident's last walk; None before the first tick that saw it."""
    rows = source.read("SELECT path, begins, ends FROM world_places WHERE resident = ?", (resident,))
    return Walk(unpack(rows[0][0]), *rows[0][1:]) if rows else None


def put(tx: PluginTx, resident: str, walk: Walk) -> None:
    xs, ys = [x for x, _ in walk.path], [y for _, y in walk.path]
    tx.execute(
        "INSERT OR REPLACE INTO world_places VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (resident, pack(walk.path), walk.begins, walk.ends, min(xs), min(ys), max(xs), max(ys)),
    )


def near(source: Source, resident: str, here: Tile, reach: int, at: int) -> list[tuple[str, Tile]]:
    """Who else is within ``reach`` tiles, and where. Walks that come nowhere near are not even read."""
    rows = source.read(
        "SELECT p.resident, p.path, p.begins, p.ends FROM world_places p JOIN residents r ON r.name = p.resident "
        "WHERE p.resident <> ? AND r.state IN ('active', 'paused') AND p.left <= ? AND p.right >= ? AND p.top <= ? "
        "AND p.bottom >= ? ORDER BY p.resident",
        (resident, here[0] + reach, here[0] - reach, here[1] + reach, here[1] - reach),
    )
    found = [(name, Walk(unpack(path), begins, ends).tile(at)) for name, path, begins, ends in rows]
    return [(name, tile) for name, tile in found if apart(here, tile) <= reach]


def walked(tx: PluginTx, since: int, at: int) -> list[tuple[str, Walk]]:
    """Who was under way at some time between the two, with their walks; nobody where no time has passed."""
    if at <= since:
        return []
    rows = tx.read(
        "SELECT resident, path, begins, ends FROM world_places WHERE ends > ? AND begins < ? ORDER BY resident",
        (since, at),
    )
    return [(name, Walk(unpack(path), begins, ends)) for name, path, begins, ends in rows]


def everybody(tx: PluginTx) -> list[tuple[str, Walk]]:
    rows = tx.read("SELECT resident, path, begins, ends FROM world_places ORDER BY resident")
    return [(name, Walk(unpack(path), begins, ends)) for name, path, begins, ends in rows]


def newcomers(tx: PluginTx) -> list[str]:
    """The residents whom no tick has seen yet."""
    rows = tx.read(
        "SELECT name FROM residents r WHERE state IN ('active', 'paused') "
        "AND NOT EXISTS (SELECT 1 FROM world_places WHERE resident = r.name) ORDER BY name"
    )
    return [row[0] for row in rows]


# What was said


@frozen
class Said:
    """Somebody's words, as who heard them is told."""

    speaker: str
    loud: bool
    text: str


def say(tx: PluginTx, speaker: str, here: Tile, text: str, loud: bool, hearers: Sequence[str], at: int) -> int:
    """Keep words and who heard them; returns their number."""
    ((number,),) = tx.execute(
        "INSERT INTO world_said (speaker, loud, text, x, y, at) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
        (speaker, loud, text, *here, at),
    )
    tx.execute(
        "INSERT INTO world_heard (hearer, said) SELECT value, ? FROM json_each(?)", (number, json.dumps(hearers))
    )
    return int(number)


def forget(tx: PluginTx, before: int) -> None:
    """Remove words that were said before a time."""
    tx.execute("DELETE FROM world_said WHERE at < ?", (before,))


def spoke_since(source: Source, speaker: str, since: int) -> bool:
    return bool(source.read("SELECT 1 FROM world_said WHERE speaker = ? AND at > ? LIMIT 1", (speaker, since)))


def tell(tx: PluginTx, hearer: str, attempt: int) -> None:
    """What the resident has heard and was not told yet goes into this attempt's prompt."""
    tx.execute("UPDATE world_heard SET attempt = ? WHERE hearer = ? AND attempt IS NULL", (attempt, hearer))


def untell(tx: PluginTx, hearer: str, attempt: int) -> None:
    """The attempt came to nothing: what it was told goes into the next one's prompt."""
    tx.execute("UPDATE world_heard SET attempt = NULL WHERE hearer = ? AND attempt = ?", (hearer, attempt))


def told(view: PluginView, hearer: str) -> list[Said]:
    """What the resident's running attempt is told, oldest first."""
    rows = view.read(
        "SELECT s.speaker, s.loud, s.text FROM world_heard h JOIN world_said s ON s.id = h.said WHERE h.hearer = ?1 "
        "AND h.attempt = (SELECT id FROM attempts WHERE resident = ?1 AND state = 'running') ORDER BY s.id",
        (hearer,),
    )
    return [Said(speaker, bool(loud), text) for speaker, loud, text in rows]


# The last tick that wrote


@frozen
class Tick:
    """When it was by the village's clock and by Unix time, up to which words it looked, and on which map."""

    hours: int = 0
    at: int = 0
    said: int = 0
    map: str = ""


def last_tick(tx: PluginTx) -> Tick | None:
    rows = tx.read("SELECT hours, at, said, map FROM world_ticks")
    return Tick(*rows[0]) if rows else None


def keep_tick(tx: PluginTx, tick: Tick) -> None:
    tx.execute(
        "INSERT OR REPLACE INTO world_ticks (id, hours, at, said, map) VALUES (1, ?, ?, ?, ?)",
        (tick.hours, tick.at, tick.said, tick.map),
    )


def words_since(tx: PluginTx, number: int) -> list[int]:
    """The numbers of what was said after this one."""
    return [row[0] for row in tx.read("SELECT id FROM world_said WHERE id > ? ORDER BY id", (number,))]
