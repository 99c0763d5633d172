"""A process of one thread that forks others, each of which dies at another statement while it judges a bounty.

Run as a script: FOLDER REPLIED PLANTED, where FOLDER has ``village``. It makes the copies 1, 2, 3 … and says how each
ended: 9 for dead, 0 for the last, which had no further statement.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kernel.faults import faulty
from kernel.faults.faulty import Plan
from vivarium_plugins_economy.bounties import Bounties
from vivarium_plugins_economy.bounty_inputs import Complete

from economy.scene import OPERATOR, Guilds, Scene
from vivarium_kernel import Actor, Plugin, PluginTx
from vivarium_plugins_economy import bounty_tables as tables

MOST_STATEMENTS = 120
PLUGINS: Sequence[type[Plugin]] = (Bounties, Guilds)
JUDGED = {"bounty": 1, "winner": [2], "runner_up": [1]}


class InTwoSteps(Bounties):
    """Planted: pays in one transaction, and notes in the next that it has paid."""

    def _complete(self, tx: PluginTx, actor: Actor, asked: Complete) -> dict[str, Any]:
        found = tables.bounty(tx, asked.bounty)
        shares = self._payouts(tx, found, asked)
        payees = [(f"resident:{each.resident}:free", each.micros) for each in shares]
        if not tx.settle_hold(found.hold, payees, reason="bounty"):
            for each in shares:
                tables.keep_payout(tx, found.id, each)
            tables.move(tx, found.id, "completed")
        return {}


def copies(template: Path, to: Path) -> Iterator[tuple[int, Path]]:
    """Numbered copies of a village, one for each statement that may fail."""
    for number in range(1, MOST_STATEMENTS):
        folder = to / str(number)
        shutil.copytree(template, folder)
        yield number, folder
    raise AssertionError(f"more than {MOST_STATEMENTS} statements")


def judge(folder: Path, number: int, replied: bool, planted: bool) -> None:
    plan = Plan(number, faulty.crash, after=replied)
    plugins = (InTwoSteps, Guilds) if planted else PLUGINS
    with Scene(folder, plugins, connection=faulty.faulty(plan)) as scene:
        plan.armed = True
        for _ in range(2):
            scene.do("complete", OPERATOR, **JUDGED)
        plan.armed = False


def forked(folder: Path, number: int, replied: bool, planted: bool) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            judge(folder, number, replied, planted)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(folder: Path, replied: bool, planted: bool) -> None:
    for number, copy in copies(folder / "village", folder):
        status = forked(copy, number, replied, planted)
        sys.stdout.write(f"{status}\n")
        if status != 9:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "True", sys.argv[3] == "True")
