"""How quickly the command line answers, and what an idle village costs."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common

VIVARIUM = Path(sys.executable).with_name("vivarium")


def seconds_of(*arguments: str | Path, times: int = 15) -> float:
    """The median time in milliseconds of a whole command."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run([VIVARIUM, *arguments], check=True, capture_output=True)
        found.append((time.perf_counter() - begun) * 1000)
    return statistics.median(found)


def fill(path: Path, events: int) -> None:
    """Give the village ``events`` events, copies of a real one: only their number matters here, not their chain."""
    with contextlib.closing(sqlite3.connect(path / "vivarium.db")) as connection, connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT (SELECT max(id) FROM events) + 1 UNION ALL "
            "SELECT i + 1 FROM n WHERE i < ?) INSERT INTO events "
            "SELECT i, at, day, hour, kind, actor, resident, task, attempt, cycle, model, data, hash "
            "FROM n, (SELECT * FROM events WHERE kind = 'task.posted' LIMIT 1)",
            (events,),
        )


def idle_cpu_percent(path: Path, seconds: float) -> float:
    """How much of a core `vivarium up` uses on a village without work, API included, after its start."""
    process = subprocess.Popen(
        [VIVARIUM, "up", path, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        time.sleep(4.0)
        if process.poll() is not None:
            raise SystemExit(f"vivarium up ended: {process.stdout.read() if process.stdout else ''}")
        before = _ticks(process.pid)
        time.sleep(seconds)
        used = _ticks(process.pid) - before
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    return used / os.sysconf("SC_CLK_TCK") / seconds * 100


def _ticks(pid: int) -> int:
    """Processor time of a process and its children, in clock ticks."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) + sum(_ticks(int(child)) for child in children)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    events = 50_000 if arguments.quick else 1_000_000
    with common.folder(3) as path:
        village = common.opened(path)
        common.post(village, 10_000)
        village.close()
        fill(path, events)
        figures = {
            "help_ms": seconds_of("--help"),
            "status_ms": seconds_of("status", "--village", path),
        }
    with common.folder(3) as path:
        common.opened(path).close()
        figures["idle_cpu_percent"] = idle_cpu_percent(path, 5 if arguments.quick else 20)
    return figures


if __name__ == "__main__":
    common.main(measure, __doc__ or "")
