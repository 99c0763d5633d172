"""A village with the world in it, on a clock that only the test moves; acts go the way that the API's do."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernel.state.scene import Unsynced
from vivarium_kernel.claiming import Claimed, Pick, Round
from vivarium_kernel.clock import SimulatedClock
from vivarium_kernel.hosting import _host_tick
from vivarium_kernel.plugins import Plugin
from vivarium_kernel.processes import Register, this_process
from vivarium_kernel.records import NewTask, Resident
from vivarium_kernel.settling import Settlement
from vivarium_kernel.store import Tx
from vivarium_kernel.terms import Actor
from vivarium_kernel.village import Village, With
from vivarium_plugins_world.walking import standing
from vivarium_plugins_world.world import World

from vivarium_kernel import actions, audit, board, claiming, control, processes, settling
from vivarium_plugins_world import tables

HOUR = 1_000_000
SETTINGS = 'residents = ["ada", "ben", "cyn"]\npace_seconds = 2.0\nlease_seconds = 600.0\n'  # an hour has 10 s


def found(folder: Path, more: str = "", settings: str = SETTINGS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vivarium.toml").write_text(settings + more)
    return folder


def drawn(rows: Sequence[str], **landmarks: tuple[int, int]) -> dict[str, Any]:
    """A Tiled map of a drawing: ``.`` is ground, ``#`` a wall, a blank is nothing. Landmarks are one tile each."""
    width = len(rows[0])
    data = [{"#": 2, " ": 0}.get(sign, 1) for row in rows for sign in row]
    layer = {"type": "tilelayer", "name": "ground", "width": width, "height": len(rows), "data": data}
    objects = [
        {"id": n, "name": name, "type": "landmark", "x": x * 16, "y": y * 16, "width": 16, "height": 16}
        for n, (name, (x, y)) in enumerate(landmarks.items(), 1)
    ]
    tiles = [{"id": 1, "properties": [{"name": "walkable", "type": "bool", "value": False}]}]
    return {
        "type": "map", "orientation": "orthogonal", "width": width, "height": len(rows), "tilewidth": 16,
        "tileheight": 16, "tilesets": [{"firstgid": 1, "tiles": tiles}],
        "layers": [layer, {"type": "objectgroup", "name": "places", "objects": objects}],
    }  # fmt: skip


def with_map(folder: Path, raw: dict[str, Any], more: str = "", settings: str = SETTINGS) -> Path:
    found(folder, f'[plugins.world]\nmap = "map.tmj"\n{more}', settings)
    (folder / "map.tmj").write_text(json.dumps(raw))
    return folder


class Scene:
    """One open village whose host is this process."""

    def __init__(
        self, folder: Path, *plugins: type[Plugin], clock: SimulatedClock | None = None, world: type[World] = World
    ) -> None:
        self.folder = folder
        self.clock = clock or SimulatedClock(1)
        how = With(installed=False, plugins=(world, *plugins), connection=Unsynced)
        self.village = Village(folder, how, clock=self.clock, environ={})
        assert self.village.failed == [], self.village.failed[0]
        self.call = self.village.store.call
        self.process = self.call(processes.register, Register(this_process(), "work", 3_600.0))
        self.call(processes.take_host, self.process)

    @property
    def world(self) -> World:
        found = self.village.plugins["world"]
        assert isinstance(found, World)
        return found

    def close(self) -> None:
        self.village.close()

    def leave(self) -> None:
        """End as a process ends that is asked to."""
        self.call(processes.leave, (self.process, self.village.hooks.end_attempt))
        self.close()

    def do(self, name: str, resident: str, key: str | None = None, **body: Any) -> Any:
        action = actions.action_of(self.village, name)
        actor = Actor("resident", resident)
        return json.loads(asyncio.run(actions.perform(self.village, action, actor, body, key)).reply)

    def tick(self, after_seconds: float = 1.0) -> int:
        """A tick of the host; returns how many events it appended."""
        self.clock.advance(after_seconds)
        before = self.rows("SELECT count(*) FROM events")[0][0]
        self.call(_host_tick, self.village.hooks)
        return int(self.rows("SELECT count(*) FROM events")[0][0]) - int(before)

    def put(self, **tiles: tuple[int, int]) -> None:
        """Set residents on tiles, as no action can."""

        def place(tx: Tx, _: None) -> None:
            for name, tile in tiles.items():
                tables.put(tx.plugin("world"), name, standing(tile))

        self.call(place, None)

    def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        with self.village.store.view() as view:
            return view.rows(sql, params)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(row[0]) for row in self.rows("SELECT data FROM events WHERE kind = ? ORDER BY id", kind)]

    def hours(self) -> int:
        return self.village.times().hours_micros_at(self.clock.now())

    def switch(self, what: str, on: bool) -> None:
        self.call(control.switch, control.Switch(what, on, "operator:test"))

    # Cycles, step by step

    def claim(self, resident: str, **new: Any) -> Claimed:
        """A task of the resident's own, claimed."""
        (task,) = self.village.post([NewTask(wanted=resident, **new)])
        pick = Pick(resident, (task,))
        (answer,) = self.call(claiming.claim, Round([pick], self.process, self.village.hooks.claim_reserve))
        assert isinstance(answer, Claimed), answer
        return answer

    def prompt(self, claimed: Claimed) -> str:
        """What the world adds to the attempt's prompt."""
        with self.village.store.view() as view:
            found = self.village.hooks.enrich_prompt(claimed.resident, claimed.task, view)
        assert {section.slot for _, section in found} <= {"situation"}
        return "\n".join(section.text for _, section in found)

    def settle(self, claimed: Claimed, kind: Any = "accepted") -> None:
        ending = Settlement(claimed.attempt, claimed.holder, kind, end_attempt=self.village.hooks.end_attempt)
        self.call(settling.settle, ending)

    def next_prompt(self, resident: str) -> str:
        """The prompt of a whole cycle with a model."""
        claimed = self.claim(resident, prompt="think")
        text = self.prompt(claimed)
        self.settle(claimed)
        return text

    def proposals(self, resident: str, cycles: int = 0) -> list[NewTask]:
        with self.village.store.view() as view:
            return [new for _, new in self.village.hooks.propose_activity(Resident(resident, cycles=cycles), view)]

    def verified(self) -> None:
        with self.village.store.view() as view:
            assert audit.verify(view)[2] is None

    def state(self, task: str) -> str:
        with self.village.store.view() as view:
            return board.task(view, task).state


class Writes:
    """Whether anything was written to a village's database, as another connection sees it."""

    def __init__(self, folder: Path) -> None:
        self._connection = sqlite3.connect(folder / "vivarium.db")
        self._version = self._now()

    def _now(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def any(self) -> bool:
        before, self._version = self._version, self._now()
        return before != self._version

    def close(self) -> None:
        self._connection.close()
