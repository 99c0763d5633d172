"""The room of the database: read snapshots, and the one writer that groups what waits into a single synced commit.

A request to the writer is a *setwise* function ``fn(tx, items) -> results``: requests for the same function that wait
at the same time run as one call, so that one statement serves many of them. A result that is an exception is raised
for its caller alone. A function that raises has its whole transaction rolled back and every request in it run again
alone, in a savepoint of its own; so a request may run twice and must touch nothing but its ``tx``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vivarium_kernel import schema
from vivarium_kernel.clock import Clock
from vivarium_kernel.errors import StoreCorrupt, StoreError, StoreFull

if TYPE_CHECKING:
    from vivarium_kernel.audit import Log
    from vivarium_kernel.ledger import Books
    from vivarium_kernel.village_time import Times

Row = tuple[Any, ...]
Setwise = Callable[["Tx", list[Any]], Sequence[Any]]

_CHUNKS = (128, 16, 1)  # rows a statement: three texts, so that SQLite's statement cache always holds them


class Participant(Protocol):
    """A buffer of a transaction's changes that is written in one go (the ledger's, the audit log's)."""

    def mark(self) -> Any: ...

    def rollback(self, mark: Any, written: bool) -> None: ...

    def flush(self) -> None: ...


class _Restart(Exception):
    """A part that has already written must be undone: the transaction runs again, carefully."""


class Trial:
    """How a part went."""

    error: Exception | None = None


class Guard:
    """Who speaks to a connection now. SQLite asks it whenever a statement is compiled."""

    def __init__(self) -> None:
        self.plugin: str | None = None

    def __call__(self, action: int, first: str | None, second: str | None, _db: str | None, _by: str | None) -> int:
        plugin = self.plugin
        if plugin is None:
            return sqlite3.SQLITE_OK
        own = first is not None and first.startswith(f"{plugin}_")
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            kernels = first in KERNEL_TABLES and first not in schema.PRIVATE_TABLES
            if own or (kernels and (first, second) not in schema.PRIVATE_COLUMNS):
                return sqlite3.SQLITE_OK
            return sqlite3.SQLITE_DENY
        if action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE) and own:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY


KERNEL_TABLES = frozenset(
    ["village", "residents", "tasks", "dependencies", "processes", "attempts", "steps", "accounts", "transfers", "holds", "budgets", "events", "tokens", "missed", "plugins", "replies", "json_each"]
)


class View:
    """One read snapshot. Use it at once and let it go: a snapshot that is kept stops the log from being folded in."""

    def __init__(self, connection: sqlite3.Connection, guard: Guard, clock: Clock, grant: Callable[..., Any]) -> None:
        self._connection = connection
        self._guard = guard
        self._grant = grant
        self._granted: dict[str, Any] = {}
        self.now = clock.now()

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(sql, params).fetchall()

    def row(self, sql: str, params: Sequence[Any] = ()) -> Row | None:
        found: Row | None = self._connection.execute(sql, params).fetchone()
        return found

    def rows_as(self, plugin: str, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a plugin's query: under its name, so that no statement compiled for another serves it."""
        return _guarded(self._connection, self._guard, plugin, sql, params)

    def plugin(self, name: str) -> Any:
        """What the plugin is handed of this snapshot."""
        found = self._granted.get(name)
        if found is None:
            found = self._granted[name] = self._grant(self, name)
        return found


class Tx:
    """The open write transaction. ``now`` never goes back behind the last event.

    ``store.join`` gives it its books (ledger), log (audit) and times (the village's clock and switches).
    """

    books: Books
    log: Log
    times: Times
    day: int
    hour: int

    def __init__(self, store: Store, connection: sqlite3.Connection, careful: bool) -> None:
        self._connection = connection
        self._guard = store.write_guard
        self._grant = store.grant_tx
        self._tabled = store.plugins_with_tables
        self.careful = careful
        self.clock = store.clock
        self.after_commit: list[Callable[[], None]] = []
        self.now = store.clock.now()
        self._writes = 0
        self.participants: tuple[Participant, ...] = ()
        store.join(self)

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(sql, params).fetchall()

    def row(self, sql: str, params: Sequence[Any] = ()) -> Row | None:
        found: Row | None = self._connection.execute(sql, params).fetchone()
        return found

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Execute one statement; returns the number of rows it changed."""
        self._writes += 1
        return self._connection.execute(sql, params).rowcount

    def insert(self, table: str, columns: str, rows: list[Row]) -> None:
        """Insert many rows in few statements."""
        if not rows:
            return
        self._writes += 1
        one = f"({','.join('?' * len(rows[0]))})"
        for statement, part in _chunks(f"INSERT INTO {table} ({columns}) VALUES ", one, "", rows):
            self._connection.execute(statement, part)

    def update(self, table: str, sets: str, where: str, rows: list[Row]) -> int:
        """Update many rows in few statements: ``sets`` and ``where`` name a row's values v.column1, v.column2 …"""
        if not rows:
            return 0
        self._writes += 1
        one = f"({','.join('?' * len(rows[0]))})"
        head, tail = f"UPDATE {table} SET {sets} FROM (VALUES ", f") AS v WHERE {where}"
        return sum(
            self._connection.execute(statement, part).rowcount for statement, part in _chunks(head, one, tail, rows)
        )

    def rows_as(self, plugin: str, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a plugin's statement, after everything that came before it has been written."""
        self.flush()
        self._writes += 1
        return _guarded(self._connection, self._guard, plugin, sql, params)

    def flush(self) -> None:
        """Write what the participants hold."""
        for participant in self.participants:
            participant.flush()

    def plugin(self, name: str) -> Any:
        """What the plugin is handed of this transaction."""
        return self._grant(self, name)

    @contextlib.contextmanager
    def part(self, plugin: str) -> Iterator[Any]:
        """A plugin's part of the transaction: left out whole if the body raises.

        A plugin that only moves money and emits events changes what the participants hold: undoing that costs no
        statement. Undoing anything that was written makes the transaction run again, carefully.
        """
        with self.savepoint() if self.careful or plugin in self._tabled else self._undoable():
            yield self.plugin(plugin)

    @contextlib.contextmanager
    def trying(self) -> Iterator[Trial]:
        """A part that may fail without failing the rest: its error is kept and what it did is undone."""
        trial = Trial()
        try:
            with self.savepoint() if self.careful else self._undoable():
                yield trial
        except (_Restart, sqlite3.OperationalError):
            raise
        except Exception as error:
            trial.error = error

    @contextlib.contextmanager
    def _undoable(self) -> Iterator[None]:
        writes = self._writes
        marks = [p.mark() for p in self.participants]
        try:
            yield
        except BaseException:
            if self._writes != writes:
                raise _Restart from None
            for participant, mark in zip(self.participants, marks, strict=True):
                participant.rollback(mark, False)
            raise

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo everything of the body if it raises."""
        self.flush()
        marks = [p.mark() for p in self.participants]
        waiting = len(self.after_commit)
        self._connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK TO part")
            self._connection.execute("RELEASE part")
            del self.after_commit[waiting:]
            for participant, mark in zip(self.participants, marks, strict=True):
                participant.rollback(mark, True)
            raise
        self.flush()
        self._connection.execute("RELEASE part")


def _chunks(head: str, one: str, tail: str, rows: list[Row]) -> Iterator[tuple[str, list[Any]]]:
    at = 0
    for size in _CHUNKS:
        while len(rows) - at >= size:
            text = f"{head}{','.join([one] * size)}{tail}"
            yield text, list(chain.from_iterable(rows[at : at + size]))
            at += size


def _guarded(connection: sqlite3.Connection, guard: Guard, plugin: str, sql: str, params: Sequence[Any]) -> list[Row]:
    guard.plugin = plugin
    try:
        # The comment keeps a statement that was compiled for the kernel from being used again for a plugin.
        return connection.execute(f"/* {plugin} */ {sql}", params).fetchall()
    finally:
        guard.plugin = None


def setwise(rank: int) -> Callable[[Setwise], Setwise]:
    """Mark a function as setwise. In one commit a lower ``rank`` runs first: records, then endings, then claims."""

    def marked(fn: Setwise) -> Setwise:
        fn.rank = rank  # type: ignore[attr-defined]
        return fn

    return marked


class _Request:
    __slots__ = ("answer", "fn", "item", "loop", "result")

    def __init__(self, fn: Callable[..., Any], item: Any, loop: asyncio.AbstractEventLoop | None, answer: Any) -> None:
        self.fn, self.item, self.loop, self.answer = fn, item, loop, answer
        self.result: Any = None


_SINGLE_RANK = 50


class Store:
    """One village's database. ``threaded`` starts the writer thread; without it, requests run where they are made."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        threaded: bool = False,
        join: Callable[[Tx], None] = lambda tx: None,
        grant_tx: Callable[[Tx, str], Any] = lambda tx, name: tx,
        grant_view: Callable[[View, str], Any] = lambda view, name: view,
        connection: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self.folder = folder
        self.path = folder / "vivarium.db"
        self.clock = clock
        self.join = join
        self.grant_tx = grant_tx
        self.grant_view = grant_view
        self.write_guard = Guard()
        self.plugins_with_tables: set[str] = set()
        self.commits = 0
        self.statements = 0
        self.busy_since: float | None = None
        self._connection_type = connection
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._turn = threading.RLock()
        self._outbox: list[_Request] = []
        self._queue: queue.SimpleQueue[list[_Request] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lock_fd = self._open_lock()
        try:
            self._writer = self._connect(self.write_guard)
            self._migrate()
            self._writer.set_authorizer(self.write_guard)
        except BaseException:
            os.close(self._lock_fd)
            raise
        if threaded:
            self._thread = threading.Thread(target=self._serve, name="vivarium-writer", daemon=True)
            self._thread.start()

    # Reading

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """A read snapshot on this thread's connection."""
        local = self._local
        connection = getattr(local, "connection", None)
        if connection is None:
            local.guard = Guard()
            connection = local.connection = self._connect(local.guard)
            connection.execute("PRAGMA query_only = ON")
            connection.set_authorizer(local.guard)
            local.depth = 0
            self._readers.append(connection)
        outermost = local.depth == 0
        local.depth += 1
        try:
            if outermost:
                connection.execute("BEGIN")
            yield View(connection, local.guard, self.clock, self.grant_view)
        except sqlite3.DatabaseError as error:
            raise _told(error, self.path) from error
        finally:
            local.depth -= 1
            if outermost and connection.in_transaction:
                connection.execute("ROLLBACK")

    # Writing

    def write(self, fn: Callable[[Tx, Any], Any], item: Any) -> Awaitable[Any]:
        """Queue a request; what is awaited comes after the commit that holds it has been synced."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self._outbox:
            loop.call_soon(self._send)
        self._outbox.append(_Request(fn, item, loop, answer))
        return answer

    def call(self, fn: Callable[[Tx, Any], Any], item: Any) -> Any:
        """The same for code that has no event loop: waits, and returns the result."""
        request = _Request(fn, item, None, Future())
        if self._thread is None:
            self._commit([request])
        else:
            self._queue.put([request])
        return request.answer.result()

    def _send(self) -> None:
        requests, self._outbox = self._outbox, []
        if self._thread is None:
            self._commit(requests)
        else:
            self._queue.put(requests)

    def _serve(self) -> None:
        while True:
            requests = self._queue.get()
            if requests is None:
                return
            requests = list(requests)
            with contextlib.suppress(queue.Empty):
                while len(requests) < 4096:
                    more = self._queue.get_nowait()
                    if more is None:
                        self._queue.put(None)
                        break
                    requests += more
            self._commit(requests)

    def _commit(self, requests: list[_Request]) -> None:
        with self._turn:
            self.busy_since = self.clock.monotonic()
            try:
                if self._closed:
                    raise StoreError("store.closed", "The village is closed.")
                self._attempt(requests)
            except BaseException as error:
                for request in requests:
                    request.result = error
            finally:
                self.busy_since = None
        _answer(requests, here=self._thread is None)

    def _attempt(self, requests: list[_Request]) -> None:
        try:
            self._transaction(requests, careful=False)
        except _AsOne:
            try:
                self._transaction(requests, careful=True)
            except sqlite3.Error as error:
                # The database ended the whole transaction: each request gets one of its own.
                if len(requests) == 1:
                    raise _told(error, self.path) from error
                for request in requests:
                    try:
                        self._transaction([request], careful=True)
                    except sqlite3.Error as its_error:
                        request.result = _told(its_error, self.path)

    def _transaction(self, requests: list[_Request], *, careful: bool) -> None:
        connection = self._writer
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                tx = Tx(self, connection, careful)
                if careful:
                    for request in _in_order(requests):
                        self._run_alone(tx, request)
                else:
                    self._run_grouped(tx, requests)
                tx.flush()
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except Exception as error:
            if careful:
                raise
            raise _AsOne from error
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
        self.commits += 1
        for then in tx.after_commit:
            then()

    def _run_grouped(self, tx: Tx, requests: list[_Request]) -> None:
        groups: dict[Any, list[_Request]] = {}
        singles = []
        for request in requests:
            if hasattr(request.fn, "rank"):
                groups.setdefault(request.fn, []).append(request)
            else:
                singles.append(request)
        before = [g for g in sorted(groups, key=_rank) if _rank(g) < _SINGLE_RANK]
        after = [g for g in sorted(groups, key=_rank) if _rank(g) >= _SINGLE_RANK]
        for fn in before:
            _run_group(tx, fn, groups[fn])
        for request in singles:
            self._run_alone(tx, request)
        for fn in after:
            _run_group(tx, fn, groups[fn])

    def _run_alone(self, tx: Tx, request: _Request) -> None:
        try:
            with tx.savepoint():
                if hasattr(request.fn, "rank"):
                    (request.result,) = request.fn(tx, [request.item])
                else:
                    request.result = request.fn(tx, request.item)
                if isinstance(request.result, BaseException):
                    raise request.result
        except (sqlite3.OperationalError, _Restart):
            raise
        except Exception as error:
            if not tx._connection.in_transaction:
                raise
            request.result = error

    # Opening and closing

    def _open_lock(self) -> int:
        try:
            return os.open(self.folder / "vivarium.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                "store.folder",
                f"The village's folder can't be written: {self.folder}: {error.strerror}.",
                "Choose a folder that you own, or mend its permissions (chmod u+rwx).",
            ) from error

    def _connect(self, guard: Guard) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.path,
                timeout=10.0,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=512,
                factory=self._connection_type,
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
            connection.execute("PRAGMA journal_size_limit = 67108864")
        except sqlite3.Error as error:
            raise _told(error, self.path) from error
        return connection

    def _migrate(self) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.VERSION:
            raise StoreError(
                "store.newer",
                f"{self.path} was written by a newer Vivarium (schema {version}; this one knows {schema.VERSION}).",
                "Upgrade: pip install --upgrade vivarium-kernel.",
            )
        if version < schema.VERSION:
            from sqlite_utils import Database  # noqa: PLC0415 - costs 0.1 s, and only a new database needs it

            with self.exclusive():
                try:
                    schema.kernel_migrations().apply(Database(self._writer))
                except sqlite3.Error as error:
                    raise _told(error, self.path) from error
            os.chmod(self.path, 0o600)  # noqa: PTH101 - whoever reads the file reads everything

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[sqlite3.Connection]:
        """The write connection for migrations: nobody else writes meanwhile."""
        with self._turn:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            self._writer.set_authorizer(None)
            try:
                yield self._writer
            finally:
                self._writer.set_authorizer(self.write_guard)
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Finish what is queued, stop the writer, close the connections. May be called twice."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        with self._turn:
            if self._closed:
                return
            self._closed = True
            for connection in self._readers:
                connection.close()
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("PRAGMA optimize")
            self._writer.close()
            os.close(self._lock_fd)


class _AsOne(Exception):
    """The grouped run failed: run the requests one by one."""


def _rank(fn: Any) -> int:
    return int(getattr(fn, "rank", _SINGLE_RANK))


def _in_order(requests: list[_Request]) -> list[_Request]:
    return sorted(requests, key=lambda request: _rank(request.fn))


def _run_group(tx: Tx, fn: Setwise, group: list[_Request]) -> None:
    results = fn(tx, [request.item for request in group])
    for request, result in zip(group, results, strict=True):
        request.result = result


def _answer(requests: list[_Request], *, here: bool) -> None:
    """Hand out results: one wake-up of each event loop for the whole commit."""
    loops: dict[asyncio.AbstractEventLoop, list[_Request]] = {}
    for request in requests:
        if request.loop is not None:
            loops.setdefault(request.loop, []).append(request)
        elif isinstance(request.result, BaseException):
            request.answer.set_exception(request.result)
        else:
            request.answer.set_result(request.result)
    for loop, its in loops.items():
        if here:
            _deliver(its)
            continue
        # A loop that has been closed meanwhile has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_deliver, its)


def _deliver(requests: list[_Request]) -> None:
    for request in requests:
        if request.answer.done():
            continue
        if isinstance(request.result, BaseException):
            request.answer.set_exception(request.result)
        else:
            request.answer.set_result(request.result)


def _told(error: sqlite3.Error, path: Path) -> Exception:
    """SQLite's error in the words of the person who runs the village."""
    text = str(error)
    if "full" in text:
        return StoreFull("store.full", f"The disk that holds {path} is full.", "Free some space and try again.")
    if "malformed" in text or "not a database" in text or "disk I/O" in text:
        return StoreCorrupt(
            "store.corrupt",
            f"{path} is damaged: {text}.",
            "Run `vivarium doctor`; restore the newest backup (`vivarium backup` makes them).",
        )
    if "readonly" in text or "unable to open" in text:
        return StoreError(
            "store.readonly", f"{path} can't be written: {text}.", "Mend the permissions of the village's folder."
        )
    if "locked" in text or "busy" in text:
        return StoreError(
            "store.locked",
            f"{path} is locked by another program for more than 10 s.",
            "Close the program that holds it (a database browser with an open transaction?) and try again.",
        )
    return error
