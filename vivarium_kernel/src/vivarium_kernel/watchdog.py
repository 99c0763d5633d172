"""The room of the watchdog: a process that a plugin holds for too long is ended, and begins again without that hook.

Nothing gentler stops a sleep, a lock wait or a bad regular expression in plain code. So the calls that hold a thread
are noted in memory that a parent process shares (:class:`Mark`), ``faulthandler`` ends the process without needing the
interpreter lock (:class:`Heart`), and the parent starts it again with that plugin off on that hook
(:func:`supervise`). Leases make this lossless. Works on Linux.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import mmap
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn

LABEL_BYTES = 128
IDLE = bytes(LABEL_BYTES)

SwitchedOffHooks = dict[tuple[str, str], str]  # (plugin, hook) -> cause

_CRASHES = frozenset((signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL))
_OWN = (signal.SIGCHLD, signal.SIGALRM)  # what a supervisor waits for itself
_SENT_BY_THE_TERMINAL = 0x80  # SI_KERNEL: the whole foreground group has the signal already
_PR_SET_PDEATHSIG = 1
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)$')


def label(plugin: str, hook: str) -> bytes:
    """What a slot holds while this implementation runs."""
    return f"{plugin}\0{hook}".encode()[:LABEL_BYTES].ljust(LABEL_BYTES, b"\0")


class Slot:
    """Which implementation holds one thread now. Writing it is a copy into shared memory: no system call."""

    __slots__ = ("_held", "_memory", "_where")

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._where = slice(start, start + LABEL_BYTES)
        self._held = IDLE

    def hold(self, label: bytes) -> bytes:
        """Note ``label``; returns what was there, to be noted again afterwards (calls nest)."""
        outer = self._held
        self._held = self._memory[self._where] = label
        return outer

    def read(self) -> tuple[str, str] | None:
        """The plugin and hook as the other process wrote them; None when it was in no hook."""
        plugin, _, hook = self._memory[self._where].rstrip(b"\0").partition(b"\0")
        return (plugin.decode(errors="replace"), hook.decode(errors="replace")) if plugin else None


class Mark:
    """What a process leaves behind for its parent: the hook that each of its two threads was in, and its traceback.

    Make it before forking: the memory and the file are shared with the children.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * LABEL_BYTES + 1)
        self.loop = Slot(self._memory, 0)
        self.writer = Slot(self._memory, LABEL_BYTES)
        self.trace = tempfile.TemporaryFile(prefix="vivarium-watchdog-")  # noqa: SIM115 - closed by close()

    def writer_is_stuck(self, stuck: bool) -> None:
        """The heart says on whose behalf it has stopped."""
        self._memory[2 * LABEL_BYTES] = stuck

    def clear(self) -> None:
        """Make ready for another process."""
        self.loop.hold(IDLE)
        self.writer.hold(IDLE)
        self.writer_is_stuck(False)
        self.trace.seek(0)
        self.trace.truncate()

    def held(self) -> list[tuple[Literal["loop", "writer"], str, str]]:
        """Who held which thread. Both are named when both were in a hook and nothing tells which one held the other."""
        loop, writer = self.loop.read(), self.writer.read()
        stuck = self._memory[2 * LABEL_BYTES] != 0
        found: list[tuple[Literal["loop", "writer"], str, str]] = []
        if loop is not None and not stuck:
            found.append(("loop", *loop))
        if writer is not None:
            found.append(("writer", *writer))
        return found

    def traceback(self) -> str:
        """What ``faulthandler`` wrote; empty if the process ended otherwise."""
        size = os.fstat(self.trace.fileno()).st_size
        return os.pread(self.trace.fileno(), size, 0).decode(errors="replace")

    def close(self) -> None:
        self.trace.close()
        self._memory.close()


class Heart:
    """Puts off the end of the process once a beat, while its loop runs and its writer is not stuck.

    A loop or a writer that is held for ``limit_seconds`` ends the process within one more beat, with exit status 1 and
    every thread's traceback in the mark. There is one such timer in a process, so start one heart in it.
    """

    def __init__(
        self,
        mark: Mark,
        writer_stuck_seconds: Callable[[], float],
        *,
        limit_seconds: float = 5.0,
        beat_seconds: float = 1.0,
    ) -> None:
        self._mark = mark
        self._writer_stuck_seconds = writer_stuck_seconds
        self._limit = limit_seconds
        self._beat = beat_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running loop."""
        self._put_off(0.0)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="watchdog")

    async def stop(self) -> None:
        """End the watch: from now on nothing ends the process."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        faulthandler.cancel_dump_traceback_later()
        self._mark.writer_is_stuck(False)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._beat)
            stuck = self._writer_stuck_seconds()
            self._mark.writer_is_stuck(stuck > self._beat)
            # Once the writer's time is over the timer that runs is left to strike.
            if stuck < self._limit:
                self._put_off(stuck)

    def _put_off(self, stuck: float) -> None:
        # A beat more than the limit: what held the loop may have begun just before the next beat was due.
        faulthandler.dump_traceback_later(self._limit + self._beat - stuck, exit=True, file=self._mark.trace)


def asks_to_stop() -> list[signal.Signals]:
    """The signals that ask a process to end: a closed terminal's, too, unless it was begun not to care (nohup)."""
    hangs_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangs_up]


def supervise(
    run_child: Callable[[int, SwitchedOffHooks], int],
    mark: Mark,
    *,
    most_restarts: int = 5,
    within_seconds: float = 60.0,
    say: Callable[[str], None] | None = None,
) -> int:
    """Run ``run_child(restarts, switched_off)`` in a forked child, and again without the hook that ended it.

    Returns the exit status: the child's own, 128 + n if signal n ended it, 1 when it was started too often. Call it
    from the main thread, before any other thread or any loop exists. What :func:`asks_to_stop` and is sent to this
    process is passed on, each once; a Ctrl-C, which reaches the child by itself, is not. (A signal that a program
    sends to the whole process group counts twice.) A child outlives this process by nothing: it is killed with it.
    """
    speak = say or _to_stderr
    switched_off: SwitchedOffHooks = {}
    begun: deque[float] = deque(maxlen=most_restarts)
    restarts = 0
    watched = {*asks_to_stop(), *_OWN}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        while True:
            mark.clear()
            sys.stdout.flush()
            sys.stderr.flush()
            parent = os.getpid()
            child = os.fork()
            if child == 0:
                _live(partial(run_child, restarts, switched_off), mark, parent, mask)
            status, stopping = _wait(child, watched)
            stopping = _drained(watched) or stopping
            trace = mark.traceback()
            fault = _fault(status, trace)
            if fault is None or stopping:
                return status if status >= 0 else 128 - status
            for line in _blame(mark, fault, trace, switched_off):
                speak(line)
            now = time.monotonic()
            if len(begun) == most_restarts and now - begun[0] < within_seconds:
                speak(
                    f"gave up: the process was ended {most_restarts + 1} times within {now - begun[0]:.0f} s. "
                    "Nothing is lost; see the tracebacks above, disable what they name, and start again."
                )
                return 1
            begun.append(now)
            restarts += 1
            speak(f"starting again ({restarts}); unfinished attempts are taken up when their leases lapse")
    finally:
        _drained({signal.SIGALRM})
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def side_by_side(count: int, run: Callable[[], int]) -> int:
    """Run ``run`` in ``count`` forked processes at once; returns the highest exit status of theirs.

    When one ends badly the others go on: what it had is taken up by them. Signals are passed on as by
    :func:`supervise`, which ``run`` may be, and it is called from the main thread in the same way.
    """
    watched = {*asks_to_stop(), *_OWN}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    children: set[int] = set()
    worst = 0
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                _live_beside(run, parent, mask)
            children.add(child)
        while children:
            for child in list(children):
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    children.discard(child)
                    code = os.waitstatus_to_exitcode(status)
                    worst = max(worst, code if code >= 0 else 128 - code)
            told = _told(watched) if children else None
            if told is not None and _is_for_child(told):
                for child in children:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, told.si_signo)
    finally:
        _drained({signal.SIGALRM})
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return worst


def _live_beside(run: Callable[[], int], parent: int, mask: set[int | signal.Signals]) -> NoReturn:
    _die_with(parent)
    _end_with(run, mask)


def _live(run: Callable[[], int], mark: Mark, parent: int, mask: set[int | signal.Signals]) -> NoReturn:
    _die_with(parent)
    faulthandler.enable(mark.trace)
    _end_with(run, mask)


def _die_with(parent: int) -> None:
    """Let this process be killed when its parent goes."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent went before the line above took hold


def _end_with(run: Callable[[], int], mask: set[int | signal.Signals]) -> NoReturn:
    """Run it, and end this process with its exit status."""
    status = 1
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = int(run())
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if isinstance(leaving.code, str):
            _to_stderr(leaving.code)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status & 0xFF)  # whatever happens: the code after the fork is the parent's


def _wait(child: int, watched: set[signal.Signals]) -> tuple[int, bool]:
    """The child's exit status (minus n for signal n), and whether somebody asked it to stop."""
    stopping = False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), stopping
        told = _told(watched)
        if told is None or told.si_signo == signal.SIGCHLD:
            continue
        stopping = True
        if _is_for_child(told):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, told.si_signo)


def _told(watched: set[signal.Signals]) -> signal.struct_siginfo | None:
    """The next of these signals; None after a second: SIGCHLD may go to another thread, which drops it.

    The second is a timer's: where a process is stopped and continued, ``sigtimedwait`` answers with what lay there.
    """
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    told = signal.sigwaitinfo(watched)
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    return None if told.si_signo == signal.SIGALRM else told


def _is_for_child(told: signal.struct_siginfo) -> bool:
    """Whether it asks to stop, and the child has not had it: a Ctrl-C reaches it by itself."""
    ctrl_c = told.si_signo == signal.SIGINT and told.si_code == _SENT_BY_THE_TERMINAL
    return told.si_signo not in _OWN and not ctrl_c


def _drained(watched: set[signal.Signals]) -> bool:
    """Take the signals that came as the child ended: nobody is left to get them. Whether one asked to stop."""
    stopping = False
    while (told := signal.sigtimedwait(watched, 0)) is not None:
        stopping = stopping or told.si_signo not in _OWN
    return stopping


def _fault(status: int, trace: str) -> str | None:
    """What ended the child if it was the watchdog or a crash; None for every other end."""
    if status == 1 and trace.startswith("Timeout ("):
        return "held the process for too long"
    if -status in _CRASHES:
        return f"ended the process with {signal.Signals(-status).name}"
    return None


def _blame(mark: Mark, fault: str, trace: str, switched_off: SwitchedOffHooks) -> list[str]:
    """Add to ``switched_off`` what the mark names; returns what people should read."""
    told = [trace.rstrip()] if trace else []
    held = mark.held()
    for thread, plugin, hook in held:
        place = frame_of(trace, hook)
        at = f" at {place}" if place else ""
        switched_off[plugin, hook] = f"it {fault} ({thread}){at}"
        told.append(f"plugin {plugin!r} {fault} in {hook} ({thread}){at}; it is off on that hook from now on")
    if not held:
        told.append(f"something outside every hook {fault}; nothing is switched off")
    return told


def frame_of(trace: str, hook: str) -> str:
    """``file:line`` of the plugin's code in the thread that ran this hook: the frame that the call loop called."""
    caller = str(Path(__file__).with_name("runs.py"))
    best = ""
    for thread in trace.split("\n\n"):
        above: re.Match[str] | None = None
        for line in thread.splitlines():
            frame = _FRAME.match(line)
            if frame is None:
                continue
            if frame["file"] == caller and above is not None:
                place = f"{above['file']}:{above['line']}"
                if above["function"] == hook:
                    return place
                best = best or place
                break
            above = frame
    return best


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"vivarium: {line}\n")
    sys.stderr.flush()
