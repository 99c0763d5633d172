"""The room of the API's bodies: what each route takes and answers, from which ``docs/openapi.json`` is written.

The limits in the annotations are enforced by ``inputs.py``. Money is in integer millionths, times are microseconds of
Unix time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from attrs import field, frozen
from msgspec import Meta

from vivarium_kernel.budgets import Budget
from vivarium_kernel.records import Attempt, Event, NewTask, Resident, Step, Task, Transfer
from vivarium_kernel.terms import Effect, ResidentState, Role, TaskState

LARGEST = 2**53 - 1  # what every language's JSON numbers can hold
Number = Annotated[int, Meta(ge=0, le=LARGEST)]
Micros = Annotated[int, Meta(ge=0, le=10**15)]
Limit = Annotated[int, Meta(ge=1, le=1000, description="how many at most")]
Cursor = Annotated[int, Meta(ge=0, le=LARGEST, description="the cursor of the page before")]
Word = Annotated[str, Meta(max_length=200)]
Words = Annotated[str, Meta(max_length=2_000)]
Long = Annotated[str, Meta(max_length=100_000)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]


@frozen
class Nothing:
    """Nothing is to be said."""


@frozen
class Healthy:
    """The server runs and its database can be read."""

    status: Literal["ok"]
    village: str


@frozen
class Process:
    """A process that runs residents of this village, or serves it."""

    id: int
    kind: str
    host: bool
    started_at: int
    lease_until_at: int
    residents: int


@frozen
class Status:
    """How the village is. ``hour`` is that of the village's ``day``, from 0 to 23.

    ``village_usd`` is what it may ever spend, where there is a cap, for people to see.
    """

    village: str
    version: str
    now_at: int
    day: int
    hour: int
    paused: bool
    halted: bool
    halt_reason: str
    pace_seconds: float
    residents_wanted: int | None
    residents: Mapping[str, int]
    tasks: Mapping[str, int]
    running: int
    processes: tuple[Process, ...]
    last_event: int
    village_usd: Budget | None = None


# Tasks and attempts


@frozen
class TaskQuery:
    """Which tasks, in the order in which they were posted."""

    after: Cursor = 0
    limit: Limit = 100
    state: TaskState | None = None
    label: Word | None = None


@frozen
class Tasks:
    """A page of tasks. ``cursor`` is for the next page; None when this is the last."""

    tasks: tuple[Task, ...]
    cursor: int | None


@frozen
class NewTasks:
    """Tasks to post together: all of them or none. They may need each other."""

    tasks: Annotated[tuple[NewTask, ...], Meta(min_length=1, max_length=1000)]


@frozen
class Posted:
    """The tasks as they stand on the board; one that was posted before is given back as it is."""

    tasks: tuple[Task, ...]


@frozen
class TaskPage:
    """A task, what it needs, and every attempt at it with its output."""

    task: Task
    needs: tuple[str, ...]
    attempts: tuple[Attempt, ...]


@frozen
class Reason:
    """Why."""

    reason: Words = ""


@frozen
class Declined:
    """Why a resident will not do a task; it costs nothing."""

    reason: Annotated[str, Meta(min_length=1, max_length=2_000)]


@frozen
class AttemptQuery:
    """Which attempts, oldest first."""

    after: Cursor = 0
    limit: Limit = 100
    task: Word | None = None
    resident: Word | None = None


@frozen
class Attempts:
    """A page of attempts with their outputs."""

    attempts: tuple[Attempt, ...]
    cursor: int | None


@frozen
class AttemptPage:
    """One attempt, its steps, and the record of its prompt: who wrote what, without private texts."""

    attempt: Attempt
    steps: tuple[Step, ...]
    prompt: tuple[Any, ...] | None


# Residents and money


@frozen
class Residents:
    """Everybody who lives here."""

    residents: tuple[Resident, ...]


@frozen
class Account:
    """What an account holds."""

    account: str
    currency: Literal["aid", "usd"]
    micros: int


@frozen
class ResidentPage:
    """A resident, what it owns, and the attempt that it is at."""

    resident: Resident
    accounts: tuple[Account, ...]
    attempt: int | None


@frozen
class AddResident:
    """A resident to add."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,39}$", description="a small letter, then small letters, "
                              "digits, - or _, at most 40")]  # fmt: skip
    model: Word | None = None


@frozen
class ResidentChange:
    """A resident's new state, and why. Banning and retiring are for good."""

    state: ResidentState
    reason: Words = ""


@frozen
class BalanceQuery:
    """Which accounts: those whose name begins so."""

    prefix: Word = ""


@frozen
class Balances:
    """What the accounts hold."""

    accounts: tuple[Account, ...]


@frozen
class HistoryQuery:
    """Which transfers: of one account or of all."""

    account: Word | None = None
    limit: Limit = 100


@frozen
class History:
    """The newest transfers, newest first."""

    transfers: tuple[Transfer, ...]


@frozen
class Books:
    """What checking the books found: nothing wrong when ``problems`` is empty."""

    accounts: int
    transfers: int
    problems: tuple[str, ...]


# Events


@frozen
class EventQuery:
    """Which events, oldest first. ``kind`` may end in ``*``."""

    after: Cursor = 0
    limit: Limit = 100
    resident: Word | None = None
    task: Word | None = None
    attempt: Number | None = None
    day: Number | None = None
    kind: Word | None = None
    model: Word | None = None


@frozen
class StreamQuery:
    """Which events to send as they come. Without ``after`` (or ``Last-Event-ID``) only new ones."""

    after: Cursor | None = None
    resident: Word | None = None
    task: Word | None = None
    attempt: Number | None = None
    day: Number | None = None
    kind: Word | None = None
    model: Word | None = None


@frozen
class Events:
    """A page of the log. ``cursor`` is where the next page begins, also when this one is empty."""

    events: tuple[Event, ...]
    cursor: int


@frozen
class LogCheck:
    """What checking the chain of the log found: the first event that is not as it was written, if any."""

    events: int
    head: str
    broken: int | None
    why: str | None


# Switches, tokens, actions


@frozen
class Pace:
    """Seconds between two looks at an empty board."""

    seconds: Annotated[float, Meta(ge=0, le=300)]


@frozen
class Count:
    """How many residents are to be at work."""

    count: Annotated[int, Meta(ge=0, le=10_000)]


@frozen
class Switches:
    """The village's switches as they stand now."""

    paused: bool
    halted: bool
    halt_reason: str
    pace_seconds: float
    residents: int | None


@frozen
class AddToken:
    """A token to make. ``scope`` None is everything that the role may do; ``seconds`` None is for ever."""

    role: Role
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$", description="letters, digits and . _ -, "
                              "at most 80")]  # fmt: skip
    scope: Annotated[tuple[Word, ...], Meta(max_length=20)] | None = None
    note: Word = ""
    seconds: Annotated[float, Meta(gt=0, le=10**9)] | None = None


@frozen
class TokenMade:
    """A new token. ``token`` is shown this once; None when the request is repeated under its key."""

    number: int
    token: str | None


@frozen
class TokenRow:
    """A token without its secret."""

    id: int
    role: Role
    name: str
    kind: Literal["bearer", "session", "login"]
    scope: tuple[str, ...] | None
    note: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None


@frozen
class Tokens:
    """Every token, newest first."""

    tokens: tuple[TokenRow, ...]


@frozen
class ActionRow:
    """An action that the caller may do, and the JSON Schema of its input."""

    name: str
    doc: str
    roles: tuple[Role, ...]
    effect: Effect
    cost_micros: int
    rate_per_minute: int | None
    input: Mapping[str, Any] = field(factory=dict)


@frozen
class Actions:
    """What the caller may do."""

    actions: tuple[ActionRow, ...]


@frozen
class Login:
    """The secret of a one-time login link."""

    token: Word
