"""The room of what is left: for each task that has not ended, what it waits for, and what would move it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from attrs import frozen

from vivarium_kernel import board, village_time
from vivarium_kernel.deciding import question
from vivarium_kernel.processes import present
from vivarium_kernel.records import Task
from vivarium_kernel.store import View
from vivarium_kernel.terms import FOR_PEOPLE, MICROS
from vivarium_kernel.wording import lasting, when

Kind = Literal["person", "time", "quota", "pause", "resident", "plugin", "task", "process", "village", "nobody"]


@frozen
class Wait:
    """What one task waits for. ``next_step`` is what a person can do about it."""

    task: str
    state: str
    kind: Kind
    what: str
    next_step: str = ""


@frozen
class Known:
    """What the process that ran knows besides the board: which plugins are on, and why residents took no task."""

    plugins: Collection[str] | None = None
    refusals: Mapping[str, str] = {}
    stopped: bool = False


def left(view: View, known: Known | None = None, limit: int = -1) -> list[Wait]:
    """Every task that has not ended, in the order of posting, and what it waits for."""
    rows = view.rows(
        f"SELECT {board.TASK_COLUMNS} FROM tasks WHERE state IN ('waiting', 'open', 'claimed', 'parked', 'review') "
        "ORDER BY seq LIMIT ?",
        (limit,),
    )
    return [wait_of(view, board.task_of(row), known) for row in rows]


def count_left(view: View) -> int:
    """How many tasks have not ended."""
    counts = board.counts(view)
    return sum(counts[state] for state in ("waiting", "open", "claimed", "parked", "review"))


def only_people_awaited(view: View) -> bool:
    """Whether nothing moves until a person decides: what waits for other tasks then waits for a person, too."""
    row = view.row(
        "SELECT EXISTS (SELECT 1 FROM tasks WHERE state = 'open') OR EXISTS (SELECT 1 FROM tasks WHERE "
        f"state = 'claimed' OR (state = 'parked' AND parked_for NOT IN {FOR_PEOPLE}))"
    )
    return row is not None and not row[0]


def wait_of(view: View, task: Task, known: Known | None = None) -> Wait:
    """What one task waits for that has not ended."""
    known = known or Known()
    match task.state:
        case "waiting":
            return _for_tasks(view, task)
        case "review":
            return Wait(
                task.id, task.state, "person", f"a person's decision: {task.reason or 'its outcome is to be reviewed'}",
                f"vivarium task approve {task.id}, or reject or requeue it",
            )  # fmt: skip
        case "parked":
            return _parked(view, task)
        case "claimed":
            return _claimed(view, task)
    return _open(view, task, known)


def _claimed(view: View, task: Task) -> Wait:
    row = view.row("SELECT resident, process FROM attempts WHERE task = ? AND state = 'running'", (task.id,))
    who, process = row or ("somebody", None)
    if process is None or any(one.id == process and not one.gone for one in present(view)):
        return Wait(task.id, task.state, "process", f"{who}, who is at it")
    return Wait(task.id, task.state, "process", f"the next process: the one that {who} was at it in is gone",
                "vivarium run")  # fmt: skip


def _for_tasks(view: View, task: Task) -> Wait:
    rows = view.rows(
        "SELECT t.id, t.state FROM dependencies d JOIN tasks t ON t.id = d.needs "
        "WHERE d.task = ? AND t.state <> 'done' ORDER BY t.seq LIMIT 4",
        (task.id,),
    )
    named = [f"{name} ({state})" for name, state in rows[:3]]
    return Wait(task.id, task.state, "task", ", ".join(named) + (" and others" if len(rows) > 3 else ""))


def _parked(view: View, task: Task) -> Wait:
    now = view.now
    reason = f": {task.reason}" if task.reason else ""
    until = f"until {when(task.wake_at, now)} (in {lasting((task.wake_at - now) / MICROS)})" if task.wake_at else ""
    kind: Kind
    match task.parked_for:
        case "key":
            kind, text = "person", f"a key{reason}"
            step = f"set it, and the task goes on by itself; or vivarium task reject {task.id}"
        case "approval" | "answer" as what:
            kind = "person"
            text, step = (
                f"a person's {what}{until and f' {until}'}{reason}",
                f"vivarium task approve {task.id}, or reject it",
            )
            if question(view, task) is not None:
                step = f"vivarium task answer {task.id} TEXT, or approve or reject it"
        case "quota":
            kind, text, step = "quota", f"a quota{until and f' {until}'}{reason}", ""
        case "pause":
            kind, text, step = (
                "pause",
                f"the end of a pause{reason}",
                "vivarium resume, or vivarium resident resume NAME",
            )
        case "backoff":
            kind, text, step = "time", f"its next try{until and f' {until}'}{reason}", ""
        case _:
            kind, text, step = "time", f"its time {until}", ""
    return Wait(task.id, task.state, kind, text, step)


def _open(view: View, task: Task, known: Known) -> Wait:
    """Why an open task was not taken: the village, a plugin, its resident, everybody's refusal, or no time for it."""
    times = village_time.read_times(view)
    for stands, name, end in ((times.halted, "halted", "unhalt"), (times.paused, "paused", "resume")):
        if stands:
            return Wait(task.id, task.state, "village", f"the village is {name}", f"vivarium {end}")
    off = [name for name in task.plugins if known.plugins is not None and name not in known.plugins]
    if off:
        what = f"the plugin {', '.join(off)}, which is off or not installed"
        return Wait(task.id, task.state, "plugin", what, f"vivarium plugins enable {' '.join(off)}")
    if task.id in known.refusals:
        return Wait(task.id, task.state, "nobody", f"somebody who may take it ({known.refusals[task.id]})")
    if task.wanted is not None:
        return _for_resident(view, task, task.wanted, times.hour(view.now))
    what, step = _anybody(view, task, known, times.residents)
    return Wait(task.id, task.state, "resident", what, step)


def _anybody(view: View, task: Task, known: Known, number: int | None) -> tuple[str, str]:
    """What an open task waits for that any resident may take, and the next step."""
    active = [row[0] for row in view.rows("SELECT name FROM residents WHERE state = 'active'")]
    away = view.row("SELECT name, state FROM residents WHERE state IN ('paused', 'quarantined') ORDER BY name")
    if not active and away is not None:
        return f"a resident: nobody is active, {away[0]} is {away[1]}", f"vivarium resident resume {away[0]}"
    if active and set(active) <= set(task.declined):
        return "a resident who has not declined it", "vivarium resident add NAME"
    if number == 0:
        return "a resident: none is to be at work", "vivarium residents NUMBER"
    return "a resident: the run was stopped before its turn" if known.stopped else "a resident", "vivarium run"


def _for_resident(view: View, task: Task, name: str, hour: int) -> Wait:
    row = view.row("SELECT state, reason, coalesce(rests_until_hour, 0) FROM residents WHERE name = ?", (name,))
    state, reason, rests_until = row or ("gone", "", 0)
    if state == "active" and rests_until > hour:
        return Wait(task.id, task.state, "resident", f"{name}, who rests until village hour {rests_until}")
    if state == "active":
        return Wait(task.id, task.state, "resident", f"{name}, who is not at work now", "vivarium run")
    why = f" ({reason})" if reason else ""
    step = f"vivarium resident resume {name}" if state in ("paused", "quarantined") else "vivarium task cancel"
    return Wait(task.id, task.state, "resident", f"{name}, who is {state}{why}", step)
