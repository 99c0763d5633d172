"""Promises about output that may wait: a reader who pauses holds nothing, and one who has gone is noticed."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from vivarium_kernel.cli.spooling import spooled

LINES = 5_000  # more than a pipe holds


@contextlib.contextmanager
def piped() -> Iterator[int]:
    """Stdout and stderr are one pipe; gives the end where it is read."""
    read, write = os.pipe()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(write, "w", encoding="utf-8") as stream:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        yield read


def test_a_reader_who_pauses_holds_nobody_up_and_gets_everything_in_order() -> None:
    got: list[bytes] = []

    def read(end: int) -> None:
        with os.fdopen(end, "rb") as pipe:
            got.extend(pipe.readlines())

    with piped() as end:
        reader = threading.Thread(target=read, args=(end,))
        with spooled():
            for number in range(LINES):
                print(f"{number:030d}", file=sys.stdout if number % 2 else sys.stderr)
            reader.start()  # nobody read until here
    reader.join()
    assert [int(line) for line in got] == list(range(LINES))


def test_a_reader_who_has_gone_is_noticed_at_the_next_line() -> None:
    with pytest.raises(BrokenPipeError), piped() as end, spooled():
        os.close(end)
        for _ in range(1_000):
            print("is anybody there?")
            time.sleep(0.01)
        pytest.fail("nobody was, and it went on")


def test_a_reader_who_has_gone_is_noticed_at_the_end() -> None:
    with pytest.raises(BrokenPipeError), piped() as end, spooled():
        os.close(end)
        print("the last word")
