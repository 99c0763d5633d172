"""What the benchmarks share: a village on a temporary folder, 15 plugins, tasks for the scripted model, one JSON line.

What is measured is the real thing: ``synchronous=FULL``, events chained, rewards paid. What is not: an LLM. The model
is the scripted one (``scripted:echo`` answers at once, ``scripted:wait-S`` after S seconds).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vivarium_kernel.runtime import Runtime, tune_process
from vivarium_kernel.village import Village, With

from vivarium_kernel import NewTask, Plugin, Reject, Section, hookimpl


class Signpost(Plugin):
    """A plugin for measurements: adds a section to each prompt."""

    name = "signpost"

    @hookimpl
    def enrich_prompt(self, resident: Any, task: Any, view: Any) -> list[Section]:
        return [Section("rules", "Be brief.")]


class Gate(Plugin):
    """A plugin for measurements: refuses tasks that are labelled for somebody else."""

    name = "gate"

    @hookimpl
    def claim_filter(self, resident: Any, tasks: Sequence[Any]) -> list[Reject]:
        return [Reject(task.id, "it is not for this resident") for task in tasks if "forbidden" in task.labels]


class Taste(Plugin):
    """A plugin for measurements: likes every task as much."""

    name = "taste"

    @hookimpl
    def claim_score(self, resident: Any, tasks: Sequence[Any]) -> list[float]:
        return [0.5] * len(tasks)


EXTRA = (Signpost, Gate, Taste)  # with the twelve built-in plugins: 15


@contextlib.contextmanager
def folder(residents: int, **settings: Any) -> Iterator[Path]:
    """A village's folder that is removed afterwards, with the settings file written."""
    with tempfile.TemporaryDirectory(prefix="vivarium-benchmark-") as name:
        path = Path(name)
        names = ", ".join(f'"r{number}"' for number in range(residents))
        lines = [f"residents = [{names}]", *(f"{key} = {value}" for key, value in settings.items())]
        (path / "vivarium.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield path


def opened(path: Path, *, threaded: bool = True) -> Village:
    return Village(path, With(threaded=threaded, plugins=EXTRA), environ={})


def post(village: Village, count: int, *, model: str = "scripted:echo", batch: int = 5000, **more: Any) -> None:
    """Post ``count`` tasks with a budget, so that a reward is paid for each."""
    for start in range(0, count, batch):
        tasks = [
            NewTask(prompt=f"Say what task {number} is.", model=model, **more)
            for number in range(start, min(count, start + batch))
        ]
        village.post(tasks)


async def cycles_until(village: Village, residents: int, count: int) -> float:
    """Seconds in which ``count`` cycles end, from the first of them on; the village is left as it is then."""
    ended: list[float] = []
    enough = asyncio.Event()

    def settled(_: Any) -> None:
        ended.append(time.perf_counter())
        if len(ended) == count:
            enough.set()

    tune_process()
    async with Runtime(village, residents, on_settled=settled):
        await enough.wait()
    return ended[count - 1] - ended[0]


def repeated(measure: Callable[[], float], times: int) -> float:
    """The median of several runs."""
    return statistics.median(measure() for _ in range(times))


def main(measure: Callable[[argparse.Namespace], dict[str, float]], about: str) -> None:
    """Run a benchmark from the command line; the last line of its output is one JSON object of figures."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    parser.add_argument("--quick", action="store_true", help="smaller numbers, for a look")
    parser.add_argument("--once", action="store_true", help="one run a figure instead of the median of three")
    arguments = parser.parse_args()
    arguments.times = 1 if arguments.quick or arguments.once else 3
    figures = measure(arguments)
    if not arguments.json:
        for name, value in figures.items():
            print(f"{name:24} {value:,.3f}", file=sys.stderr)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
