"""A village with bounties on a real database file: acts go through the actions, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from sqlite_utils import Migrations
from vivarium_kernel.clock import SimulatedClock
from vivarium_kernel.jobs import Job
from vivarium_kernel.village import Village, With
from vivarium_plugins_economy.bounties import Bounties

from vivarium_kernel import Actor, Outcome, Plugin, PluginTx, actions, audit, hookimpl, ledger, settling

AID = 1_000_000
OPERATOR = Actor("operator", "op")
HUMAN = Actor("human", "hana")
RESIDENTS = ("ada", "ben", "cyn", "dov", "eli", "fay", "gus", "hal")
TOML = f'name = "bounties"\npace_seconds = 1.0\nresidents = {json.dumps(RESIDENTS)}\n'
WORK = "Here is what I made of it, all of it."


class Unsynced(sqlite3.Connection):
    """No power fails in these tests, so that waiting for the disk would prove nothing."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return super().execute("PRAGMA synchronous = OFF" if sql == "PRAGMA synchronous = FULL" else sql, *arguments)


guild_tables = Migrations("guilds")


@guild_tables()
def m001_members(db: Any) -> None:
    db["guilds_members"].create({"resident": str, "guild": str, "founder": str}, pk="resident")
    for guild, members in {"masons": ("ada", "ben", "cyn"), "weavers": ("eli", "dov", "fay")}.items():
        db["guilds_members"].insert_all({"resident": m, "guild": guild, "founder": members[0]} for m in members)


@frozen
class Found:
    """A guild, as the guilds' own plugin has it."""

    name: str
    founder: str
    members: tuple[str, ...]


class Roll:
    """What the guilds plugin provides. It knows nothing of bounties."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def guild_of(self, tx: PluginTx, resident: str) -> Found | None:
        rows = tx.of(self._plugin).read(
            "SELECT o.guild, o.founder, o.resident FROM guilds_members m JOIN guilds_members o ON o.guild = m.guild "
            "WHERE m.resident = ?",
            (resident,),
        )
        return Found(rows[0][0], rows[0][1], tuple(row[2] for row in rows)) if rows else None


class Guilds(Plugin):
    """Two guilds with tables of their own: masons of ada, weavers of eli."""

    name = "guilds"
    migrations = guild_tables
    provides = Roll


class Deeds(Plugin):
    """Does tasks of mode ``deed`` as the task's prompt says."""

    name = "deeds"

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        return Outcome(answer=f"done: {job.task.prompt}") if job.task.mode == "deed" else None


class Scene:
    """An open village, and residents and operators who act in it. Opening the same folder again is a restart."""

    def __init__(
        self, folder: Path, plugins: Sequence[type[Plugin]] = (Bounties, Guilds, Deeds), *, settings: str = "",
        connection: type[sqlite3.Connection] = Unsynced, clock: SimulatedClock | None = None,
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vivarium.toml").write_text(TOML + settings)
        self.clock = clock or SimulatedClock(0)
        how = With(installed=False, plugins=plugins, timeouts=False, connection=connection)
        self.village = Village(folder, how, clock=self.clock, environ={})
        if self.village.failed:
            self.village.close()
        assert not self.village.failed, self.village.failed

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.village.close()

    def do(self, name: str, who: str | Actor, key: str | None = None, **body: Any) -> Any:
        """Do an action as whoever the API would let in; answers what it would answer."""
        self.clock.advance(10.0)
        actor = Actor("resident", who) if isinstance(who, str) else who
        action = actions.action_of(self.village, f"bounties.{name}")
        return json.loads(asyncio.run(actions.perform(self.village, action, actor, body, key)).reply)

    def post(self, who: str | Actor = "hal", prize: int = 40, runner_up: int | None = None, **more: Any) -> int:
        """Post a bounty of so many aid; its number."""
        body = {"title": "A bridge", "text": "Over the brook.", "prize_micros": prize * AID, **more}
        if runner_up is not None:
            body["runner_up_micros"] = runner_up * AID
        return int(self.do("post", who, **body)["bounty"])

    def submit(self, bounty: int, who: str, text: str = "", **more: Any) -> int:
        return int(self.do("submit", who, bounty=bounty, text=text or f"{WORK} {who}", **more)["submission"])

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.village.store.view() as view:
            return view.rows(sql, params)

    def free(self, who: str) -> int:
        """What a resident has, in millionths."""
        return self.account(f"resident:{who}:free")

    def account(self, name: str) -> int:
        with self.village.store.view() as view:
            return ledger.balance(view, name)

    def state(self, bounty: int) -> str:
        return str(self.rows("SELECT state FROM bounties_posted WHERE id = ?", (bounty,))[0][0])

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(row[0]) for row in self.rows("SELECT data FROM events WHERE kind = ? ORDER BY id", (kind,))]

    def endow(self, aid: int) -> None:
        """Give the commons money that somebody else has."""
        self.village.store.call(_endow, aid * AID)

    def retry_missed(self) -> None:
        """Run what plugins missed, as ``vivarium missed retry`` does."""

        def again(plugin: str, task: Any, ending: Any, tx: Any) -> BaseException | None:
            call = self.village.hooks.end_attempt_of(plugin, task, ending, tx)
            return call.error if call is not None else None

        for (number,) in self.rows("SELECT id FROM missed ORDER BY id"):
            self.village.store.call(lambda tx, item: settling.run_missed(tx, item, again), number)

    def check(self) -> None:
        """The books agree with themselves, and so do the bounties with the books."""
        with self.village.store.view() as view:
            assert ledger.verify(view).problems == ()
            assert audit.verify(view)[2] is None
            wrong = view.rows(DISAGREE)
            assert not wrong, f"bounties and their holds disagree: {wrong}"


# A bounty whose hold is not what its state says, or whose payouts are not what left its hold.
DISAGREE = """
SELECT b.id, b.state, h.state FROM bounties_posted b LEFT JOIN holds h ON h.id = b.hold AND h.owner = 'bounties'
WHERE coalesce(h.state, '') <> CASE b.state WHEN 'completed' THEN 'settled' WHEN 'cancelled' THEN 'released'
  ELSE 'held' END
OR h.micros <> b.prize_micros + b.runner_up_micros
OR (SELECT coalesce(sum(micros), 0) FROM bounties_payouts WHERE bounty = b.id) <>
   (SELECT coalesce(sum(micros), 0) FROM transfers WHERE payer = 'hold:' || h.id AND reason = 'bounty')
OR (SELECT coalesce(sum(micros), 0) FROM bounties_payouts WHERE bounty = b.id) > h.micros
"""


def _endow(tx: Any, micros: int) -> None:
    tx.books.transfer("endowment", "treasury", "commons", "aid", micros, "endowment", "test", "operator:op", "test")
