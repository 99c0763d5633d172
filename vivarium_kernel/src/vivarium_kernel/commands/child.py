"""The room of one running command: its group, its output and its exit, watched by one event loop."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vivarium_kernel.commands.output import Output
from vivarium_kernel.commands.spawner import Started

_GRACE_SECONDS = 0.1
"""How long after its end a command's output may stay open before we look who holds it."""


class Child:
    """Made on the event loop that watches it; every method but `kill` runs there."""

    def __init__(self, started: Started, output_bytes: int) -> None:
        self._started = started
        self._loop = asyncio.get_running_loop()
        self.stdout = Output(output_bytes)
        self.stderr = Output(output_bytes)
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._streams = {started.stdout: self.stdout, started.stderr: self.stderr}
        self._ended: dict[int, asyncio.Future[None]] = {end: self._loop.create_future() for end in self._streams}
        self._loop.add_reader(started.pidfd, self._note_exit)
        for end in self._streams:
            self._loop.add_reader(end, self._read, end)

    @property
    def pid(self) -> int:
        """Also the number of its group and of its session."""
        return self._started.process.pid

    def kill(self) -> None:
        """Kill the whole group. Any thread may; the leader must not have been reaped."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def open_gate(self) -> None:
        """Let the program begin."""
        with suppress(BrokenPipeError):  # it is dead already, and its exit will tell
            os.write(self._started.gate, b"go\n")

    async def wait(self, timeout_seconds: float) -> bool:
        """Whether it ended by itself within the time."""
        done, _ = await asyncio.wait({self._exited}, timeout=timeout_seconds)
        return bool(done)

    async def end(self) -> bool:
        """Kill what is left of the group, wait for its leader's end and read the rest of the output.

        Cancelling it has no effect but that it returns True: nothing may be left running.
        """
        self.kill()
        cancelled = await unhurried({self._exited})
        cancelled |= await unhurried(self._ended.values(), _GRACE_SECONDS)
        if self._open():
            # Somebody left the group and still holds the output: what detaches itself is killed as well.
            hunt = self._loop.run_in_executor(None, kill_holders, [os.fstat(end).st_ino for end in self._open()])
            cancelled |= await unhurried({hunt})
            hunt.result()
            cancelled |= await unhurried(self._ended.values(), _GRACE_SECONDS)
        return cancelled

    def reap(self) -> int:
        """Release the process number and all descriptors; its return code as `subprocess` has it."""
        for end in self._open():
            self._loop.remove_reader(end)
        code = self._started.process.wait()
        for end in (self._started.pidfd, self._started.gate, *self._streams):
            os.close(end)
        return code

    def _open(self) -> list[int]:
        return [end for end, ended in self._ended.items() if not ended.done()]

    def _note_exit(self) -> None:
        self._loop.remove_reader(self._started.pidfd)
        self._exited.set_result(None)

    def _read(self, end: int) -> None:
        try:
            chunk = os.read(end, 65536)
        except BlockingIOError:
            return
        if chunk:
            self._streams[end].add(chunk)
        else:
            self._loop.remove_reader(end)
            self._ended[end].set_result(None)


async def unhurried(
    futures: Iterable["asyncio.Future[Any]"],
    timeout_seconds: float | None = None,
    *,
    on_cancel: Callable[[], object] = lambda: None,
) -> bool:
    """Wait for all futures (or the time) through any cancellation; whether one was asked for meanwhile.

    Plain futures, no tasks: a loop that is ending cancels every task it finds, and these must stay.
    """
    cancelled = False
    waited = set(futures)
    while any(not future.done() for future in waited):
        try:
            _, pending = await asyncio.wait(waited, timeout=timeout_seconds)
        except asyncio.CancelledError:
            cancelled = True
            on_cancel()
        else:
            if pending:
                break
    return cancelled


def kill_holders(pipes: Iterable[int]) -> None:
    """Kill the processes that can write to one of these pipes (by inode), except who can read from it too.

    The exception spares this process and copies of it that were forked while it read.
    """
    names = {f"pipe:[{inode}]" for inode in pipes}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and _only_writes(process, names):
            try:
                os.kill(int(process.name), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue


def _only_writes(process: Path, names: set[str]) -> bool:
    modes = set()
    try:
        for end in (process / "fd").iterdir():
            if str(end.readlink()) in names:
                flags = (process / "fdinfo" / end.name).read_text().split("flags:")[1].split()[0]
                modes.add(int(flags, 8) & os.O_ACCMODE)
    except (OSError, IndexError):
        return False  # it ended, or it is somebody else's
    return modes == {os.O_WRONLY}
