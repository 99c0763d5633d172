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
    shown = vivarium("status", "--json", cwd=path)
    assert shown.status == 0, shown.err
    assert shown.document["breakers"] == []
