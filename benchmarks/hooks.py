"""What a hook call costs: our loop beside pluggy's own, and every hook of one full cycle with ten plugins.

    uv run python benchmarks/hooks.py --json

Figures are microseconds, each the median of several rounds in one process. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pluggy
from vivarium_kernel.calls import Health, Hooks
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import (
    Claim,
    Ending,
    Entitlement,
    Outcome,
    Resident,
    Review,
    Section,
    Subject,
    Task,
    Verdict,
)
from vivarium_kernel.watchdog import Mark

from vivarium_kernel import hookspecs

RESIDENT = Resident("ada")
TASKS = tuple(Task(n, f"task-{n}", "command") for n in range(16))
CLAIM = Claim(1, TASKS[0], RESIDENT, 1)
OUTCOME = Outcome(answer="42", exit_code=0)
ENDING = Ending(1, "accepted", "ada", outcome=OUTCOME)
SUBJECTS = (Subject("task", "do it"), Subject("command", argv=("ls",)), Subject("outcome", "42"))
JOB: Any = SimpleNamespace(task=TASKS[0])


class Grants:
    """Stands for the store's view and tx, whose own cost is not measured here."""

    def plugin(self, name: str) -> Grants:
        return self

    @contextlib.contextmanager
    def part(self, plugin: str) -> Iterator[Grants]:
        yield self


class Speaker(Plugin):
    """Answers every hook that a cycle with a task meets, the busiest that a plugin can be."""

    @hookimpl
    def entitle(self, resident, view):  # type: ignore[no-untyped-def]
        return Entitlement(priority=1)

    @hookimpl
    def claim_filter(self, resident, tasks, view):  # type: ignore[no-untyped-def]
        return ()

    @hookimpl
    def claim_score(self, resident, tasks, view):  # type: ignore[no-untyped-def]
        return SCORES

    @hookimpl
    def claim_reserve(self, claim, tx):  # type: ignore[no-untyped-def]
        return None

    @hookimpl
    def enrich_prompt(self, resident, task, view):  # type: ignore[no-untyped-def]
        return SECTIONS

    @hookimpl
    async def check_safety(self, subject):  # type: ignore[no-untyped-def]
        return VERDICT

    @hookimpl
    async def review_outcome(self, task, outcome):  # type: ignore[no-untyped-def]
        return REVIEW

    @hookimpl
    def end_attempt(self, task, ending, tx):  # type: ignore[no-untyped-def]
        return None


class Doer(Plugin):
    @hookimpl
    async def execute_task(self, job):  # type: ignore[no-untyped-def]
        return OUTCOME


class Waiter(Plugin):
    @hookimpl
    async def check_safety(self, subject):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0)
        return VERDICT


SCORES = [0.5] * len(TASKS)
SECTIONS = (Section("situation", "It is morning."),)
VERDICT = Verdict("allow", "bench")
REVIEW = Review("accept", 0.95)


def plugins(cls: type[Plugin], count: int, prefix: str) -> list[Plugin]:
    return [type(f"{cls.__name__}{n}", (cls,), {"name": f"{prefix}{n}"})(None, None) for n in range(count)]


def median_micros(run: Callable[[], Any], times: int, rounds: int) -> float:
    figures = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(times):
            run()
        figures.append((time.perf_counter() - started) / times * 1e6)
    return statistics.median(figures)


async def awaited_micros(run: Callable[[], Awaitable[Any]], times: int, rounds: int) -> float:
    figures = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(times):
            await run()
        figures.append((time.perf_counter() - started) / times * 1e6)
    return statistics.median(figures)


async def cycle(hooks: Hooks, grants: Grants) -> None:
    """The hooks of one cycle with a task, in its order; safety is asked three times."""
    hooks.entitle(RESIDENT, grants)
    hooks.claim_filter(RESIDENT, TASKS, grants)
    hooks.claim_score(RESIDENT, TASKS, grants)
    hooks.claim_reserve(CLAIM, grants)
    hooks.enrich_prompt(RESIDENT, TASKS[0], grants)
    for subject in SUBJECTS[:2]:
        await hooks.check_safety(subject)
    async with hooks.around_execution(JOB):
        await hooks.execute_task(JOB)
    await hooks.check_safety(SUBJECTS[2])
    await hooks.review_outcome(TASKS[0], OUTCOME)
    hooks.end_attempt(TASKS[0], ENDING, grants)


async def measure(times: int, rounds: int) -> dict[str, float]:
    mark, grants = Mark(), Grants()
    three = plugins(Speaker, 3, "three")
    manager = pluggy.PluginManager("vivarium")
    manager.add_hookspecs(hookspecs)
    for plugin in three:
        manager.register(plugin, plugin.name)
    theirs = manager.hook.enrich_prompt
    ours = Hooks(three, Health(), mark=mark)
    unmarked = Hooks(three, Health())
    waiting = Hooks(plugins(Waiter, 3, "wait"), Health(), mark=mark)
    # Ten plugins of which three speak at every hook and one does the task, as in a village; then all ten at once.
    usual = Hooks([*three, *plugins(Doer, 1, "doer"), *plugins(Plugin, 6, "quiet")], Health(), mark=mark)
    busiest = Hooks([*plugins(Speaker, 9, "busy"), *plugins(Doer, 1, "doer")], Health(), mark=mark)
    task = TASKS[0]
    return {
        "sync_3_us": median_micros(lambda: ours.enrich_prompt(RESIDENT, task, grants), times, rounds),
        "sync_3_unmarked_us": median_micros(lambda: unmarked.enrich_prompt(RESIDENT, task, grants), times, rounds),
        "sync_3_pluggy_us": median_micros(lambda: theirs(resident=RESIDENT, task=task, view=grants), times, rounds),
        "async_3_us": await awaited_micros(lambda: ours.check_safety(SUBJECTS[0]), times, rounds),
        "async_3_suspending_us": await awaited_micros(lambda: waiting.check_safety(SUBJECTS[0]), times // 4, rounds),
        "mark_us": median_micros(lambda: mark.loop.hold(LABEL), times, rounds),
        "nothing_us": median_micros(lambda: None, times, rounds),
        "cycle_10_plugins_3_speak_us": await awaited_micros(lambda: cycle(usual, grants), times // 10, rounds),
        "cycle_10_plugins_all_speak_us": await awaited_micros(lambda: cycle(busiest, grants), times // 10, rounds),
    }


LABEL = bytes(128)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a hook call costs, in microseconds.")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--times", type=int, default=20_000, help="calls a round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    figures = asyncio.run(measure(options.times, options.rounds))
    if not options.json:
        for name, micros in figures.items():
            sys.stdout.write(f"{name:34} {micros:8.2f}\n")
    sys.stdout.write(json.dumps({name: round(micros, 3) for name, micros in figures.items()}) + "\n")


if __name__ == "__main__":
    main()
