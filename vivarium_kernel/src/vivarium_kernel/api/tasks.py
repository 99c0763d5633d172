"""The room of the routes about tasks and attempts."""

from __future__ import annotations

import json
from typing import Annotated, Any

from attrs import frozen
from msgspec import Meta

from vivarium_kernel import board, deciding, posting
from vivarium_kernel.api.operations import Call, Change, Operation
from vivarium_kernel.api.seeing import attempt_seen, eyes_of, task_seen
from vivarium_kernel.api.shapes import (
    AttemptPage,
    AttemptQuery,
    Attempts,
    Declined,
    NewTasks,
    Posted,
    Reason,
    TaskPage,
    TaskQuery,
    Tasks,
)
from vivarium_kernel.board import ATTEMPT_COLUMNS, TASK_COLUMNS
from vivarium_kernel.deciding import LONGEST_ANSWER, Answering, Decision, Declining, What
from vivarium_kernel.records import Attempt, Task


@frozen
class Answered:
    """A person's answer to what a task asks."""

    text: Annotated[str, Meta(min_length=1, max_length=LONGEST_ANSWER)]


def operations() -> list[Operation]:
    """The routes of this room."""
    return [
        Operation("GET /tasks", "List tasks.", _list, query=TaskQuery, reply=Tasks),
        Operation("POST /tasks", "Post tasks.", _post, body=NewTasks, reply=Posted, keyed=True),
        Operation("GET /tasks/{task}", "Read a task with its attempts.", _read, reply=TaskPage),
        *(
            Operation(
                f"POST /tasks/{{task}}/{what}",
                summary,
                _deciding(what),
                body=Reason,
                reply=Task,
                keyed=True,
            )
            for what, summary in _DECISIONS
        ),
        Operation(
            "POST /tasks/{task}/answer",
            "Answer what a task asks; it goes on.",
            _answer,
            body=Answered,
            reply=Task,
            keyed=True,
        ),
        Operation(
            "POST /tasks/{task}/decline",
            "Decline a task, at no cost.",
            _decline,
            body=Declined,
            reply=Task,
            keyed=True,
        ),
        Operation(
            "GET /attempts",
            "List attempts with their outputs.",
            _attempts,
            query=AttemptQuery,
            reply=Attempts,
        ),
        Operation(
            "GET /attempts/{attempt}",
            "Read an attempt with its steps.",
            _attempt,
            reply=AttemptPage,
        ),
    ]


_DECISIONS: tuple[tuple[What, str], ...] = (
    ("cancel", "Cancel a task; one that runs is ended."),
    ("requeue", "Put a task back on the board, its failures forgotten."),
    ("approve", "Accept an outcome in review, or let a parked task go on."),
    ("reject", "Reject an outcome in review, or block a parked task."),
    ("acknowledge", "Leave it at how a task ended, expected or not."),
)


async def _list(call: Call) -> Tasks:
    query: TaskQuery = call.query
    where: list[str] = ["seq > ?"]
    params: list[Any] = [query.after]
    if query.state is not None:
        where.append("state = ?")
        params.append(query.state)
    if query.label is not None:
        where.append("EXISTS (SELECT 1 FROM json_each(spec, '$.labels') WHERE value = ?)")
        params.append(query.label)
    eyes = eyes_of(call.caller)
    if eyes is not None:
        own = "EXISTS (SELECT 1 FROM attempts WHERE task = tasks.id AND resident = ?)"
        where.append(f"(wanted IS NULL OR wanted = ? OR {own})")
        params += [eyes, eyes]
    sql = f"SELECT {TASK_COLUMNS} FROM tasks WHERE {' AND '.join(where)} ORDER BY seq LIMIT ?"
    with call.village.store.view() as view:
        rows = view.rows(sql, (*params, query.limit + 1))
    found = [board.task_of(row) for row in rows[: query.limit]]
    return Tasks(tuple(found), found[-1].seq if len(rows) > query.limit else None)


async def _post(call: Call) -> Change:
    village = call.village
    body: NewTasks = call.body
    problems = [
        problem.below(f"tasks[{index}]")
        for index, task in enumerate(body.tasks)
        for problem in posting.validate(
            task, modes=village.modes(), task_micros=village.settings.budgets.task_usd_micros
        )
    ]
    if problems:
        raise posting.TaskError(problems)
    return Change(board.post, village.posting(body.tasks, call.caller.actor), lambda tasks: Posted(tuple(tasks)))


async def _read(call: Call) -> TaskPage:
    with call.village.store.view() as view:
        task = task_seen(view, call.caller, call.path["task"])
        eyes = eyes_of(call.caller)
        attempts = [each for each in board.attempts(view, task.id) if eyes is None or each.resident == eyes]
        return TaskPage(task, board.needs_of(view, task.id), tuple(attempts))


def _deciding(what: What) -> Any:
    async def decide(call: Call) -> Change:
        village = call.village
        asked = Decision(
            call.path["task"],
            what,
            call.caller.actor,
            call.body.reason,
            village.hooks.end_attempt,
            village.retries(),
        )
        return Change(deciding.decide, asked, _itself)

    return decide


async def _answer(call: Call) -> Change:
    return Change(deciding.answer, Answering(call.path["task"], call.body.text, call.caller.actor), _itself)


async def _decline(call: Call) -> Change:
    with call.village.store.view() as view:
        task = task_seen(view, call.caller, call.path["task"])
    asked = Declining(task.id, call.caller.actor.name, call.body.reason, call.village.hooks.end_attempt)
    return Change(deciding.decline, asked, _itself)


def _itself(task: Task) -> Task:
    return task


async def _attempts(call: Call) -> Attempts:
    query: AttemptQuery = call.query
    where: list[str] = ["id > ?"]
    params: list[Any] = [query.after]
    for column, value in (("task", query.task), ("resident", query.resident), ("resident", eyes_of(call.caller))):
        if value is not None:
            where.append(f"{column} = ?")
            params.append(value)
    sql = f"SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE {' AND '.join(where)} ORDER BY id LIMIT ?"
    with call.village.store.view() as view:
        rows = view.rows(sql, (*params, query.limit + 1))
    found = [Attempt(*row) for row in rows[: query.limit]]
    return Attempts(tuple(found), found[-1].id if len(rows) > query.limit else None)


async def _attempt(call: Call) -> AttemptPage:
    with call.village.store.view() as view:
        attempt = attempt_seen(view, call.caller, call.path["attempt"])
        row = view.row("SELECT prompt FROM attempts WHERE id = ?", (attempt.id,))
        prompt = None if row is None or row[0] is None else tuple(json.loads(row[0]))
        return AttemptPage(attempt, tuple(board.steps(view, attempt.id)), prompt)
