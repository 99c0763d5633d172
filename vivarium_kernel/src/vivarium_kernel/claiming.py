"""The room of the claims: the window of open tasks that a round looks at, and the transaction that gives them out."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any, NamedTuple

from msgspec import Struct, structs

from vivarium_kernel import board
from vivarium_kernel.amounts import money_text
from vivarium_kernel.board import TASK_COLUMNS, task_of
from vivarium_kernel.budgets import Span
from vivarium_kernel.errors import OverBudget, VivariumError
from vivarium_kernel.records import Claim, Resident, Task
from vivarium_kernel.stepping import Holder
from vivarium_kernel.store import Tx, View, json_list, setwise
from vivarium_kernel.terms import MICROS

WINDOW_EACH, WEIGHED = 4, 16
FURTHEST = 1_000  # open tasks among which one that stands in line for a cap may hold back others
MOST_TRIES = 64  # wishes of one resident that a transaction tries: its functions hold the event loop
WIDEST = 4096  # tasks that a resident weighs at most when it was refused all that it saw before
DAY_MICROS = 86_400 * MICROS


_MARKS = "t.seq, t.attempts, t.declined, t.continues, t.approved"
# What a claim sets aside: what is left of the budget of a task that was tried before, else all of it.
_SET_ASIDE = (
    "coalesce((SELECT b.cap - b.reserved - b.spent FROM budgets b WHERE t.attempts > 0 AND b.scope = 'task:' || t.id "
    "AND b.currency = 'usd'), t.max_micros)"
)


class Line(NamedTuple):
    """The open tasks that stand in line for a cap: those that would set aside an amount in one of ``spans``.

    ``priority`` is that of the most urgent one that somebody who waits might take: what is less urgent and needs
    anything stands behind it, or many small tasks would keep a large one waiting for ever.
    """

    spans: tuple[Span, ...] = ()
    priority: int | None = None

    @property
    def others(self) -> str:
        """SQL for all open tasks that don't stand in it; ``bounds`` are for its question marks."""
        behind = "" if self.priority is None else " AND (t.max_micros = 0 OR t.priority >= ?)"
        return f" AND {_SET_ASIDE} NOT BETWEEN ? + 1 AND ?" * len(self.spans) + behind

    @property
    def bounds(self) -> tuple[int, ...]:
        return (*chain.from_iterable(self.spans), *(() if self.priority is None else (self.priority,)))


NOBODY = Line()


class Window:
    """Open tasks as records, read from one snapshot. Records are kept between rounds: what people wrote never changes.

    The snapshot says which tasks are open and how often they were tried; a record that is kept serves as long as
    that agrees.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[tuple[Any, ...], Task]] = {}

    def read(
        self, view: View, limit: int, after: tuple[int, int] | None = None, *, without: Line = NOBODY
    ) -> list[Task]:
        """The first ``limit`` open tasks that no resident is named for, after the place (priority, number).

        Those that stand in the line ``without`` are left out.
        """
        open_ones = f"SELECT {_MARKS} FROM tasks t WHERE t.state = 'open' AND t.held_for IS NULL{without.others}"
        bounds = without.bounds
        if after is None:
            found = view.rows(f"{open_ones} ORDER BY t.priority DESC, t.seq LIMIT ?", (*bounds, limit))
        else:
            same = f"{open_ones} AND t.priority = ? AND t.seq > ? ORDER BY t.seq LIMIT ?"
            found = view.rows(same, (*bounds, *after, limit))
            if len(found) < limit:
                less = f"{open_ones} AND t.priority < ? ORDER BY t.priority DESC, t.seq LIMIT ?"
                found += view.rows(less, (*bounds, after[0], limit - len(found)))
        return self._records(view, found)

    def in_line(self, view: View, line: Line, names: Sequence[str]) -> list[Task]:
        """The most urgent of those who stand in a line, also of tasks that name one of these residents.

        Only the first ``FURTHEST`` of the board are looked at: what is behind so many is not urgent.
        """
        held = "SELECT value FROM json_each(?)"
        found = []
        for whose, args in (("IS NULL", ()), (f"IN ({held})", (json_list(list(names)),))):
            found += view.rows(
                f"SELECT {_MARKS}, t.priority FROM (SELECT {_MARKS}, t.id, t.priority, t.max_micros FROM tasks t "
                f"WHERE t.state = 'open' AND t.held_for {whose} ORDER BY t.priority DESC, t.seq LIMIT {FURTHEST}) t "
                f"WHERE NOT (1{line.others}) "
                "ORDER BY t.priority DESC, t.seq LIMIT ?",
                (*args, *line.bounds, WEIGHED),
            )
        found.sort(key=lambda row: (-row[5], row[0]))
        return self._records(view, [row[:5] for row in found])

    def held_for(self, view: View, most: Mapping[str, int], *, without: Line = NOBODY) -> dict[str, list[Task]]:
        """The first open tasks that name each resident, or that it is to continue: at most so many of each."""
        tasks: dict[str, list[Task]] = {}
        for limit in set(most.values()):
            found = view.rows(
                f"SELECT {_MARKS}, t.held_for FROM json_each(?) r JOIN tasks t ON t.seq IN (SELECT t.seq FROM tasks t "
                f"WHERE t.state = 'open' AND t.held_for = r.value{without.others} "
                "ORDER BY t.priority DESC, t.seq LIMIT ?) ORDER BY t.priority DESC, t.seq",
                (json_list([name for name, its in most.items() if its == limit]), *without.bounds, limit),
            )
            for row, task in zip(found, self._records(view, [row[:5] for row in found]), strict=True):
                tasks.setdefault(row[5], []).append(task)
        return tasks

    def _records(self, view: View, found: list[tuple[Any, ...]]) -> list[Task]:
        kept = self._kept
        missing = [row[0] for row in found if row[0] not in kept or kept[row[0]][0] != row]
        if missing:
            if len(kept) > 100_000:
                kept.clear()
                missing = [row[0] for row in found]
            marks = {row[0]: row for row in found}
            for row in view.rows(
                f"SELECT {TASK_COLUMNS} FROM tasks WHERE seq IN (SELECT value FROM json_each(?))",
                (json_list(missing),),
            ):
                kept[row[0]] = (marks[row[0]], task_of(row))
        return [kept[row[0]][1] for row in found]

    def forget(self, task: Task) -> None:
        """A task was claimed: its record is of no more use."""
        self._kept.pop(task.seq, None)


class Pick(Struct, frozen=True):
    """One resident's wishes, best first. ``token`` is the digest of a remote job's own token, with its own lease, for a
    ``worker`` that still stands when it claims.

    ``why`` tells of the wish that is granted how it was weighed, as JSON that is kept with the attempt. ``early`` is of
    a resident whose last attempt was not yet settled when it looked: it may not have seen what that opened.
    """

    resident: str
    wishes: tuple[Task, ...]
    token: bytes | None = None
    lease_seconds: float | None = None
    why: Callable[[Task], str] | None = None
    early: bool = False
    worker: int | None = None


class Round(Struct, frozen=True):
    """The picks of the residents who waited together in one process.

    ``reserve`` runs the plugins' ``claim_reserve`` on a claim, in the transaction; it raises to refuse it.
    ``openings`` are the commits that had opened tasks when the board was read: early picks hold only if none did since.
    """

    picks: Sequence[Pick]
    process: int
    reserve: Callable[[Claim, Tx], None] | None = None
    openings: int = 0


class Claimed(Struct, frozen=True):
    """A claim that stands: the attempt is open, its budget set aside."""

    attempt: int
    task: Task
    resident: Resident
    cycle: int
    number: int
    holder: Holder
    reserved_micros: int
    day: int
    hour: int


class NotClaimed(Struct, frozen=True):
    """Why a resident got nothing: ``taken`` (others were quicker), or a rule.

    ``tried`` are the numbers of the tasks that it was refused; of its other wishes nothing is known.
    """

    rule: str
    reason: str
    tried: frozenset[int] = frozenset()


class _Board:
    """What a round has read of the tasks that are wished for: those that are open, and how often each was tried."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._asked: set[int] = set()
        self._open: dict[int, int] = {}

    def ask(self, seqs: Iterable[int]) -> None:
        more = set(seqs) - self._asked
        if more:
            self._asked |= more
            self._open |= self._tx.rows(
                "SELECT seq, attempts FROM tasks WHERE state = 'open' AND seq IN (SELECT value FROM json_each(?))",
                (json_list(sorted(more)),),
            )

    def is_open(self, task: Task, wishes: Sequence[Task]) -> bool:
        """A task that was tried since the resident looked is another one now: what it knows of it is out of date."""
        if task.seq not in self._asked:
            self.ask(wish.seq for wish in wishes)
        return self._open.get(task.seq) == task.attempts

    def forget(self, task: Task) -> None:
        """It was refused to somebody, and may have ended with that."""
        self._asked.discard(task.seq)
        self._open.pop(task.seq, None)


@setwise(90)
def claim(tx: Tx, rounds: list[Round]) -> list[list[Claimed | NotClaimed]]:
    """Give out tasks: each resident its best wish that is still open and fits the budgets."""
    return [_claim_round(tx, each) for each in rounds]


def _claim_round(tx: Tx, each: Round) -> list[Claimed | NotClaimed]:
    if tx.times.halted or tx.times.paused:
        word = "halted" if tx.times.halted else "paused"
        return [NotClaimed(f"village.{word}", f"the village is {word}")] * len(each.picks)
    if not _alive(tx, each.process):
        return [NotClaimed("process.lapsed", "this process's lease has lapsed")] * len(each.picks)
    residents = _free_residents(tx, [pick.resident for pick in each.picks])
    _leave_out_gone(tx, each.picks, residents)
    next_attempt = tx.rows("SELECT coalesce(max(id), 0) FROM attempts")[0][0]
    claims: dict[int, Claimed] = {}
    refused: dict[int, NotClaimed] = {}
    tried: dict[int, dict[int, None]] = {}  # by place, what was refused to it
    seen = _Board(tx)
    looking: Sequence[int] = range(len(each.picks))
    while looking:
        taken = {claimed.task.seq for claimed in claims.values()}
        winners, lost = _match(each, seen, tx.openings, residents, looking, taken, tried)
        refused = lost | refused  # why the best wish was refused tells more than that the last one was taken
        _read_budgets_ahead(tx, winners)
        looking = []
        for place, task in winners.items():
            pick, resident = each.picks[place], residents[each.picks[place].resident]
            with tx.trying() as part:
                reserved = _set_aside(tx, task, resident.name)
                if each.reserve is not None:
                    each.reserve(Claim(next_attempt + 1, task, resident, resident.cycles + 1), tx)
            if part.error is not None:
                refused.setdefault(place, _refusal(tx, task, resident.name, part.error))
                seen.forget(task)
                its = tried.setdefault(place, {})
                its |= dict.fromkeys([task.seq, *_as_dear(pick.wishes, part.error)])
                if len(its) < MOST_TRIES:
                    looking.append(place)
                continue
            next_attempt += 1
            claims[place] = Claimed(
                next_attempt, task, resident, resident.cycles + 1, task.attempts + 1,
                Holder(each.process if pick.token is None else None, pick.token), reserved, tx.day, tx.hour,
            )  # fmt: skip
    _write(tx, each, claims)
    return [
        claims.get(place)
        or (structs.replace(refused[place], tried=frozenset(tried[place])) if place in tried else refused[place])
        for place in range(len(each.picks))
    ]


def _as_dear(wishes: Sequence[Task], error: Exception) -> list[int]:
    """What a resident needs not be tried for when its day's cap refused it one: all that is not known to be cheaper."""
    if not isinstance(error, OverBudget) or not error.scope.startswith("resident-day") or error.remaining is None:
        return []
    return [task.seq for task in wishes if not task.attempts and task.max_micros > error.remaining]


def _alive(tx: Tx, process: int) -> bool:
    rows = tx.rows("SELECT lease_until_at FROM processes WHERE id = ? AND ended_at IS NULL", (process,))
    return bool(rows) and bool(rows[0][0] >= tx.now)


def _free_residents(tx: Tx, names: list[str]) -> dict[str, Resident]:
    """Of these, the residents who may begin a cycle now."""
    return {
        row[0]: Resident(*row)
        for row in tx.rows(
            "SELECT name, state, cycles, model, reason, created_at FROM residents WHERE state = 'active' AND name IN "
            "(SELECT value FROM json_each(?1)) AND name NOT IN (SELECT resident FROM attempts WHERE state = 'running' "
            "AND resident IN (SELECT value FROM json_each(?1)))",
            (json_list(names),),
        )
    }


def _leave_out_gone(tx: Tx, picks: Sequence[Pick], residents: dict[str, Resident]) -> None:
    """Nobody claims for a worker that was ended while its request waited: its token was revoked, its lease lapsed."""
    workers = {pick.worker for pick in picks if pick.worker is not None}
    if not workers:
        return
    standing = {
        row[0]
        for row in tx.rows(
            "SELECT p.id FROM processes p JOIN tokens k ON k.id = p.pid WHERE p.ended_at IS NULL "
            "AND p.lease_until_at >= ?1 AND k.revoked_at IS NULL AND coalesce(k.expires_at, ?1) >= ?1 "
            "AND p.id IN (SELECT value FROM json_each(?2))",
            (tx.now, json_list(sorted(workers))),
        )
    }
    for pick in picks:
        if pick.worker is not None and pick.worker not in standing:
            residents.pop(pick.resident, None)


def _match(
    asked_for: Round,
    seen: _Board,
    openings: int,
    residents: Mapping[str, Resident],
    places: Sequence[int],
    taken: set[int],
    tried: Mapping[int, Container[int]],
) -> tuple[dict[int, Task], dict[int, NotClaimed]]:
    """Each pick at ``places`` its best wish that is open, that nobody took and that it was not refused."""
    picks = asked_for.picks
    is_late = openings != asked_for.openings  # an early pick may not have seen what its own settlement opened
    seen.ask(task.seq for place in places for task in picks[place].wishes[:1])
    taken = set(taken)
    matched: set[str] = set()
    winners: dict[int, Task] = {}
    lost: dict[int, NotClaimed] = {}
    for place in places:
        pick = picks[place]
        if pick.resident not in residents or pick.resident in matched:
            lost[place] = NotClaimed("resident.busy", f"{pick.resident} is not free to begin a cycle")
            continue
        its = tried.get(place, ())
        for task in () if pick.early and is_late else pick.wishes:
            if task.seq not in taken and task.seq not in its and seen.is_open(task, pick.wishes):
                taken.add(task.seq)
                matched.add(pick.resident)
                winners[place] = task
                break
        else:
            lost[place] = NotClaimed("taken", "others took what was wanted")
    return winners, lost


def scopes_of(tx: Tx, task: str, resident: str, day: int) -> tuple[str, ...]:
    """The budgets that an attempt draws on. Days of real money are real UTC days."""
    found = [f"task:{task}", "village"]
    for kind, scope in (("resident-day", f"resident-day:{resident}:{day}"), ("village-day", f"village-day:{day}")):
        template = tx.books.budget(kind, "usd")
        if template is not None:
            if tx.books.budget(scope, "usd") is None:
                tx.books.make_budget(scope, "usd", template.cap)
            found.append(scope)
    return tuple(found)


def _read_budgets_ahead(tx: Tx, winners: Mapping[int, Task]) -> None:
    with_budget = [f"task:{task.id}" for task in winners.values() if task.max_micros]
    if with_budget:
        tx.books.load_budgets([*with_budget, "village", "resident-day", "village-day"], "usd")


def _set_aside(tx: Tx, task: Task, resident: str) -> int:
    """Reserve all that is left of the task's budget, in every scope. Returns the millionths."""
    if not task.max_micros:
        return 0
    own = tx.books.budget(f"task:{task.id}", "usd")
    left = 0 if own is None else own.cap - own.reserved - own.spent
    if left < task.min_micros:
        raise OverBudget(
            "budget.min", f"{money_text(left)} usd is left of the task's budget, less than its minimum.",
            "Raise its budget or cancel it.", scope=f"task:{task.id}", requested=task.min_micros, remaining=left,
        )  # fmt: skip
    if left:
        tx.books.reserve(scopes_of(tx, task.id, resident, tx.now // DAY_MICROS), "usd", left)
    return left


def _refusal(tx: Tx, task: Task, resident: str, error: Exception) -> NotClaimed:
    """What a refused claim means for the task: a village's spent cap makes it wait, a spent budget fails it."""
    if not isinstance(error, OverBudget):
        rule = error.rule if isinstance(error, VivariumError) else "claim.refused"
        return NotClaimed(rule, str(error))
    if error.for_now:
        return NotClaimed(error.rule, str(error))  # it stays open: there is room again once others have ended
    _tell(tx, task, resident, error)
    if error.scope.startswith("task:"):
        tx.run(
            "UPDATE tasks SET state = 'failed', reason = ?, ended_at = ? WHERE id = ?", (str(error), tx.now, task.id)
        )
        board.erase_private(tx, [task.id])
        tx.log.add("task.failed", "system:board", {"reason": str(error)}, task=task.id)
        board.fail_dependents(tx, [(name, need, "failed") for name, need in board.dependents(tx, [task.id])])
    elif error.scope.startswith("village"):
        # What needs more than the whole cap does not fit tomorrow either: a person has to change one of the two.
        by_day = error.scope.startswith("village-day") and (error.requested or 0) <= (error.cap or 0)
        tomorrow = (tx.now // DAY_MICROS + 1) * DAY_MICROS if by_day else None
        tx.run(
            "UPDATE tasks SET state = 'parked', parked_for = 'quota', wake_at = ?, reason = ? WHERE id = ?",
            (tomorrow, str(error), task.id),
        )
        tx.log.add("task.parked", "system:board", {"for": "quota", "scope": error.scope}, task=task.id)
    return NotClaimed(error.rule, str(error))


def _tell(tx: Tx, task: Task, resident: str, error: OverBudget) -> None:
    """Note a budget that kept a task from being claimed; a resident's once for each task and day, for it asks again."""
    kind = "TASK_BUDGET_EXCEEDED" if error.scope.startswith("task:") else "BUDGET_EXCEEDED"
    if error.scope.startswith("resident-day"):
        since = tx.now // DAY_MICROS * DAY_MICROS
        sql = "SELECT 1 FROM events WHERE task = ? AND resident = ? AND kind = ? AND at >= ? LIMIT 1"
        if tx.row(sql, (task.id, resident, kind, since)):
            return
    data = {"scope": error.scope, "reason": error.rule, "requested": error.requested, "remaining": error.remaining}
    tx.log.add(kind, f"resident:{resident}", data, resident=resident, task=task.id)


def _write(tx: Tx, each: Round, claims: Mapping[int, Claimed]) -> None:
    if not claims:
        return
    attempts, tasks, residents = [], [], []
    utc_day = tx.now // DAY_MICROS
    for place, c in claims.items():
        pick = each.picks[place]
        lease = None if pick.lease_seconds is None else tx.now + int(pick.lease_seconds * MICROS)
        attempts.append(
            (c.attempt, c.task.id, c.resident.name, c.number, c.cycle, "running",
             each.process if lease is None else None, lease, pick.token, c.task.continues, tx.now, c.reserved_micros,
             utc_day if c.reserved_micros else None, None if pick.why is None else pick.why(c.task))
        )  # fmt: skip
        tasks.append((c.task.seq, c.number))
        residents.append((c.resident.name, c.cycle))
        tx.log.add(
            "task.claimed", f"resident:{c.resident.name}", {"number": c.number, "reserved_micros": c.reserved_micros},
            c.resident.name, c.task.id, c.attempt, c.cycle, None,
        )  # fmt: skip
    tx.insert(
        "attempts",
        "id, task, resident, number, cycle, state, process, lease_until_at, token, continues, started_at, "
        "reserved_micros, budget_day, weighed",
        attempts,
    )
    tx.update(
        "tasks",
        "state = 'claimed', attempts = v.column2, wake_at = NULL",
        "tasks.seq = v.column1 AND tasks.state = 'open'",
        tasks,
        all_of=True,
    )
    tx.update("residents", "cycles = v.column2", "residents.name = v.column1", residents)


def token_digest(token: str) -> bytes:
    """How tokens are kept: only their digest is in the database."""
    return sha256(token.encode()).digest()
