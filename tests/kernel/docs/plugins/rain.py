"""Rains once a village day, whoever is the host and however often it ticks."""

from typing import Any

from sqlite_utils import Migrations

from vivarium_kernel import Plugin, PluginTx, hookimpl

migrations = Migrations("rain")


@migrations()
def m001_fallen(db: Any) -> None:
    db["rain_fallen"].create({"day": int, "at": int}, pk="day")


class Rain(Plugin):
    name = "rain"
    migrations = migrations

    @hookimpl
    def on_tick(self, now: int, tx: PluginTx) -> None:
        if not tx.read("SELECT 1 FROM rain_fallen WHERE day = ?", (tx.day,)):
            tx.execute("INSERT INTO rain_fallen VALUES (?, ?)", (tx.day, now))
            tx.emit("fell", rained_on=tx.day)
