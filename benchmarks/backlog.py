"""Does a long queue, or a long history, slow a village down? And how long does a resident wait for its claim?"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

import common
from vivarium_kernel.runtime import Runtime, tune_process

from vivarium_kernel import board

RESIDENTS = 128


def rate(backlog: int, measured: int, history: int = 0) -> float:
    """Cycles a second over ``measured`` cycles that leave ``backlog`` tasks waiting, after ``history`` others."""
    with common.folder(RESIDENTS) as path:
        village = common.opened(path)
        if history:
            common.post(village, history)
            asyncio.run(common.cycles_until(village, RESIDENTS, history))
        common.post(village, backlog + measured)
        seconds = asyncio.run(common.cycles_until(village, RESIDENTS, measured))
        with village.store.view() as view:
            left = board.counts(view)["open"]
        village.close()
    if left > backlog:
        raise SystemExit(f"{left} tasks are left, not {backlog} at most")
    return measured / seconds


def claim_latencies(backlog: int, claims: int, residents: int = 8) -> list[float]:
    """Milliseconds from a resident's asking until it holds a task, with 10 ms of work between two claims."""
    found: list[float] = []

    async def run() -> None:
        tune_process()
        async with Runtime(village, residents) as runtime:
            ask = runtime.rounds.claim

            async def timed(resident: str) -> Any:
                begun = time.perf_counter()
                won = await ask(resident)
                found.append((time.perf_counter() - begun) * 1000)
                return won

            runtime.rounds.claim = timed  # type: ignore[method-assign]
            while len(found) < claims:
                await asyncio.sleep(0.05)

    with common.folder(residents) as path:
        village = common.opened(path)
        common.post(village, backlog + claims * 2, model="scripted:wait-0.01")
        asyncio.run(run())
        village.close()
    return found[residents:claims]  # the first of each resident waited for the start


def behind(forbidden: int) -> float:
    """Seconds until a task is claimed that lies behind ``forbidden`` ones that its only resident may not take."""
    with common.folder(1) as path:
        village = common.opened(path)
        common.post(village, forbidden, labels=("forbidden",))
        common.post(village, 1)
        seconds = asyncio.run(_first_claim(village))
        village.close()
    return seconds


async def _first_claim(village: Any) -> float:
    tune_process()
    ended = asyncio.Event()
    async with Runtime(village, 1, on_settled=lambda _: ended.set()):
        begun = time.perf_counter()
        await asyncio.wait_for(ended.wait(), 60)
    return time.perf_counter() - begun


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    scale = 10 if arguments.quick else 1
    measured = 10_000 // scale
    short, long = 1_000 // scale, 1_000_000 // scale
    pairs = [(rate(short, measured), rate(long, measured)) for _ in range(arguments.times)]
    histories = [(rate(short, measured), rate(short, measured, 100_000 // scale)) for _ in range(1)]
    latencies = claim_latencies(long, 4_000 // scale)
    return {
        "cycles_per_s_1k": statistics.median(one for one, _ in pairs),
        "cycles_per_s_1m": statistics.median(many for _, many in pairs),
        "ratio_1k_to_1m": statistics.median(one / many for one, many in pairs),
        "ratio_with_history": statistics.median(one / many for one, many in histories),
        "claim_p50_ms": statistics.median(latencies),
        "claim_p99_ms": statistics.quantiles(latencies, n=100)[98],
        "behind_100k_seconds": behind(100_000 // scale),
    }


if __name__ == "__main__":
    common.main(measure, __doc__ or "")
