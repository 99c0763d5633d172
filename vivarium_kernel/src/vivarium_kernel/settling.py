"""The room of the endings: what becomes of a task when an attempt ends, whoever ends it. Rules: docs/rules.md, "Board".

``after`` is the rule, a pure function; ``settle`` reads, calls it, writes, and gives the plugins their part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
from attrs import frozen
from msgspec import Struct
from msgspec.structs import replace

from vivarium_kernel import board
from vivarium_kernel.claiming import scopes_of
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.records import Ending, Outcome, Review, Task
from vivarium_kernel.stepping import Holder, charge_unknown, fenced, lapsed
from vivarium_kernel.store import Row, Store, Tx, json_list, setwise
from vivarium_kernel.terms import MICROS, EndingKind, TaskState

WOKEN_AT_ONCE = 5_000
EndAttempt = Callable[[Task, Ending, Tx], Sequence[Any]]


@frozen
class Retries:
    """How failures are tried again (docs/rules.md, "Board")."""

    backoff_seconds: float = 0.5
    backoff_max_seconds: float = 300.0
    jitter: float = 0.2


class Next(Struct, frozen=True):
    """What a task becomes."""

    state: TaskState
    reason: str = ""
    parked_for: str | None = None
    wake_at: int | None = None
    failures: int = 0
    faults: int = 0
    declined: tuple[str, ...] = ()
    ended: bool = False


class Settlement(Struct, frozen=True):
    """One attempt's ending as its holder reports it; ``holder`` None is the kernel's or an operator's own word.

    ``to_review`` sends the task to people instead: the act is over, the attempt's end waits for their decision.
    ``hold`` keeps the task for the same resident, who continues this attempt. ``task`` is the task as it was claimed,
    which saves reading it again.
    """

    attempt: int
    holder: Holder | None
    kind: EndingKind
    reason: str = ""
    outcome: Outcome | None = None
    review: Review | None = None
    parked_for: str | None = None
    wake_at: int | None = None
    declined: bool = False
    to_review: bool = False
    hold: bool = False
    actor: str | None = None
    end_attempt: EndAttempt | None = None
    retries: Retries = Retries()
    task: Task | None = None


class Settled(Struct, frozen=True):
    """What a settlement did."""

    attempt: int
    task: str
    ending: str
    task_state: str
    reason: str


def backoff_micros(tries: int, retries: Retries, chance: Random) -> int:
    """Pause before the next attempt: doubling from ``backoff_seconds``, capped, with jitter."""
    seconds = min(retries.backoff_max_seconds, retries.backoff_seconds * 2.0 ** min(tries - 1, 40))
    return int(seconds * MICROS * (1 + retries.jitter * (2 * chance.random() - 1)))


def after(task: Task, item: Settlement, resident: str | None, now: int, chance: Random) -> Next:  # noqa: PLR0911 - one return a rule
    """The state a task goes to when an attempt at it ends so."""
    same: dict[str, Any] = {"failures": task.failures, "faults": task.faults, "declined": task.declined}
    fault = item.outcome.fault if item.outcome is not None else None
    if item.kind == "accepted":
        return Next("done", item.reason, ended=True, **same)
    if item.kind in ("cancelled", "blocked"):
        return Next(item.kind, item.reason, ended=True, **same)
    if item.kind == "parked":
        return Next("parked", item.reason, item.parked_for or "answer", item.wake_at, **same)
    if item.kind in ("failed", "rejected"):
        if fault == "invalid":
            return Next("failed", item.reason, ended=True, **same)
        failures = task.failures + 1
        if failures >= task.max_attempts:
            return Next("failed", item.reason, ended=True, **same | {"failures": failures})
        wake = now + backoff_micros(failures, item.retries, chance)
        return Next("parked", item.reason, "backoff", wake, **same | {"failures": failures})
    if item.declined and resident is not None:
        declined = (*task.declined, resident)
        if task.wanted == resident:
            return Next("parked", item.reason, "answer", None, **same | {"declined": declined})
        return Next("open", item.reason, **same | {"declined": declined})
    if item.kind == "released" and fault is None:
        return Next("open", item.reason, **same)
    faults = task.faults + 1  # a provider's fault or a lost worker: not counted, tried until the task's deadline
    if now >= task.retry_until_at:
        return Next("failed", f"{item.reason} (tried until its deadline)", ended=True, **same | {"faults": faults})
    if item.kind == "lapsed" and faults == 1:
        return Next("open", item.reason, **same | {"faults": faults})
    pause = backoff_micros(faults, item.retries, chance)
    asked = item.outcome.retry_seconds if item.outcome is not None else None
    if asked is not None:
        pause = max(pause, int(asked * MICROS))
    return Next("parked", item.reason, "backoff", now + pause, **same | {"faults": faults})


@setwise(20)
def settle(tx: Tx, items: list[Settlement]) -> list[Any]:
    """End attempts. The answer is a Settled, or LeaseLapsed for an attempt that is not the holder's any more."""
    held = _read(tx, items)
    answers: list[Any] = []
    ended: list[tuple[Settlement, _Held, Next, str]] = []
    seen: set[int] = set()
    for item in items:
        found = held.get(item.attempt)
        if found is None or item.attempt in seen or not _may_end(item, found, tx.now):
            answers.append(lapsed(item.attempt))
            continue
        seen.add(item.attempt)
        item = _close_steps(tx, item, found)  # noqa: PLW2901 - from here on it is what the steps make of it
        state = "review" if item.to_review else "ended"
        nxt = (
            Next("review", item.reason, failures=found.task.failures, faults=found.task.faults,
                 declined=found.task.declined)
            if item.to_review
            else after(found.task, item, found.resident, tx.now, tx.clock.chance)
        )  # fmt: skip
        tx.opened |= nxt.state == "open"
        ended.append((item, found, nxt, state))
        answers.append(Settled(item.attempt, found.task.id, item.kind, nxt.state, nxt.reason))
    _return_budgets(tx, ended)
    _write(tx, ended)
    tx.books.load(["treasury", *(f"resident:{found.resident}:free" for _, found, _, _ in ended)], "aid")
    for item, found, nxt, state in ended:
        if state == "ended":
            _run_plugins(tx, item, found, nxt)
    _wake_dependents(tx, [(found.task.id, nxt.state) for _, found, nxt, _ in ended if nxt.ended])
    return answers


class _Held:
    __slots__ = (
        "cycle", "day", "holder", "lease", "pending", "reserved", "resident", "spent", "state", "task", "unknown",
    )  # fmt: skip

    def __init__(self, row: tuple[Any, ...], task: Task) -> None:
        self.task = task
        self.resident: str = row[1]
        self.state: str = row[2]
        self.holder = Holder(row[3], row[4])
        self.lease: int | None = row[5]
        self.reserved: int = row[6]
        self.spent: int = row[7]
        self.pending: int = row[8]
        self.day: int | None = row[9]
        self.cycle: int = row[10]
        self.unknown: bool = bool(row[16])  # a step has an intent and no result


def _read(tx: Tx, items: Sequence[Settlement]) -> dict[int, _Held]:
    """The attempts that are still open, with their tasks: as the holder has them, read again where they changed."""
    rows = tx.rows(
        "SELECT a.id, a.resident, a.state, a.process, a.token, coalesce(a.lease_until_at, p.lease_until_at), "
        "a.reserved_micros, a.spent_micros, a.pending_micros, a.budget_day, a.cycle, t.seq, t.failures, t.faults, "
        "t.retry_until_at, t.declined, EXISTS (SELECT 1 FROM steps s WHERE s.attempt = a.id AND s.state = 'intended') "
        "FROM attempts a JOIN tasks t ON t.id = a.task LEFT JOIN processes p ON p.id = a.process "
        "WHERE a.state <> 'ended' AND a.id IN (SELECT value FROM json_each(?))",
        (json_list([item.attempt for item in items]),),
    )
    given = {item.attempt: item.task for item in items if item.task is not None}
    tasks: dict[int, Task] = {}
    for row in rows:
        task = given.get(row[0])
        if task is not None and row[15] is None and row[11:15] == (
            task.seq, task.failures, task.faults, task.retry_until_at,
        ):  # fmt: skip
            tasks[task.seq] = task
    missing = [row[11] for row in rows if row[11] not in tasks]
    if missing:
        for row in tx.rows(
            f"SELECT {board.TASK_COLUMNS} FROM tasks WHERE seq IN (SELECT value FROM json_each(?))",
            (json_list(missing),),
        ):
            tasks[row[0]] = board.task_of(row)
    return {row[0]: _Held(row, tasks[row[11]]) for row in rows}


def _may_end(item: Settlement, found: _Held, now: int) -> bool:
    """A holder ends its own running attempt while its lease stands; the kernel itself may end any."""
    if item.holder is None:
        return True
    return found.state == "running" and fenced(item.holder == found.holder, found.lease, now)


def _close_steps(tx: Tx, item: Settlement, found: _Held) -> Settlement:
    """Charge what is unknown; an unknown ``once`` step is for people to judge."""
    if found.state != "running" or not found.unknown:
        return item
    charged, effects = charge_unknown(tx, item.attempt, found.cycle, found.resident, found.task.id)
    found.spent += charged
    found.pending -= charged
    if "once" in effects and item.kind in ("lapsed", "released", "failed"):
        return replace(
            item, to_review=True,
            reason=f"{item.reason}; a step that must not run twice has no known result".lstrip("; "),
        )  # fmt: skip
    return item


def _return_budgets(tx: Tx, ended: Sequence[tuple[Settlement, _Held, Next, str]]) -> None:
    with_budget = [f for _, f, _, _ in ended if f.reserved and f.state == "running"]
    if not with_budget:
        return
    tx.books.load_budgets(
        [*(f"task:{f.task.id}" for f in with_budget), "village", "resident-day", "village-day"], "usd"
    )
    for found in with_budget:
        scopes = scopes_of(tx, found.task.id, found.resident, found.day or 0)
        tx.books.consume(scopes, "usd", found.reserved, found.spent)


def _write(tx: Tx, ended: Sequence[tuple[Settlement, _Held, Next, str]]) -> None:
    attempts, tasks = [], []
    for item, found, nxt, state in ended:
        o, review = item.outcome, item.review
        ending = item.kind if state == "ended" else None
        if found.state == "review":
            # The act was over long ago: the decision adds its ending and leaves what was recorded.
            tx.run(
                "UPDATE attempts SET state = 'ended', ending = ?, reason = ?, ended_at = ? WHERE id = ?",
                (ending, nxt.reason, tx.now, item.attempt),
            )
        else:
            attempts.append(
                (item.attempt, state, ending, item.reason, tx.now, o and o.exit_code, o and o.seconds, o and o.stdout,
                 o and o.stderr, o and o.answer, review and review.confidence,
                 json.dumps(dict(review.facts)) if review and review.facts else None, found.spent, o and o.model)
            )  # fmt: skip
        # What did not fail by its own fault goes on from its recorded steps: none of them is done again.
        goes_on = item.kind in ("parked", "lapsed", "released") and found.state == "running" and not item.declined
        continues = item.attempt if goes_on and not nxt.ended else None
        keep_for = found.resident if continues and item.hold else found.task.wanted
        tasks.append(
            (found.task.seq, nxt.state, nxt.reason, nxt.parked_for, nxt.wake_at, nxt.failures, nxt.faults,
             json_list(nxt.declined) if nxt.declined else None, continues, keep_for,
             tx.now if nxt.ended else None)
        )  # fmt: skip
        about = (found.resident, found.task.id, item.attempt, found.cycle, o.model if o else None)
        if review is not None:
            judged = {"decision": review.decision, "confidence": review.confidence}
            tx.log.add("attempt.judged", item.actor or "system:review", judged, *about)
        tx.log.add(
            "attempt.ended" if state == "ended" else "attempt.review",
            item.actor or f"resident:{found.resident}",
            {"ending": item.kind, "task_state": nxt.state, "reason": nxt.reason[:500]}
            | ({} if o is None or o.exit_code is None else {"exit_code": o.exit_code}),
            *about,
        )  # fmt: skip
    tx.update(
        "attempts",
        "state = v.column2, ending = v.column3, reason = v.column4, ended_at = v.column5, exit_code = v.column6, "
        "seconds = v.column7, stdout = v.column8, stderr = v.column9, answer = v.column10, confidence = v.column11, "
        "facts = v.column12, spent_micros = v.column13, pending_micros = 0, model = coalesce(v.column14, model), "
        "token = NULL",
        "attempts.id = v.column1",
        attempts,
    )
    tx.update(
        "tasks",
        "state = v.column2, reason = v.column3, parked_for = v.column4, wake_at = v.column5, failures = v.column6, "
        "faults = v.column7, declined = v.column8, continues = v.column9, held_for = v.column10, ended_at = v.column11",
        "tasks.seq = v.column1",
        tasks,
    )
    board.erase_private(tx, [found.task.id for _, found, nxt, _ in ended if nxt.ended])


def _run_plugins(tx: Tx, item: Settlement, found: _Held, nxt: Next) -> None:
    if item.end_attempt is None:
        return
    # A decision on what is in review comes without the outcome: that was recorded when the act was over.
    outcome = _recorded(tx, item.attempt) if found.state == "review" and item.outcome is None else item.outcome
    ending = Ending(
        item.attempt, item.kind, found.resident, nxt.reason, outcome, item.review, found.spent
    )  # fmt: skip
    # Plugins see the task as it was claimed; what it became is in the ending and on the board.
    for call in item.end_attempt(found.task, ending, tx):
        keep_missed(tx, call.plugin, "end_attempt", found.task, ending, call.error)


def _recorded(tx: Tx, attempt: int) -> Outcome | None:
    """The outcome as the attempt's row has it."""
    row = tx.row("SELECT answer, exit_code, stdout, stderr, seconds, model FROM attempts WHERE id = ?", (attempt,))
    if row is None:
        return None
    answer, exit_code, stdout, stderr, seconds, model = row
    return Outcome(
        answer or "", exit_code=exit_code, stdout=stdout or "", stderr=stderr or "", seconds=seconds or 0.0, model=model
    )


def keep_missed(tx: Tx, plugin: str, hook: str, task: Task, ending: Ending, error: BaseException | None) -> None:
    """Keep a plugin's failed part with its inputs, to be run later, once."""
    tx.insert(
        "missed",
        "plugin, hook, task, attempt, inputs, error, at",
        [(plugin, hook, task.id, ending.attempt, msgspec.json.encode(ending).decode(), repr(error)[:1000], tx.now)],
    )
    tx.log.add(
        "plugin.missed", f"plugin:{plugin}", {"hook": hook, "error": repr(error)[:500]},
        resident=ending.resident, task=task.id, attempt=ending.attempt,
    )  # fmt: skip


def run_missed(tx: Tx, number: int, run: Callable[[str, Task, Ending, Tx], BaseException | None]) -> bool:
    """Run one missed part again, in the transaction that removes its row. False if it failed again or is gone."""
    row = tx.row("SELECT plugin, hook, task, inputs FROM missed WHERE id = ?", (number,))
    if row is None:
        return False
    plugin, hook, name, inputs = row
    task, ending = board.task(tx, name), msgspec.json.decode(inputs, type=Ending)
    error = run(plugin, task, ending, tx)
    if error is not None:
        tx.run("UPDATE missed SET tries = tries + 1, error = ? WHERE id = ?", (repr(error)[:1000], number))
        return False
    tx.run("DELETE FROM missed WHERE id = ?", (number,))
    tx.log.add(
        "plugin.caught_up", f"plugin:{plugin}", {"hook": hook}, resident=ending.resident, task=name,
        attempt=ending.attempt,
    )  # fmt: skip
    return True


def _wake_dependents(tx: Tx, ended: Sequence[tuple[str, str]]) -> None:
    done = [name for name, state in ended if state == "done"]
    lost = {name: state for name, state in ended if state != "done"}
    if done:
        board.release_dependents(tx, done)
    if lost:
        board.fail_dependents(tx, [(name, need, lost[need]) for name, need in board.dependents(tx, list(lost))])


def wake_due(tx: Tx, _: None = None) -> int:
    """Open every parked task whose time has come (backoff, a posted time, a quota's new day). Returns how many."""
    due = tx.rows(
        "SELECT id, parked_for FROM tasks WHERE wake_at <= ? AND state = 'parked' LIMIT ?", (tx.now, WOKEN_AT_ONCE)
    )
    return _wake(tx, due, "system:clock")


def wake_for_room(tx: Tx) -> int:
    """Open what waits for a quota: a cap of the village was raised or lifted. Returns how many."""
    return _wake(tx, tx.rows("SELECT id, parked_for FROM tasks WHERE parked_for = 'quota'"), "system:settings")


def wake_for_keys(tx: Tx, asked: tuple[str, int]) -> tuple[int, int | None]:
    """Open tasks that wait for a provider's key: one was set, or somebody begins who may have one.

    ``asked`` is the actor and the number of the task behind which to begin. Returns how many were opened, and behind
    which to go on, None at the end: each is opened once, also where it is parked again at once.
    """
    actor, after = asked
    parked = tx.rows(
        "SELECT id, parked_for, seq FROM tasks WHERE state = 'parked' AND parked_for = 'key' AND seq > ? "
        "ORDER BY seq LIMIT ?",
        (after, WOKEN_AT_ONCE),
    )
    count = _wake(tx, [row[:2] for row in parked], actor)
    return count, parked[-1][2] if count == WOKEN_AT_ONCE else None


async def wake_all_for_keys(store: Store, actor: str) -> int:
    """The same for all that wait, in as many transactions as that takes. Returns how many were opened."""
    woken, after = 0, 0
    while after is not None:
        found, after = await store.write(wake_for_keys, (actor, after))
        woken += found
    return woken


def _wake(tx: Tx, parked: list[Row], actor: str) -> int:
    if parked:
        tx.opened = True
        tx.update(
            "tasks", "state = 'open', parked_for = NULL, wake_at = NULL", "tasks.id = v.column1 AND state = 'parked'",
            [(name,) for name, _ in parked],
        )  # fmt: skip
        for name, why in parked:
            tx.log.add("task.woken", actor, {"from": why}, task=name)
        board.park_declined(tx, [name for name, _ in parked])
    return len(parked)


def refused(error: VivariumError) -> str:
    return f"{error.rule}: {error.message}"
