"""A village of the schema before breakers and timings is brought up to date at its first opening, and loses nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from kernel.cli.running import vivarium
from sqlite_utils import Database

from vivarium_kernel import schema

from .scene import folder, opened, prompts, rows, run


def of_before(path: Path) -> None:
    """The tables as the first schema made them, and nothing else."""
    with contextlib.closing(sqlite3.connect(path / "vivarium.db", isolation_level=None)) as connection:
        schema.kernel_migrations().apply(Database(connection), stop_before="m002_plugins_at_work")
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_an_older_village_is_brought_up_to_date_and_lives(tmp_path: Path) -> None:
    path = folder(tmp_path / "v")
    of_before(path)
    with opened(path) as village:
        village.post(prompts("a"))
        run(village)
        assert rows(village, "PRAGMA user_version") == [(schema.VERSION,)]
        assert rows(village, "SELECT count(*) FROM attempts WHERE weighed IS NOT NULL") == [(1,)]
        assert rows(village, "SELECT count(*) > 0 FROM timings") == [(1,)]


def test_looking_at_an_older_village_brings_it_up_to_date_first(tmp_path: Path) -> None:
    path = folder(tmp_path / "v")
    of_before(path)
    with contextlib.closing(sqlite3.connect(path / "vivarium.db", isolation_level=None)) as connection:
        connection.execute("INSERT INTO village (id, created_at, pace_seconds, hour_seconds, since_at) "
                           "VALUES (1, 0, 2, 10, 0)")  # fmt: skip
    shown = vivarium("status", "--json", cwd=path)
    assert shown.status == 0, shown.err
    assert shown.document["breakers"] == []


def test_steps_that_were_replayed_before_that_was_noted_are_told_from_those_that_were_done(tmp_path: Path) -> None:
    path = folder(tmp_path / "v")
    with contextlib.closing(sqlite3.connect(path / "vivarium.db", isolation_level=None)) as connection:
        schema.kernel_migrations().apply(Database(connection), stop_before="m004_replayed_steps")
        connection.execute("PRAGMA foreign_keys = OFF")
        for attempt, continues in ((1, None), (2, 1), (3, 2)):
            connection.execute(
                "INSERT INTO attempts (id, task, resident, number, cycle, state, ending, continues, started_at, "
                "ended_at) VALUES (?, 'a', 'ada', ?, ?, 'ended', 'parked', ?, 1, 2)",
                (attempt, attempt, attempt, continues),
            )
        for attempt, number, tokens, began in ((1, 1, 5, 7), (2, 1, 0, 9), (2, 2, 0, 8), (3, 1, 0, 9), (3, 2, 0, 9)):
            connection.execute(
                "INSERT INTO steps (attempt, number, kind, name, effect, state, digest, result, tokens_in, "
                "started_at, ended_at) VALUES (?, ?, 'model', 'm', 'pure', 'done', 'd', '1', ?, ?, 9)",
                (attempt, number, tokens, began),
            )
    with opened(path) as village:
        assert rows(village, "SELECT attempt, number, replayed FROM steps ORDER BY 1, 2") == [
            (1, 1, 0), (2, 1, 1), (2, 2, 0), (3, 1, 1), (3, 2, 1),
        ]  # fmt: skip
