"""The room of the world: residents stand on a map, walk over it, and hear what is said near them.

Rules: docs/rules.md, "World and bulletin board" and "One clock". Where anybody is follows from the last walk and the
village's clock, so a resident who does not move costs no write, any process may become the host, and a halted village
stands still.
"""

from __future__ import annotations

import json
import textwrap
import zlib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import field, frozen
from attrs.validators import ge, gt, instance_of, le, optional

from vivarium_kernel import (
    Action,
    Actor,
    Claim,
    Conflict,
    Ending,
    Invalid,
    Job,
    NewTask,
    NotFound,
    Outcome,
    Plugin,
    PluginTx,
    PluginView,
    Resident,
    Section,
    Task,
    hookimpl,
)
from vivarium_plugins_world import tables
from vivarium_plugins_world.asking import MODE, Goal, Nothing, Words, act_of, activity
from vivarium_plugins_world.tables import Source, Tick
from vivarium_plugins_world.tiles import Tile, Tiles, read_map
from vivarium_plugins_world.walking import Walk, apart, onward, standing

HOUR = 1_000_000  # a village hour in millionths, as the village's clock counts


@frozen
class WorldConfig:
    """``[plugins.world]``. ``map`` is the path of a .tmj file in the village's folder; without it there is a small one.

    ``tiles_per_hour`` is the speed of a walk, in tiles a village hour; ``keep_days`` is how many village days words are
    kept; ``heard_lines`` is how many of the latest words stand in a prompt.
    """

    map: str | None = field(
        default=None,
        validator=optional(instance_of(str)),
        metadata={
            "doc": "A map of Tiled, saved as JSON (.tmj), in the village's folder; else there is a small village."
        },
    )
    tiles_per_hour: float = field(
        default=10.0,
        validator=[gt(0.0), le(36_000.0)],
        metadata={"doc": "How fast residents walk, in tiles a village hour."},
    )
    talk_tiles: int = field(default=1, validator=ge(0), metadata={"doc": "How far talk is heard, in tiles."})
    shout_tiles: int = field(default=10, validator=ge(0), metadata={"doc": "How far a shout is heard, in tiles."})
    tick_seconds: float = field(
        default=1.0, validator=ge(1.0), metadata={"doc": "Seconds between two ticks of the world."}
    )
    heard_lines: int = field(
        default=3, validator=ge(1), metadata={"doc": "How many of the latest words stand in a prompt."}
    )
    keep_days: int = field(default=30, validator=ge(1), metadata={"doc": "Village days for which words are kept."})


class World(Plugin):
    """A map of tiles on which residents walk, talk and shout."""

    name = "world"
    Config = WorldConfig
    migrations = tables.migrations
    modes = (MODE,)

    def __init__(self, village: Any, config: WorldConfig) -> None:
        super().__init__(village, config)
        root = Path(__file__).parent if config.map is None else village.folder
        self.tiles: Tiles = read_map(root / (config.map or "village.tmj"), root)
        self._homes = self.tiles.homes()
        self._map = sha256(repr(self.tiles).encode()).hexdigest()

    # What residents do

    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        loud, low = self.config.shout_tiles, self.config.talk_tiles
        return [
            Action(name="world.walk", doc="Walk to a landmark, to a resident or to a tile. It takes time.", Input=Goal,
                   effect="idempotent", rate_per_minute=60, run=self._walk),
            Action(name="world.talk", doc=f"Say something to whoever is within {low} tiles.", Input=Words,
                   rate_per_minute=30, run=self._talk),
            Action(name="world.shout", doc=f"Shout something to whoever is within {loud} tiles.", Input=Words,
                   rate_per_minute=10, run=self._shout),
            Action(name="world.look", doc="See where you are, who is near and where you could go.", Input=Nothing,
                   effect="pure", run=self._look),
        ]  # fmt: skip

    def _walk(self, tx: PluginTx, actor: Actor, asked: Goal) -> dict[str, Any]:
        """Set out from where the resident is now: nobody gets anywhere in any other way."""
        at = tx.hours_micros
        before = self._walk_of(tx, actor.name)
        here = before.tile(at)
        target = self._target(tx, here, asked, at)
        walk = onward(before, self.tiles, target, at, self.config.tiles_per_hour)
        if walk is None:
            raise Conflict("world.no_way", f"No way leads from {here} to {target}.", "See world.look for places.")
        steps = len(walk.path) - 1
        if steps:
            tables.put(tx, actor.name, walk)
            tx.emit("walk", resident=actor.name, start=here, to=target, tiles=steps, begins=walk.begins, ends=walk.ends)
        return {"from": here, "to": target, "tiles": steps, "hours": max(0, walk.ends - at) / HOUR}

    def _talk(self, tx: PluginTx, actor: Actor, asked: Words) -> dict[str, Any]:
        return self._say(tx, actor.name, asked.text, False)

    def _shout(self, tx: PluginTx, actor: Actor, asked: Words) -> dict[str, Any]:
        return self._say(tx, actor.name, asked.text, True)

    def _look(self, tx: PluginTx, actor: Actor, asked: Nothing) -> dict[str, Any]:
        at = tx.hours_micros
        walk = self._walk_of(tx, actor.name)
        here = walk.tile(at)
        return {
            "tile": here,
            "place": self._place(here),
            "walking_to": walk.path[-1] if walk.under_way(at) else None,
            "arrives_in_hours": max(0, walk.ends - at) / HOUR,
            "near": [
                {"resident": name, "tile": tile}
                for name, tile in tables.near(tx, actor.name, here, self.config.shout_tiles, at)
            ],
            "landmarks": [{"name": each.name, "tile": each.tile} for each in self.tiles.landmarks],
        }

    def _say(self, tx: PluginTx, resident: str, text: str, loud: bool) -> dict[str, Any]:
        at = tx.hours_micros
        here = self._walk_of(tx, resident).tile(at)
        reach = self.config.shout_tiles if loud else self.config.talk_tiles
        hearers = [name for name, _ in tables.near(tx, resident, here, reach, at)]
        tables.forget(tx, at - self.config.keep_days * 24 * HOUR)
        number = tables.say(tx, resident, here, text, loud, hearers, at)
        tx.emit("shout" if loud else "talk", resident=resident, said=number, heard=len(hearers))
        return {"heard_by": hearers}

    def _target(self, source: Source, here: Tile, goal: Goal, at: int) -> Tile:
        if goal.to is None:
            if goal.x is None or goal.y is None:
                raise Invalid("world.goal", "A walk needs a goal.", "Name it in 'to', or give 'x' and 'y'.", field="to")
            return (goal.x, goal.y)
        places = [each.tile for each in self.tiles.named(goal.to)]
        if places:
            return min(places, key=lambda tile: (apart(here, tile), tile))
        walk = tables.walk_of(source, goal.to)
        if walk is not None:
            return walk.tile(at)
        names = ", ".join(sorted({each.name for each in self.tiles.landmarks}))
        raise NotFound("world.place", f"There is no place {goal.to!r}.", f"There are: {names}.", field="to")

    def _walk_of(self, source: Source, resident: str) -> Walk:
        return tables.walk_of(source, resident) or standing(self._home(resident))

    def _home(self, resident: str) -> Tile:
        """Where a resident begins: it follows from the name, the same in every process."""
        return self._homes[zlib.crc32(resident.encode()) % len(self._homes)]

    def _place(self, tile: Tile) -> str | None:
        found = self.tiles.place(tile)
        return None if found is None else found.name

    # The prompt

    @hookimpl
    def claim_reserve(self, claim: Claim, tx: PluginTx) -> None:
        """What was heard goes into one prompt: that of the first attempt afterwards which a model reads afresh."""
        if claim.task.mode not in ("command", MODE) and claim.task.continues is None:
            tables.tell(tx, claim.resident.name, claim.attempt)

    @hookimpl
    def enrich_prompt(self, resident: Resident, task: Task, view: PluginView) -> Sequence[Section]:
        if task.mode == MODE:
            return []
        at = view.hours_micros
        walk = self._walk_of(view, resident.name)
        here = walk.tile(at)
        place = self._place(here)
        lines = [f"You are at tile {here[0]}, {here[1]}" + (f", {place}." if place else ".")]
        if walk.under_way(at):
            to = self._place(walk.path[-1]) or "tile {}, {}".format(*walk.path[-1])
            lines[0] += f" You are walking to {to}."
        beside = [name for name, _ in tables.near(view, resident.name, here, self.config.talk_tiles, at)]
        if beside:
            more = f" and {len(beside) - 5} more" if len(beside) > 5 else ""
            lines.append(f"Within earshot: {', '.join(beside[:5])}{more}.")
        found = [Section("situation", "\n".join(lines), priority=10)]
        heard = tables.told(view, resident.name)
        if heard:
            latest = heard[-self.config.heard_lines :]
            # Whole words only: what is cut in the middle would be a text that no safety check has seen.
            words = [
                f"- {said.speaker} {'shouted' if said.loud else 'said'}: {textwrap.shorten(said.text, 120)}"
                for said in latest
            ]
            told = f"You heard {len(heard)} since you last worked; the latest, as they were said:"
            found.append(Section("situation", "\n".join([told, *words]), priority=9, untrusted="residents who spoke"))
        return found

    # Free time, and walks and words that are tasks

    @hookimpl
    def propose_activity(self, resident: Resident, view: PluginView) -> Sequence[NewTask]:
        """Words to somebody within earshot, once a village hour; a walk to another landmark. Nothing on the way."""
        at = view.hours_micros
        walk = self._walk_of(view, resident.name)
        if walk.under_way(at):
            return []
        here = walk.tile(at)
        turn = zlib.crc32(f"{resident.name}/{resident.cycles}".encode())
        found = []
        beside = tables.near(view, resident.name, here, self.config.talk_tiles, at)
        if beside and not tables.spoke_since(view, resident.name, at - HOUR):
            day_time = ("Good morning", "Good day", "Good evening")[min(2, max(0, at // HOUR % 24 - 4) // 8)]
            words = f"{day_time}, {beside[turn % len(beside)][0]}."
            found.append(activity("talk", words, {"do": "talk"}))
        area = self.tiles.area(here)
        elsewhere = [e for e in self.tiles.landmarks if not e.holds(here) and self.tiles.area(e.tile) == area]
        if elsewhere:
            goal = elsewhere[turn % len(elsewhere)]
            x, y = goal.tile
            found.append(activity("walk", f"Walk to {goal.name}.", {"do": "walk", "x": x, "y": y}))
        return found

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        """A walk or words as a task are the resident's own action, in a step of the attempt."""
        if job.task.mode != MODE:
            return None
        action, asked = act_of(job.task)
        await job.act(action, asked)
        return Outcome(answer=job.task.prompt)

    @hookimpl
    def end_attempt(self, task: Task, ending: Ending, tx: PluginTx) -> None:
        """What was told in an attempt that came to nothing is told again in the next one."""
        if ending.resident is None or ending.attempt is None:
            return
        if ending.kind in ("released", "lapsed", "parked"):
            tables.untell(tx, ending.resident, ending.attempt)

    # The host

    @hookimpl
    def on_tick(self, now: int, tx: PluginTx) -> None:
        """One event for what changed since the last one; nothing at all is written when nothing did."""
        last = tables.last_tick(tx) or Tick()
        if 0 <= now - last.at < self.config.tick_seconds * 1_000_000:
            return  # another host ticked just now
        at = tx.hours_micros
        walks = tables.walked(tx, last.hours, at)
        places = {name: walk.tile(at) for name, walk in walks}
        new = self._seat(tx, at)
        moved = self._follow_map(tx, at) if last.map != self._map else {}
        said = tables.words_since(tx, last.said)
        places |= new | moved
        if not places and not said and last.map == self._map:
            return
        tables.keep_tick(tx, Tick(max(at, last.hours), now, max(said, default=last.said), self._map))
        changes = json.dumps({"places": sorted(places.items()), "said": said}, separators=(",", ":"))
        more: dict[str, Any] = {} if last.map == self._map else {"map": self._map, "displaced": len(moved)}
        tx.emit(
            "tick", digest=sha256(changes.encode()).hexdigest(), walked=len(walks), new=len(new), said=len(said),
            arrived=sum(not walk.under_way(at) for _, walk in walks), **more,
        )  # fmt: skip

    def _seat(self, tx: PluginTx, at: int) -> dict[str, Tile]:
        """New residents stand at home."""
        found = {name: self._home(name) for name in tables.newcomers(tx)}
        for name, tile in found.items():
            tables.put(tx, name, standing(tile, at))
        return found

    def _follow_map(self, tx: PluginTx, at: int) -> dict[str, Tile]:
        """The map is another one: whoever stands or walks where nobody can now, stands at the nearest tile."""
        found = {}
        for name, walk in tables.everybody(tx):
            if not all(self.tiles.area(tile) for tile in walk.path):
                found[name] = self.tiles.nearest(walk.tile(at))
                tables.put(tx, name, standing(found[name], at))
        return found
