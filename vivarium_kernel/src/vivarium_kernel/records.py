"""The room of the records: what the kernel hands to plugins, and what plugins hand back.

Every record is frozen. Those that also come from outside are attrs classes, for they are structured and checked; the
others are structs of msgspec, which are made in a tenth of the time. Names that end in ``_micros`` are integer
millionths of a currency, names that end in ``_at`` are integer microseconds of Unix time, and names that end in
``_seconds`` are seconds as a float.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
from attrs import frozen
from msgspec import Struct, field

from vivarium_kernel.terms import Effect, EndingKind, ResidentState, TaskState


class Task(Struct, frozen=True):
    """One task on the board. The part that people wrote never changes; ``state`` and what follows it does.

    ``max_micros`` and ``min_micros`` are its budget in ``usd``; ``max_micros == 0`` is a task without a budget.
    ``failures`` are the counted attempts (docs/rules.md, "Board"), ``attempts`` all of them.
    """

    seq: int
    id: str
    mode: str
    title: str = ""
    prompt: str = ""
    command: tuple[str, ...] = ()
    priority: int = 0
    max_micros: int = 0
    min_micros: int = 0
    max_attempts: int = 3
    timeout_seconds: float = 30.0
    effect: Effect = "once"
    files: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    wanted: str | None = None
    model: str | None = None
    cwd: str = "."
    expect: str = "done"
    human: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""
    posted_at: int = 0
    retry_until_at: int = 0
    state: TaskState = "open"
    attempts: int = 0
    failures: int = 0
    faults: int = 0
    declined: tuple[str, ...] = ()
    parked_for: str | None = None
    wake_at: int | None = None
    reason: str = ""
    continues: int | None = None
    approved: str | None = None
    ended_at: int | None = None


class Resident(Struct, frozen=True):
    """A resident of the village. ``cycles`` counts the cycles that it began."""

    name: str
    state: ResidentState = "active"
    cycles: int = 0
    model: str | None = None
    reason: str = ""
    created_at: int = 0


class Claim(Struct, frozen=True):
    """A resident takes a task: what ``claim_reserve`` is asked about, before the claim stands."""

    attempt: int
    task: Task
    resident: Resident
    cycle: int


class Section(Struct, frozen=True):
    """A piece of the prompt. A higher ``priority`` is kept longer when the token budget is short.

    ``private`` text is shown to its resident alone; the record of the prompt keeps its digest. ``untrusted`` names the
    source of a text that is not the village's own word ("resident ben", "file notes.md"): the prompt marks it so.
    """

    slot: Literal["rules", "identity", "tools", "overlay", "memory", "situation", "task"]
    text: str
    priority: int = 0
    private: bool = False
    untrusted: str = ""


class Subject(Struct, frozen=True):
    """What a safety check looks at: its kind says which of the other fields are set."""

    kind: Literal["task", "command", "prompt", "tool_call", "outcome", "message"]
    text: str = ""
    argv: tuple[str, ...] = ()
    task: Task | None = None
    resident: str | None = None
    attempt: int | None = None
    cwd: str = "."


class Verdict(Struct, frozen=True):
    """A safety check's answer. ``rule`` names the rule; a denial says what to do next."""

    answer: Literal["allow", "ask", "deny"]
    rule: str
    reason: str = ""
    next_step: str = ""

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}" + (f" → {self.next_step}" if self.next_step else "")


@frozen
class Usage:
    """What a model provider reports of one call, in tokens."""

    tokens_in: int = 0
    tokens_out: int = 0
    cached_tokens: int = 0


@frozen
class Outcome:
    """What the act phase brought back.

    ``fault`` says whose fault a failure is (docs/rules.md, "Board"): ``None`` for none, ``task`` is counted,
    ``provider`` is not counted and is tried again after a pause, of ``retry_seconds`` at least; ``invalid`` fails the
    task at once. ``usage`` is that of all its calls. ``to_people`` is for what only a person can decide,
    ``waits_for`` for what only they can make possible: the task is parked for it.
    """

    answer: str = ""
    fault: Literal["task", "provider", "invalid"] | None = None
    reason: str = ""
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    timed_out: bool = False
    seconds: float = 0.0
    model: str | None = None
    usage: Usage | None = None
    retry_seconds: float | None = None
    to_people: bool = False
    waits_for: Literal["approval", "answer", "key"] | None = None
    data: Mapping[str, Any] = attrs.field(factory=dict)


class Review(Struct, frozen=True):
    """A reviewer's decision on an outcome, with its confidence from 0 to 1."""

    decision: Literal["accept", "send_back", "jury", "human", "reject"]
    confidence: float
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Ending(Struct, frozen=True):
    """How an attempt ended: what ``end_attempt`` is told. ``spent_micros`` is in ``usd``."""

    attempt: int | None
    kind: EndingKind
    resident: str | None
    reason: str = ""
    outcome: Outcome | None = None
    review: Review | None = None
    spent_micros: int = 0


class Attempt(Struct, frozen=True):
    """One attempt at a task. Its ``id`` grows and is never used again: it is the fencing token."""

    id: int
    task: str
    resident: str
    number: int
    cycle: int
    state: Literal["running", "review", "ended"]
    ending: str | None
    reason: str
    process: int | None
    lease_until_at: int | None
    continues: int | None
    started_at: int
    ended_at: int | None
    model: str | None
    exit_code: int | None
    seconds: float | None
    stdout: str | None
    stderr: str | None
    answer: str | None
    confidence: float | None
    spent_micros: int


class Step(Struct, frozen=True):
    """One step of an attempt: its intent, and its result when there is one. ``private`` is one whose whole result is
    here for the attempt that goes on from it, and is shown to nobody; ``replayed`` one whose result is an earlier
    attempt's, and that was not done again."""

    attempt: int
    number: int
    kind: Literal["model", "tool", "command"]
    name: str
    effect: Effect
    state: Literal["intended", "done", "unknown", "void"]
    arguments: Any
    digest: str
    result: Any
    worst_micros: int
    spent_micros: int
    tokens_in: int
    tokens_out: int
    started_at: int
    ended_at: int | None
    private: bool = False
    replayed: bool = False


class Transfer(Struct, frozen=True):
    """One movement of money from ``payer`` to ``payee``: both sides of the double entry in one row."""

    key: str
    payer: str
    payee: str
    currency: str
    micros: int
    reason: str
    source: str
    actor: str
    ref: str
    at: int


class Event(Struct, frozen=True):
    """One entry of the audit log."""

    id: int
    at: int
    day: int
    hour: int
    kind: str
    actor: str
    resident: str | None
    task: str | None
    attempt: int | None
    cycle: int | None
    model: str | None
    data: Any
    hash: str


@frozen
class Entitlement:
    """What a resident may use now. ``None`` is no limit; of several answers the smallest of each counts.

    ``aid_micros_per_1k`` is the price in ``aid`` of 1,000 tokens, by model.
    """

    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None
    tool_calls: int | None = None
    priority: int = 0
    aid_micros_per_1k: Mapping[str, int] = attrs.field(factory=dict)


class Reject(Struct, frozen=True):
    """A claim filter's refusal of one task of the batch."""

    task_id: str
    reason: str


@frozen
class NewTask:
    """A task to post. Money is in millionths of ``usd``; ``max_micros`` None takes the village's default.

    ``timeout_seconds`` is how long one attempt may take; None is 30 for a command and 600 for anything else.
    """

    id: str | None = None
    key: str | None = None
    mode: str | None = None
    title: str = ""
    prompt: str = ""
    command: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    priority: int = 0
    max_micros: int | None = None
    min_micros: int = 0
    max_attempts: int = 3
    timeout_seconds: float | None = None
    effect: Effect | None = None
    files: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    wanted: str | None = None
    not_before_at: int | None = None
    model: str | None = None
    cwd: str = "."
    expect: str = "done"
    human: bool = False
    retry_seconds: float | None = None
    data: Mapping[str, Any] = attrs.field(factory=dict)
