"""The room of the scripted residents: a plugin whose every hook does its work, declines, or raises, by the seed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, ClassVar

from vivarium_kernel import deciding
from vivarium_kernel.calls import Refuse
from vivarium_kernel.cycle import Job
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import (
    Claim,
    Ending,
    Event,
    NewTask,
    Outcome,
    Reject,
    Resident,
    Review,
    Section,
    Subject,
    Task,
    Verdict,
)

ESCROW_MICROS = 10


class Fault(Exception):
    """A plugin's own fault."""


class _Migrations:
    """The table in which every ending that this plugin saw is a row."""

    name = "ways"

    def apply(self, db: Any) -> None:
        db.execute("CREATE TABLE IF NOT EXISTS ways_endings (id INTEGER PRIMARY KEY, task TEXT, attempt INTEGER)")


class Ways(Plugin):
    """What the residents of a simulation do. ``plan`` is set by whoever simulates."""

    name = "ways"
    plan: ClassVar[Any] = None
    migrations = _Migrations()

    def chance(self, *about: object) -> Random:
        found: Random = self.plan.chance(*about)
        return found

    def perhaps_fail(self, likely: float, *about: object) -> None:
        if self.chance("fault", *about).random() < likely:
            raise Fault(f"{about[0]} of {about[1:]}")

    @hookimpl
    def propose_activity(self, resident: Resident, view: Any) -> list[NewTask]:
        if self.chance("idle", resident.name, resident.cycles).random() < 0.9:
            return []
        return [NewTask(mode="deed", prompt="a walk", effect="pure", max_attempts=1)]

    @hookimpl
    def claim_filter(self, resident: Resident, tasks: Sequence[Task], view: Any) -> list[Reject]:
        self.perhaps_fail(0.02, "claim_filter", resident.name, resident.cycles, view.now)
        return [Reject(task.id, "not to my taste") for task in tasks
                if self.chance("taste", resident.name, task.id).random() < 0.1]  # fmt: skip

    @hookimpl
    def claim_score(self, resident: Resident, tasks: Sequence[Task], view: Any) -> list[float]:
        chance = self.chance("score", resident.name, resident.cycles)
        scores = [chance.random() for _ in tasks]
        return [float("nan"), *scores[1:]] if chance.random() < 0.02 else scores

    @hookimpl
    def claim_reserve(self, claim: Claim, tx: Any) -> None:
        about = (claim.task.id, claim.resident.name, tx.now)
        chance = self.chance("reserve", *about)
        if chance.random() < 0.03:
            raise Refuse("not now")
        if tx.balance("plugin:ways:pot") >= ESCROW_MICROS:
            tx.hold("plugin:ways:pot", ESCROW_MICROS, key=f"escrow:{claim.attempt}", ref=f"attempt:{claim.attempt}")
        self.perhaps_fail(0.02, "claim_reserve", *about)

    @hookimpl
    def enrich_prompt(self, resident: Resident, task: Task, view: Any) -> list[Section]:
        self.perhaps_fail(0.03, "enrich_prompt", resident.name, task.id, task.attempts)
        return [Section("identity", f"You are {resident.name}."), Section("memory", "Nothing yet.", private=True)]

    @hookimpl
    async def check_safety(self, subject: Subject) -> Verdict | None:
        about = (subject.kind, subject.task.id if subject.task else "", subject.attempt)
        self.perhaps_fail(0.003, "check_safety", *about)
        chance = self.chance("safety", subject.kind, about[1]).random()
        return Verdict("ask", "ways.look") if chance < 0.01 and subject.kind == "task" else Verdict("allow", "ways")

    @hookimpl
    @asynccontextmanager
    async def around_execution(self, job: Job) -> AsyncIterator[None]:
        self.perhaps_fail(0.01, "around_execution", job.attempt)
        yield

    @hookimpl(tryfirst=True)
    async def execute_task(self, job: Job) -> Outcome | None:
        chance = self.chance("act", job.attempt)
        if chance.random() < 0.04:
            await self._decline(job)
        if chance.random() < 0.03:
            raise Fault("execute_task")
        if job.task.mode != "deed":
            return None
        for number in range(chance.randrange(1, 4)):
            if await job.begin("tool", f"deed-{number}", job.task.effect, {"number": number}) is not None:
                continue  # done in an attempt that this one continues
            await asyncio.sleep(chance.expovariate(1 / 2.0))
            if chance.random() < 0.02:
                raise Fault("in the middle of a deed")
            job.end(chance.choice(["done", "done", "done", "void"]), {"number": number})
        fault = chance.choice([None] * 12 + ["task", "provider", "invalid"])
        return Outcome(answer="done as asked", fault=fault, reason="as it happens" if fault else "")

    async def _decline(self, job: Job) -> None:
        await self.village.store.write(
            deciding.decline,
            deciding.Declining(job.task.id, job.resident.name, "I would rather not", self.village.hooks.end_attempt),
        )

    @hookimpl
    async def review_outcome(self, task: Task, outcome: Outcome) -> Review | None:
        self.perhaps_fail(0.01, "review_outcome", task.id, task.attempts)
        chance = self.chance("review", task.id, task.attempts).random()
        if task.mode == "deed" or chance < 0.1:
            return Review("reject" if chance < 0.03 else "accept", 0.5 if 0.03 < chance < 0.06 else 0.95)
        return None

    @hookimpl
    def end_attempt(self, task: Task, ending: Ending, tx: Any) -> None:
        if ending.attempt is None:
            return
        tx.execute("INSERT INTO ways_endings (task, attempt) VALUES (?, ?)", (task.id, ending.attempt))
        for (number,) in tx.execute(
            "SELECT id FROM holds WHERE ref = ? AND owner = 'ways'", (f"attempt:{ending.attempt}",)
        ):
            wins = ending.kind == "accepted"
            payees = [(f"resident:{ending.resident}:free", ESCROW_MICROS)] if wins else []
            tx.settle_hold(number, payees, reason="escrow")
        # What fails once succeeds when it is run again.
        (tries,) = tx.execute("SELECT count(*) FROM missed WHERE attempt = ? AND plugin = 'ways'", (ending.attempt,))[0]
        if not tries:
            self.perhaps_fail(0.03, "end_attempt", ending.attempt)

    @hookimpl
    async def on_event(self, event: Event) -> None:
        self.perhaps_fail(0.01, "on_event", event.id)

    @hookimpl
    def on_tick(self, now: int, tx: Any) -> None:
        tx.declare_policy("pot", 100 * ESCROW_MICROS)
        tx.mint("pot", "plugin:ways:pot", 10 * ESCROW_MICROS, key=f"pot:{tx.day}", reason="pot", ref=f"day:{tx.day}")
        self.perhaps_fail(0.02, "on_tick", now)
