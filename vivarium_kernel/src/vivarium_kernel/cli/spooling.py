"""The room of output that may wait: what is printed is written by a thread of its own.

A reader that pauses (a pager, Ctrl-S) must not hold the event loop: leases would lapse, and the watchdog would take it
for a plugin that hangs.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def spooled() -> Iterator[None]:
    """Stdout and stderr through a thread, in the order in which they are written; at the end all of it is out.

    An error of the thread (mostly a reader who has gone) is raised where something is printed next, or at the end.
    """
    before = sys.stdout, sys.stderr
    spool = _Spool()
    sys.stdout, sys.stderr = (_Stream(spool, stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        spool.end()
    spool.check()


class _Spool:
    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[TextIO, str] | None] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="vivarium-output", daemon=True)
        self._thread.start()

    def put(self, stream: TextIO, text: str) -> None:
        self.check()
        self._waiting.put((stream, text))

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _write(self) -> None:
        while (item := self._waiting.get()) is not None:
            stream, text = item
            try:
                stream.write(text)
                stream.flush()
            except Exception as error:
                self._error = error
                return


class _Stream:
    """A text stream as click, rich and ``print`` want it: what it doesn't do itself, the true one does."""

    def __init__(self, spool: _Spool, stream: TextIO) -> None:
        self._spool, self._stream = spool, stream

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"text is written here, not {type(text).__name__}")
        self._spool.put(self._stream, text)
        return len(text)

    def flush(self) -> None:
        self._spool.check()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
