"""The room of the panels about tasks and the log: the board with its decisions, one task with its outputs, the tail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from vivarium_kernel import audit, board, deciding
from vivarium_kernel.api.panels_asking import ask
from vivarium_kernel.audit import Filter
from vivarium_kernel.board import TASK_COLUMNS
from vivarium_kernel.errors import Invalid
from vivarium_kernel.records import Task
from vivarium_kernel.terms import ENDED_STATES, FOR_PEOPLE
from vivarium_kernel.waiting import wait_of

if TYPE_CHECKING:
    from vivarium_kernel.api.operations import Call
    from vivarium_kernel.village import Village

PAGE = 50
EVENTS = 100
MOST_STEPS = 100
_MOVING = "state IN ('claimed', 'parked', 'review', 'waiting')"  # words of a partial index
_ASKED = f"(state = 'review' OR (state = 'parked' AND parked_for IN {FOR_PEOPLE}))"
# What the board may be narrowed to: the word in the address, what it is called, and the tasks that it means.
VIEWS: tuple[tuple[str, str, str], ...] = (
    ("all", "All", "1"),
    ("you", "Waiting for you", f"{_MOVING} AND {_ASKED}"),
    ("moving", "In progress", f"(state = 'open' OR {_MOVING})"),
    ("lost", "Failed", "state IN ('failed', 'cancelled', 'blocked')"),
    ("done", "Done", "state = 'done'"),
)
FILTERS = ("kind", "resident", "task", "model", "day", "attempt")


@frozen
class Wanted:
    """Which tasks of the board to show, newest first."""

    view: str = "all"
    text: str = ""
    before: int | None = None


async def tasks(call: Call) -> Mapping[str, Any]:
    """The board, or one task of it."""
    name = call.query.get("task")
    return await (_board(call) if name is None else _one(call, name))


async def _board(call: Call) -> Mapping[str, Any]:
    query: Mapping[str, str] = call.query
    wanted = Wanted(query.get("show", "all"), query.get("q", "").strip(), _number(query, "before"))
    if wanted.view not in {word for word, _, _ in VIEWS}:
        raise Invalid("panel.query", f"The board has no part {wanted.view!r}.", "Choose one of those above the list.")
    rows, counts = await asyncio.to_thread(_read, call.village, wanted)
    return {
        "one": None,
        "wanted": wanted,
        "tasks": rows[:PAGE],
        "older": rows[PAGE - 1].seq if len(rows) > PAGE else None,
        "views": [(word, title, counts[word]) for word, title, _ in VIEWS],
    }


def _read(village: Village, wanted: Wanted) -> tuple[list[Task], dict[str, int]]:
    clauses = [next(sql for word, _, sql in VIEWS if word == wanted.view)]
    params: list[Any] = []
    if wanted.before is not None:
        clauses.append("seq < ?")
        params.append(wanted.before)
    if wanted.text:
        clauses.append(
            "(instr(lower(id), lower(?)) OR instr(lower(spec ->> '$.title'), lower(?)) "
            "OR EXISTS (SELECT 1 FROM json_each(spec, '$.labels') WHERE value = ?))"
        )
        params += [wanted.text] * 3
    sql = f"SELECT {TASK_COLUMNS} FROM tasks WHERE {' AND '.join(clauses)} ORDER BY seq DESC LIMIT {PAGE + 1}"
    with village.store.view() as view:
        counts = board.counts(view)
        asked = view.row(f"SELECT count(*) FROM tasks WHERE {_MOVING} AND {_ASKED}")
        found = [board.task_of(row) for row in view.rows(sql, params)]
    moving = sum(counts[state] for state in ("open", "waiting", "claimed", "parked", "review"))
    lost = sum(counts[state] for state in board.LOST)
    return found, {
        "all": sum(counts.values()),
        "you": asked[0] if asked else 0,
        "moving": moving,
        "lost": lost,
        "done": counts["done"],
    }


async def _one(call: Call, name: str) -> Mapping[str, Any]:
    page = await ask(call, "GET /tasks/{task}", task=name)
    more = await asyncio.to_thread(_around, call.village, page.task, [attempt.id for attempt in page.attempts])
    return {"one": page.task, "needs": page.needs, "attempts": page.attempts[::-1], **more}


def _around(village: Village, task: Task, attempts: list[int]) -> dict[str, Any]:
    with village.store.view() as view:
        return {
            "wait": None if task.state in ENDED_STATES else wait_of(view, task),
            "steps": {number: board.steps(view, number)[:MOST_STEPS] for number in attempts},
            "events": audit.last(view, EVENTS, Filter(task=task.id))[::-1],
            "decisions": decisions(task),
            "question": deciding.question(view, task) is not None,
        }


def decisions(task: Task) -> tuple[str, ...]:
    """What a person may decide about a task as it stands, as ``deciding`` would let them."""
    asked = task.state == "review" or (task.state == "parked" and task.parked_for in FOR_PEOPLE)
    found = ["approve", "reject"] if asked else []
    if task.state not in ("claimed", "open", "waiting", "done"):
        found.append("requeue")
    if task.state not in ENDED_STATES:
        found.append("cancel")
    return tuple(found)


async def events(call: Call) -> Mapping[str, Any]:
    """The newest events that the filters let through; the page's script follows the log from there."""
    query: Mapping[str, str] = call.query
    asked = {name: query[name].strip() for name in FILTERS if query.get(name, "").strip()}
    only = Filter(
        kind=asked.get("kind"),
        resident=asked.get("resident"),
        task=asked.get("task"),
        model=asked.get("model"),
        day=_number(asked, "day"),
        attempt=_number(asked, "attempt"),
    )
    found, head = await asyncio.to_thread(_tail, call.village, only)
    kinds = {event.kind for event in found} | {f"{event.kind.partition('.')[0]}.*" for event in found}
    return {"asked": asked, "events": found, "head": head, "kinds": sorted(kinds)}


def _tail(village: Village, only: Filter) -> tuple[list[Any], int]:
    with village.store.view() as view:
        return audit.last(view, EVENTS, only)[::-1], audit.read_head(view)[0]


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Invalid("panel.query", f"{name} is a whole number, not {text!r:.40}.", "Leave it out.", field=name)
    return int(text)
