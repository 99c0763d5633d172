"""The room of the notes' table. ``private_text`` is for its resident alone."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Migrations

migrations = Migrations("notes")


@migrations()
def m001_kept(db: Any) -> None:
    # Numbers are never used again: a note that is gone must not come back as another.
    db.execute(
        """CREATE TABLE notes_kept (
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          resident TEXT NOT NULL,
          private_text TEXT NOT NULL
        ) STRICT"""
    )
    db.execute("CREATE INDEX notes_residents ON notes_kept (resident)")
