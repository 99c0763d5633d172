"""Tasks that wait: how near the ideal are 500 and 5,000 calls of one second at a time, and what does a waiter weigh?"""

from __future__ import annotations

import argparse
import asyncio
import gc
from pathlib import Path

import common
from vivarium_kernel.runtime import Runtime, tune_process
from vivarium_kernel.village import Village


def ratio(tasks: int, residents: int, seconds: float = 1.0) -> float:
    """Time from the first claim to the last ending, divided by the ideal: waves of ``residents`` calls."""
    with common.folder(residents) as path:
        village = common.opened(path)
        common.post(village, tasks, model=f"scripted:wait-{seconds}")
        taken = asyncio.run(_until_done(village, residents))
        village.close()
    return taken / (tasks / residents * seconds)


async def _until_done(village: Village, residents: int) -> float:
    tune_process()
    async with Runtime(village, residents, until_done=True) as runtime:
        await runtime.run()
    with village.store.view() as view:
        row = view.row("SELECT max(ended_at) - min(started_at), sum(ending = 'accepted') FROM attempts")
    return float((row or (0,))[0]) / 1e6


def kb_per_resident(residents: int) -> float:
    """Memory of a resident that waits in the middle of a call, in kB: what the process grows by, divided."""
    with common.folder(residents) as path:
        village = common.opened(path)
        common.post(village, residents, model="scripted:wait-5")
        grown = asyncio.run(_growth(village, residents))
        village.close()
    return grown / residents


async def _growth(village: Village, residents: int) -> float:
    gc.collect()
    before = _resident_kb()
    async with Runtime(village, residents, until_done=True) as runtime:
        while len(runtime.running) < residents:
            await asyncio.sleep(0.05)
        gc.collect()
        return _resident_kb() - before


def _resident_kb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1])
    raise SystemExit("this system does not say how much memory a process uses")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    times = arguments.times
    weight = kb_per_resident(500 if arguments.quick else 5_000)
    return {
        "ratio_500": common.repeated(lambda: ratio(2_000, 500), times),
        "ratio_5000": common.repeated(lambda: ratio(20_000, 5_000), times),
        "kb_per_resident": weight,
    }


if __name__ == "__main__":
    common.main(measure, __doc__ or "")
