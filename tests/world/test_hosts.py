"""Promises about the world's host: it may die at any moment, and whoever comes next goes on where it was."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

from kernel.faults.scene import until
from kernel.processes.nursery import Nursery
from kernel.state.scene import Unsynced
from vivarium_kernel.clock import SimulatedClock, run_simulated
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.terms import Actor
from vivarium_kernel.village import Village, With
from vivarium_plugins_world.world import World

from vivarium_kernel import actions, audit

from .scene import drawn, found, with_map

FIELD = drawn(["." * 90] * 3, inn=(0, 0), well=(89, 0))
SETTINGS = 'residents = ["ada", "ben"]\npace_seconds = 2.0\nlease_seconds = 30.0\n'


def opened(folder: Path) -> Village:
    return Village(folder, With(installed=False, plugins=(World,)), environ={})


def do(village: Village, name: str, resident: str, **body: object) -> str:
    action = actions.action_of(village, name)
    return asyncio.run(actions.perform(village, action, Actor("resident", resident), body)).reply


def test_the_death_of_the_host_hands_the_world_to_another_process(tmp_path: Path) -> None:
    """Two real processes; the host is killed while somebody walks, long before its lease ends."""
    folder = with_map(tmp_path / "village", FIELD, "tiles_per_hour = 40.0\n", settings=SETTINGS)  # 4 tiles a second
    opened(folder).close()
    with Nursery() as nursery, opened(folder) as village:

        def rows(sql: str) -> list[tuple[object, ...]]:
            with village.store.view() as view:
                return view.rows(sql)

        def ticks() -> int:
            return len(rows("SELECT id FROM events WHERE kind = 'world.tick'"))

        def column() -> int:
            with village.store.view() as view:
                world = village.plugins["world"]
                assert isinstance(world, World)
                granted = view.plugin("world")
                return world._walk_of(granted, "ada").tile(granted.hours_micros)[0]

        first = nursery.start("world.world_processes:keeper", str(folder))
        until(lambda: ticks() == 1, "the first tick")
        host = "SELECT pid FROM processes WHERE host = 1"
        assert rows(host) == [(first,)]
        second = nursery.start("world.world_processes:keeper", str(folder))
        until(lambda: len(rows("SELECT id FROM processes WHERE ended_at IS NULL")) == 2, "the second process")
        do(village, "world.walk", "ada", to="well")
        before = column()
        until(lambda: column() >= before + 3, "some tiles")
        seen = [column()]
        nursery.kill(first)
        told = ticks()

        def looking(condition: Callable[[], bool]) -> bool:
            seen.append(column())
            return condition()

        until(lambda: looking(lambda: rows(host) == [(second,)]), "another host", 5.0)
        until(lambda: looking(lambda: ticks() >= told + 2), "ticks of the new host", 6.0)
        assert seen == sorted(seen), "a walk never goes back"
        assert seen[-1] > seen[0]
        nursery.kill(second)
        assert column() >= seen[-1]
        with village.store.view() as view:
            assert audit.verify(view)[2] is None


def test_two_villages_on_one_folder_tick_as_one(tmp_path: Path) -> None:
    """Only the host ticks; when it leaves as it should, the other goes on, and no tick is told twice."""
    clock = SimulatedClock(5)
    folder = with_map(tmp_path / "village", FIELD)
    how = With(installed=False, plugins=(World,), timeouts=False, connection=Unsynced)

    async def live() -> list[int]:
        villages = [Village(folder, how, clock=clock, environ={}) for _ in range(2)]
        first, second = (Runtime(village, 1, kind="work") for village in villages)
        await first.__aenter__()
        await second.__aenter__()
        action = actions.action_of(villages[1], "world.walk")
        await asyncio.sleep(1.5)
        await actions.perform(villages[1], action, Actor("resident", "ada"), {"to": "well"})
        await asyncio.sleep(10.0)
        await first.__aexit__()
        villages[0].close()
        await asyncio.sleep(10.0)
        with villages[1].store.view() as view:
            found = [row[0] for row in view.rows("SELECT at FROM events WHERE kind = 'world.tick' ORDER BY id")]
        await second.__aexit__()
        villages[1].close()
        return found

    at = run_simulated(clock, live())
    assert 18 <= len(at) <= 22
    assert all(later - earlier >= 1_000_000 for earlier, later in itertools.pairwise(at))


def test_residents_without_a_model_live_in_the_world(tmp_path: Path) -> None:
    """Minutes of free time of a whole village, with everything on: they walk, meet and greet, and nothing breaks."""
    clock = SimulatedClock(7)
    names = ", ".join(f'"r{n}"' for n in range(12))
    folder = found(
        tmp_path / "village", settings=f"residents = [{names}]\npace_seconds = 2.0\n[plugins.world]\n"
        "tiles_per_hour = 40.0\n",
    )  # fmt: skip

    async def live(village: Village) -> None:
        async with Runtime(village, 12, kind="work"):
            await asyncio.sleep(240.0)  # a village day

    with Village(
        folder, With(installed=False, plugins=(World,), timeouts=False, connection=Unsynced), clock=clock, environ={}
    ) as village:
        run_simulated(clock, live(village))
        assert not village.health.switched_off
        with village.store.view() as view:
            ((walkers,),) = view.rows("SELECT count(DISTINCT resident) FROM events WHERE kind = 'world.walk'")
            ((heard,),) = view.rows("SELECT count(*) FROM world_heard")
            bad = view.rows("SELECT state, reason FROM tasks WHERE state NOT IN ('done', 'open', 'claimed')")
            missed = view.rows("SELECT * FROM missed")
            assert audit.verify(view)[2] is None
    assert walkers == 12
    assert heard > 0
    assert (bad, missed) == ([], [])
