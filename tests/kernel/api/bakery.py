"""A small plugin whose actions show everything that an action can be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from attrs import field, frozen
from msgspec import Meta
from sqlite_utils import Migrations

from vivarium_kernel import Action, Actor, Conflict, Plugin, hookimpl

migrations = Migrations("bakery")


@migrations()
def m001_loaves(db: Any) -> None:
    db["bakery_loaves"].create({"id": int, "kind": str, "baker": str}, pk="id")


@frozen
class Topping:
    """What lies on it."""

    name: str
    price_micros: int = 1


@frozen
class Bake:
    """A loaf to bake."""

    kind: Annotated[str, Meta(min_length=1, max_length=40)]
    count: Annotated[int, Meta(ge=1, le=10)] = 1
    gift_micros: int | None = None
    toppings: tuple[Topping, ...] = field(default=())


@frozen
class Nothing:
    """Nothing is needed."""


def bake(tx: Any, actor: Actor, asked: Bake) -> dict[str, Any]:
    if asked.kind == "stone":
        raise Conflict("bakery.stone", "Nobody can bake a stone.", "Ask for bread.")
    for _ in range(asked.count):
        tx.execute("INSERT INTO bakery_loaves (kind, baker) VALUES (?, ?)", (asked.kind, actor.name))
    tx.emit("baked", kind=asked.kind, count=asked.count)
    if asked.kind == "brick":
        raise RuntimeError("the oven fell in")
    if asked.kind == "ghost":
        tx.execute("SELECT * FROM no_such_table")
    if asked.kind == "thief":
        tx.execute("DELETE FROM tokens")
    if asked.kind == "riddle":
        return {"what": object()}
    return {"baked": asked.count, "by": actor.name}


def count(tx: Any, actor: Actor, asked: Nothing) -> int:
    found: int = tx.read("SELECT count(*) FROM bakery_loaves")[0][0]
    return found


async def knead(job: Any, asked: Bake) -> dict[str, Any]:
    await asyncio.sleep(0.01)
    if asked.kind == "brick":
        raise RuntimeError("the oven fell in")
    return {"kneaded": asked.kind, "for": job.task.id}


class Bakery(Plugin):
    """Bakes."""

    name = "bakery"
    migrations = migrations

    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        return [
            Action(name="bakery.bake", doc="Bake loaves.", Input=Bake, roles=("resident", "operator"), run=bake,
                   cost_micros=2_000_000),
            Action(name="bakery.count", doc="Count the loaves.", Input=Nothing, roles=("resident", "human", "operator"),
                   effect="pure", run=count),
            Action(name="bakery.taste", doc="Taste, a little.", Input=Nothing, effect="idempotent", run=count,
                   rate_per_minute=3),
            Action(name="bakery.knead", doc="Knead, slowly.", Input=Bake, act=knead, cost_micros=1_000_000),
        ]  # fmt: skip


class Greedy(Plugin):
    """Registers what is not its own."""

    name = "greedy"

    @hookimpl
    def register_actions(self) -> Sequence[Any]:
        return [Action(name="bakery.steal", doc="Steal.", Input=Nothing, run=count), "not an action"]
