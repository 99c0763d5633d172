"""The room of people's decisions about tasks: approve, reject, requeue, cancel, acknowledge, answer, clear."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from heapq import heapify, heappop, heappush
from typing import Literal

from attrs import field, frozen

from vivarium_kernel import board
from vivarium_kernel.audit import emit
from vivarium_kernel.errors import Conflict, Invalid
from vivarium_kernel.records import Ending, Review, Task, Verdict
from vivarium_kernel.settling import EndAttempt, Retries, Settlement, keep_missed, settle
from vivarium_kernel.store import Tx, View, json_list
from vivarium_kernel.terms import ENDED_STATES, FOR_PEOPLE, Actor

What = Literal["approve", "reject", "requeue", "cancel", "acknowledge"]
LONGEST_ANSWER = 10_000  # characters
WORDLESS = "(approved without words)"
# The last tool that an attempt used, where that asks: task, attempt, step, the words, and until when.
_QUESTIONS = (
    "SELECT t.id, s.attempt, s.number, json_extract(s.result, '$.question'), t.wake_at FROM tasks t JOIN steps s "
    "ON s.attempt = t.continues AND s.number = (SELECT max(number) FROM steps WHERE attempt = t.continues "
    "AND kind = 'tool' AND state = 'done') WHERE t.state = 'parked' AND t.parked_for = 'answer' AND NOT s.replayed "
    "AND json_type(s.result, '$.question') = 'text' AND json_type(s.result, '$.answer') = 'null'"
)


@frozen
class Decision:
    """What somebody decides about a task, and why."""

    task: str
    what: What
    actor: Actor | str
    reason: str = ""
    end_attempt: EndAttempt | None = None
    retries: Retries = field(factory=Retries)


def decide(tx: Tx, asked: Decision) -> Task:
    """Carry out a decision; raises NotFound, or Conflict naming the state that doesn't allow it."""
    _carry_out(tx, asked)
    return board.task(tx, asked.task)


def decide_all(tx: Tx, asked: Sequence[Decision]) -> list[Task]:
    """Carry out decisions, one a task, all or none. What needs another one comes back after it, and goes before it.

    Returns the tasks as they are now, with those that came back because of them; what came back is not asked twice.
    """
    names: dict[str, None] = {}
    decisions = {one.task: one for one in asked}
    for one in _in_order(tx, decisions):
        if one.task not in names:
            names |= dict.fromkeys([one.task, *_carry_out(tx, one)])
    return board.tasks_of(tx, list(names))


def _in_order(tx: Tx, decisions: Mapping[str, Decision]) -> list[Decision]:
    """In the order that is given, but where a decision settles another task of the list, too: that one comes before."""
    before: dict[str, list[str]] = {name: [] for name in decisions}
    cancels = any(one.what == "cancel" for one in decisions.values())
    for name, need in tx.rows(
        "WITH RECURSIVE above(name) AS (SELECT value FROM json_each(?) "
        "UNION SELECT d.needs FROM above JOIN dependencies d ON d.task = above.name) "
        "SELECT d.task, d.needs FROM above JOIN dependencies d ON d.task = above.name",
        (json_list(list(decisions)),),
    ):
        first, then = (name, need) if cancels else (need, name)
        before.setdefault(then, []).append(first)
    sorter, found = TopologicalSorter(before), []
    sorter.prepare()
    places = {name: place for place, name in enumerate(decisions)}
    ready = [(places.get(name, -1), name) for name in sorter.get_ready()]
    heapify(ready)
    while ready:
        _, name = heappop(ready)
        if name in decisions:
            found.append(decisions[name])
        sorter.done(name)
        for other in sorter.get_ready():
            heappush(ready, (places.get(other, -1), other))
    return found


def _carry_out(tx: Tx, asked: Decision) -> list[str]:
    """Returns the names of other tasks that came back because of it."""
    task = board.task(tx, asked.task)
    if asked.what == "requeue":
        return _requeue(tx, task, asked)
    decide_one = {"approve": _approve, "reject": _reject, "cancel": _cancel, "acknowledge": _acknowledge}[asked.what]
    decide_one(tx, task, asked)
    return []


def _approve(tx: Tx, task: Task, asked: Decision) -> None:
    """In review: the outcome is accepted. Parked for an approval or an answer: the task may go on.

    Only where an approval was asked for is safety not asked again: an answer, or a key that is set now, waives nothing.
    """
    if task.state == "review":
        _end_review(tx, task, asked, Review("accept", 1.0, asked.reason or "approved"))
    elif task.state == "parked" and task.parked_for in FOR_PEOPLE:
        asking = question(tx, task)
        if asking is not None:
            asking.write(tx, asked.reason or WORDLESS, asked.actor)
        approved = str(asked.actor) if task.parked_for == "approval" else task.approved
        tx.run(
            "UPDATE tasks SET state = 'open', parked_for = NULL, wake_at = NULL, declined = NULL, approved = ?, "
            "reason = ? WHERE id = ?",
            (approved, asked.reason, task.id),
        )
        tx.opened = True
        emit(tx, "task.approved", asked.actor, task=task.id, reason=asked.reason)
    else:
        raise _not_now(
            task, "approved", "Only a task in review, or parked for an approval, an answer or a key, can be."
        )


def _reject(tx: Tx, task: Task, asked: Decision) -> None:
    if task.state == "review":
        _end_review(tx, task, asked, Review("reject", 1.0, asked.reason or "rejected"))
    elif task.state == "parked" and task.parked_for in FOR_PEOPLE:
        _end_without_attempt(tx, task, "blocked", asked)
    else:
        raise _not_now(
            task, "rejected", "Only a task in review, or parked for an approval, an answer or a key, can be."
        )


def _requeue(tx: Tx, task: Task, asked: Decision) -> list[str]:
    """Put a task back on the board with its count of failures cleared, and what failed only because of it."""
    if task.state in ("claimed", "open", "waiting", "done"):
        raise _not_now(task, "requeued", "Only a task that failed, was cancelled, blocked, parked or is in review can.")
    need = board.lost_need(tx, task.id)
    if need is not None:
        raise Conflict(
            "board.needs", f"Task {task.id} needs {need[0]}, which is {need[1]}.",
            f"Requeue that one first (vivarium task requeue {need[0]}): what failed only because of it comes back "
            "with it.", field="task",
        )  # fmt: skip
    if task.state == "review":
        _end_review(tx, task, asked, None)
        task = board.task(tx, task.id)
    _put_back(tx, task.id, asked, task.state)
    tx.opened = True
    back = [task.id]
    for each in back:  # it grows
        for name in board.failed_for(tx, each):
            need = board.lost_need(tx, name)
            if need is None:
                _put_back(tx, name, asked, "failed")
                back.append(name)
            else:
                tx.run("UPDATE tasks SET reason = ? WHERE id = ?", (board.why_lost(*need), name))
    return back[1:]


def _put_back(tx: Tx, name: str, asked: Decision, before: str) -> None:
    tx.run(
        "UPDATE tasks SET state = CASE WHEN EXISTS (SELECT 1 FROM dependencies d JOIN tasks n ON n.id = d.needs "
        "WHERE d.task = tasks.id AND n.state <> 'done') THEN 'waiting' ELSE 'open' END, parked_for = NULL, "
        "wake_at = NULL, failures = 0, faults = 0, declined = NULL, reason = ?, ended_at = NULL, continues = NULL, "
        "held_for = wanted, retry_until_at = max(retry_until_at, ? + retry_until_at - posted_at), "
        "spec = json_remove(spec, '$.acknowledged') WHERE id = ?",
        (asked.reason, tx.now, name),
    )
    emit(tx, "task.requeued", asked.actor, task=name, before=before, reason=asked.reason)


def _cancel(tx: Tx, task: Task, asked: Decision) -> None:
    if task.state in ENDED_STATES:
        raise _not_now(task, "cancelled", "It has ended.")
    if task.state in ("claimed", "review"):
        number = _open_attempt(tx, task)
        _settle(tx, Settlement(number, None, "cancelled", asked.reason or "cancelled", actor=str(asked.actor),
                               end_attempt=asked.end_attempt))  # fmt: skip
    else:
        _end_without_attempt(tx, task, "cancelled", asked)


def _acknowledge(tx: Tx, task: Task, asked: Decision) -> None:
    """A task that ended otherwise than it was expected to is left at that: no run counts it, until it is requeued."""
    if task.state not in ENDED_STATES:
        raise _not_now(task, "acknowledged", "Only one that has ended can be.")
    tx.run("UPDATE tasks SET spec = json_set(spec, '$.acknowledged', 1) WHERE id = ?", (task.id,))
    emit(tx, "task.acknowledged", asked.actor, task=task.id, state=task.state, reason=asked.reason)


def block(tx: Tx, asked: tuple[str, Verdict, EndAttempt | None]) -> bool:
    """A safety check denied a task before anybody claimed it. False when it is not open or waiting any more."""
    name, verdict, end_attempt = asked
    task = board.task(tx, name)
    if task.state not in ("open", "waiting", "parked"):
        return False
    reason = str(verdict)
    _end_without_attempt(tx, task, "blocked", Decision(name, "reject", "system:safety", reason, end_attempt))
    return True


def ask_approval(tx: Tx, asked: tuple[str, Verdict]) -> bool:
    """A safety check wants a human to decide first. False when the task is not open any more."""
    name, verdict = asked
    reason = str(verdict)
    changed = tx.run(
        "UPDATE tasks SET state = 'parked', parked_for = 'approval', wake_at = NULL, reason = ? "
        "WHERE id = ? AND state = 'open' AND approved IS NULL",
        (reason, name),
    )
    if changed:
        emit(tx, "task.parked", "system:safety", task=name, **{"for": "approval", "reason": reason})
    return bool(changed)


@frozen
class Question:
    """What a parked attempt asked of people: the last step that it took, whose result has room for the answer."""

    task: str
    attempt: int
    step: int
    text: str

    def write(self, tx: Tx, text: str, actor: Actor | str) -> None:
        """Write the answer into the step: the attempt that goes on is given it as the tool's reply."""
        told = json.dumps({"question": self.text, "answer": text, "by": str(actor)}, ensure_ascii=False)
        tx.run("UPDATE steps SET result = ? WHERE attempt = ? AND number = ?", (told, self.attempt, self.step))
        emit(tx, "task.answered", actor, task=self.task, attempt=self.attempt, step=self.step, characters=len(text))


def question(source: Tx | View, task: Task) -> Question | None:
    """The open question of a task that is parked for an answer; None where it asks nothing in words.

    A question that an attempt was given again is over: its time ran out, and the thought went on without an answer.
    """
    if task.state != "parked" or task.parked_for != "answer":
        return None
    row = source.row(f"{_QUESTIONS} AND t.id = ?", (task.id,))
    return None if row is None else Question(*row[:4])


def questions(view: View, most: int) -> list[tuple[Question, int | None]]:
    """The open questions, ``most`` of them, those of the oldest tasks first, each with when it is over."""
    return [(Question(*row[:4]), row[4]) for row in view.rows(f"{_QUESTIONS} ORDER BY t.seq LIMIT ?", (most,))]


@frozen
class Answering:
    """A person's answer to what a task asks."""

    task: str
    text: str
    actor: Actor | str


def answer(tx: Tx, asked: Answering) -> Task:
    """Answer the open question of a task, which goes on with it; raises NotFound, or Conflict where none is open."""
    task = board.task(tx, asked.task)
    if task.state != "parked" or task.parked_for != "answer":
        raise _not_now(task, "answered", "Only a task that is parked for an answer can be.")
    asking = question(tx, task)
    if asking is None:
        raise Conflict(
            "board.question", f"Task {task.id} asks no question that an answer could be given to.",
            f"Let it go on: vivarium task approve {task.id}; or reject it.", field="task",
        )  # fmt: skip
    asking.write(tx, asked.text, asked.actor)
    tx.run(
        "UPDATE tasks SET state = 'open', parked_for = NULL, wake_at = NULL, declined = NULL, reason = 'answered' "
        "WHERE id = ?",
        (task.id,),
    )
    tx.opened = True
    return board.task(tx, asked.task)


@frozen
class Declining:
    """A resident will not do a task; it says why, and it costs nothing."""

    task: str
    resident: str
    reason: str
    end_attempt: EndAttempt | None = None


def decline(tx: Tx, asked: Declining) -> Task:
    """Decline a task: the resident's running attempt at it ends, and it isn't offered to that resident again."""
    task = board.task(tx, asked.task)
    row = tx.row(
        "SELECT id FROM attempts WHERE task = ? AND resident = ? AND state = 'running'", (task.id, asked.resident)
    )
    if row is not None:
        _settle(tx, Settlement(row[0], None, "released", asked.reason, declined=True,
                               actor=f"resident:{asked.resident}", end_attempt=asked.end_attempt))  # fmt: skip
    elif task.state in ("open", "waiting", "parked"):
        declined = [*task.declined, *([] if asked.resident in task.declined else [asked.resident])]
        tx.run("UPDATE tasks SET declined = ? WHERE id = ?", (json_list(declined), task.id))
        if task.wanted == asked.resident and task.state == "open":
            tx.run(
                "UPDATE tasks SET state = 'parked', parked_for = 'answer', reason = ? WHERE id = ?",
                (asked.reason, task.id),
            )
    else:
        raise _not_now(task, "declined", "Only a task of one's own, or one that nobody has taken yet, can be.")
    emit(tx, "task.declined", f"resident:{asked.resident}", resident=asked.resident, task=task.id, reason=asked.reason)
    return board.task(tx, asked.task)


def _end_review(tx: Tx, task: Task, asked: Decision, review: Review | None) -> None:
    kind = "released" if review is None else "accepted" if review.decision == "accept" else "rejected"
    _settle(
        tx,
        Settlement(_open_attempt(tx, task), None, kind, asked.reason, review=review, actor=str(asked.actor),  # type: ignore[arg-type]
                   end_attempt=asked.end_attempt, retries=asked.retries),
    )  # fmt: skip


def _open_attempt(tx: Tx, task: Task) -> int:
    row = tx.row("SELECT id FROM attempts WHERE task = ? AND state <> 'ended' ORDER BY id DESC LIMIT 1", (task.id,))
    if row is None:
        raise _not_now(task, "decided", "It has no open attempt; `vivarium doctor` tells more.")
    return int(row[0])


def _settle(tx: Tx, item: Settlement) -> None:
    answer = settle(tx, [item])[0]
    if isinstance(answer, Exception):
        raise answer


def _end_without_attempt(tx: Tx, task: Task, state: Literal["cancelled", "blocked"], asked: Decision) -> None:
    tx.run(
        "UPDATE tasks SET state = ?, parked_for = NULL, wake_at = NULL, reason = ?, ended_at = ? WHERE id = ?",
        (state, asked.reason, tx.now, task.id),
    )
    board.erase_private(tx, [task.id])
    emit(tx, f"task.{state}", asked.actor, task=task.id, reason=asked.reason, before=task.state)
    if asked.end_attempt is not None:
        ending = Ending(None, state, None, asked.reason)
        for call in asked.end_attempt(task, ending, tx):
            keep_missed(tx, call.plugin, "end_attempt", task, ending, call.error)
    board.fail_dependents(tx, [(name, need, state) for name, need in board.dependents(tx, [task.id])])


def clear(tx: Tx, asked: tuple[str, Actor | str]) -> int:
    """Remove tasks in an ended state that were never tried; tried ones stay, their attempts are the record.

    Returns how many were removed.
    """
    state, actor = asked
    if state not in ENDED_STATES:
        raise Invalid(
            "board.clear", f"Tasks that are {state!r} can't be cleared.", f"Use one of: {', '.join(ENDED_STATES)}.",
            field="state",
        )  # fmt: skip
    names = [
        row[0]
        for row in tx.rows(
            "SELECT id FROM tasks t WHERE state = ? AND NOT EXISTS (SELECT 1 FROM attempts WHERE task = t.id) "
            "AND NOT EXISTS (SELECT 1 FROM dependencies d WHERE d.needs = t.id)",
            (state,),
        )
    ]
    listed = json_list(names)
    tx.run("DELETE FROM dependencies WHERE task IN (SELECT value FROM json_each(?))", (listed,))
    tx.run("DELETE FROM budgets WHERE scope IN (SELECT 'task:' || value FROM json_each(?))", (listed,))
    tx.run("DELETE FROM tasks WHERE id IN (SELECT value FROM json_each(?))", (listed,))
    for name in names:
        emit(tx, "task.cleared", actor, task=name, state=state)
    return len(names)


def _not_now(task: Task, done: str, why: str) -> Conflict:
    return Conflict("board.state", f"Task {task.id} is {task.state} and can't be {done}.", why, field="task")
