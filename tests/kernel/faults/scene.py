"""A village for the fault tests: tasks of each effect class, an executor and a priced model that leave their marks in
files outside the database, and what every village must look like in the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivarium_kernel.jobs import Job
from vivarium_kernel.models import Price, Reply, Request, count_tokens
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import NewTask, Outcome, Task, Usage
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.store import View
from vivarium_kernel.village import Village, With

from vivarium_kernel import audit, board, ledger, people

from . import quick

SETTINGS = """
name = "faults"
residents = ["ada", "ben"]
model = "priced:plain"
lease_seconds = 600.0
[commands]
sandbox = "none"
[commands.allow]
sh = "sh"
sleep = "sleep"
[retries]
backoff_seconds = 0.5
backoff_max_seconds = 5.0
"""
ENDED = ("done", "failed", "cancelled", "blocked")


def found(folder: Path, settings: str = SETTINGS) -> Path:
    """A village's folder that has not been opened yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vivarium.toml").write_text(settings)
    (folder / "facts.txt").write_text("one\ntwo\nthree\n")
    (folder / "files").mkdir(exist_ok=True)
    return folder


# What leaves marks


def mark(folder: Path, word: str) -> None:
    """Note an effect in a file outside the database: one whole line, whoever else writes."""
    end = os.open(folder / "files" / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(end, f"{word}\n".encode())
    os.close(end)


def marks(folder: Path) -> Counter[str]:
    """How often each effect happened."""
    path = folder / "files" / "effects"
    return Counter(path.read_text().split()) if path.exists() else Counter()


class Deeds(Plugin):
    """Does tasks of mode ``deed``: notes one effect of the task's own class; ``data.seconds`` is how long it takes."""

    name = "deeds"

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        if job.task.mode != "deed":
            return None
        recorded = await job.begin("tool", "deed", job.task.effect, {"task": job.task.id})
        if recorded is not None:
            return Outcome(answer=recorded["did"])
        mark(self.village.folder, job.task.id)
        seconds = job.task.data.get("seconds", 0)
        if seconds:
            await asyncio.sleep(seconds)
        job.end("done", {"did": job.task.id})
        return Outcome(answer=job.task.id)


class Priced:
    """A model that costs real money and notes every call."""

    name = "priced"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def price(self, model: str) -> Price | None:
        return Price(1_000_000, 2_000_000)

    async def complete(self, request: Request) -> Reply:
        mark(self._folder, f"call:{request.key.partition(':')[0]}")
        await asyncio.sleep(0)
        return Reply("an answer", Usage(count_tokens(request.text), 3))


# The tasks whose one cycle meets the faults

KINDS: Mapping[str, NewTask] = {
    "pure": NewTask(id="pure", command=("wc", "-l", "facts.txt"), max_micros=5_000),
    "once": NewTask(id="once", command=("sh", "-c", "echo once >> files/effects"), effect="once", max_micros=5_000),
    "llm": NewTask(id="llm", prompt="Say something.", max_micros=50_000),
}


def opened(
    folder: Path, *, how: With | None = None, ahead_seconds: float = 0.0, plugins: Sequence[type[Plugin]] = (Deeds,)
) -> Village:
    """The village, open, on quick time, with its priced model."""
    how = how or With(threaded=True, installed=False, plugins=plugins)
    village = Village(folder, how, clock=quick.QuickClock(ahead_seconds), environ={})
    village.add_provider(Priced(folder))
    return village


async def live(runtime: Runtime, within_seconds: float = 20.0) -> None:
    """Run until the runtime says it is done; real seconds."""
    async with asyncio.timeout(within_seconds * quick.FASTER), runtime:
        await runtime.run()


def finish(
    folder: Path,
    *,
    ahead_seconds: float = 10_000.0,
    residents: int = 2,
    allowed: Sequence[str] = ("done", "failed", "review"),
    **options: Any,
) -> dict[str, str]:
    """Open the village again, after every lease that may be left has lapsed, live until the board is empty, and look.

    Each task must have come to an end, effects of class ``once`` happened once, and the books and the log are right.
    Returns the tasks' states.
    """
    with opened(folder, ahead_seconds=ahead_seconds, **options) as village:
        quick.run(live(Runtime(village, residents, until_done=True)))
        with village.store.view() as view:
            return assert_legal(folder, view, allowed)


# What every village must look like in the end


def faults_of(view: View) -> list[str]:
    """Everything that is not as it must be once nobody works any more; empty when all is well."""
    found = [f"ledger: {problem}" for problem in ledger.verify(view).problems]
    broken = audit.verify(view)[2]
    if broken is not None:
        found.append(f"audit: event {broken.id}: {broken.why}")
    found += [
        f"attempt {row[0]} is left running" for row in view.rows("SELECT id FROM attempts WHERE state = 'running'")
    ]
    found += [
        f"attempt {row[0]} at {row[1]} waits for a decision but its task is {row[2]}"
        for row in view.rows(
            "SELECT a.id, t.id, t.state FROM attempts a JOIN tasks t ON t.id = a.task "
            "WHERE (a.state = 'review') <> "
            "(t.state = 'review' AND a.id = (SELECT max(id) FROM attempts WHERE task = t.id))"
        )
    ]
    found += [
        f"step {row[0]}.{row[1]} has no result, and its attempt has ended"
        for row in view.rows("SELECT attempt, number FROM steps WHERE state = 'intended'")
    ]
    found += [
        f"budget {scope}: {reserved} millionths are still reserved"
        for scope, reserved in view.rows("SELECT scope, reserved FROM budgets WHERE reserved <> 0")
    ]
    found += [
        f"{task}: its budget says {said} millionths spent, its steps {steps}"
        for task, said, steps in view.rows(
            "SELECT t.id, b.spent, (SELECT coalesce(sum(s.spent_micros), 0) FROM steps s JOIN attempts a "
            "ON a.id = s.attempt WHERE a.task = t.id) AS steps "
            "FROM tasks t JOIN budgets b ON b.scope = 'task:' || t.id WHERE b.spent <> steps"
        )
    ]
    found += [
        f"{task}: its provider got {paid} millionths, its steps say {steps}"
        for task, paid, steps in view.rows(
            "SELECT t.id, (SELECT coalesce(sum(micros), 0) FROM transfers WHERE ref = 'task:' || t.id "
            "AND reason = 'model_call') AS paid, (SELECT coalesce(sum(s.spent_micros), 0) FROM steps s JOIN attempts a "
            "ON a.id = s.attempt WHERE a.task = t.id) AS steps FROM tasks t WHERE paid <> steps"
        )
    ]
    found += [f"hold {row[0]} is still held" for row in view.rows("SELECT id FROM holds WHERE state = 'held'")]
    found += [
        f"{task} is {state}, was accepted {accepted} times and rewarded {rewards} times"
        for task, state, accepted, rewards in view.rows(
            "SELECT t.id, t.state, "
            "(SELECT count(*) FROM attempts WHERE task = t.id AND ending = 'accepted') AS accepted, "
            "(SELECT count(*) FROM transfers WHERE ref = 'task:' || t.id AND reason = 'task_reward') AS rewards "
            "FROM tasks t WHERE accepted <> (t.state = 'done') OR rewards > accepted"
        )
    ]
    found += [
        f"{task} ended {times} times"
        for task, times in view.rows(
            "SELECT task, count(*) FROM events WHERE kind = 'attempt.ended' AND json_extract(data, '$.task_state') "
            "IN ('done', 'failed') GROUP BY task HAVING count(*) > 1"
        )
    ]
    return found


def states(view: View) -> dict[str, str]:
    return {task.id: task.state for task in board.tasks(view, limit=100_000)}


def assert_legal(folder: Path, view: View, allowed: Sequence[str] = ("done", "failed", "review")) -> dict[str, str]:
    """Nothing is wrong with the village, and each task is in one of the states that are allowed; returns them."""
    wrong = faults_of(view)
    ends = states(view)
    wrong += [f"{task} is {state}" for task, state in ends.items() if state not in allowed]
    wrong += effect_faults(folder, board.tasks(view, limit=100_000))
    assert not wrong, "; ".join(wrong)
    return ends


def effect_faults(folder: Path, tasks: Sequence[Task]) -> list[str]:
    """Where an effect of class ``once`` happened twice, or a task is done that nobody did."""
    seen = marks(folder)
    wrong = []
    for task in tasks:
        times = seen[f"call:{task.id}" if task.mode == "llm" else task.id]
        if task.effect == "once" and task.mode != "llm" and times > 1:
            wrong.append(f"{task.id} was done {times} times")
        if task.state == "done" and task.command[:1] != ("wc",) and not times:
            wrong.append(f"{task.id} is done, but nobody did it")
    return wrong


def until(condition: Any, what: str, within_seconds: float = 20.0) -> None:
    """Wait in real time."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_seconds:g} s for {what}"
        time.sleep(0.005)


async def asynchronously_until(condition: Any, what: str, within_seconds: float = 20.0) -> None:
    """Wait in real time on a loop of any speed."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_seconds:g} s for {what}"
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def looking(folder: Path) -> Any:
    """A snapshot of a village that others work in."""
    with opened(folder, how=With(installed=False, load_plugins=False)) as village, village.store.view() as view:
        yield view


def tokens(village: Village) -> list[dict[str, Any]]:
    with village.store.view() as view:
        return people.tokens(view)
