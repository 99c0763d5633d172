"""The room of the commit: the requests that share one run in one transaction or, if it fails, each alone.

A request is a function of a transaction, mostly *setwise*: requests for the same function that wait at the same time
run as one call, so that one statement serves many. A result that is an exception is raised for its caller alone. If a
function raises, the whole transaction is rolled back and every request in it runs again alone, in a savepoint of its
own; so a request may run twice and must touch nothing but its ``tx``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vivarium_kernel.clock import Clock
from vivarium_kernel.errors import READ_ONLY_STEP, StoreCorrupt, StoreError, StoreFull, is_read_only
from vivarium_kernel.transaction import Guard, Restart, Setwise, Share, Tx

SINGLE_RANK = 50
GONE = "store.gone"  # the rule of the one error of a disk or a file that passes by itself never
ROOM_BYTES = 256 * 1024  # without so much no database is opened
LOCKED_SECONDS = 3.0  # how long another program's lock is waited for: less than the watchdog bears


class Request:
    """A function that waits to be run in a transaction, and who waits for its answer."""

    __slots__ = ("answer", "fn", "item", "result")

    def __init__(self, fn: Callable[..., Any], item: Any, answer: Any) -> None:
        self.fn, self.item, self.answer = fn, item, answer
        self.result: Any = None


class Committer:
    """The write connection, used by whoever has the turn; who that is and where it runs, it does not ask."""

    def __init__(self, connection: sqlite3.Connection, path: Path, clock: Clock, share: Share) -> None:
        self.guard = Guard()
        self.commits = 0
        self.busy_since: float | None = None  # while hooks and statements run, for the watchdog
        self._opens = False  # whether the open transaction opens any
        self.working: int | None = None  # the thread that has a transaction open
        self.sync_seconds = 0.0  # how long a commit takes, of late
        self._connection = connection
        self._path = path
        self._file: tuple[int, int] | None = None  # which file the database is, once it is there
        self._clock = clock
        self._share = share
        connection.set_authorizer(self.guard)

    def prepare(self, requests: list[Request]) -> bool:
        """Begin, run all requests grouped, and write everything. False if they had to be ended some other way."""
        self.working = threading.get_ident()
        self.busy_since = self._clock.monotonic()
        try:
            self._open()
            tx = Tx(self._connection, self.guard, self._clock, self._share, careful=False)
            _run_grouped(tx, requests)
            tx.flush()
            self._opens = tx.opened
        except _Barred as error:
            fail(requests, _said(error))
        except Exception:
            self._roll_back()
            self._run_each(requests)
        except BaseException as error:
            self._roll_back()
            fail(requests, error)
        else:
            return True
        finally:
            self.working, self.busy_since = None, None
        return False

    def finish(self, requests: list[Request]) -> None:
        """Commit what was prepared; if that fails, the whole transaction is lost and each request gets its own."""
        try:
            self._commit()
        except Exception:
            self._run_each(requests)

    def _open(self) -> None:
        """Begin. Another program's lock is waited for once, not once a request: the event loop may stand meanwhile."""
        self._check_there()
        try:
            if self._connection.in_transaction:  # one that could not even be rolled back
                self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            said = told(error, self._path)
            raise (_Barred(said) if isinstance(said, StoreError) and said.rule == "store.locked" else error) from error

    def _check_there(self) -> None:
        """A file that was removed or replaced can be written for as long as it is open, and nobody would find it."""
        try:
            found = self._path.stat()
            there = (found.st_dev, found.st_ino)
        except OSError:
            there = None
        if self._file is None:
            self._file = there
        elif there != self._file:
            raise _Barred(
                StoreError(
                    GONE, f"{self._path} was removed or replaced while this process had it open; nothing was "
                    "changed.", "End this process. Where no database is there now, put the newest backup there.",
                )
            )  # fmt: skip

    def _run_each(self, requests: list[Request]) -> None:
        """Run requests again, each in a savepoint; if the transaction itself is lost, each in its own transaction."""
        try:
            self._carefully(requests)
        except sqlite3.Error as error:
            if len(requests) == 1:
                fail(requests, told(error, self._path))
                return
            for request in requests:
                try:
                    self._carefully([request])
                except sqlite3.Error as its_error:
                    request.result = told(its_error, self._path)
                except BaseException as its_error:
                    request.result = _said(its_error)
        except BaseException as error:
            fail(requests, _said(error))

    def _carefully(self, requests: list[Request]) -> None:
        self.working = threading.get_ident()
        self.busy_since = self._clock.monotonic()
        try:
            self._open()
            tx = Tx(self._connection, self.guard, self._clock, self._share, careful=True)
            for request in sorted(requests, key=lambda request: rank(request.fn)):
                _run_alone(tx, request)
            tx.flush()
            self._opens = tx.opened
            self._commit()
        except BaseException:
            self._roll_back()
            raise
        finally:
            self.working, self.busy_since = None, None

    def _commit(self) -> None:
        began = self._clock.monotonic()
        try:
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self.commits += 1
        self._share.openings += self._opens
        self.sync_seconds += (self._clock.monotonic() - began - self.sync_seconds) / 8

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the error that led here tells more; the next begin tries again
                self._connection.execute("ROLLBACK")


class _Barred(Exception):
    """Another program holds the database, or it is gone: nothing of this commit can be done now."""


def _said(error: BaseException) -> BaseException:
    return error.args[0] if isinstance(error, _Barred) else error


def rank(fn: Any) -> int:
    """A request's place in its commit."""
    return int(getattr(fn, "rank", SINGLE_RANK))


def fail(requests: list[Request], error: BaseException) -> None:
    for request in requests:
        request.result = error


def _run_grouped(tx: Tx, requests: list[Request]) -> None:
    groups: dict[Any, list[Request]] = {}
    for place, request in enumerate(requests):
        # Functions that are not setwise stand alone, in the order in which they came.
        groups.setdefault(request.fn if hasattr(request.fn, "rank") else place, []).append(request)
    for group in sorted(groups.values(), key=lambda group: rank(group[0].fn)):
        if hasattr(group[0].fn, "rank"):
            _run_group(tx, group[0].fn, group)
        else:
            _run_alone(tx, group[0])


def _run_group(tx: Tx, fn: Setwise, group: list[Request]) -> None:
    results = fn(tx, [request.item for request in group])
    for request, result in zip(group, results, strict=True):
        request.result = result


def _run_alone(tx: Tx, request: Request) -> None:
    try:
        with tx.savepoint():
            if hasattr(request.fn, "rank"):
                (request.result,) = request.fn(tx, [request.item])
            else:
                request.result = request.fn(tx, request.item)
            if isinstance(request.result, BaseException):
                raise request.result
    except (sqlite3.OperationalError, Restart):
        raise
    except Exception as error:
        # A key that was used before breaks a grouped run's INSERT: only the careful run looks keys up.
        if not tx.connection.in_transaction or (isinstance(error, sqlite3.Error) and not tx.careful):
            raise
        request.result = error


def check_room(path: Path) -> None:
    """Raise StoreFull before a database is opened on a full disk: SQLite maps a file that it then can't fill."""
    if _room(path) < ROOM_BYTES:
        raise StoreFull("store.full", f"The disk that holds {path} is full.", "Free some space and try again.")


def _room(path: Path) -> int:
    """The free bytes of a file's disk, and as many as are needed where that can't be told."""
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return ROOM_BYTES
    return found.f_bavail * found.f_frsize if found.f_blocks else ROOM_BYTES  # a network's disk may not say


def told(error: sqlite3.Error, path: Path) -> Exception:
    """SQLite's error in the words of the person who runs the village."""
    text = str(error)
    if "full" in text or ("disk I/O" in text and _room(path) < ROOM_BYTES):
        return StoreFull("store.full", f"The disk that holds {path} is full.", "Free some space and try again.")
    if "disk I/O" in text:
        return StoreError(
            "store.disk", f"The disk that holds {path} can't be read or written: {text}.",
            "Look at the disk; when it is well again, `vivarium doctor` looks whether the database is.",
        )  # fmt: skip
    if "malformed" in text or "not a database" in text:
        return StoreCorrupt(
            "store.corrupt",
            f"{path} is damaged: {text}.",
            "Run `vivarium doctor`; restore the newest backup (`vivarium backup` makes them).",
        )
    if "readonly" in text or "unable to open" in text:
        return StoreError(
            "store.readonly", f"{path} can't be written: {text}.",
            READ_ONLY_STEP if is_read_only(path.parent) else "Mend the permissions of the village's folder.",
        )  # fmt: skip
    if "locked" in text or "busy" in text:
        return StoreError(
            "store.locked",
            f"{path} is locked by another program for more than {LOCKED_SECONDS:g} s.",
            "Close the program that holds it (a database browser with an open transaction?) and try again.",
        )
    return error
