"""There are three desks: who takes a task with the label "desk" sits at one until the attempt ends."""

from typing import Any

from sqlite_utils import Migrations

from vivarium_kernel import Claim, Ending, Plugin, PluginTx, Refuse, Task, hookimpl

DESKS = 3
migrations = Migrations("desks")


@migrations()
def m001_taken(db: Any) -> None:
    db["desks_taken"].create({"attempt": int, "resident": str}, pk="attempt")


class Desks(Plugin):
    name = "desks"
    migrations = migrations

    @hookimpl
    def claim_reserve(self, claim: Claim, tx: PluginTx) -> None:
        if "desk" not in claim.task.labels:
            return
        if tx.read("SELECT count(*) FROM desks_taken")[0][0] >= DESKS:
            raise Refuse(f"all {DESKS} desks are taken")
        tx.execute("INSERT INTO desks_taken VALUES (?, ?)", (claim.attempt, claim.resident.name))

    @hookimpl
    def end_attempt(self, task: Task, ending: Ending, tx: PluginTx) -> None:
        tx.execute("DELETE FROM desks_taken WHERE attempt = ?", (ending.attempt,))
