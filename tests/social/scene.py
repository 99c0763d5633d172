"""A village that writes journals, on a real database file and a clock that only the test moves."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from vivarium_kernel.clock import SimulatedClock
from vivarium_kernel.village import Village, With
from vivarium_plugins_social.journals import Journals

from vivarium_kernel import Actor, Plugin, actions, audit, hosting, ledger, processes

AID = 1_000_000
HOUR_SECONDS = 10.0
RESIDENTS = ("ada", "ben", "cyn", "dov", "eli")
TOML = f'name = "journals"\npace_seconds = 2.0\nresidents = {json.dumps(RESIDENTS)}\n'
PRIVATE = "THE-INNERMOST"  # stands behind what an excerpt shows
SHOWN = "THE-OPENING"
TEXT = f"{SHOWN} " + "word " * 80 + PRIVATE


class Unsynced(sqlite3.Connection):
    """No power fails in these tests, so that waiting for the disk would prove nothing."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return super().execute("PRAGMA synchronous = OFF" if sql == "PRAGMA synchronous = FULL" else sql, *arguments)


class Counts(Protocol):
    """What a stranger asks of the journals."""

    def count(self, view: Any, resident: str, /) -> int: ...


class Scene:
    """An open village with a host, whose hours the test lets pass. Opening the same folder again is a restart."""

    def __init__(
        self, folder: Path, settings: str = "", *, plugins: Sequence[type[Plugin]] = (Journals,),
        clock: SimulatedClock | None = None, connection: type[sqlite3.Connection] = Unsynced,
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vivarium.toml").write_text(TOML + settings)
        self.folder = folder
        self.clock = clock or SimulatedClock(0)
        how = With(installed=False, plugins=plugins, timeouts=False, connection=connection)
        self.village = Village(folder, how, clock=self.clock, environ={})
        if self.village.failed:
            self.village.close()
        assert not self.village.failed, self.village.failed
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Scene:
        self.call(processes.reap, processes.Reap(None, None))
        asked = processes.Register(processes.this_process(), "run", 1e9)
        self._process = self.call(processes.register, asked)
        assert self.call(processes.take_host, self._process)
        return self

    def __exit__(self, *_: object) -> None:
        self.call(processes.leave, (self._process, None))
        self.close()

    def close(self) -> None:
        """Go without a word, as a process does that was killed."""
        self._loop.close()
        self.village.close()

    def call(self, fn: Any, item: Any) -> Any:
        return self.village.store.call(fn, item)

    def do(self, who: str, name: str, key: str | None = None, **body: Any) -> Any:
        """Do an action as the API does it for a resident's token."""
        action = actions.action_of(self.village, f"journals.{name}")
        done = actions.perform(self.village, action, Actor("resident", who), body, key)
        return json.loads(self._loop.run_until_complete(done).reply)

    def write(self, who: str = "ada", text: str = TEXT) -> int:
        return int(self.do(who, "write", text=text, type="idea")["journal"])

    def vote(self, journal: int, **choices: str) -> None:
        for voter, choice in choices.items():
            self.do(voter, "vote", journal=journal, choice=choice, reason="so it seems")

    def tick(self) -> None:
        """The host's tick."""
        self.call(hosting._host_tick, self.village.hooks)

    def pass_hours(self, hours: float) -> None:
        """Let village hours pass, and the host tick after them."""
        self.clock.advance(hours * HOUR_SECONDS)
        self.tick()

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.village.store.view() as view:
            return view.rows(sql, params)

    def aid(self, account: str) -> float:
        """What an account holds, in aid: ``ada`` is her free account, ``ada:journal`` the other one."""
        name, _, which = account.partition(":")
        full = f"resident:{name}:{which or 'free'}" if name in RESIDENTS else account
        with self.village.store.view() as view:
            return ledger.balance(view, full) / AID

    def give(self, who: str, aid: int, account: str = "journal") -> None:
        """Money from nowhere, as the wallet's grants would bring it."""
        key = f"gift:{who}:{account}:{self.clock.chance.random()}"
        self.call(_mint, (f"resident:{who}:{account}", aid * AID, key))

    def state(self, journal: int) -> str:
        return str(self.rows("SELECT state FROM journals_entries WHERE id = ?", (journal,))[0][0])

    def count(self, who: str) -> int:
        """What another plugin hears of a resident."""
        with self.village.store.view() as view:
            journals = self.village.service("journals", Counts)
            assert journals is not None
            return journals.count(view.plugin("strangers"), who)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(row[0]) for row in self.rows("SELECT data FROM events WHERE kind = ? ORDER BY id", (kind,))]

    def check_books(self) -> None:
        """The books agree with themselves, the chain of events is whole, and nothing is held for what is decided."""
        with self.village.store.view() as view:
            assert ledger.verify(view).problems == ()
            assert audit.verify(view)[2] is None
        assert self.rows(
            "SELECT id FROM holds WHERE state = 'held' AND id NOT IN (SELECT journal_hold FROM journals_entries "
            "WHERE state = 'open' AND journal_hold IS NOT NULL UNION SELECT free_hold FROM journals_entries "
            "WHERE state = 'open' AND free_hold IS NOT NULL)"
        ) == []  # fmt: skip


def _mint(tx: Any, asked: tuple[str, int, str]) -> None:
    account, micros, key = asked
    ledger.mint(tx, "start", account, micros, key=key, reason="gift", actor="test", ref="test")


def where_is(folder: Path, word: str) -> set[str]:
    """Every column of the database that holds a word, as table.column."""
    found = set()
    connection = sqlite3.connect(folder / "vivarium.db")
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        asked = connection.execute(f'SELECT * FROM "{table}"')
        columns = [column[0] for column in asked.description]
        for row in asked:
            found |= {
                f"{table}.{column}" for column, value in zip(columns, row, strict=True) if word in _as_text(value)
            }
    connection.close()
    return found


def _as_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
