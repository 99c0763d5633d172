"""A small village in a process of its own, under the supervisor, with a plugin that holds it.

Run as ``stuck.py SCENARIO``; the test reads what it prints.
"""

import asyncio
import ctypes
import os
import re
import signal
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

from vivarium_kernel.calls import Health, Hooks
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Ending, Resident, Subject, Task
from vivarium_kernel.watchdog import Heart, Mark, supervise

SCENARIO = sys.argv[1]
# Where every child is to be ended there is no harm in being early.
LIMIT_SECONDS = 0.3 if SCENARIO == "restart-for-ever" else 1.0
BEAT_SECONDS = LIMIT_SECONDS / 4
TASK = Task(1, "one", "command")


class Holder(Plugin):
    """Holds its thread in the way that the scenario names."""

    name = "holder"

    @hookimpl
    def enrich_prompt(self, resident: Resident) -> None:
        if SCENARIO in ("sleep", "restart-for-ever"):
            time.sleep(60)
        if SCENARIO == "regex":
            re.match(r"(a+)+$", "a" * 60 + "b")
        if SCENARIO == "lock":
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        if SCENARIO == "segfault":
            ctypes.string_at(0)
        if SCENARIO == "exits":
            os._exit(1)

    @hookimpl
    async def check_safety(self, subject: Subject) -> None:
        if SCENARIO == "coroutine":
            await asyncio.sleep(0)
            time.sleep(60)  # noqa: ASYNC251 - the very fault

    @hookimpl
    def end_attempt(self, task: Task, ending: Ending) -> None:
        if SCENARIO == "writer":
            time.sleep(60)
        if SCENARIO == "writer-regex":
            re.match(r"(a+)+$", "a" * 60 + "b")

    @hookimpl
    def propose_activity(self, resident: Resident) -> None:
        if SCENARIO == "restart-for-ever":
            time.sleep(60)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Part:
    """A part of a transaction that has nothing to undo."""

    def part(self, plugin: str) -> Any:
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


async def live(hooks: Hooks, mark: Mark) -> int:
    writing: list[float] = []
    heart = Heart(
        mark,
        lambda: time.monotonic() - writing[0] if writing else 0.0,
        limit_seconds=LIMIT_SECONDS if SCENARIO not in ("waits", "dies") else 30.0,
        beat_seconds=BEAT_SECONDS,
    )
    heart.start()
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, signals.append, number)
    if SCENARIO in ("waits", "dies"):
        say(f"ready {os.getpid()}")
        while not signals:
            await asyncio.sleep(0.01)
        say(f"signal {signals[0]}")
        if SCENARIO == "waits":
            await asyncio.sleep(0.3)
        while SCENARIO == "dies" and len(signals) < 2:
            await asyncio.sleep(0.01)
        say(f"signals {len(signals)}")
        return 7
    if SCENARIO == "busy-but-well":
        # Each hold is shorter than the limit, all of them together are longer.
        for _ in range(4):
            time.sleep(LIMIT_SECONDS * 0.4)  # noqa: ASYNC251 - the loop is to be held
            await asyncio.sleep(BEAT_SECONDS * 1.5)
    village: Any = SimpleNamespace(plugin=lambda name: None)
    hooks.enrich_prompt(Resident("ada"), TASK, village)
    hooks.propose_activity(Resident("ada"), village)
    await hooks.check_safety(Subject("command"))

    def write() -> None:
        writing.append(time.monotonic())
        hooks.end_attempt(TASK, Ending(1, "accepted", "ada"), Part())
        writing.clear()

    await asyncio.to_thread(write)
    await heart.stop()
    if SCENARIO == "stopped-heart":
        time.sleep((LIMIT_SECONDS + BEAT_SECONDS) * 2)  # noqa: ASYNC251 - the loop is to be held
    return 5


def signals_at_the_end() -> None:
    """Have the supervisor find two signals together with this process's end."""
    supervisor = os.getppid()
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM):
        os.kill(supervisor, number)
    if os.fork() == 0:
        time.sleep(0.3)
        os.kill(supervisor, signal.SIGCONT)
        os._exit(0)


def main() -> int:
    mark = Mark()

    def child(restarts: int, switched_off: dict[tuple[str, str], str]) -> int:
        health = Health()
        for (plugin, hook), cause in switched_off.items():
            health.off(plugin, hook, cause)
        say(f"child {restarts} without {sorted(switched_off)}")
        if SCENARIO == "dies" and restarts:
            return 9
        if SCENARIO == "parting":
            signals_at_the_end()
            return 5
        if SCENARIO == "raises":
            raise LookupError("boom")
        if SCENARIO == "restart-for-ever":
            # Nothing stays off, as if the mark named another hook each time.
            health = Health()
        return asyncio.run(live(Hooks([Holder(None, None)], health, mark=mark), mark))

    started = time.monotonic()
    status = supervise(child, mark)
    say(f"status {status} after {time.monotonic() - started:.1f}")
    return status


if __name__ == "__main__":
    sys.exit(main())
