"""Calls of models: what a call costs beside the model itself, and how near the ideal 2,000 calls of ten seconds are.

``overhead_p50_ms`` is the time that a call takes longer than its provider, at the median, while 128 residents call a
priced scripted model that answers after half a second to one and a half: checks, intent, commit, result.
``ratio_openai`` is 2,000 calls of 10 s, 500 at a time, through the provider ``openai`` against a simulated server in a
process of its own, every call a step with its intent and its price, divided by the ideal of 40 s; ``cpu_ms_per_call``
is this process's processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
from vivarium_kernel.model_calls import call
from vivarium_kernel.runtime import Runtime, tune_process
from vivarium_kernel.village import Village, With

from vivarium_kernel import Job, Message, Outcome, Plugin, Price, Reply, Request, Usage, hookimpl

SERVER = Path(__file__).with_name("simulated_server.py")


class Priced:
    """No LLM: it answers after a second or so, costs real money, and notes how long it took."""

    name = "priced"

    def __init__(self) -> None:
        self.took: dict[str, float] = {}

    def price(self, model: str) -> Price | None:
        return Price(1_000_000, 2_000_000)

    async def complete(self, request: Request) -> Reply:
        began = time.perf_counter()
        await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - not all at the same moment
        self.took[request.key] = time.perf_counter() - began
        return Reply("An answer.", Usage(20, 5))


class Timed(Plugin):
    """Does tasks of mode ``timed``: one call of the model, with a note of how long it took in all."""

    name = "timed"
    modes = ("timed",)
    overheads: list[float]

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        if job.task.mode != "timed":
            return None
        began = time.perf_counter()
        await call(job, Request("priced:m", [Message("user", "Say something.")], max_tokens=10))
        provider: Any = job.provider("priced")
        type(self).overheads.append(time.perf_counter() - began - provider.took[job.step_key(job.number)])
        return Outcome(answer="An answer.")


def overhead_ms(tasks: int) -> float:
    Timed.overheads = []
    with common.folder(128) as path:
        village = Village(path, With(threaded=True, installed=False, plugins=(*common.EXTRA, Timed)), environ={})
        village.add_provider(Priced())
        common.post(village, tasks, mode="timed", max_micros=10_000)
        asyncio.run(_until_done(village, 128))
        village.close()
    return statistics.median(Timed.overheads) * 1000


def through_openai(tasks: int, residents: int, seconds: float) -> tuple[float, float]:
    """(the time in units of the ideal, processor milliseconds a call)."""
    from vivarium_plugins_openai.provider import provider

    server = subprocess.Popen([sys.executable, SERVER, str(seconds)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        settings = {
            "plugins": f'{{ openai = {{ base_url = "http://127.0.0.1:{port}/v1" }} }}',
            "models": '{ prices = { "openai:simulated" = { in_usd = "1", out_usd = "2" } } }',
        }
        with common.folder(residents, **settings) as path:
            village = Village(path, With(threaded=True, installed=False, plugins=common.EXTRA),
                              environ={"OPENAI_API_KEY": "none-is-needed"})  # fmt: skip
            village.add_provider(provider(village))
            common.post(village, tasks, model="openai:simulated", max_micros=100_000)
            began = time.process_time()
            taken = asyncio.run(_until_done(village, residents))
            spent = time.process_time() - began
            village.close()
    finally:
        server.kill()
        server.wait()
    return taken / (tasks / residents * seconds), spent / tasks * 1000


async def _until_done(village: Village, residents: int) -> float:
    tune_process()
    async with Runtime(village, residents, until_done=True) as runtime:
        await runtime.run()
    with village.store.view() as view:
        row = view.row("SELECT max(ended_at) - min(started_at), sum(ending <> 'accepted') FROM attempts")
    if row is None or row[1]:
        raise SystemExit(f"{row and row[1]} attempts were not accepted")
    return float(row[0]) / 1e6


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    ratio, cpu = through_openai(*((400, 100, 2.0) if arguments.quick else (2_000, 500, 10.0)))
    return {
        "overhead_p50_ms": common.repeated(lambda: overhead_ms(512 if arguments.quick else 1_280), arguments.times),
        "ratio_openai": ratio,
        "cpu_ms_per_call": cpu,
    }


if __name__ == "__main__":
    common.main(measure, __doc__ or "")
