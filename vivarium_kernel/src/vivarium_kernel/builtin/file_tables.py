"""The room of the table of written files: who wrote a file last, and how large it was, for the sum of each resident."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Migrations

migrations = Migrations("files")


@migrations()
def m001_written(db: Any) -> None:
    db.execute(
        """CREATE TABLE files_written (
          path TEXT PRIMARY KEY,
          resident TEXT NOT NULL,
          bytes INTEGER NOT NULL CHECK (bytes >= 0)
        ) STRICT, WITHOUT ROWID"""
    )
    db.execute("CREATE INDEX files_written_by ON files_written (resident, bytes)")
