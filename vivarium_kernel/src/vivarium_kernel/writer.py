"""The room of the writer: requests that wait share one synced commit, and writers take turns.

Functions run where the event loop runs, for two threads that fight for the interpreter are slower than one. Waiting for
another process's turn is left to a thread, and so is the commit while the disk is slow; on a disk that syncs within
``QUICK_SECONDS`` handing it over would take longer than the sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from vivarium_kernel.clock import Clock
from vivarium_kernel.committing import LOCKED_SECONDS, Committer, Request, fail, told
from vivarium_kernel.errors import Invalid, StoreError
from vivarium_kernel.transaction import Share, Tx

log = logging.getLogger("vivarium")
MOST_REQUESTS = 128  # in one commit, so that the loop is not held for long
PATIENCE_SECONDS = 30.0  # how long one who asks from without an event loop waits for another process's turn
QUICK_SECONDS = 0.005  # commits that take less, of late, are made on the loop itself


class Writer:
    """The one that writes to a village's database in this process; other processes take turns by ``lock_fd``.

    It serves one event loop at a time, and any number of threads that have none.

    ``threaded`` has a thread for what takes long; without it everything happens where the request is made.
    """

    def __init__(
        self, connection: sqlite3.Connection, lock_fd: int, path: Path, clock: Clock, share: Share, *, threaded: bool
    ) -> None:
        self.committer = Committer(connection, path, clock, share)
        self._connection = connection
        self._lock_fd = lock_fd
        self._path = path
        self._share = share
        self._turn = threading.Lock()  # held from a transaction's begin until it is committed
        self._outbox: list[Request] = []
        self._ready: asyncio.AbstractEventLoop | None = None  # it has the turn, and does not know yet
        self._scheduled: asyncio.AbstractEventLoop | None = None  # the loop that is to begin, or has begun, a commit
        self._told = 0  # of the share's openings, how many the listeners were told of
        self._closed = False
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._thread: threading.Thread | None = None
        if threaded:
            self._jobs = queue.SimpleQueue()
            self._thread = threading.Thread(target=_serve, args=(self._jobs,), name="vivarium-commit", daemon=True)
            self._thread.start()

    # Requests

    @property
    def crowded(self) -> bool:
        """Whether an ending and a claim would not fit into the next commit."""
        return len(self._outbox) + 2 > MOST_REQUESTS

    def write(self, fn: Callable[[Tx, Any], Any], item: Any, *, now: bool = False) -> Awaitable[Any]:
        """Queue a request on the running event loop; its answer comes after its commit has been synced.

        With ``now`` it goes ahead of those that wait, and does not wait for others that may join: who has no task is
        to have one before those who are done with theirs are all seen to.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if now:
            self._outbox.insert(0, Request(fn, item, answer))
        else:
            self._outbox.append(Request(fn, item, answer))
        if self._scheduled is not loop:  # a loop that was closed begins nothing any more
            self._scheduled = loop
            if now and self._jobs is not None:
                self._begin(loop)
            else:
                loop.call_soon(loop.call_soon, self._begin, loop)  # who hears now that this was asked may join it
        return answer

    def call(self, fn: Callable[[Tx, Any], Any], item: Any) -> Any:
        """The same for code that has no event loop: does it now, and returns the result."""
        request = Request(fn, item, Future())
        if self._closed:
            raise _closed()
        self._take_turn()
        try:
            self._run_now([request], PATIENCE_SECONDS)
        finally:
            self._turn.release()
        self._tell_opened()
        if isinstance(request.result, BaseException):
            raise request.result
        return request.result

    # A commit that the event loop asked for: begin → (wait for the turn) → work → commit → answer

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            requests = self._taken(loop)
            fail(requests, _closed())
            self._answer(loop, requests)
        elif self._jobs is None:
            requests = self._taken(loop)
            with self._turn:
                self._run_now(requests)
            self._answer(loop, requests)
        elif self._turn.acquire(blocking=False):
            if _try_lock(self._lock_fd):
                self._work(loop)
            else:
                self._jobs.put(lambda: self._wait_for_turn(loop, have_turn=True))
        else:
            self._jobs.put(lambda: self._wait_for_turn(loop, have_turn=False))

    def _taken(self, loop: asyncio.AbstractEventLoop) -> list[Request]:
        """The requests of the next commit: those that wait once the turn is had, for that may take long."""
        mine = [request for request in self._outbox if request.answer.get_loop() is loop]
        requests = mine[:MOST_REQUESTS] if self._jobs is not None else mine
        # Of requests that a closed loop left behind nobody waits for the answer.
        others = [
            request for request in self._outbox
            if request.answer.get_loop() is not loop and not request.answer.get_loop().is_closed()
        ]  # fmt: skip
        self._outbox = mine[len(requests) :] + others
        return requests

    def _wait_for_turn(self, loop: asyncio.AbstractEventLoop, *, have_turn: bool) -> None:
        """In the thread: another process or thread writes now."""
        if not have_turn and not self._turn.acquire(timeout=0.01) and self._jobs is not None:
            # Behind this job may be the one that ends the turn.
            self._jobs.put(lambda: self._wait_for_turn(loop, have_turn=False))
            return
        self._lock()
        self._ready = loop
        try:
            loop.call_soon_threadsafe(self._work_if_ready, loop)
        except RuntimeError:  # the loop was closed: nobody waits for these any more
            self._ready = None
            self._leave()

    def _work_if_ready(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._ready is loop:
            self._ready = None
            self._work(loop)

    def _take_turn(self) -> None:
        """Wait for the turn. Who has it may wait for this very thread's loop, or for one that does not run any more.

        Raises Invalid inside a transaction: that would wait for itself.
        """
        if self.committer.working == threading.get_ident():
            raise Invalid(
                "store.nested", "A transaction is open here; another would wait for its end.",
                "Do it with the transaction's own `tx`.",
            )  # fmt: skip
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        while not self._turn.acquire(timeout=0.01):
            ready = self._ready
            if ready is not None and (ready is here or not ready.is_running()):
                self._ready = None
                if ready.is_closed():
                    self._leave()  # nobody waits for these any more
                else:
                    self._work(ready)

    def _lock(self, patience_seconds: float | None = None) -> None:
        """Wait for the other processes' turn; who waits for long is told for what.

        Raises StoreError after ``patience_seconds``, by the real clock.
        """
        if not _try_lock(self._lock_fd):
            told = threading.Timer(
                LOCKED_SECONDS,
                log.warning,
                ("another process holds vivarium.lock beside %s; still waiting", self._path),
            )
            told.daemon = True
            told.start()
            try:
                if patience_seconds is None:
                    fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
                else:
                    self._wait(time.monotonic() + patience_seconds)
            finally:
                told.cancel()

    def _wait(self, until: float) -> None:
        while not _try_lock(self._lock_fd):
            if time.monotonic() > until:
                raise StoreError(
                    "store.locked", f"Another process keeps vivarium.lock beside {self._path}; nothing was changed.",
                    "`vivarium doctor` says which it is; end it, and try again.",
                )  # fmt: skip
            time.sleep(0.01)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the loop, with the turn, which nothing that happens here may keep."""
        requests = self._taken(loop)
        handed_over = False
        try:
            if self.committer.prepare(requests):
                if self._jobs is not None and self.committer.sync_seconds > QUICK_SECONDS:
                    self._jobs.put(lambda: self._finish_elsewhere(loop, requests))
                    handed_over = True
                    return
                self.committer.finish(requests)
        except BaseException as error:
            fail(requests, error)
        finally:
            if not handed_over:
                self._leave()
        self._answer(loop, requests)

    def _finish_elsewhere(self, loop: asyncio.AbstractEventLoop, requests: list[Request]) -> None:
        """In the thread: commit, sync, and let others have their turn."""
        try:
            self.committer.finish(requests)
        except BaseException as error:  # this thread must live, or nobody is ever answered again
            fail(requests, error)
        finally:
            self._leave()
        with contextlib.suppress(RuntimeError):  # a closed loop: what was asked is done, nobody waits
            loop.call_soon_threadsafe(self._answer, loop, requests)

    def _answer(self, loop: asyncio.AbstractEventLoop, requests: list[Request]) -> None:
        """On the loop: see to the next commit, and hand out results."""
        if any(request.answer.get_loop() is loop for request in self._outbox):
            loop.call_soon(self._begin, loop)
        else:
            self._scheduled = None
        for request in requests:
            if request.answer.done():
                continue
            with contextlib.suppress(RuntimeError):  # who asked belongs to a loop that is closed
                if isinstance(request.result, BaseException):
                    request.answer.set_exception(request.result)
                else:
                    request.answer.set_result(request.result)
        self._tell_opened()

    def _tell_opened(self) -> None:
        openings, told = self._share.openings, self._told
        if openings != told:
            self._told = openings
            for listener in self._share.on_opened:
                with contextlib.suppress(RuntimeError):  # one whose loop is closed
                    listener()

    # Transactions

    def _run_now(self, requests: list[Request], patience_seconds: float | None = None) -> None:
        """From begin to commit in this thread, which has the turn of this process."""
        self._lock(patience_seconds)
        try:
            if self.committer.prepare(requests):
                self.committer.finish(requests)
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _leave(self) -> None:
        fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
        self._turn.release()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[sqlite3.Connection]:
        """The write connection for migrations: nobody else writes meanwhile."""
        self._take_turn()
        self._lock()
        self._connection.set_authorizer(None)
        try:
            yield self._connection
        except sqlite3.Error as error:
            raise told(error, self._path) from error
        finally:
            self._connection.set_authorizer(self.committer.guard)
            self._leave()

    def close(self) -> bool:
        """Finish the commit that is under way and refuse all others. False when it was closed before."""
        self._take_turn()
        was_closed, self._closed = self._closed, True
        self._turn.release()
        if was_closed:
            return False
        if self._jobs is not None and self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        return True

    def end(self) -> None:
        """Close the connection."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA optimize")
        self._connection.close()


def _closed() -> StoreError:
    return StoreError("store.closed", "The village is closed.")


def _serve(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
