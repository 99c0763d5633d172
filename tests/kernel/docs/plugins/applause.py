"""Counts what each resident has done well, and pays 1 aiDollar for every tenth time."""

from typing import Any

from sqlite_utils import Migrations

from vivarium_kernel import Ending, Plugin, PluginTx, Task, hookimpl

ONE_MICROS = 1_000_000
migrations = Migrations("applause")


@migrations()
def m001_counts(db: Any) -> None:
    db["applause_counts"].create({"resident": str, "times": int}, pk="resident")


class Applause(Plugin):
    name = "applause"
    migrations = migrations

    @hookimpl
    def end_attempt(self, task: Task, ending: Ending, tx: PluginTx) -> None:
        if ending.kind != "accepted" or ending.resident is None:
            return
        rows = tx.execute(
            "INSERT INTO applause_counts VALUES (?, 1) "
            "ON CONFLICT (resident) DO UPDATE SET times = times + 1 RETURNING times",
            (ending.resident,),
        )
        if rows[0][0] % 10 == 0:
            tx.declare_policy("tenth", cap_per_day_micros=100 * ONE_MICROS)
            payee = f"resident:{ending.resident}:free"
            tx.mint("tenth", payee, ONE_MICROS, key=f"{ending.attempt}", reason="applause", ref=f"task:{task.id}")
