"""The room of the journals' tables.

``private_text`` is for its author alone, ``excerpt`` for voters until the time to dispute ends. A ballot is nobody's to
see: only the plugin itself reads the tables, and it tells results.
"""

from __future__ import annotations

from typing import Any

from sqlite_utils import Migrations

migrations = Migrations("journals")


@migrations()
def m001_journals(db: Any) -> None:
    db.execute(
        """CREATE TABLE journals_entries (
          id INTEGER PRIMARY KEY,
          author TEXT NOT NULL,
          type TEXT NOT NULL,
          private_text TEXT NOT NULL,
          excerpt TEXT,
          words INTEGER NOT NULL,
          journal_hold INTEGER,
          journal_micros INTEGER NOT NULL,
          free_hold INTEGER,
          free_micros INTEGER NOT NULL,
          state TEXT NOT NULL DEFAULT 'open'
            CHECK (state IN ('open', 'accepted', 'rejected', 'gaming', 'returned')),
          votes_until_hour INTEGER NOT NULL,
          refund_micros INTEGER NOT NULL DEFAULT 0,
          bonus_micros INTEGER NOT NULL DEFAULT 0,
          bonus_due_day INTEGER,
          excerpt_until_hour INTEGER,
          penalty_until_hour INTEGER,
          CHECK ((state = 'open') = (excerpt_until_hour IS NULL)),
          CHECK (refund_micros <= journal_micros + free_micros)
        ) STRICT"""
    )
    db.execute("CREATE INDEX journals_open ON journals_entries (votes_until_hour) WHERE state = 'open'")
    db.execute("CREATE INDEX journals_bonus ON journals_entries (bonus_due_day) WHERE bonus_due_day IS NOT NULL")
    db.execute(
        "CREATE INDEX journals_excerpts ON journals_entries (excerpt_until_hour) "
        "WHERE excerpt IS NOT NULL AND excerpt_until_hour IS NOT NULL"
    )
    db.execute("CREATE INDEX journals_authors ON journals_entries (author)")
    db.execute(
        """CREATE TABLE journals_ballots (
          journal INTEGER NOT NULL REFERENCES journals_entries (id),
          voter TEXT NOT NULL,
          choice TEXT NOT NULL CHECK (choice IN ('reject', 'accept', 'exceptional', 'gaming')),
          reason TEXT NOT NULL,
          PRIMARY KEY (journal, voter)
        ) STRICT, WITHOUT ROWID"""
    )
