"""The room of the steps: what an attempt intends, written before it is done, and what came of it, written after.

An intent sets its worst-case price aside within the attempt's budget; its result settles that. An intent without a
result is *unknown* once its attempt ended: it is charged at its worst case (docs/rules.md, "Board").
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from msgspec import Struct

from vivarium_kernel import holds, meters
from vivarium_kernel.amounts import money_text
from vivarium_kernel.errors import Conflict, LeaseLapsed, OverBudget, RateLimited
from vivarium_kernel.meters import Meter
from vivarium_kernel.store import Row, Tx, json_list, setwise
from vivarium_kernel.terms import Effect

_ROW = "attempt, number, kind, name, effect, arguments, digest, private_text, worst_micros, started_at, replayed"


class Holder(Struct, frozen=True):
    """Who holds an attempt: a process of this village, or a remote job by its token's digest."""

    process: int | None = None
    token: bytes | None = None


class Intent(Struct, frozen=True):
    """A step about to be done. ``arguments`` is JSON text; ``worst_micros`` are ``usd``, ``aid_micros`` are ``aid``.

    ``replayed`` is one that is not done: an earlier attempt's result is given for it.
    """

    attempt: int
    number: int
    holder: Holder
    kind: str
    name: str
    effect: Effect
    arguments: str
    resident: str
    task: str
    worst_micros: int = 0
    aid_micros: int = 0
    model: str | None = None
    prompt: str | None = None
    private: bool = False
    meter: Meter | None = None
    replayed: bool = False


class Result(Struct, frozen=True):
    """What came of a step. ``state`` ``void`` is a call that certainly did not start, and costs nothing.

    ``intent`` is given for a ``pure`` step, which is written once, with its result.
    """

    attempt: int
    number: int
    holder: Holder
    resident: str
    task: str
    state: str
    result: str
    spent_micros: int = 0
    aid_micros: int = 0
    provider: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    model: str | None = None
    intent: Intent | None = None
    prompt: str = ""  # the hash of what a model was asked
    hidden: str | None = None  # the whole result, where not all of it may be shown


class Held:
    """A running attempt as the transaction sees it."""

    __slots__ = ("cycle", "id", "pending", "reserved", "spent")

    def __init__(self, number: int, reserved: int, spent: int, pending: int, cycle: int) -> None:
        self.id, self.reserved, self.spent, self.pending, self.cycle = number, reserved, spent, pending, cycle


def running(tx: Tx, wanted: Sequence[tuple[int, Holder]]) -> dict[tuple[int, Holder], Held]:
    """Of these attempts, those that still run and belong to the holder that is named, with a lease that stands.

    Two holders may name one attempt in the same commit: each is judged by itself.
    """
    found: dict[tuple[int, Holder], Held] = {}
    rows = {
        row[0]: row
        for row in tx.rows(
            "SELECT a.id, a.process, a.token, coalesce(a.lease_until_at, p.lease_until_at), a.reserved_micros, "
            "a.spent_micros, a.pending_micros, a.cycle FROM attempts a LEFT JOIN processes p ON p.id = a.process "
            "WHERE a.state = 'running' AND a.id IN (SELECT value FROM json_each(?))",
            (json_list([number for number, _ in wanted]),),
        )
    }
    held: dict[int, Held] = {}
    for number, holder in wanted:
        row = rows.get(number)
        if row is None:
            continue
        mine = row[2] == holder.token if holder.token is not None else row[1] == holder.process and row[2] is None
        if fenced(mine, row[3], tx.now):
            found[number, holder] = held.setdefault(number, Held(number, *row[4:]))
    return found


def fenced(mine: bool, lease_until_at: int | None, now: int) -> bool:
    """The fencing rule: only the holder of a lease that has not lapsed may write."""
    return mine and lease_until_at is not None and lease_until_at >= now


def lapsed(number: int) -> LeaseLapsed:
    return LeaseLapsed(
        "attempt.lapsed",
        f"Attempt {number} is no longer yours: its lease lapsed or it was ended.",
        "Drop what you have of it; claim again.",
    )


def _written(intent: Intent) -> Conflict:
    return Conflict(
        "step.written",
        f"Step {intent.number} of attempt {intent.attempt} is written.",
        "Number steps from 1 on, once each.",
    )


@setwise(11)
def intend(tx: Tx, intents: list[Intent]) -> list[Any]:
    """Write intents. The answer is None, or LeaseLapsed or OverBudget for that intent alone."""
    held = running(tx, [(i.attempt, i.holder) for i in intents])
    answers: list[Any] = []
    rows: list[Row] = []
    prompts: list[Row] = []
    pending: list[Row] = []
    for intent in intents:
        attempt = held.get((intent.attempt, intent.holder))
        if attempt is None:
            answers.append(lapsed(intent.attempt))
            continue
        left = attempt.reserved - attempt.spent - attempt.pending
        if intent.worst_micros > left:
            _refused(tx, intent, attempt, "TASK_BUDGET_EXCEEDED", "budget.step", intent.worst_micros, left)
            answers.append(
                OverBudget(
                    "budget.step",
                    f"Step {intent.number} of attempt {intent.attempt} may cost {money_text(intent.worst_micros)} usd; "
                    f"{money_text(left)} is left of its budget.",
                    "Give the task a larger budget (--max), or use a cheaper model.",
                    scope=f"task:{intent.task}",
                    requested=intent.worst_micros,
                    remaining=left,
                )
            )
            continue
        # Only the careful run looks: a number that repeats in a grouped run makes its INSERT fail.
        if tx.careful and tx.row(
            "SELECT 1 FROM steps WHERE attempt = ? AND number = ?", (intent.attempt, intent.number)
        ):
            answers.append(_written(intent))
            continue
        hold = None
        try:
            if intent.meter is not None:
                _write_intents(tx, rows)  # the meter counts those that came before it in this commit too
                meters.check(tx, intent.resident, intent.meter)
            if intent.aid_micros:
                hold = _hold_aid(tx, intent)
        except Conflict as error:
            if isinstance(error, RateLimited):
                _refused(tx, intent, attempt, "RATE_LIMITED", error.rule, error.requested, error.remaining)
            answers.append(error)
            continue
        if intent.worst_micros:
            attempt.pending += intent.worst_micros
            pending.append((attempt.id, attempt.pending))
        if intent.prompt is not None:
            prompts.append((intent.attempt, intent.prompt, intent.model))
        metered = (None, None, 0) if intent.meter is None else (intent.resident, tx.day, intent.meter.worst_tokens)
        rows.append((*_row(intent, tx.now), "intended", hold, *metered))
        tx.log.add(
            "step.intended",
            f"resident:{intent.resident}",
            {"number": intent.number, "kind": intent.kind, "name": intent.name, "effect": intent.effect,
             "worst_micros": intent.worst_micros},
            resident=intent.resident, task=intent.task, attempt=attempt.id, cycle=attempt.cycle, model=intent.model,
        )  # fmt: skip
        answers.append(None)
    _write_intents(tx, rows)
    tx.update("attempts", "prompt = v.column2, model = v.column3", "attempts.id = v.column1", prompts)
    tx.update("attempts", "pending_micros = v.column2", "attempts.id = v.column1", pending)
    return answers


def _refused(tx: Tx, intent: Intent, attempt: Held, kind: str, rule: str, requested: int, remaining: int) -> None:
    """Note a call that a limit or a budget refused."""
    tx.log.add(
        kind, f"resident:{intent.resident}",
        {"number": intent.number, "name": intent.name, "reason": rule, "requested": requested, "remaining": remaining},
        resident=intent.resident, task=intent.task, attempt=attempt.id, cycle=attempt.cycle, model=intent.model,
    )  # fmt: skip


def _write_intents(tx: Tx, rows: list[Row]) -> None:
    tx.insert("steps", f"{_ROW}, state, aid_hold, meter, meter_day, worst_tokens", rows)
    rows.clear()


@setwise(10)
def record(tx: Tx, results: list[Result]) -> list[Any]:
    """Write results and settle what their intents set aside. The answer is None, or LeaseLapsed for that one."""
    held = running(tx, [(r.attempt, r.holder) for r in results])
    worst = _intended(tx, [r for r in results if r.intent is None])
    answers: list[Any] = []
    updates, pure, prompts, money = [], [], [], {}
    for result in results:
        attempt = held.get((result.attempt, result.holder))
        if attempt is None or (result.intent is None and (result.attempt, result.number) not in worst):
            answers.append(lapsed(result.attempt))
            continue
        spent = result.spent_micros
        if result.intent is not None:
            row = _row(result.intent, tx.now)
            if result.intent.prompt is not None:
                prompts.append((result.attempt, result.intent.prompt, result.model))
            pure.append((*row, result.state, result.result, result.hidden, tx.now, result.tokens_in, result.tokens_out))
        else:
            reserved, hold = worst.pop((result.attempt, result.number))  # a result that is sent twice counts once
            spent = min(spent, reserved)
            if reserved:
                attempt.pending -= reserved
                attempt.spent += spent
                money[attempt.id] = (attempt.id, attempt.pending, attempt.spent)
                if spent:
                    pay(tx, result.attempt, result.number, spent, result.provider, result.task)
            if hold is not None:
                settle_aid(tx, hold, result.aid_micros, result.resident)
            updates.append(
                (result.attempt, result.number, result.state, result.result, spent, tx.now, result.tokens_in,
                 result.tokens_out, result.hidden)
            )  # fmt: skip
        data = {"number": result.number, "state": result.state, "spent_micros": spent}
        if result.model is not None:
            data |= {"tokens_in": result.tokens_in, "tokens_out": result.tokens_out, "prompt": result.prompt}
            if result.state != "done":
                data["reason"] = result.result[:500]
        tx.log.add(
            _kind(result), f"resident:{result.resident}", data,
            resident=result.resident, task=result.task, attempt=attempt.id, cycle=attempt.cycle, model=result.model,
        )  # fmt: skip
        answers.append(None)
    tx.insert(
        "steps",
        f"{_ROW}, state, result, private_result, ended_at, tokens_in, tokens_out",
        pure,
    )
    tx.update("attempts", "prompt = v.column2, model = v.column3", "attempts.id = v.column1", prompts)
    tx.update(
        "steps",
        "state = v.column3, result = v.column4, spent_micros = v.column5, ended_at = v.column6, tokens_in = v.column7, "
        "tokens_out = v.column8, private_result = v.column9",
        "steps.attempt = v.column1 AND steps.number = v.column2",
        updates,
    )
    tx.update(
        "attempts", "pending_micros = v.column2, spent_micros = v.column3", "attempts.id = v.column1", [*money.values()]
    )
    return answers


def _kind(result: Result) -> str:
    """The kind of event that tells of a result; those of models are the village's record of what it bought."""
    if result.model is None:
        return "step.ended"
    return "API_CALL_SUCCESS" if result.state == "done" else "API_CALL_FAILURE"


def _row(intent: Intent, now: int) -> tuple[Any, ...]:
    digest = sha256(intent.arguments.encode()).hexdigest()
    shown, hidden = (None, intent.arguments) if intent.private else (intent.arguments, None)
    return (
        intent.attempt, intent.number, intent.kind, intent.name, intent.effect, shown, digest, hidden,
        intent.worst_micros, now, intent.replayed,
    )  # fmt: skip


def _intended(tx: Tx, results: list[Result]) -> dict[tuple[int, int], tuple[int, int | None]]:
    """The open intents of these attempts: (attempt, number) to (worst case, hold of aid)."""
    if not results:
        return {}
    return {
        (attempt, number): (worst, hold)
        for attempt, number, worst, hold in tx.rows(
            "SELECT attempt, number, worst_micros, aid_hold FROM steps WHERE state = 'intended' "
            "AND attempt IN (SELECT value FROM json_each(?))",
            (json_list([r.attempt for r in results]),),
        )
    }


def pay(tx: Tx, attempt: int, number: int, micros: int, provider: str, task: str) -> None:
    """Note real money that went to a provider."""
    tx.books.transfer(
        f"step:{attempt}.{number}", "operator", f"provider:{provider or 'unknown'}", "usd", micros, "model_call",
        "kernel", "system:kernel", f"task:{task}",
    )  # fmt: skip


def _hold_aid(tx: Tx, intent: Intent) -> int:
    return holds.hold(
        tx, f"resident:{intent.resident}:free", "aid", intent.aid_micros,
        key=f"step-aid:{intent.attempt}.{intent.number}", owner="kernel", actor=f"resident:{intent.resident}",
        ref=f"attempt:{intent.attempt}",
    )  # fmt: skip


def settle_aid(tx: Tx, hold: int, micros: int | None, resident: str) -> None:
    """Pay what a call used in ``aid`` to the commons, at most what was held; the rest returns. None is all of it."""
    row = tx.row("SELECT micros FROM holds WHERE id = ?", (hold,))
    held = row[0] if row else 0
    used = held if micros is None else min(micros, held)
    payees = [("commons", used)] if used else []
    holds.settle_hold(tx, hold, payees, owner="kernel", reason="purchase_compute", actor=f"resident:{resident}")


def charge_unknown(tx: Tx, attempt: int, cycle: int, resident: str, task: str) -> tuple[int, list[str]]:
    """Close open intents as unknown, at their worst case. Returns (millionths charged, effects of those steps)."""
    open_steps = tx.rows(
        "SELECT number, effect, worst_micros, aid_hold, name FROM steps WHERE attempt = ? AND state = 'intended'",
        (attempt,),
    )
    charged, effects = 0, []
    for number, effect, worst, hold, name in open_steps:
        tx.run(
            "UPDATE steps SET state = 'unknown', spent_micros = ?, ended_at = ? WHERE attempt = ? AND number = ?",
            (worst, tx.now, attempt, number),
        )
        if worst:
            pay(tx, attempt, number, worst, name.partition(":")[0], task)
        if hold is not None:
            settle_aid(tx, hold, None, resident)
        charged += worst
        effects.append(effect)
        tx.log.add(
            "step.unknown", "system:kernel", {"number": number, "effect": effect, "spent_micros": worst},
            resident=resident, task=task, attempt=attempt, cycle=cycle,
        )  # fmt: skip
    return charged, effects
