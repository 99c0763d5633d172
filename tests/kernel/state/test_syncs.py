"""Promises about what an answer is worth: it comes once its commit was made with SQLite's full sync, and not before."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.committing import Committer
from vivarium_kernel.records import NewTask
from vivarium_kernel.village import Village, With

from vivarium_kernel import board

FULL = 2  # SQLite's number for synchronous = FULL, which syncs a write-ahead log at each commit


class Watched(sqlite3.Connection):
    """Notes how each commit was made, once it has been."""

    made: list[tuple[int, str]]

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        done = super().execute(sql, *arguments)
        if sql == "COMMIT":
            ((level,),) = super().execute("PRAGMA synchronous").fetchall()
            ((mode,),) = super().execute("PRAGMA journal_mode").fetchall()
            self.made.append((level, mode))
        return done


def unsynced_answers(folder: Path, watched: type[Watched], *, threaded: bool) -> list[str]:
    """Ask for writes, with a loop and without one; returns what was answered without a synced commit."""
    watched.made = []
    (folder / "vivarium.toml").write_text('residents = ["ada"]\n')
    how = With(threaded=threaded, load_plugins=False, connection=watched)
    wrong = []

    def look(name: str, before: int, village: Village) -> None:
        made = watched.made[before:]
        with sqlite3.connect(village.store.path) as other:
            if not other.execute("SELECT 1 FROM tasks WHERE id = ?", (name,)).fetchall():
                wrong.append(f"{name} was answered and is not there")
        other.close()
        if not made or any(each != (FULL, "wal") for each in made):
            wrong.append(f"{name} was answered after {made}")

    async def ask(village: Village) -> None:
        for number in range(5):
            before, name = len(watched.made), f"loop-{number}"
            await village.store.write(board.post, village.posting([NewTask(id=name, prompt="x")], "operator:test"))
            look(name, before, village)

    with Village(folder, how, environ={}) as village:
        before = len(watched.made)
        village.post([NewTask(id="alone", prompt="x")])
        look("alone", before, village)
        asyncio.run(ask(village))
    return wrong


@pytest.mark.promise("kill-workers")
@pytest.mark.parametrize("threaded", [True, False], ids=["threaded", "alone"])
def test_an_answer_comes_after_its_synced_commit(tmp_path: Path, threaded: bool) -> None:
    assert unsynced_answers(tmp_path, Watched, threaded=threaded) == []


class WithoutSync(Watched):
    """A planted fault."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return super().execute("PRAGMA synchronous = OFF" if sql == "PRAGMA synchronous = FULL" else sql, *arguments)


@pytest.mark.parametrize("plant", ["no sync", "no commit"])
def test_a_planted_fault_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: str) -> None:
    watched = WithoutSync if plant == "no sync" else Watched
    if plant == "no commit":

        def answered_early(self: Committer, requests: list[Any]) -> None:
            """As if it had been committed."""

        monkeypatch.setattr(Committer, "finish", answered_early)
        monkeypatch.setattr(Committer, "_open", lambda self: self._connection.execute("BEGIN")
                            if not self._connection.in_transaction else None)  # fmt: skip
    assert unsynced_answers(tmp_path, watched, threaded=False) != []
