"""Promises about bounties on tasks: who does the task has submitted it, once, whatever fails while it settles."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from vivarium_kernel.clock import run_simulated
from vivarium_kernel.runtime import Runtime
from vivarium_plugins_economy.bounties import Bounties

from vivarium_kernel import Conflict, Ending, NewTask, Outcome, Task
from vivarium_plugins_economy import bounties as module

from .scene import AID, OPERATOR, Deeds, Guilds, Scene

BRIDGE = NewTask(id="bridge", mode="deed", prompt="build a bridge", wanted="ada", max_micros=5_000)


def lived(scene: Scene) -> None:
    """Residents live until nothing is left to do."""

    async def life() -> None:
        async with asyncio.timeout(600), Runtime(scene.village, 4, until_done=True) as runtime:
            await runtime.run()

    run_simulated(scene.clock, life())


def with_bounty(folder: Path, task: NewTask = BRIDGE, plugins: Any = (Bounties, Guilds, Deeds), **more: Any) -> Scene:
    scene = Scene(folder, plugins)
    scene.village.post([task])
    scene.post(more.pop("who", "hal"), 40, task=task.id, **more)
    return scene


def submitted(scene: Scene) -> list[tuple[Any, ...]]:
    return scene.rows("SELECT bounty, entrant, text, attempt FROM bounties_submissions")


def attempts(scene: Scene) -> list[tuple[Any, ...]]:
    return scene.rows("SELECT resident, ending FROM attempts ORDER BY id")


@pytest.mark.promise("kernel-and-parts-commit-together")
def test_an_accepted_task_is_submitted_for_who_did_it(tmp_path: Path) -> None:
    with with_bounty(tmp_path / "village", evolve(BRIDGE, files=("vivarium.toml",))) as scene:
        lived(scene)
        text = "Attempt 1 at task bridge was accepted.\ndone: build a bridge"
        assert submitted(scene) == [(1, "resident:ada", text, 1)]
        assert scene.state(1) == "claimed"
        done = scene.do("complete", "hal", bounty=1, winner=[1])
        assert done["paid"][0]["micros"] == 40 * AID
        assert scene.do("show", OPERATOR, bounty=1)["submissions"][0]["artifacts"] == ["vivarium.toml"]
        scene.check()


@pytest.mark.parametrize(
    ("task", "ending"),
    [
        (evolve(BRIDGE, files=("files/never-made",), max_attempts=1), "rejected"),
        (evolve(BRIDGE, mode="nobody_does_this"), "failed"),
    ],
)
def test_a_task_that_was_not_accepted_is_not_submitted(tmp_path: Path, task: NewTask, ending: str) -> None:
    with with_bounty(tmp_path / "village", task) as scene:
        lived(scene)
        assert attempts(scene) == [("ada", ending)]
        assert submitted(scene) == []
        assert scene.do("cancel", "hal", bounty=1)["returned_micros"] == 40 * AID
        scene.check()


@pytest.mark.parametrize("more", [{"who": "ada"}, {"judge": "ada"}])
def test_who_posted_or_judges_it_does_the_task_for_its_own_reward(tmp_path: Path, more: Any) -> None:
    with with_bounty(tmp_path / "village", **more) as scene:
        lived(scene)
        assert attempts(scene) == [("ada", "accepted")]
        assert submitted(scene) == []
        scene.check()


def test_a_long_outcome_is_cut_and_says_so(tmp_path: Path) -> None:
    with with_bounty(tmp_path / "village", evolve(BRIDGE, prompt="a" * 40_000)) as scene:
        lived(scene)
        ((_, _, text, _),) = submitted(scene)
        assert len(text) == module.LONGEST_TEXT
        assert text.endswith("[cut here]")


def test_a_bounty_is_on_a_task_that_is_there_and_to_be_done(tmp_path: Path) -> None:
    with with_bounty(tmp_path / "village") as scene:
        lived(scene)
        for task, rule in (("bridge", "bounties.task"), ("ghost", "bounties.task")):
            with pytest.raises((Conflict, module.NotFound), check=lambda error, rule=rule: error.rule == rule):
                scene.post("gus", 1, task=task)
        assert scene.free("gus") == 100 * AID


# What fails while an attempt is settled


class Late(Bounties):
    """Bounties whose part of a settlement fails after it has written, as often as ``left`` says."""

    left = 1
    fails: Callable[[], Any]

    def _write(self, *arguments: Any) -> int:
        number = super()._write(*arguments)
        if type(self).left:
            type(self).left -= 1
            type(self).fails()
        return number


def boom() -> None:
    raise RuntimeError("the clerk fainted")


def leaves() -> None:
    raise SystemExit(3)


def corrupt() -> None:
    raise sqlite3.IntegrityError("UNIQUE constraint failed")


def late(fails: Callable[[], Any]) -> type[Bounties]:
    return type("Late", (Late,), {"fails": staticmethod(fails), "left": 2})  # a part that fails is tried once more


@pytest.mark.promise("missed-parts", "kernel-and-parts-commit-together")
@pytest.mark.parametrize("fails", [boom, leaves, corrupt])
def test_a_part_that_fails_is_left_out_whole_and_run_later_once(tmp_path: Path, fails: Callable[[], Any]) -> None:
    folder = tmp_path / "village"
    with with_bounty(folder, plugins=(late(fails), Guilds, Deeds)) as scene:
        lived(scene)
        assert scene.rows("SELECT state FROM tasks") == [("done",)], "the task is done all the same"
        assert submitted(scene) == scene.rows("SELECT * FROM bounties_entries") == []
        assert scene.events("bounties.submitted") == scene.events("bounties.claimed") == []
        assert scene.rows("SELECT plugin, task FROM missed") == [("bounties", "bridge")]
        with pytest.raises(Conflict, match="being worked on"):
            scene.do("cancel", "hal", bounty=1)
        scene.check()
    with Scene(folder) as scene:  # after a restart, mended
        for _ in range(2):
            scene.retry_missed()
            assert [row[:2] for row in submitted(scene)] == [(1, "resident:ada")]
        assert scene.rows("SELECT * FROM missed") == []
        assert len(scene.events("bounties.submitted")) == 1
        scene.do("complete", "hal", bounty=1, winner=[1])
        assert scene.free("hal") == 60 * AID
        scene.check()


def test_a_part_that_runs_again_submits_nothing_twice(tmp_path: Path) -> None:
    """The kernel promises once; a hook that is called again by a mistake of somebody's still adds nothing."""
    with with_bounty(tmp_path / "village") as scene:
        lived(scene)
        task, ending = Task(1, "bridge", "deed"), Ending(1, "accepted", "ada", "", Outcome("done: build a bridge"))
        call = scene.village.store.call(lambda tx, _: scene.village.hooks.end_attempt(task, ending, tx), None)
        assert call == []
        assert len(submitted(scene)) == 1


def test_a_bounty_is_not_cancelled_while_somebody_does_its_task(tmp_path: Path) -> None:
    """The resident at the task has claimed that, not the bounty: to cancel it now would take the prize from it."""
    refusals = []

    class Meddler(Deeds):
        @module.hookimpl
        async def execute_task(self, job: Any) -> Outcome | None:
            from vivarium_kernel import Actor, actions

            action = actions.action_of(self.village, "bounties.cancel")
            try:
                await actions.perform(self.village, action, Actor("resident", "hal"), {"bounty": 1})
            except Conflict as refused:
                refusals.append(refused.rule)
            return Outcome(answer="done")

    with with_bounty(tmp_path / "village", plugins=(Bounties, Meddler)) as scene:
        lived(scene)
        assert refusals == ["bounties.state"]
        assert len(submitted(scene)) == 1
