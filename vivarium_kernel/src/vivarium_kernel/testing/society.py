"""The room of the simulated society: a plugin and a provider that do their work, fail, decline and lie by the seed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, ClassVar, Literal, Protocol

from attrs import frozen

from vivarium_kernel import deciding
from vivarium_kernel.calls import Refuse
from vivarium_kernel.jobs import Job
from vivarium_kernel.models import Price, ProviderFault, Reply, Request, count_tokens
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
    Usage,
    Verdict,
)
from vivarium_kernel.terms import MICROS

LABEL = "[simulated model, no LLM]"
PRICE = Price(2 * MICROS, 6 * MICROS)
ESCROW_MICROS = 10
# What must find nothing in a village where this plugin lived.
SEEN = {
    "a plugin's part did not run exactly once": "SELECT a.id FROM attempts a WHERE state = 'ended' AND 1 <> "
    "(SELECT count(*) FROM ways_endings w WHERE w.attempt = a.id) + "
    "(SELECT count(*) FROM missed m WHERE m.attempt = a.id AND m.plugin = 'ways')",
    "an escrow outlived its attempt": "SELECT h.id FROM holds h JOIN attempts a ON 'attempt:' || a.id = h.ref "
    "WHERE h.state = 'held' AND a.state = 'ended' AND a.id NOT IN (SELECT attempt FROM missed)",
}


class Seeded(Protocol):
    """What is simulated."""

    @property
    def wrong_reports(self) -> float: ...

    def chance(self, *about: object) -> Random: ...


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
    plan: ClassVar[Seeded]
    migrations = _Migrations()
    _looks = 0

    def chance(self, *about: object) -> Random:
        return self.plan.chance(*about)

    def perhaps_fail(self, likely: float, *about: object) -> None:
        if self.chance("fault", *about).random() < likely:
            raise Fault(f"{about[0]} of {about[1:]}")

    @hookimpl
    def propose_activity(self, resident: Resident, view: Any) -> list[NewTask]:
        if self.chance("idle", resident.name, resident.cycles).random() < 0.9:
            return []
        return [NewTask(mode="deed", prompt="a walk", effect="pure", max_attempts=1)]

    @hookimpl
    def claim_filter(self, resident: Resident, tasks: Sequence[Task]) -> list[Reject]:
        self._looks += 1
        self.perhaps_fail(0.02, "claim_filter", resident.name, resident.cycles, self._looks)
        return [Reject(task.id, "not to my taste") for task in tasks
                if self.chance("taste", resident.name, task.id).random() < 0.1]  # fmt: skip

    @hookimpl
    def claim_score(self, resident: Resident, tasks: Sequence[Task]) -> list[float]:
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
        faults: list[Literal["task", "provider", "invalid"] | None] = ["task", "provider", "invalid"]
        fault = chance.choice([None] * 12 + faults)
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


class ReadingWays(Ways):
    """The same with a hook of the claim that may read: no resident claims before its last task is settled."""

    @hookimpl
    def entitle(self, resident: Resident, view: Any) -> None:
        return None


@frozen
class Call:
    """A call that a provider took, as its own books have it: ``owed_micros`` is the least that it is owed."""

    key: str
    owed_micros: int


class SimulatedProvider:
    """No LLM. It answers late, fails, is cut off, and sometimes reports what can't be true."""

    def __init__(self, name: str, plan: Seeded, calls: list[Call], tries: Counter[str]) -> None:
        self.name = name
        self._plan = plan
        self._calls = calls
        self._tries = tries

    def price(self, model: str) -> Price | None:
        return PRICE

    async def complete(self, request: Request) -> Reply:
        self._tries[request.key] += 1
        chance = self._plan.chance("call", request.key, self._tries[request.key])
        if chance.random() < 0.08:
            await asyncio.sleep(0.2)
            raise ProviderFault("429: come back later", started=False)
        usage = Usage(count_tokens(request.text), chance.randrange(1, request.max_tokens + 1))
        place = len(self._calls)
        # Until its caller has recorded an answer, a call that was taken is owed in full.
        self._calls.append(Call(request.key, PRICE.of(usage.tokens_in, usage.tokens_out)))
        await asyncio.sleep(chance.expovariate(1 / 3.0))
        if chance.random() < 0.05:
            raise ProviderFault("the stream was cut", started=True)
        if chance.random() < self._plan.wrong_reports:
            lie = chance.choice([0, -1, 1.5, usage.tokens_out // 2, 10**7, 10**20])
            if type(lie) is int and 0 <= lie < usage.tokens_out:
                self._calls[place] = Call(request.key, PRICE.of(usage.tokens_in, lie))
            usage = Usage(usage.tokens_in, lie)  # type: ignore[arg-type]
        return Reply(f"{LABEL} {request.key}", usage)
