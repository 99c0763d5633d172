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
    stream = os.fdopen(write, "w", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        yield read
    with contextlib.suppress(BrokenPipeError):  # what was not written is no matter of the stream's end
        stream.close()


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
    with piped() as end, pytest.raises(BrokenPipeError), spooled():
        os.close(end)
        for _ in range(1_000):
            print("is anybody there?")
            time.sleep(0.01)
        pytest.fail("nobody was, and it went on")


@pytest.mark.parametrize("long", [False, True], ids=["at once", "by the thread"])
def test_a_reader_of_one_who_has_gone_keeps_nothing_from_the_other(long: bool) -> None:
    word = "x" * (5_000 if long else 5)
    with piped() as end:
        gone, write = os.pipe()
        sys.stderr = os.fdopen(write, "w", encoding="utf-8")
        os.close(gone)
        with pytest.raises(BrokenPipeError), spooled():
            for _ in range(3):
                with contextlib.suppress(BrokenPipeError):
                    print(word, file=sys.stderr)
                    time.sleep(0.05)
                print(word)
            print(word, file=sys.stderr)
            time.sleep(0.05)
        assert os.read(end, 100_000).decode().split() == [word] * 3
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.close()


def test_what_can_be_written_is_out_before_anything_else_happens() -> None:
    """Also where the interpreter is held from here on, and the process is ended for it."""
    with piped() as end, spooled():
        print("the last word")
        assert os.read(end, 100) == b"the last word\n"


def test_a_reader_who_has_gone_is_noticed_at_the_end() -> None:
    with piped() as end, pytest.raises(BrokenPipeError), spooled():
        os.close(end)
        print("the last word" * 1_000)
