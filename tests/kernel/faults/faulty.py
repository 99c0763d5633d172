"""A connection that fails at its n-th statement, in the way that a plan names."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

Fail = Callable[[Any], None]


def full(connection: sqlite3.Connection) -> None:
    """A full disk: SQLite ends the whole transaction by itself."""
    if connection.in_transaction:
        sqlite3.Connection.execute(connection, "ROLLBACK")
    raise sqlite3.OperationalError("database or disk is full")


def unreadable(connection: sqlite3.Connection) -> None:
    """A bad sector; the transaction stays open."""
    raise sqlite3.OperationalError("disk I/O error")


def broken(connection: sqlite3.Connection) -> None:
    """A fault that has nothing to do with the database."""
    raise RuntimeError("a fault of the kernel")


def crash(connection: sqlite3.Connection) -> None:
    """The process is gone, as by kill -9 or a power cut of this process alone."""
    os._exit(9)


FAILS: dict[str, Fail] = {"full": full, "unreadable": unreadable, "broken": broken}


class Plan:
    """Meets its fault at statement ``at`` (from 1) after it was armed, and ``times`` statements long.

    Only the statements of the writer's connection count, or only those of the readers'. ``after`` lets a COMMIT happen
    first: the reply is lost, not the write.
    """

    def __init__(self, at: int, fail: Fail, *, readers: bool = False, times: int = 1, after: bool = False) -> None:
        self.at, self.fail, self.readers, self.times, self.after = at, fail, readers, times, after
        self.seen = 0
        self.connections = 0
        self.armed = False
        self.met: list[str] = []

    def meets(self, connection: Any, sql: str) -> bool:
        if not self.armed or connection.reads != self.readers:
            return False
        if self.after and sql != "COMMIT":
            return False
        if sql == "ROLLBACK" or sql.startswith("ROLLBACK TO"):
            return False  # what undoes a fault is no step of the cycle
        self.seen += 1
        if not self.at <= self.seen < self.at + self.times:
            return False
        self.met.append(" ".join(sql.split())[:80])
        return True


def faulty(plan: Plan) -> type[sqlite3.Connection]:
    """A connection class for ``With(connection=…)`` that follows the plan."""

    class Faulty(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            # The store opens its writer's connection first, and a reader's for each thread later.
            self.reads = plan.connections > 0
            plan.connections += 1

        def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:  # type: ignore[override]
            meets = plan.meets(self, sql)
            if meets and not plan.after:
                plan.fail(self)
            done = super().execute(sql, parameters)
            if meets:
                plan.fail(self)
            return done

    return Faulty
