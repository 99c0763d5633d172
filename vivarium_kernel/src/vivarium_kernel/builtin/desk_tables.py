"""The room of the desk's table: what residents told people. Events carry its numbers, only people read its texts."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Migrations

migrations = Migrations("desk")


@migrations()
def m001_told(db: Any) -> None:
    db.execute(
        """CREATE TABLE desk_told (
          id INTEGER PRIMARY KEY,
          kind TEXT NOT NULL CHECK (kind IN ('report', 'flag')),
          resident TEXT NOT NULL,
          task TEXT NOT NULL,
          attempt INTEGER NOT NULL,
          text TEXT NOT NULL,
          at INTEGER NOT NULL
        ) STRICT"""
    )
