"""The room of the task that is run now: posted, claimed, done and answered within one request.

It takes the way of every task: claim, prepare, act, settle. Residents that a process drives take it in their rounds;
where nobody does, a free resident lives this one cycle in the server's own process.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Annotated, Any, Literal

from attrs import frozen
from msgspec import Meta

from vivarium_kernel import audit, board, people, posting, village_time
from vivarium_kernel.api.operations import Answer, Api, Call, Operation, key_of
from vivarium_kernel.api.people_routes import rest
from vivarium_kernel.api.shapes import Long, Micros, Word
from vivarium_kernel.audit import Filter
from vivarium_kernel.claiming import NotClaimed
from vivarium_kernel.errors import Conflict
from vivarium_kernel.people import free_resident
from vivarium_kernel.records import Attempt, Event, NewTask, Subject, Task, Usage
from vivarium_kernel.store import View
from vivarium_kernel.terms import ENDED_STATES, FOR_PEOPLE, Effect, TaskState
from vivarium_kernel.village import Village
from vivarium_kernel.village_time import Times

LABEL = "now"
PRIORITY = 1_000  # what somebody waits for goes first
FIRST_LOOK_SECONDS, LOOK_SECONDS = 0.01, 0.25
_FACTS = ("stdout", "stderr", "exit_code", "seconds", "confidence")


@frozen
class CycleRequest:
    """One task to run now. ``wait_seconds`` is how long the answer may take; the task goes on after it."""

    prompt: Long = ""
    command: Annotated[tuple[Long, ...], Meta(max_length=1024)] = ()
    title: Word = ""
    mode: Word | None = None
    model: Word | None = None
    max_micros: Micros | None = None
    min_micros: Micros = 0
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 1
    timeout_seconds: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    effect: Effect | None = None
    files: Annotated[tuple[Word, ...], Meta(max_length=1000)] = ()
    resident: Word | None = None
    wait_seconds: Annotated[float, Meta(ge=0, le=600)] | None = None


@frozen
class Judged:
    """What one safety check says."""

    subject: Literal["task", "command", "outcome"]
    plugin: str
    answer: Literal["allow", "ask", "deny"]
    rule: str
    reason: str
    next_step: str


@frozen
class CycleReply:
    """How the task went. ``finished`` False: it still runs or waits; read it again at ``GET /tasks/{task}``."""

    task: str
    finished: bool
    status: TaskState
    reason: str
    attempt: int | None
    resident: str | None
    result: str | None
    stdout: str | None
    stderr: str | None
    exit_code: int | None
    seconds: float | None
    model: str | None
    usage: Usage
    cost_micros: int
    confidence: float | None
    verdicts: tuple[Judged, ...]
    events: tuple[Event, ...]


def operations() -> list[Operation]:
    """The routes of this room."""
    return [
        Operation("POST /cycle", "Run one task now.", _cycle, body=CycleRequest, reply=CycleReply, keyed=True),
    ]


async def _cycle(call: Call) -> Answer:
    asked: CycleRequest = call.body
    village = call.village
    new = _task_of(call, asked)
    posting.checked(new, modes=village.modes(), task_micros=village.settings.budgets.task_usd_micros)
    with village.store.view() as view:
        refuse_at_rest(village_time.read_times(view))
        if asked.resident is not None:
            _refuse_absent(view, asked.resident)
    (task,) = await village.store.write(board.post, village.posting([new], call.caller.actor))
    call.api.runtime.rounds.kick()
    wait = asked.wait_seconds if asked.wait_seconds is not None else min(600.0, board.timeout_of(new) + 30.0)
    task = await end_of(call.api, task, wait)
    reply = await _reply(village, task)
    return Answer(reply, 200 if reply.finished else 202)


def _task_of(call: Call, asked: CycleRequest) -> NewTask:
    key = key_of(call.request)
    return NewTask(
        key=None if key is None else "cycle:" + sha256(f"{call.caller.actor}:{key}".encode()).hexdigest(),
        mode=asked.mode,
        title=asked.title,
        prompt=asked.prompt,
        command=asked.command,
        priority=PRIORITY,
        max_micros=asked.max_micros,
        min_micros=asked.min_micros,
        max_attempts=asked.max_attempts,
        timeout_seconds=asked.timeout_seconds,
        effect=asked.effect,
        files=asked.files,
        labels=(LABEL,),
        wanted=asked.resident,
        model=asked.model,
    )


def refuse_at_rest(times: Times) -> None:
    """Nothing runs now, so that nobody should wait for it."""
    if times.halted or times.paused:
        word, verb = ("halted", "unhalt") if times.halted else ("paused", "resume")
        raise Conflict(
            f"village.{word}", f"The village is {word}: nothing is run now.",
            f"POST /control/{verb}, or post the task to be run later (POST /tasks).",
        )  # fmt: skip


def _refuse_absent(view: View, name: str) -> None:
    found = people.resident(view, name)
    if found.state != "active":
        raise Conflict(
            "resident.state", f"{name} is {found.state}.", "Name another, or leave it out.", field="resident"
        )


def _is_over(task: Task) -> bool:
    """Ended, or waiting for people: nothing more happens by itself."""
    if task.state in ENDED_STATES or task.state == "review":
        return True
    return task.state == "parked" and task.parked_for in FOR_PEOPLE


async def end_of(api: Api, task: Task, wait_seconds: float) -> Task:
    """Wait for the task's end; give it to a free resident of our own as long as nobody has taken it."""
    clock = api.village.clock
    until = clock.monotonic() + wait_seconds
    pause = FIRST_LOOK_SECONDS
    while True:
        with api.village.store.view() as view:
            task = board.task(view, task.id)
            resident = _who_is_free(view, task) if task.state == "open" else None
        if _is_over(task) or api.closing.is_set():
            return task
        if resident is not None:
            # It goes on if the request ends: a claim is carried to its end.
            await asyncio.wait({api.run(_live(api, resident, task))}, timeout=max(0.0, until - clock.monotonic()))
        if clock.monotonic() >= until:
            return task
        await rest(api, min(pause, max(0.0, until - clock.monotonic())))
        pause = min(LOOK_SECONDS, pause * 1.5)


def _who_is_free(view: View, task: Task) -> str | None:
    """A resident whom no process drives: the one that is wanted, or anyone."""
    if task.wanted is None:
        found = free_resident(view)
        return None if found is None or found.name in task.declined else found.name
    row = view.row(
        "SELECT 1 FROM residents WHERE name = ?1 AND state = 'active' AND process IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM attempts WHERE resident = ?1 AND state = 'running')",
        (task.wanted,),
    )
    return task.wanted if row is not None and task.wanted not in task.declined else None


async def _live(api: Api, resident: str, task: Task) -> None:
    won = await api.runtime.rounds.claim_now(resident, task)
    if not isinstance(won, NotClaimed):
        await api.runtime.live(won)


async def _reply(village: Village, task: Task) -> CycleReply:
    with village.store.view() as view:
        task = board.task(view, task.id)
        attempts = board.attempts(view, task.id)
        row = view.row(
            "SELECT coalesce(sum(s.tokens_in), 0), coalesce(sum(s.tokens_out), 0) FROM steps s JOIN attempts a "
            "ON a.id = s.attempt WHERE a.task = ?",
            (task.id,),
        )
        events = audit.tail(view, 0, 1000, Filter(task=task.id))
    last = attempts[-1] if attempts else None
    done = None if last is None or last.state == "running" else last
    tokens = row or (0, 0)
    return CycleReply(
        task=task.id,
        finished=_is_over(task),
        status=task.state,
        reason=task.reason,
        attempt=None if last is None else last.id,
        resident=None if last is None else last.resident,
        result=None if done is None else done.answer or done.stdout,
        model=None if last is None else last.model,
        usage=Usage(tokens[0], tokens[1]),
        cost_micros=sum(attempt.spent_micros for attempt in attempts),
        **{name: None if done is None else getattr(done, name) for name in _FACTS},
        verdicts=tuple(await _verdicts(village, task, done)),
        events=tuple(events),
    )


async def _verdicts(village: Village, task: Task, attempt: Attempt | None) -> list[Judged]:
    """What each safety check says of the task, its command and its outcome."""
    subjects = [Subject("task", f"{task.title}\n{task.prompt}", task.command, task, cwd=task.cwd)]
    if task.command:
        subjects.append(Subject("command", "", task.command, task, cwd=task.cwd))
    if attempt is not None and (attempt.answer or attempt.stdout):
        subjects.append(Subject("outcome", attempt.answer or attempt.stdout or "", (), task, attempt.resident))
    found: list[Judged] = []
    for subject in subjects:
        safety = await village.hooks.check_safety(subject)
        kind: Any = subject.kind
        for plugin, verdict in safety.by or (("kernel", safety.verdict),):
            found.append(Judged(kind, plugin, verdict.answer, verdict.rule, verdict.reason, verdict.next_step))
    return found
