"""Full cycles a second, from claim to reward: with one resident, with 128, and with two processes."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sqlite3
from pathlib import Path
from typing import Any

import common
from vivarium_kernel.runtime import Runtime, tune_process
from vivarium_kernel.village import Village

from vivarium_kernel import board


def cycles_per_second(residents: int, tasks: int) -> float:
    """Tasks that are done a second, from the first claim to the last settlement."""
    with common.folder(residents) as path:
        village = common.opened(path)
        common.post(village, tasks)
        seconds = asyncio.run(_run(village, residents))
        with village.store.view() as view:
            done = board.counts(view)["done"]
        village.close()
    if done != tasks:
        raise SystemExit(f"only {done} of {tasks} tasks were done")
    return tasks / seconds


async def _run(village: Village, residents: int) -> float:
    tune_process()
    async with Runtime(village, residents, until_done=True) as runtime:
        await runtime.run()
    with village.store.view() as view:
        row = view.row("SELECT max(ended_at) - min(started_at) FROM attempts")
    return float((row or (0,))[0]) / 1e6


def two_processes(tasks: int) -> float:
    """The same with two processes of 64 residents each on one village; a barrier starts both clocks."""
    with common.folder(128) as path:
        village = common.opened(path)
        common.post(village, tasks)
        village.close()
        context = multiprocessing.get_context("spawn")
        start = context.Barrier(3)
        workers = [context.Process(target=_worker, args=(path, start)) for _ in range(2)]
        for worker in workers:
            worker.start()
        start.wait(60)
        for worker in workers:
            worker.join(300)
        with sqlite3.connect(path / "vivarium.db") as connection:
            last = connection.execute("SELECT max(ended_at), min(started_at), count(*) FROM attempts").fetchone()
        if last[2] < tasks:
            raise SystemExit(f"only {last[2]} attempts for {tasks} tasks")
        return tasks / ((last[0] - last[1]) / 1e6)


def _worker(path: Path, start: Any) -> None:
    village = common.opened(path)
    start.wait(60)
    asyncio.run(_run(village, 64))
    village.close()


class Counting(sqlite3.Connection):
    """Counts the statements that the writer runs."""

    statements = 0

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        Counting.statements += 1
        return super().execute(*arguments)


def cost_of_a_cycle(tasks: int, residents: int = 128) -> dict[str, float]:
    """State-changing statements, commits and bytes of one cycle."""
    with common.folder(residents) as path:
        village = Village(path, common.With(threaded=True, plugins=common.EXTRA, connection=Counting), environ={})
        common.post(village, tasks)
        before = _size(village)
        Counting.statements, commits = 0, village.store.commits
        asyncio.run(_run(village, residents))
        after = _size(village)
        figures = {
            "statements_per_cycle": Counting.statements / tasks,
            "commits_per_cycle": (village.store.commits - commits) / tasks,
            "bytes_per_cycle": (after - before) / tasks,
        }
        village.close()
    return figures


def _size(village: Village) -> int:
    with village.store.view() as view:
        pages, size = view.row("PRAGMA page_count"), view.row("PRAGMA page_size")
    return int((pages or (0,))[0]) * int((size or (0,))[0])


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    scale = 4 if arguments.quick else 1
    times = arguments.times
    one = common.repeated(lambda: cycles_per_second(1, 2000 // scale), times)
    many = common.repeated(lambda: cycles_per_second(128, 40_000 // scale), times)
    pairs = [(cycles_per_second(128, 40_000 // scale), two_processes(40_000 // scale)) for _ in range(times)]
    ratio = sorted(two / single for single, two in pairs)[len(pairs) // 2]
    return {
        "cycles_per_s_1": one,
        "cycles_per_s_128": many,
        "two_process_ratio": ratio,
        **cost_of_a_cycle(20_000 // scale),
    }


if __name__ == "__main__":
    common.main(measure, __doc__ or "")
