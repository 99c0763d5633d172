"""The room of the wire's bodies: what a worker on another machine, in any language, says and hears.

A worker joins with its own token and is given residents to live for. It claims for each of them; a claim carries the
attempt's number, which is its fencing number, and a token of its own, dead with the lease. Everything about the attempt
is said with that token at that number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from attrs import field, frozen
from msgspec import Meta

from vivarium_kernel.api.shapes import Micros, Number, Word, Words
from vivarium_kernel.records import Entitlement, Outcome, Resident, Section, Step, Task
from vivarium_kernel.terms import Effect

Kind = Literal["model", "tool", "command"]
StepNumber = Annotated[int, Meta(ge=1, le=1_000_000, description="steps are numbered from 1 on, each once")]


@frozen
class Join:
    """Ask for residents to live for; new ones are made when too few are free.

    ``before`` is the number that the worker had: what is left of that one is given back, and its residents are free.
    """

    residents: Annotated[int, Meta(ge=1, le=256)] = 1
    before: Number | None = None


@frozen
class Joined:
    """The worker's number, whom it lives for, and how often it must be heard of: at least once a lease."""

    worker: int
    residents: tuple[str, ...]
    lease_seconds: float


@frozen
class Renewed:
    """Until when, from now."""

    lease_seconds: float


@frozen
class ClaimRequest:
    """Wait for a task for one of the worker's residents.

    ``modes`` and ``providers`` (of models) are what the worker can do. A task that claims files is only given to a
    worker that shares the village's folder, and none of ``without`` to this one: it found that it can't do them.
    """

    worker: Number
    resident: Word
    wait_seconds: Annotated[float, Meta(ge=0, le=60)] = 20.0
    modes: Annotated[tuple[Word, ...], Meta(max_length=100)] = ("command", "llm")
    providers: Annotated[tuple[Word, ...], Meta(max_length=100)] = ("scripted",)
    shares_folder: bool = False
    without: Annotated[tuple[Word, ...], Meta(max_length=1000)] = ()


@frozen
class ToolShape:
    """A tool that the resident may use, for its model; ``parameters`` is a JSON Schema. It is used by *act*."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    private: bool = False


@frozen
class Claim:
    """A task to do: everything that its act needs. ``attempt`` is the fencing number."""

    attempt: int
    token: str
    lease_seconds: float
    task: Task
    resident: Resident
    cycle: int
    number: int
    model: str
    day: int
    hour: int
    entitlement: Entitlement
    sections: tuple[Section, ...]
    recorded: tuple[Step, ...]
    tools: tuple[ToolShape, ...] = ()
    instead_of: str = ""


@frozen
class ClaimReply:
    """A claim, or None when the time was over: ask again."""

    claim: Claim | None


@frozen
class Intent:
    """A step about to be done. An answer without an error means: go.

    For a call of a model ``worst_tokens`` are the most that it may use: the village checks them against the resident's
    limits, and sets aside at least their price in ``aid``.
    """

    number: StepNumber
    kind: Kind
    name: Word
    effect: Effect
    arguments: Any = None
    worst_micros: Micros = 0
    aid_micros: Micros = 0
    worst_tokens: Number = 0
    model: Word | None = None
    private: bool = False


@frozen
class StepResult:
    """What came of a step. ``intent`` is given for a ``pure`` one, which is told once, with its result.

    ``void`` is a call that certainly did not start and costs nothing, ``unknown`` one whose end nobody knows. For a
    call of a model ``prompt`` is a hash of what was asked; ``hidden`` is the whole result where ``result`` is only what
    may be shown of it.
    """

    number: StepNumber
    state: Literal["done", "void", "unknown"]
    result: Any = None
    spent_micros: Micros = 0
    aid_micros: Micros = 0
    tokens_in: Number = 0
    tokens_out: Number = 0
    intent: Intent | None = None
    prompt: Annotated[str, Meta(max_length=64)] = ""
    hidden: Any = None


@frozen
class Act:
    """Do an action as a step of the attempt: the village does it and records it."""

    number: StepNumber
    action: Word
    input: Mapping[str, Any] = field(factory=dict)


@frozen
class Acted:
    """The action's reply, the number of the last step that it took, and whether the attempt ended by it."""

    reply: Any
    number: int
    ended: bool = False


@frozen
class Park:
    """Give the attempt up until something happens; the next one continues it."""

    waits_for: Literal["approval", "answer", "time", "quota"]
    reason: Annotated[str, Meta(min_length=1, max_length=2_000)]
    wake_at: Number | None = None


@frozen
class Release:
    """Give the task back. ``declined``: this resident is not to be offered it again; that costs nothing."""

    reason: Words
    declined: bool = False


@frozen
class Distrust:
    """A model provider of the worker's own reported what can't be true: the worker asks it no more."""

    provider: Word
    reason: Annotated[str, Meta(min_length=1, max_length=2_000)]


@frozen
class Settle:
    """What came of the act, as it is. The village judges it: a worker can't accept its own work."""

    outcome: Outcome


@frozen
class Ended:
    """How the attempt ended, and what the task is now."""

    attempt: int
    task: str
    ending: str
    task_state: str
    reason: str


@frozen
class Running:
    """An event of the stop stream: of the attempts up to number ``upto``, the worker's that still run.

    An attempt of the worker's that is at most ``upto`` and not listed was ended: its act is to be stopped at once.
    """

    attempts: tuple[int, ...]
    upto: int
