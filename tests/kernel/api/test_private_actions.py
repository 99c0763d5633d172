"""Promises about private actions: what is said to them and what they tell is in no step, reply or event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest
from attrs import frozen
from sqlite_utils import Migrations
from vivarium_kernel.clock import SimulatedClock, run_simulated
from vivarium_kernel.jobs import Job
from vivarium_kernel.models import ProviderFault
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With

from vivarium_kernel import (
    Action,
    Actor,
    Invalid,
    Meta,
    NewTask,
    Outcome,
    Plugin,
    PluginTx,
    actions,
    hookimpl,
    processes,
)

HERS = "what only ada may know"
migrations = Migrations("diary")


@migrations()
def m001_pages(db: Any) -> None:
    db["diary_pages"].create({"id": int, "private_text": str}, pk="id")


@frozen
class Page:
    """A page of the diary."""

    text: Annotated[str, Meta(min_length=1, max_length=100)]


@frozen
class Nothing:
    """Nothing is needed."""


def keep(tx: PluginTx, actor: Actor, asked: Page) -> dict[str, int]:
    ((number,),) = tx.execute("INSERT INTO diary_pages (private_text) VALUES (?) RETURNING id", (asked.text,))
    return {"page": number}


def leaf(tx: PluginTx, actor: Actor, asked: Nothing) -> dict[str, Any]:
    return {"pages": [row[0] for row in tx.read("SELECT private_text FROM diary_pages")], "at": [tx.day, tx.hour]}


class Diary(Plugin):
    """Keeps pages, and does tasks that write one and read all; the first time its provider fails after that."""

    name = "diary"
    migrations = migrations

    def __init__(self, village: Any, config: Any) -> None:
        super().__init__(village, config)
        self.told: list[actions.Performed] = []

    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        return [
            Action(name="diary.keep", doc="Keep a page.", Input=Page, private=True, run=keep),
            Action(name="diary.leaf", doc="Leaf.", Input=Nothing, private=True, effect="pure", run=leaf),
        ]

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        if job.task.mode != "diary":
            return None
        actor = Actor("resident", job.resident.name, job.attempt)
        for name, body in (("diary.keep", {"text": HERS}), ("diary.leaf", {})):
            action = actions.action_of(self.village, name)
            self.told.append(await actions.perform(self.village, action, actor, body, job=job))
        if len(self.told) == 2:
            raise ProviderFault("the line is dead", started=False)
        return Outcome(answer="done")


@pytest.mark.promise("what a private action is told and tells is in no step, reply or event")
def test_a_private_action_of_a_resident_at_work_leaves_no_text_and_is_replayed(tmp_path: Path) -> None:
    (tmp_path / "vivarium.toml").write_text('residents = ["ada"]\nhuman_review = false\n')
    clock = SimulatedClock(1)
    with Village(tmp_path, With(installed=False, plugins=(Diary,), timeouts=False), clock=clock, environ={}) as village:
        village.post([NewTask(id="a", mode="diary", prompt="Write.")])

        async def live() -> None:
            async with asyncio.timeout(600), Runtime(village, 1):
                while len(told) < 4:
                    await asyncio.sleep(0.1)
                await asyncio.sleep(1.0)

        told = village.plugins["diary"].told  # type: ignore[attr-defined]
        run_simulated(clock, live())
        first, read, again, reread = [json.loads(done.reply) for done in told]
        assert first == again == {"page": 1}  # written once: its reply was recorded
        assert read["pages"] == reread["pages"] == [HERS]  # read anew: its reply was not
        with village.store.view() as view:
            steps = view.rows("SELECT arguments, private_text, result FROM steps ORDER BY attempt, number")
            assert steps == 2 * [(None, None, '{"page":1}'), (None, None, '"private"')]
            digests = view.rows("SELECT count(DISTINCT digest), min(length(digest)) FROM steps")
            assert digests == [(2, 64)]


def test_a_reply_under_a_key_is_kept_only_of_what_is_not_private(tmp_path: Path) -> None:
    (tmp_path / "vivarium.toml").write_text('residents = ["ada"]\n')
    with Village(tmp_path, With(installed=False, plugins=(Diary,)), environ={}) as village:
        for name, body in (("diary.keep", {"text": HERS}), ("diary.leaf", {})):
            action = actions.action_of(village, name)
            asyncio.run(actions.perform(village, action, Actor("resident", "ada"), body, f"key of {name}"))
        with village.store.view() as view:
            assert view.rows("SELECT reply FROM replies") == [('{"page":1}',)]
            assert HERS not in str(view.rows("SELECT * FROM events"))


def test_a_slow_action_can_not_be_private() -> None:
    async def act(job: Any, asked: Any) -> None: ...

    with pytest.raises(Invalid, match="private and slow"):
        Action(name="diary.muse", doc="Muse.", Input=Nothing, private=True, act=act)


def test_a_plugin_knows_the_village_hour_in_both_that_it_is_handed(tmp_path: Path) -> None:
    (tmp_path / "vivarium.toml").write_text('residents = ["ada"]\n')
    clock = SimulatedClock(1)
    with Village(tmp_path, With(installed=False, plugins=(Diary,)), clock=clock, environ={}) as village:
        number = village.store.call(processes.register, processes.Register(processes.this_process(), "run", 1e6))
        village.store.call(processes.take_host, number)
        clock.advance(10.0 * 49)
        action = actions.action_of(village, "diary.leaf")
        done = asyncio.run(actions.perform(village, action, Actor("resident", "ada"), {}))
        assert json.loads(done.reply)["at"] == [2, 49]
        with village.store.view() as view:
            seen = view.plugin("diary")
            assert (seen.day, seen.hour) == (2, 49)
