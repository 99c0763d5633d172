"""A server and workers as processes of their own, to be killed.

Run as a script: ``serve FOLDER PORT`` and ``work URL TOKEN RESIDENTS FOLDER``. Each prints a line when it is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("VIVARIUM_")}


class Process:
    """One of ours, in a process group of its own."""

    def __init__(self, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", __file__, *(str(each) for each in arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env=_CLEAN,
        )
        assert self._process.stdout is not None
        self.said = self._process.stdout.readline().strip()
        assert self.said, f"{arguments[0]} ended with {self._process.wait()}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self, seconds: float = 20.0) -> int:
        return self._process.wait(seconds)

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextlib.contextmanager
def processes() -> Iterator[list[Process]]:
    """Those that a test starts; whatever is left of them ends with it."""
    started: list[Process] = []
    try:
        yield started
    finally:
        for each in started:
            each.close()


async def _serve(folder: Path, port: int) -> None:
    from vivarium_kernel.api.server import serve
    from vivarium_kernel.village import Village, With

    with Village(folder, With(threaded=True, installed=False)) as village:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serve(village, port=port, ready=_say)


async def _work(url: str, token: str, residents: int, folder: Path) -> None:
    from vivarium_kernel.remote import Worker

    async with Worker(url, token, residents, folder) as worker:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
        _say(" ".join(worker.residents))
        await worker.run()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        asyncio.run(_work(sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5])))
