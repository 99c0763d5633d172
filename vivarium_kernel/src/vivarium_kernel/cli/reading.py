"""The room of the command line's questions to the database: what several commands show of it, in one snapshot each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from vivarium_kernel import board
from vivarium_kernel.records import Task
from vivarium_kernel.store import View
from vivarium_kernel.terms import ANY_ENDING

ENDED = "('done', 'failed', 'cancelled', 'blocked')"
_PAGE = 2_000


@frozen
class Held:
    """A claimed task, who holds it, and where. ``lease_until_at`` is the attempt's own or its process's."""

    task: str
    attempt: int
    number: int
    resident: str
    started_at: int
    lease_until_at: int | None
    process: int | None
    kind: str | None
    pid: int | None
    machine: str | None


def claimed(view: View, limit: int | None = None) -> list[Held]:
    """Every task that somebody is at, the one that runs longest first."""
    return [
        Held(*row)
        for row in view.rows(
            "SELECT a.task, a.id, a.number, a.resident, a.started_at, coalesce(a.lease_until_at, p.lease_until_at), "
            "a.process, p.kind, p.pid, p.machine FROM attempts a LEFT JOIN processes p ON p.id = a.process "
            "WHERE a.state = 'running' ORDER BY a.started_at, a.id LIMIT ?",
            (-1 if limit is None else limit,),
        )
    ]


def pages(view: View, state: str | None = None, label: str | None = None) -> Iterator[Task]:
    """Every task of the board in the order of posting, read in pages."""
    after = 0
    while found := board.tasks(view, state=state, label=label, after=after, limit=_PAGE):
        yield from found
        after = found[-1].seq


def newest(view: View, limit: int, state: str | None = None, label: str | None = None) -> tuple[list[Task], int]:
    """The newest ``limit`` tasks in the order of posting, and how many there are in all."""
    clause, params = ["1"], []
    if state is not None:
        clause.append("state = ?")
        params.append(state)
    if label is not None:
        clause.append("EXISTS (SELECT 1 FROM json_each(spec, '$.labels') WHERE value = ?)")
        params.append(label)
    where = " AND ".join(clause)
    total = (view.row(f"SELECT count(*) FROM tasks WHERE {where}", params) or (0,))[0]
    found = view.rows(
        f"SELECT {board.TASK_COLUMNS} FROM tasks WHERE {where} ORDER BY seq DESC LIMIT ?", (*params, limit)
    )
    return [board.task_of(row) for row in reversed(found)], total


@frozen
class News:
    """One ending on the board, as the log tells it. ``state`` is what the task is since."""

    event: int
    at: int
    task: str
    state: str
    resident: str | None
    seconds: float | None
    exit_code: int | None
    reason: str


def news(view: View, after: int, limit: int = 5_000) -> list[News]:
    """What ended after the event ``after``: attempts, and tasks that ended without one."""
    found = []
    for number, at, kind, task, resident, data, seconds in view.rows(
        "SELECT e.id, e.at, e.kind, e.task, e.resident, e.data, a.seconds FROM events e "
        "LEFT JOIN attempts a ON a.id = e.attempt WHERE e.id > ? AND e.task IS NOT NULL AND e.kind IN "
        "('attempt.ended', 'attempt.review', 'task.failed', 'task.blocked', 'task.cancelled') ORDER BY e.id LIMIT ?",
        (after, limit),
    ):
        told: dict[str, Any] = json.loads(data)
        state = told.get("task_state") or kind.partition(".")[2]
        found.append(
            News(number, at, task, state, resident, seconds, told.get("exit_code"), told.get("reason") or "")
        )  # fmt: skip
    return found


def last_event(view: View) -> int:
    """The number of the newest event."""
    row = view.row("SELECT max(id) FROM events")
    return int(row[0] or 0) if row else 0


@frozen
class Done:
    """A task as the table at the end of a run has it. ``seconds`` are of all its attempts."""

    task: str
    title: str
    state: str
    expect: str
    resident: str | None
    attempts: int
    exit_code: int | None
    seconds: float
    reward_micros: int
    reason: str
    ended_at: int | None

    @property
    def as_expected(self) -> bool:
        return self.expect in (ANY_ENDING, self.state)


# How a task may end without being counted: as it was posted, or in any way once somebody has acknowledged it.
EXPECT = f"iif(json_extract(spec, '$.acknowledged'), '{ANY_ENDING}', coalesce(json_extract(spec, '$.expect'), 'done'))"
_DONE = (
    "SELECT t.id, coalesce(json_extract(t.spec, '$.title'), ''), t.state, "
    f"{EXPECT} AS expect, a.resident, t.attempts, a.exit_code, "
    "coalesce((SELECT sum(seconds) FROM attempts WHERE task = t.id), 0.0), "
    "coalesce((SELECT sum(micros) FROM transfers WHERE ref = 'task:' || t.id AND reason = 'task_reward'), 0), "
    "t.reason, t.ended_at FROM tasks t LEFT JOIN attempts a "
    "ON a.id = (SELECT max(id) FROM attempts WHERE task = t.id) "
)


def ended(view: View) -> Iterator[Done]:
    """Every task that has ended, in the order of posting."""
    after = 0
    while True:
        rows = view.rows(f"{_DONE} WHERE t.seq > ? AND t.state IN {ENDED} ORDER BY t.seq LIMIT ?", (after, _PAGE))
        yield from (Done(*row) for row in rows)
        if len(rows) < _PAGE:
            return
        after = (view.row("SELECT seq FROM tasks WHERE id = ?", (rows[-1][0],)) or (0,))[0]


def last_ended(view: View, limit: int) -> list[Done]:
    """The tasks that ended last, the first of them first."""
    rows = view.rows(f"{_DONE} WHERE t.state IN {ENDED} ORDER BY t.ended_at DESC, t.seq DESC LIMIT ?", (limit,))
    return [Done(*row) for row in reversed(rows)]


def unexpected(view: View, limit: int) -> list[Done]:
    """Ended tasks that did not end as they were expected to, in the order of posting."""
    rows = view.rows(
        f"{_DONE} WHERE t.state IN {ENDED} AND expect NOT IN (t.state, '{ANY_ENDING}') ORDER BY t.seq LIMIT ?", (limit,)
    )
    return [Done(*row) for row in rows]


@frozen
class Totals:
    """All ended tasks together."""

    ended: int
    unexpected: int
    seconds: float
    reward_micros: int
    spent_micros: int


def totals(view: View) -> Totals:
    """The sums below the table of a run."""
    ended, strange = view.row(
        f"SELECT count(*), coalesce(sum({EXPECT} NOT IN (state, '{ANY_ENDING}')), 0) FROM tasks WHERE state IN {ENDED}"
    ) or (0, 0)
    seconds, spent = view.row("SELECT coalesce(sum(seconds), 0.0), coalesce(sum(spent_micros), 0) FROM attempts") or (
        0.0, 0
    )  # fmt: skip
    paid = view.row("SELECT coalesce(sum(micros), 0) FROM transfers WHERE reason = 'task_reward'") or (0,)
    return Totals(ended, strange, seconds, paid[0], spent)
