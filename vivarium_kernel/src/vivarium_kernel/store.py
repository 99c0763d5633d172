"""The room of the database: opening it, read snapshots, and the way to the one writer."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from vivarium_kernel import schema
from vivarium_kernel.clock import Clock
from vivarium_kernel.committing import LOCKED_SECONDS, check_room, told
from vivarium_kernel.errors import READ_ONLY_STEP, StoreError
from vivarium_kernel.transaction import Guard, Row, Share, Trial, Tx, View, json_list, setwise
from vivarium_kernel.writer import Writer

__all__ = ["Guard", "Row", "Share", "Store", "Trial", "Tx", "View", "json_list", "setwise"]


class Store:
    """One village's database. ``threaded`` commits in a thread, for an event loop; else a request is done at once.

    ``connection`` is the class of its SQLite connections, for tests that plant faults.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        threaded: bool = False,
        share: Share | None = None,
        connection: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self.folder = folder
        self.path = folder / "vivarium.db"
        self.clock = clock
        self.share = share or Share()
        self._connection_type = connection
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._lock_fd = self._open_lock()
        try:
            writes_to = self._connect()
            self._writer = Writer(writes_to, self._lock_fd, self.path, clock, self.share, threaded=threaded)
            self._migrate(writes_to)
        except BaseException:
            os.close(self._lock_fd)
            raise
        self.write = self._writer.write
        self.call = self._writer.call
        self.exclusive = self._writer.exclusive

    write: Callable[..., Awaitable[Any]]
    call: Callable[[Callable[[Tx, Any], Any], Any], Any]
    exclusive: Callable[[], contextlib.AbstractContextManager[sqlite3.Connection]]

    @property
    def commits(self) -> int:
        """Commits of this process since it opened the store."""
        return self._writer.committer.commits

    @property
    def crowded(self) -> bool:
        """Whether an ending and a claim would not fit into the next commit."""
        return self._writer.crowded

    @property
    def busy_since(self) -> float | None:
        """Since when, by the monotonic clock, a transaction's functions run; None when none does."""
        return self._writer.committer.busy_since

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """A read snapshot on this thread's connection."""
        local = self._local
        connection = getattr(local, "connection", None)
        if connection is None:
            connection = self._connect()
            self._readers.append(connection)
            connection.execute("PRAGMA query_only = ON")
            local.guard = Guard()
            connection.set_authorizer(local.guard)
            local.depth = 0
            local.connection = connection  # last: one that is half made must not serve the next view
        outermost = local.depth == 0
        local.depth += 1
        try:
            if outermost:
                connection.execute("BEGIN")
            yield View(connection, local.guard, self.clock, self.share.grant_view)
        except sqlite3.DatabaseError as error:
            raise told(error, self.path) from error
        finally:
            local.depth -= 1
            if outermost and connection.in_transaction:
                connection.execute("ROLLBACK")

    def _open_lock(self) -> int:
        try:
            return os.open(self.folder / "vivarium.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                "store.folder",
                f"The village's folder can't be written: {self.folder}: {error.strerror}.",
                READ_ONLY_STEP
                if error.errno == errno.EROFS
                else "Choose a folder that you own, or mend its permissions (chmod u+rwx).",
            ) from error

    def _connect(self) -> sqlite3.Connection:
        check_room(self.path)
        try:
            connection = sqlite3.connect(
                self.path,
                timeout=LOCKED_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=512,
                factory=self._connection_type,
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA cache_size = -32768")  # kB: pages that a busy village touches again
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
            connection.execute("PRAGMA journal_size_limit = 67108864")
        except sqlite3.Error as error:
            raise told(error, self.path) from error
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.VERSION:
            raise StoreError(
                "store.newer",
                f"{self.path} was written by a newer Vivarium (schema {version}; this one knows {schema.VERSION}).",
                "Upgrade: pip install --upgrade vivarium-kernel.",
            )
        if version < schema.VERSION:
            from sqlite_utils import Database  # costs 0.1 s, and only a new database needs it

            with self._writer.exclusive() as writes_to:
                schema.kernel_migrations().apply(Database(writes_to))
            self.path.chmod(0o600)  # whoever reads the file reads everything

    def close(self) -> None:
        """Finish the commit that is under way and close the connections. May be called twice."""
        if not self._writer.close():
            return
        for connection in self._readers:
            connection.close()
        self._writer.end()
        os.close(self._lock_fd)
