"""The room of output that may wait: what is printed is written by a thread of its own.

A reader that pauses (a pager, Ctrl-S) must not hold the event loop: leases would lapse, and the watchdog would take it
for a plugin that hangs.
"""

from __future__ import annotations

import contextlib
import queue
import select
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def spooled() -> Iterator[None]:
    """Stdout and stderr through a thread, in the order in which they are written; at the end all of it is out.

    An error of a stream (mostly a reader who has gone) is raised where something is written to it next, or at the end.
    """
    before = sys.stdout, sys.stderr
    spool = _Spool()
    sys.stdout, sys.stderr = (_Stream(spool, stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        spool.end()
    spool.check(*before)


class _Spool:
    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[TextIO, str] | None] = queue.SimpleQueue()
        self._count = 0  # of what waits, or is being written
        self._lock = threading.Lock()
        self._errors: dict[TextIO, Exception] = {}
        self._thread = threading.Thread(target=self._write, name="vivarium-output", daemon=True)
        self._thread.start()

    def put(self, stream: TextIO, text: str) -> None:
        """Write it at once where that can't wait, so that it is out whatever ends this process; else by the thread."""
        self.check(stream)
        with self._lock:
            at_once = self._count == 0 and _has_room(stream, text)
            self._count += not at_once
        if at_once:
            stream.write(text)
            stream.flush()
        else:
            self._waiting.put((stream, text))

    def check(self, *streams: TextIO) -> None:
        for stream in streams:
            if stream in self._errors:
                raise self._errors[stream]

    def end(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _write(self) -> None:
        while (item := self._waiting.get()) is not None:
            stream, text = item
            try:
                if stream not in self._errors:
                    stream.write(text)
                    stream.flush()
            except Exception as error:
                self._errors[stream] = error
            with self._lock:
                self._count -= 1


def _has_room(stream: TextIO, text: str) -> bool:
    """Whether the text can be written without waiting: a pipe that takes anything takes as much as PIPE_BUF."""
    try:
        return len(text) * 4 <= select.PIPE_BUF and bool(select.select([], [stream.fileno()], [], 0)[1])
    except (OSError, ValueError):
        return False


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
        self._spool.check(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
