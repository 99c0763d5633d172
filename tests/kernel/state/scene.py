"""A village on a real database file and a clock that only the test moves; requests that share one commit."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vivarium_kernel.clock import SimulatedClock
from vivarium_kernel.store import Tx, setwise
from vivarium_kernel.village import Village, With

from vivarium_kernel import audit, ledger

LAST_EVENTS = "SELECT id, kind, task, attempt, data FROM events WHERE id > ? ORDER BY id"


class Unsynced(sqlite3.Connection):
    """No power fails in these tests, so that waiting for the disk would prove nothing."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return super().execute("PRAGMA synchronous = OFF" if sql == "PRAGMA synchronous = FULL" else sql, *arguments)


class Scene:
    """An open village without plugins and without a writer thread."""

    def __init__(self, settings: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vivarium-")
        folder = Path(self._folder.name)
        (folder / "vivarium.toml").write_text(settings)
        self.clock = SimulatedClock(0)
        how = With(threaded=False, load_plugins=False, connection=Unsynced)
        self.village = Village(folder, how, clock=self.clock, environ={})
        self.store = self.village.store
        self._loop = asyncio.new_event_loop()
        self._seen = 0

    def close(self) -> None:
        self._loop.close()
        self.village.close()
        self._folder.cleanup()

    def call(self, fn: Callable[[Tx, Any], Any], item: Any = None) -> Any:
        """One request in a commit of its own; raises what it raises."""
        return self.store.call(fn, item)

    def together(
        self, requests: Sequence[tuple[Callable[[Tx, Any], Any], Any]], *, carefully: bool = False
    ) -> list[Any]:
        """Requests that wait at the same time and share one commit: each its result, or the exception it got.

        ``carefully`` makes the first, grouped try fail, so that each runs again in a savepoint of its own.
        """
        asked = [*requests, (_once_more, None)] if carefully else list(requests)

        async def ask() -> list[Any]:
            return await asyncio.gather(*(self.store.write(fn, item) for fn, item in asked), return_exceptions=True)

        return self._loop.run_until_complete(ask())[: len(requests)]

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.store.view() as view:
            return view.rows(sql, params)

    def new_events(self) -> list[tuple[Any, ...]]:
        """The events since this was asked last."""
        found = self.rows(LAST_EVENTS, (self._seen,))
        self._seen = found[-1][0] if found else self._seen
        return found

    def check_books(self) -> None:
        """The books agree with themselves, and the chain of events is whole."""
        with self.store.view() as view:
            assert ledger.verify(view).problems == ()
            assert audit.verify(view)[2] is None
            assert view.rows("SELECT currency FROM accounts GROUP BY currency HAVING sum(balance) <> 0") == []


@setwise(1)
def _once_more(tx: Tx, items: list[Any]) -> list[Any]:
    if not tx.careful:
        raise RuntimeError("this commit is to run again, carefully")
    return [None] * len(items)
