"""A long day of residents who walk and talk at random, and everything that must be true of it."""

from __future__ import annotations

import random
from pathlib import Path

from vivarium_kernel.errors import VivariumError
from vivarium_plugins_world.tiles import Tile
from vivarium_plugins_world.walking import apart
from vivarium_plugins_world.world import World

from .scene import HOUR, Scene, found

NAMES = ("ada", "ben", "cyn")


def faults_of_a_journey(folder: Path, world: type[World], seed: int, acts: int = 150) -> list[str]:
    """Live it; returns what was not as it must be, in words."""
    chance = random.Random(seed)
    scene = Scene(found(folder), world=world)
    faults: list[str] = []
    before: tuple[int, dict[str, Tile]] | None = None
    last_tick = -1.0
    scene.tick()
    for _ in range(acts):
        for _ in range(chance.randrange(1, 4)):
            resident = chance.choice(NAMES)
            there = where(scene)
            try:
                _act(scene, resident, chance)
            except VivariumError:
                continue  # no way there, or too often: that is as it must be
            if where(scene) != there:
                faults.append(f"{resident} is elsewhere without time having passed")
        faults += earshot_faults(scene)
        now, places = scene.hours(), where(scene)
        for name, tile in places.items():
            if not scene.world.tiles.area(tile):
                faults.append(f"{name} stands where nobody can, at {tile}")
            if before is not None:
                most = (now - before[0]) * scene.world.config.tiles_per_hour / HOUR + 1
                if apart(before[1][name], tile) > most:
                    faults.append(f"{name} got from {before[1][name]} to {tile}, at most {most:g} tiles")
        before = now, places
        if scene.tick(chance.choice((0.3, 1.0, 5.0, 20.0))):
            if scene.clock.monotonic() - last_tick < 1.0:
                faults.append("two ticks within a second")
            last_tick = scene.clock.monotonic()
    told = [scene.next_prompt(name) for name in NAMES] + [scene.next_prompt(name) for name in NAMES]
    faults += [f"{name} was told of what it heard twice" for name, text in zip(NAMES, told[3:], strict=True)
               if "You heard" in text]  # fmt: skip
    scene.verified()
    scene.close()
    return faults


def where(scene: Scene) -> dict[str, Tile]:
    """Where everybody is, from the tables alone."""
    with scene.village.store.view() as view:
        granted = view.plugin("world")
        return {name: scene.world._walk_of(granted, name).tile(granted.hours_micros) for name in NAMES}


def _act(scene: Scene, resident: str, chance: random.Random) -> None:
    what = chance.choice(("place", "tile", "other", "talk", "shout"))
    if what == "place":
        scene.do("world.walk", resident, to=chance.choice(scene.world.tiles.landmarks).name)
    elif what == "tile":
        scene.do("world.walk", resident, x=chance.randrange(40), y=chance.randrange(28))
    elif what == "other":
        scene.do("world.walk", resident, to=chance.choice(NAMES))
    else:
        scene.do(f"world.{what}", resident, text="Hello.")


def earshot_faults(scene: Scene) -> list[str]:
    """Of what was said just now, who heard it and who ought to have."""
    places = where(scene)
    found = []
    for number, speaker, loud, x, y in scene.rows("SELECT id, speaker, loud, x, y FROM world_said WHERE at = ?",
                                                  scene.hours()):  # fmt: skip
        ought = {name for name in NAMES if name != speaker and apart((x, y), places[name]) <= (10 if loud else 1)}
        heard = {row[0] for row in scene.rows("SELECT hearer FROM world_heard WHERE said = ?", number)}
        if (x, y) != places[speaker] or heard != ought:
            found.append(f"{speaker} spoke at {(x, y)}: {sorted(heard)} heard it, not {sorted(ought)}")
    return found
