"""Lets residents and people ring a bell; that it rang is an event."""

from collections.abc import Sequence
from typing import Annotated, Any

from attrs import frozen

from vivarium_kernel import Action, Actor, Meta, Plugin, PluginTx, hookimpl


@frozen
class Ring:
    """What the bell is rung for."""

    why: Annotated[str, Meta(min_length=1, max_length=200)]


class Bell(Plugin):
    name = "bell"

    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        return [
            Action(
                name="bell.ring",
                doc="Ring the bell, for all to hear.",
                Input=Ring,
                roles=("resident", "human", "operator"),
                rate_per_minute=6,
                run=self._ring,
            )
        ]

    def _ring(self, tx: PluginTx, actor: Actor, asked: Ring) -> dict[str, Any]:
        tx.emit("rung", why=asked.why)
        return {"rung_at": tx.now}
