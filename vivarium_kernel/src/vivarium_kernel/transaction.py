"""The room of the open transaction and the read snapshot: what functions on the store are handed."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from vivarium_kernel import schema
from vivarium_kernel.clock import Clock
from vivarium_kernel.errors import Conflict

if TYPE_CHECKING:
    from vivarium_kernel.audit import Log
    from vivarium_kernel.ledger import Books
    from vivarium_kernel.village_time import Times

Row = tuple[Any, ...]
Setwise = Callable[["Tx", list[Any]], Sequence[Any]]

_encode = msgspec.json.Encoder().encode
_CHUNKS = (128, 64, 32, 16, 8, 4, 1)  # rows a statement: few texts, so that the statement cache holds them all
_COLUMN = re.compile(r"v\.column(\d+)")


class Participant(Protocol):
    """A buffer of a transaction's changes that is written in one go (the ledger's, the audit log's)."""

    def mark(self) -> Any: ...

    def rollback(self, mark: Any, written: bool) -> None: ...

    def flush(self) -> None: ...


class Restart(Exception):
    """A part that has already written must be undone: the transaction runs again, carefully."""


class Share:
    """What a store gives every transaction: its books and log, what plugins are handed, and who has tables."""

    def __init__(
        self,
        join: Callable[[Tx], None] = lambda tx: None,
        grant_tx: Callable[[Tx, str], Any] = lambda tx, name: tx,
        grant_view: Callable[[View, str], Any] = lambda view, name: view,
    ) -> None:
        self.join = join
        self.grant_tx = grant_tx
        self.grant_view = grant_view
        self.on_opened: list[Callable[[], None]] = []  # told, in any thread, after a commit that opened tasks
        self.openings = 0  # commits of this process that opened tasks


class Trial:
    """A part of a transaction that may fail: ``error`` says how it went."""

    __slots__ = ("_whole", "error")

    def __init__(self, whole: AbstractContextManager[None]) -> None:
        self._whole = whole
        self.error: Exception | None = None

    def __enter__(self) -> Trial:
        self._whole.__enter__()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        try:
            self._whole.__exit__(kind, error, trace)
        except (Restart, sqlite3.OperationalError):
            raise
        except Exception as its_error:
            self.error = its_error
            return True
        if isinstance(error, Exception) and not isinstance(error, (Restart, sqlite3.OperationalError)):
            self.error = error
            return True
        return False


class _Undoable:
    """A part that is undone whole when its body raises, or makes the transaction run again if it has written.

    Entering gives what its plugin is handed of the transaction, if it is one's.
    """

    __slots__ = ("_marks", "_plugin", "_tx", "_writes")

    def __init__(self, tx: Tx, plugin: str | None = None) -> None:
        self._tx = tx
        self._plugin = plugin
        self._writes = tx.writes
        self._marks = [participant.mark() for participant in tx.participants]

    def __enter__(self) -> Any:
        return None if self._plugin is None else self._tx.plugin(self._plugin)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._tx.still_open(error)
        if error is None:
            return
        if self._tx.writes != self._writes:
            raise Restart from None
        for participant, mark in zip(self._tx.participants, self._marks, strict=True):
            participant.rollback(mark, False)


class Guard:
    """Who speaks to a connection now. SQLite asks it whenever a statement is compiled."""

    def __init__(self) -> None:
        self.plugin: str | None = None
        self.writing = False
        self.own: set[tuple[str, str]] = set()  # plugins with tables that were found to be theirs
        self.unknown: str | None = None  # a table with the plugin's name in front of which that is not known yet

    def __call__(self, action: int, first: str | None, second: str | None, _db: str | None, _by: str | None) -> int:
        plugin = self.plugin
        if plugin is None or action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        own = (plugin, first) in self.own
        if not own and first is not None and first.startswith(f"{plugin}_") and first not in KERNEL_TABLES:
            self.unknown = first
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_READ:
            kernels = first in KERNEL_TABLES and first not in schema.PRIVATE_TABLES
            allowed = own or (kernels and (first, second) not in schema.PRIVATE_COLUMNS)
        else:
            writes = action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE)
            allowed = writes and own and self.writing
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def migrated(connection: sqlite3.Connection) -> list[str]:
    """The plugins that ever made tables here, on or off, by what sqlite-utils notes of their migrations."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone() is None:
        return []
    return [row[0] for row in connection.execute("SELECT DISTINCT migration_set FROM _sqlite_migrations")]


def owns(plugin: str, table: str, known: Iterable[str]) -> bool:
    """Whether a table is the plugin's: of all ``known`` whose name it begins with, the longest has it."""
    longer = (other for other in known if other.startswith(f"{plugin}_"))
    return table.startswith(f"{plugin}_") and not any(table.startswith(f"{other}_") for other in longer)


KERNEL_TABLES = frozenset({*schema.table_names(), "json_each"})


class View:
    """One read snapshot. Use it at once and let it go: a snapshot that is kept stops the log from being folded in."""

    def __init__(self, connection: sqlite3.Connection, guard: Guard, clock: Clock, grant: Callable[..., Any]) -> None:
        self.connection = connection
        self._guard = guard
        self._grant = grant
        self._granted: dict[str, Any] = {}
        self.now = clock.now()

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return self.connection.execute(sql, params).fetchall()

    def row(self, sql: str, params: Sequence[Any] = ()) -> Row | None:
        found: Row | None = self.connection.execute(sql, params).fetchone()
        return found

    def rows_as(self, plugin: str, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a plugin's query: under its name, so that no statement compiled for another serves it."""
        return _guarded(self.connection, self._guard, plugin, sql, params)

    def plugin(self, name: str) -> Any:
        """What the plugin is handed of this snapshot."""
        found = self._granted.get(name)
        if found is None:
            found = self._granted[name] = self._grant(self, name)
        return found


class Tx:
    """The open write transaction. ``now`` is the clock's; ``logged_at`` never goes back behind the last event.

    ``Share.join`` gives it its books (ledger), log (audit) and times (the village's clock and switches).
    """

    books: Books
    log: Log
    times: Times
    logged_at: int
    day: int
    hour: int

    def __init__(
        self,
        connection: sqlite3.Connection,
        guard: Guard,
        clock: Clock,
        share: Share,
        *,
        careful: bool,
    ) -> None:
        self.connection = connection
        self._guard = guard
        self._share = share
        self.careful = careful
        self.clock = clock
        self.now = clock.now()
        self.opened = False  # whether a task became open: residents who wait are told after the commit
        self.writes = 0
        self.participants: tuple[Participant, ...] = ()
        share.join(self)

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return self.connection.execute(sql, params).fetchall()

    def row(self, sql: str, params: Sequence[Any] = ()) -> Row | None:
        found: Row | None = self.connection.execute(sql, params).fetchone()
        return found

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Execute one statement; returns the number of rows it changed."""
        self.writes += 1
        return self.connection.execute(sql, params).rowcount

    def insert(self, table: str, columns: str, rows: list[Row]) -> None:
        """Insert many rows in few statements."""
        for part in _chunks(rows):
            self.run(_insertion(table, columns, len(part[0]), len(part)), _flat(part))

    def update(self, table: str, sets: str, where: str, rows: list[Row], *, all_of: bool = False) -> None:
        """Update many rows in few statements: ``sets`` and ``where`` name a row's values v.column1, v.column2 …

        ``all_of`` fails the transaction unless each of ``rows`` finds one to change.
        """
        for part in _chunks(rows):
            statement = _change(table, sets, where, len(part[0]), len(part))
            changed = self.run(statement, _flat(part))
            if all_of and changed != len(part):
                raise Conflict("store.changed", f"{changed} rows were changed, not {len(part)}: {statement[:60]}")

    def rows_as(self, plugin: str, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a plugin's query. What the participants hold (money, events) is not written yet."""
        return _guarded(self.connection, self._guard, plugin, sql, params)

    def run_as(self, plugin: str, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a plugin's statement, which may write its own tables; returns its rows."""
        self.writes += 1
        return _guarded(self.connection, self._guard, plugin, sql, params, writing=True)

    def flush(self) -> None:
        """Write what the participants hold."""
        for participant in self.participants:
            participant.flush()

    def plugin(self, name: str) -> Any:
        """What the plugin is handed of this transaction."""
        return self._share.grant_tx(self, name)

    @property
    def openings(self) -> int:
        """The commits of this process so far that opened tasks, with this one if it does."""
        return self._share.openings + self.opened

    def part(self, plugin: str) -> contextlib.AbstractContextManager[Any]:
        """A plugin's part of the transaction: left out whole if the body raises.

        Money that was moved and events that were emitted are only held by the participants: undoing that costs no
        statement. Undoing anything that was written makes the transaction run again, carefully.
        """
        return self.savepoint(plugin) if self.careful else _Undoable(self, plugin)

    def trying(self) -> Trial:
        """A part that may fail without failing the rest: its error is kept and what it did is undone."""
        return Trial(self.savepoint() if self.careful else _Undoable(self))

    def still_open(self, error: BaseException | None) -> None:
        """A full disk makes SQLite end the whole transaction: what a part ran then is no part of anything.

        Each further statement would be a transaction of its own, so the part's error, or its silence, is not enough.
        """
        if not self.connection.in_transaction:
            why = str(error) if isinstance(error, sqlite3.Error) else "the database ended the transaction"
            raise sqlite3.OperationalError(why) from error

    @contextlib.contextmanager
    def savepoint(self, plugin: str | None = None) -> Iterator[Any]:
        """Undo everything of the body if it raises. Entering gives what the plugin is handed, if it is one's."""
        self.flush()
        marks = [p.mark() for p in self.participants]
        self.connection.execute("SAVEPOINT part")
        try:
            yield None if plugin is None else self.plugin(plugin)
            self.still_open(None)
            self.flush()
        except BaseException as error:
            self.still_open(error)
            self.connection.execute("ROLLBACK TO part")
            self.connection.execute("RELEASE part")
            for participant, mark in zip(self.participants, marks, strict=True):
                participant.rollback(mark, True)
            raise
        self.connection.execute("RELEASE part")


def _chunks(rows: list[Row]) -> Iterator[list[Row]]:
    if len(rows) == 1:
        yield rows
        return
    at, left = 0, len(rows)
    for size in _CHUNKS:
        while left >= size:
            yield rows[at : at + size]
            at += size
            left -= size


def _flat(part: list[Row]) -> Sequence[Any]:
    return part[0] if len(part) == 1 else list(chain.from_iterable(part))


# A statement's text is made once: a cache that is asked for the same text again needs neither hash nor compare it.


@cache
def _insertion(table: str, columns: str, width: int, count: int) -> str:
    return f"INSERT INTO {table} ({columns}) VALUES {_values(width, count)}"


@cache
def _change(table: str, sets: str, where: str, width: int, count: int) -> str:
    if count == 1:  # a list of values to join with would cost more than the change
        return _COLUMN.sub(r"?\1", f"UPDATE {table} SET {sets} WHERE {where}")
    return f"UPDATE {table} SET {sets} FROM (VALUES {_values(width, count)}) AS v WHERE {where}"


def _values(width: int, count: int) -> str:
    return ",".join([f"({','.join('?' * width)})"] * count)


def json_list(values: Sequence[Any]) -> str:
    """Values as the one parameter of ``IN (SELECT value FROM json_each(?))``: one text of statement for any number."""
    return _encode(values).decode()


def _guarded(
    connection: sqlite3.Connection, guard: Guard, plugin: str, sql: str, params: Sequence[Any], *, writing: bool = False
) -> list[Row]:
    # The comment keeps a statement that was compiled for somebody else from being used again for a plugin.
    text = f"/* {plugin} {'writes' if writing else 'reads'} */ {sql}"
    while True:
        guard.plugin, guard.writing, guard.unknown = plugin, writing, None
        try:
            return connection.execute(text, params).fetchall()
        except sqlite3.DatabaseError:
            guard.plugin, table = None, guard.unknown
            if table is None or not owns(plugin, table, migrated(connection)):
                raise
            guard.own.add((plugin, table))  # and again: it was refused before it did anything
        finally:
            guard.plugin = None


def setwise(rank: int) -> Callable[[Setwise], Setwise]:
    """Mark a function as setwise. In one commit a lower ``rank`` runs first: records, then endings, then claims."""

    def marked(fn: Setwise) -> Setwise:
        fn.rank = rank  # type: ignore[attr-defined]
        return fn

    return marked
