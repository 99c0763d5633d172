"""Starts many processes quickly: everything is imported once, and each one is forked from there.

Run as a script it obeys lines of JSON; :class:`Nursery` is the test's side of it. Its children die with it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

TESTS = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1


class Nursery:
    """``start("package.module:function", …)`` runs the function in a new process and gives its pid."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        self._ended: dict[int, int] = {}

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def start(self, function: str, *arguments: Any) -> int:
        return int(self._ask("start", function, *arguments))

    def wait(self, pid: int) -> int:
        """The exit status of a process, minus n if signal n ended it. Waits for its end."""
        if pid not in self._ended:
            self._ended[pid] = int(self._ask("wait", pid))
        return self._ended[pid]

    def kill(self, pid: int, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end."""
        os.kill(pid, number)
        return self.wait(pid)

    def run(self, function: str, *arguments: Any) -> int:
        return self.wait(self.start(function, *arguments))

    def _ask(self, *what: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery is gone"
        return json.loads(answer)


def _start(function: str, *arguments: Any) -> int:
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(2, 1)
        status = int(found(*arguments) or 0) if os.getppid() == parent else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _main() -> None:
    # What every child needs, so that none of them imports it for itself.
    for module in ("kernel.faults.scene", "vivarium_kernel.builtin", "sqlite_utils", "vivarium_kernel.deciding"):
        importlib.import_module(module)
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        answer = _start(*arguments) if what == "start" else os.waitstatus_to_exitcode(os.waitpid(arguments[0], 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
