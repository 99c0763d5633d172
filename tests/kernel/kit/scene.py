"""The plugin that the kit's own tests are about: it tastes of every plug point that a fixture touches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from sqlite_utils import Migrations
from vivarium_kernel.testing import StagedVillage

from vivarium_kernel import Action, Actor, Ending, Event, NewTask, Plugin, PluginTx, Resident, Section, Task, hookimpl

migrations = Migrations("garden")


@migrations()
def m001_beds(db: Any) -> None:
    db["garden_beds"].create({"task": str, "attempt": int}, pk="attempt")


@frozen
class GardenConfig:
    """``[plugins.garden]``. ``flower`` is what everybody is told of."""

    flower: str = "rose"


@frozen
class Dig:
    """Where to dig."""

    place: str


class Garden(Plugin):
    """A garden: it is told of in each prompt, and grows a bed for each accepted task."""

    name = "garden"
    Config = GardenConfig
    migrations = migrations

    def __init__(self, village: Any, config: Any) -> None:
        super().__init__(village, config)
        self.life: list[str] = []

    @hookimpl
    async def startup(self, village: Any) -> None:
        self.life.append("startup")

    @hookimpl
    async def shutdown(self, village: Any) -> None:
        self.life.append("shutdown")

    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        return [Action(name="garden.dig", doc="Dig a hole.", Input=Dig, run=self._dig)]

    def _dig(self, tx: PluginTx, actor: Actor, asked: Dig) -> dict[str, Any]:
        tx.emit("dug", resident=actor.name, place=asked.place)
        return {"place": asked.place}

    @hookimpl
    def enrich_prompt(self, resident: Resident, task: Task) -> Sequence[Section]:
        return [Section("situation", f"There is a {self.config.flower}."), Section("memory", "hush", private=True)]

    @hookimpl
    def end_attempt(self, task: Task, ending: Ending, tx: PluginTx) -> None:
        if ending.kind == "accepted":
            tx.execute("INSERT INTO garden_beds (task, attempt) VALUES (?, ?)", (task.id, ending.attempt))

    @hookimpl
    async def on_event(self, event: Event) -> None:
        if event.kind == "garden.dug":
            self.life.append(f"heard of {event.data['place']}")

    @hookimpl
    def on_tick(self, now: int, tx: PluginTx) -> None:
        tx.declare_policy("rain", 100)
        tx.mint("rain", "commons", 1, key=f"rain:{tx.day}", reason="rain", ref=f"day:{tx.day}")


class Idler(Plugin):
    """Proposes a walk."""

    name = "idler"

    @hookimpl
    def propose_activity(self, resident: Resident) -> Sequence[NewTask]:
        return [NewTask(prompt="a walk", effect="pure")]


def garden(village: StagedVillage) -> Garden:
    """The garden of a village."""
    plugin = village.plugins["garden"]
    assert isinstance(plugin, Garden)
    return plugin
