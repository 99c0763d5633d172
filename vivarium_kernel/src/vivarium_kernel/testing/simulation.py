"""The room of the simulated village: a whole society on a virtual clock, whose every turn follows from one seed.

Two processes or more drive scripted residents on one village; an operator meddles; providers fail and lie; plugins
raise; processes lose their power between or within transactions and come back. ``python -m
vivarium_kernel.testing.simulation SEED …`` prints the hash of each seed's event log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, field, frozen

from vivarium_kernel import audit, board, breakers, control, deciding, people, processes, settling
from vivarium_kernel.clock import SimulatedClock, run_simulated
from vivarium_kernel.errors import Conflict, VivariumError
from vivarium_kernel.plugins import Plugin
from vivarium_kernel.records import NewTask
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.store import Store, Tx
from vivarium_kernel.terms import MICROS
from vivarium_kernel.testing.society import LABEL, SEEN, Call, ReadingWays, SimulatedProvider, Ways
from vivarium_kernel.testing.soundness import problems
from vivarium_kernel.village import CALLS, Village, With

MIDNIGHT = 1_750_032_000 * MICROS  # of a UTC day: budgets of real days turn over in the middle of a simulation
NEVER = 1 << 60
TO_DECIDE = "SELECT id FROM tasks WHERE state IN ('review', 'parked', 'failed', 'claimed') ORDER BY seq"


@frozen
class Plan:
    """What is simulated. Everything else follows from the seed.

    ``seconds`` are of simulated time: at a pace of 1.0 a village hour has 5 s, and a village day 120. ``settings`` are
    further lines of vivarium.toml, ``plugins`` are under test beside the scripted residents' own.
    """

    seed: int
    residents: int = 50
    tasks: int = 100
    seconds: float = 120.0
    processes: int = 2
    crashes: int = 3
    meddling_seconds: float = 4.0
    wrong_reports: float = 0.04
    settings: str = ""
    plugins: Sequence[type[Plugin]] = ()

    def chance(self, *about: object) -> Random:
        """Chance for one thing alone, so that whatever else happens does not move it."""
        return Random("/".join(map(str, (self.seed, *about))))  # noqa: S311 - a simulation must repeat


@frozen
class Report:
    """What came of it: the number and hash of the last event, tasks by state, and what is wrong, in words."""

    events: int
    head: str
    tasks: dict[str, int]
    lives: int
    calls: int
    problems: tuple[str, ...]


class PowerCut(BaseException):
    """The process that executes this statement is gone."""


@define
class Fuse:
    """Lets so many more statements of one process pass, then cuts its power: before a commit or right after it."""

    left: int = NEVER
    after_commit: bool = False
    burned: asyncio.Event = field(factory=asyncio.Event)
    connections: list[sqlite3.Connection] = field(factory=list)
    closed: int = 0

    def cut(self) -> bool:
        """The process is gone, and what is left is the file as it was committed. False if it had ended by itself."""
        self.left = -NEVER
        was_open = not self.closed
        for connection in self.connections:
            connection.close()
        return was_open

    def connection(self) -> type[sqlite3.Connection]:
        fuse = self

        class Fused(sqlite3.Connection):
            def __init__(self, *arguments: Any, **more: Any) -> None:
                super().__init__(*arguments, **more)
                fuse.connections.append(self)

            def close(self) -> None:
                fuse.closed += 1
                super().close()

            def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
                fuse.left -= 1
                if fuse.left < 0:
                    if fuse.left == -1 and sql == "COMMIT" and fuse.after_commit:
                        super().execute(sql)
                    fuse.burned.set()
                    self.rollback()  # what a dead process leaves is undone by whoever opens the file next
                    raise PowerCut
                # Only power fails here, never the disk: waiting for it would prove nothing.
                return super().execute(
                    "PRAGMA synchronous = OFF" if sql == "PRAGMA synchronous = FULL" else sql, *arguments
                )

        return Fused


class Line:
    """A process's way to its store. While it sleeps, as a machine does whose lid is closed, nothing passes."""

    def __init__(self, store: Store) -> None:
        self._write = store.write
        self._awake = asyncio.Event()
        self._awake.set()
        store.write = self.write

    def write(self, fn: Callable[[Tx, Any], Any], item: Any, *, now: bool = False) -> Awaitable[Any]:
        if self._awake.is_set():
            return self._write(fn, item)
        return asyncio.ensure_future(self._later(fn, item))

    async def _later(self, fn: Callable[[Tx, Any], Any], item: Any) -> Any:
        await self._awake.wait()
        return await self._write(fn, item)

    async def live(self, seconds: float, chance: Random) -> None:
        """So many seconds, of which perhaps some asleep: longer than a lease, or not."""
        nap = min(chance.uniform(2.0, 14.0), seconds) if chance.random() < 0.3 else 0.0
        before = chance.uniform(0.0, seconds - nap)
        await asyncio.sleep(before)
        if nap:
            self._awake.clear()
            await asyncio.sleep(nap)
            self._awake.set()
        await asyncio.sleep(seconds - nap - before)


class Simulation:
    """One village, its processes, its providers and its operator."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.clock = SimulatedClock(plan.seed, MIDNIGHT - int(plan.seconds / 2 * MICROS))
        self.calls: list[Call] = []
        self.tries: Counter[str] = Counter()  # how often each of them was made
        self.lives = 0
        self._life: ContextVar[int] = ContextVar("life", default=0)
        self._tasks: dict[int, list[asyncio.Task[Any]]] = {}
        self._locks: list[int] = []
        names = json.dumps([f"r{number:02d}" for number in range(plan.residents)])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vivarium.toml").write_text(
            'name = "simulated"\nmodel = "simulated:m"\npace_seconds = 1.0\nlease_seconds = 6.0\n'
            f"residents = {names}\n{plan.settings}"
        )

    def run(self) -> Report:
        """Simulate, then look whether everything is as it must be."""
        logger = logging.getLogger("vivarium")
        before, logger.disabled = logger.disabled, True  # faults are what is asked for here
        try:
            return run_simulated(self.clock, self._main())  # type: ignore[no-any-return]
        finally:
            logger.disabled = before
            for lock in self._locks:  # only now does nobody of the dead ask for it any more
                with contextlib.suppress(OSError):
                    os.close(lock)

    async def _main(self) -> Report:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._task)
        loop.set_exception_handler(lambda *_: None)  # tasks of dead processes
        with self.open(Fuse()) as village:
            village.post(self._tasks_to_post(0, self.plan.tasks // 2))
            driven = [asyncio.create_task(self._process(place)) for place in range(self.plan.processes)]
            operator = asyncio.create_task(self._operator(village))
            await asyncio.gather(*driven)
            operator.cancel()
            await asyncio.gather(operator, return_exceptions=True)
            await asyncio.sleep(2 * village.settings.lease_seconds)  # what dead processes held lapses
            await village.store.write(
                processes.reap, processes.Reap(None, village.hooks.end_attempt, village.retries())
            )
            await self._catch_up(village)
            with village.store.view() as view:
                number, head, _ = audit.verify(view)
                counts = board.counts(view)
            owed = sum(call.owed_micros for call in self.calls)
            found = tuple(problems(village.store, owed, SEEN))
            return Report(number, head, counts, self.lives, len(self.calls), found)

    def open(self, fuse: Fuse) -> Village:
        """The village as one more process opens it."""
        ways = type("PlannedWays", (ReadingWays if self.plan.seed % 2 else Ways,), {"plan": self.plan})
        how = With(
            threaded=False, installed=False, plugins=(ways, *self.plan.plugins), timeouts=False,
            connection=fuse.connection(),
        )  # fmt: skip
        village = Village(self.folder, how, clock=self.clock, environ={})
        for name in ("simulated", "other"):
            village.add_provider(SimulatedProvider(name, self.plan, self.calls, self.tries))
        return village

    # Processes

    def _task(self, loop: asyncio.AbstractEventLoop, body: Any, **more: Any) -> asyncio.Task[Any]:
        """Remembers whose task it is: all of a process's end when it does."""
        task: asyncio.Task[Any] = asyncio.Task(body, loop=loop, **more)
        self._tasks.setdefault(self._life.get(), []).append(task)
        return task

    async def _process(self, place: int) -> None:
        """Lives of one process, one after the other; only the last ends as it should."""
        chance = self.plan.chance("process", place)
        loop = asyncio.get_running_loop()
        until = loop.time() + self.plan.seconds
        share = self.plan.residents // self.plan.processes
        for _ in range(self.plan.crashes):
            left = until - loop.time()
            within = chance.random() < 0.5
            dies_after = chance.uniform(0.0, 1.4 * self.plan.seconds / (self.plan.crashes + 1))
            if dies_after + 15.0 > left:
                break
            await self._live(share, dies_after, chance.randrange(1, 400) if within else NEVER, chance.random() < 0.5)
            await asyncio.sleep(chance.uniform(0.0, 12.0))  # sooner than its lease lapses, or later
        await self._live(share, until - loop.time(), None, False)

    async def _live(self, residents: int, seconds: float, statements: int | None, after_commit: bool) -> None:
        """One life. ``statements`` None ends it well; else its power is cut so many statements after ``seconds``."""
        self.lives += 1
        life = self.lives
        self._life.set(life)
        fuse = Fuse(after_commit=after_commit)
        village = self.open(fuse)
        line = Line(village.store)
        runtime = Runtime(village, residents, kind="work")
        try:
            await runtime.__aenter__()
            await line.live(seconds, self.plan.chance("life", life))
            if statements is None:
                await runtime.__aexit__()
                village.close()
                return
            if statements != NEVER:
                fuse.left = statements
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(10.0):
                        await fuse.burned.wait()
        finally:
            self._life.set(0)
            if fuse.cut():
                self._locks.append(village.store._lock_fd)
            for task in self._tasks.pop(life, ()):
                task.cancel()

    # The operator

    async def _operator(self, village: Village) -> None:
        """Somebody at the command line, who posts, decides and switches, now and then."""
        chance = self.plan.chance("operator")
        posted = self.plan.tasks // 2
        while True:
            await asyncio.sleep(chance.expovariate(1 / self.plan.meddling_seconds))
            with contextlib.suppress(VivariumError):
                if posted < self.plan.tasks and chance.random() < 0.5:
                    more = min(self.plan.tasks - posted, chance.randrange(1, 12))
                    await village.store.write(
                        board.post, village.posting(self._tasks_to_post(posted, more), "operator:simulated")
                    )
                    posted += more
                else:
                    await self._meddle(village, chance)

    async def _meddle(self, village: Village, chance: Random) -> None:
        write, who = village.store.write, "operator:simulated"
        what = chance.choice(
            ["paused", "halted", "resident", "resident", "decide", "decide", "decide", "trust", "trust", "pace"]
        )
        if what in ("paused", "halted"):
            await write(control.switch, control.Switch(what, True, who, "for a while"))
            await asyncio.sleep(chance.uniform(0.1, 3.0))
            await write(control.switch, control.Switch(what, False, who))
        elif what == "resident":
            name = f"r{chance.randrange(self.plan.residents):02d}"
            for state in (chance.choice(["paused", "quarantined"]), "active"):
                await write(people.change, people.Change(name, state, who, "to see", village.hooks.end_attempt))  # type: ignore[arg-type]
                await asyncio.sleep(chance.uniform(0.1, 6.0))
        elif what == "decide":
            with village.store.view() as view:
                found = [row[0] for row in view.rows(TO_DECIDE)]
            for name in chance.sample(found, min(3, len(found))):
                with contextlib.suppress(Conflict):
                    done: deciding.What = chance.choice(["approve", "approve", "reject", "requeue", "cancel"])
                    await write(
                        deciding.decide, deciding.Decision(name, done, who, "so it is", village.hooks.end_attempt)
                    )
        elif what == "pace":
            await write(control.set_pace, (chance.choice([0.5, 1.0, 2.0]), who))
        else:
            with village.store.view() as view:
                distrusted = breakers.breakers(view, hook=CALLS)
            for each in distrusted:
                await write(breakers.close, breakers.Closing(each.plugin, CALLS, who))
            await self._catch_up(village)

    async def _catch_up(self, village: Village) -> None:
        """Run the plugins' parts that were missed."""

        def again(plugin: str, task: Any, ending: Any, tx: Tx) -> BaseException | None:
            call = village.hooks.end_attempt_of(plugin, task, ending, tx)
            return call.error if call is not None else None

        with village.store.view() as view:
            missed = [row[0] for row in view.rows("SELECT id FROM missed ORDER BY id")]
        for number in missed:
            await village.store.write(lambda tx, item: settling.run_missed(tx, item, again), number)

    # The tasks

    def _tasks_to_post(self, start: int, count: int) -> list[NewTask]:
        return [self._new_task(number) for number in range(start, start + count)]

    def _new_task(self, number: int) -> NewTask:
        chance = self.plan.chance("task", number)
        llm = chance.random() < 0.6
        return NewTask(
            id=f"s{number}",
            mode="llm" if llm else "deed",
            prompt=f"{LABEL} task {number}",
            needs=tuple(sorted({f"s{chance.randrange(number)}" for _ in range(chance.choice([0, 0, 1, 2])) if number})),
            priority=chance.randrange(3),
            max_micros=chance.choice([0, 3_000, 10_000, 40_000]) if not llm else chance.choice([4_000, 10_000, 40_000]),
            min_micros=chance.choice([0, 0, 2_000]),
            max_attempts=chance.choice([1, 2, 3, 3]),
            effect=chance.choice(["once", "idempotent", "pure"]),
            plugins=chance.choice([(), (), ("ways",)]),
            wanted=f"r{chance.randrange(self.plan.residents):02d}" if chance.random() < 0.2 else None,
            not_before_at=self.clock.now() + chance.randrange(60) * MICROS if chance.random() < 0.2 else None,
            model=chance.choice([None, "other:m"]),
            human=chance.random() < 0.05,
            retry_seconds=chance.choice([20.0, 600.0]),
        )


def simulate(plan: Plan, folder: Path | None = None) -> Report:
    """Simulate in a folder that is empty, by default one that is removed afterwards."""
    if folder is not None:
        return Simulation(plan, folder).run()
    with tempfile.TemporaryDirectory(prefix="vivarium-") as made:
        return Simulation(plan, Path(made)).run()


def main(seeds: Sequence[str]) -> None:
    """Print one JSON object: the hash of each seed's event log, which any process and hash seed must give again."""
    heads = {seed: simulate(Plan(int(seed))).head for seed in seeds}
    print(json.dumps({"hash seed": os.environ.get("PYTHONHASHSEED"), "heads": heads}))


if __name__ == "__main__":
    main(sys.argv[1:])
