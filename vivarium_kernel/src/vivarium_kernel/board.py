"""The room of the task board: posting tasks, and reading them. Claims are in ``claiming``, endings in ``settling``.

States: waiting (for other tasks) → open → claimed → (parked | review) → done | failed | cancelled | blocked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from typing import Any

import msgspec
from attrs import evolve, frozen
from msgspec.structs import replace

from vivarium_kernel.audit import emit
from vivarium_kernel.errors import Conflict, Forbidden, Invalid, NotFound
from vivarium_kernel.records import Attempt, NewTask, Step, Task
from vivarium_kernel.store import Row, Tx, View, json_list
from vivarium_kernel.terms import ENDED_STATES, MICROS, Actor, TaskState

TASK_COLUMNS = (
    "seq, id, mode, spec, priority, max_micros, wanted, by, posted_at, retry_until_at, state, attempts, failures, "
    "faults, declined, parked_for, wake_at, reason, continues, approved, ended_at"
)
ATTEMPT_COLUMNS = (
    "id, task, resident, number, cycle, state, ending, reason, process, lease_until_at, continues, started_at, "
    "ended_at, model, exit_code, seconds, stdout, stderr, answer, confidence, spent_micros"
)
COMMAND_SECONDS, OTHER_SECONDS = 30.0, 600.0
MOST_HANDED_ON = 3  # how often residents may hand one task on
STEP_COLUMNS = (
    "attempt, number, kind, name, effect, state, arguments, digest, result, worst_micros, spent_micros, tokens_in, "
    "tokens_out, started_at, ended_at, replayed"
)
_SPEC = (
    "title", "prompt", "command", "min_micros", "max_attempts", "timeout_seconds", "effect", "files", "labels",
    "plugins", "model", "cwd", "expect", "human", "data",
)  # fmt: skip
LOST = ("failed", "cancelled", "blocked")
_encode = msgspec.json.Encoder(order="sorted").encode


class _Spec(msgspec.Struct, omit_defaults=True):
    """What people wrote of a task and nobody changes, as the ``spec`` column keeps it."""

    title: str = ""
    prompt: str = ""
    command: tuple[str, ...] = ()
    min_micros: int = 0
    max_attempts: int = 3
    timeout_seconds: float = 30.0
    effect: str = "once"
    files: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    model: str | None = None
    cwd: str = "."
    expect: str = "done"
    human: bool = False
    data: dict[str, Any] = {}


_decode_spec = msgspec.json.Decoder(_Spec).decode


def task_of(row: Row) -> Task:
    """A row of ``TASK_COLUMNS`` as a record."""
    spec = _decode_spec(row[3])
    return Task(
        row[0], row[1], row[2], spec.title, spec.prompt, spec.command, row[4], row[5], spec.min_micros,
        spec.max_attempts, spec.timeout_seconds, spec.effect, spec.files, spec.labels, spec.plugins, row[6],  # type: ignore[arg-type]
        spec.model, spec.cwd, spec.expect, spec.human, spec.data, row[7], row[8], row[9], row[10], row[11], row[12],
        row[13], tuple(json.loads(row[14])) if row[14] else (), row[15], row[16], row[17], row[18], row[19], row[20],
    )  # fmt: skip


def edited_since_ended(view: View, tasks: Sequence[NewTask]) -> dict[str, TaskState]:
    """Of these tasks those that were posted with other content, by id, and have ended, with how."""
    named = {new.id: new for new in tasks if new.id is not None}
    rows = view.rows(
        f"SELECT id, state, digest FROM tasks WHERE id IN (SELECT value FROM json_each(?)) AND state IN {ENDED_STATES}",
        (json_list([*named]),),
    )
    return {name: state for name, state, digest in rows if digest != _digest(named[name])}


def _digest(new: NewTask) -> bytes:
    return sha256(_encode(new)).digest()


@frozen
class Posting:
    """Tasks to post together: they may need each other. The defaults serve those that name none."""

    tasks: Sequence[NewTask]
    actor: Actor | str
    default_max_micros: int = 0
    default_retry_seconds: float = 86_400.0


def post(tx: Tx, posting: Posting) -> list[Task]:
    """Post tasks; one that was posted before with the same id or key and content is given back as it is.

    Raises Invalid for a dependency that doesn't exist or a cycle (named), Conflict for an id or key that was used for
    other content. Nothing is posted then.
    """
    known = _posted_before(tx, posting.tasks)
    number = (tx.row("SELECT coalesce(max(seq), 0) FROM tasks") or (0,))[0]
    found: list[str] = []
    fresh: dict[str, tuple[NewTask, bytes, Task]] = {}
    named = {new.id for new in posting.tasks}
    keys: set[str | None] = set()
    for new in posting.tasks:
        digest = _digest(new)
        before = known.get(("id", new.id)) or known.get(("key", new.key))
        if before is not None:
            if before[1] != digest:
                raise Conflict(
                    "board.posted",
                    f"Task {before[0]} was posted before with other content.",
                    "What was posted stays: give the changed task another id (and key), or let it be as it was.",
                    field="id" if new.id else "key",
                )
            found.append(before[0])
            continue
        number += 1
        while new.id is None and (f"t{number}" in named or tx.row("SELECT 1 FROM tasks WHERE id = ?", (f"t{number}",))):
            number += 1  # somebody gave a task of theirs this name
        record = record_of(new, number, posting, tx.now)
        if record.id in fresh:
            raise Invalid("board.twice", f"Two tasks have the id {record.id!r}.", "Rename one.", field="id")
        if new.key is not None and new.key in keys:
            raise Invalid("board.twice", f"Two tasks have the key {new.key!r}.", "Give one another.", field="key")
        keys.add(new.key)
        fresh[record.id] = (new, digest, record)
        found.append(record.id)
    _refuse_cycles({name: new.needs for name, (new, _, _) in fresh.items() if new.needs})
    states = _states_of_needs(tx, fresh)
    _refuse_strangers(tx, fresh)
    lost = _insert(tx, fresh, states, posting)
    fail_dependents(tx, lost)
    return tasks_of(tx, found)


def _insert(
    tx: Tx, fresh: Mapping[str, tuple[NewTask, bytes, Task]], states: Mapping[str, str], posting: Posting
) -> list[tuple[str, str, str]]:
    """Write fresh tasks in the state that their needs and time ask for; returns those whose needs are lost."""
    rows: list[Row] = []
    needs: list[Row] = []
    lost = []
    for name, (new, digest, record) in fresh.items():
        state, parked_for = "open", None
        if any(states.get(need) != "done" for need in new.needs):
            state = "waiting"
            lost += [(name, need, states[need]) for need in new.needs if states.get(need) in LOST][:1]
        elif new.not_before_at is not None and new.not_before_at > tx.now:
            state, parked_for = "parked", "time"
        needs += [(need, name) for need in dict.fromkeys(new.needs)]
        rows.append(
            (
                record.seq,
                name,
                new.key,
                digest,
                record.mode,
                _spec_text(record),
                record.priority,
                record.max_micros,
                record.wanted,
                record.by,
                record.posted_at,
                record.retry_until_at,
                state,
                parked_for,
                new.not_before_at if state != "open" else None,
                record.wanted,
            )
        )
        tx.log.add(
            "task.posted", record.by, {"mode": record.mode, "max_micros": record.max_micros, "state": state}, task=name
        )
    tx.insert(
        "tasks",
        "seq, id, key, digest, mode, spec, priority, max_micros, wanted, by, posted_at, retry_until_at, state, "
        "parked_for, wake_at, held_for",
        rows,
    )
    tx.opened = True
    tx.insert("dependencies", "needs, task", needs)
    tx.insert(
        "budgets",
        "scope, currency, cap",
        [(f"task:{record.id}", "usd", record.max_micros) for _, _, record in fresh.values() if record.max_micros],
    )
    return lost


def record_of(new: NewTask, seq: int, posting: Posting, now: int) -> Task:
    """A new task as the record that it would be on the board."""
    mode = new.mode or ("command" if new.command else "llm")
    return Task(
        seq=seq,
        id=new.id or f"t{seq}",
        mode=mode,
        title=new.title,
        prompt=new.prompt,
        command=tuple(new.command),
        priority=new.priority,
        max_micros=posting.default_max_micros if new.max_micros is None else new.max_micros,
        min_micros=new.min_micros,
        max_attempts=new.max_attempts,
        timeout_seconds=timeout_of(new),
        effect=new.effect or "once",
        files=tuple(new.files),
        labels=tuple(new.labels),
        plugins=tuple(new.plugins),
        wanted=new.wanted,
        model=new.model,
        cwd=new.cwd,
        expect=new.expect,
        human=new.human,
        data=dict(new.data),
        by=str(posting.actor),
        posted_at=now,
        retry_until_at=now
        + int((posting.default_retry_seconds if new.retry_seconds is None else new.retry_seconds) * MICROS),
        state="waiting",
    )


def handed_on(tx: Tx, new: NewTask, attempt: int) -> NewTask:
    """A task that an attempt posts, with the tasks through which it came, in ``data.handed_on``.

    Raises Forbidden at the third: residents who hand one task round and round are stopped.
    """
    row = tx.row("SELECT t.id, t.spec -> '$.data.handed_on' FROM attempts a JOIN tasks t ON t.id = a.task "
                 "WHERE a.id = ?", (attempt,))  # fmt: skip
    if row is None:
        return new
    through = [*(json.loads(row[1]) if row[1] else ()), row[0]]
    if len(through) > MOST_HANDED_ON:
        raise Forbidden(
            "thought.delegation",
            f"It was handed on {MOST_HANDED_ON} times already: {' → '.join(through)}.",
            "Do it, ask a person, or decline it.",
        )
    return evolve(new, data={**new.data, "handed_on": through})


def timeout_of(new: NewTask) -> float:
    """How long one attempt may take, in seconds: a command is quick, a thought is not."""
    if new.timeout_seconds is not None:
        return float(new.timeout_seconds)
    return COMMAND_SECONDS if new.command or new.mode == "command" else OTHER_SECONDS


def _spec_text(record: Task) -> str:
    return msgspec.json.encode(_Spec(**{name: getattr(record, name) for name in _SPEC})).decode()


def _posted_before(tx: Tx, tasks: Sequence[NewTask]) -> dict[tuple[str, str | None], tuple[str, bytes]]:
    ids = json_list([t.id for t in tasks if t.id])
    keys = json_list([t.key for t in tasks if t.key])
    known: dict[tuple[str, str | None], tuple[str, bytes]] = {}
    for name, key, digest in tx.rows(
        "SELECT id, key, digest FROM tasks WHERE id IN (SELECT value FROM json_each(?)) "
        "OR key IN (SELECT value FROM json_each(?))",
        (ids, keys),
    ):
        known["id", name] = (name, digest)
        if key is not None:
            known["key", key] = (name, digest)
    known.pop(("id", None), None)
    known.pop(("key", None), None)
    return known


def _refuse_cycles(needs: Mapping[str, Sequence[str]]) -> None:
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise Invalid(
            "board.cycle", f"These tasks wait for each other: {circle}.", "Remove one of the needs.", field="needs"
        ) from error


def _states_of_needs(tx: Tx, fresh: Mapping[str, tuple[NewTask, bytes, Task]]) -> dict[str, str]:
    wanted = {need for new, _, _ in fresh.values() for need in new.needs if need not in fresh}
    states: dict[str, str] = dict(
        tx.rows(
            "SELECT id, state FROM tasks WHERE id IN (SELECT value FROM json_each(?))", (json_list(sorted(wanted)),)
        )
        if wanted
        else []
    )
    for name, (new, _, _) in fresh.items():
        for need in new.needs:
            if need not in states and need not in fresh:
                raise Invalid(
                    "board.needs", f"Task {name} needs {need!r}, which doesn't exist.", "Post that one first.",
                    field="needs",
                )  # fmt: skip
    return states


def _refuse_strangers(tx: Tx, fresh: Mapping[str, tuple[NewTask, bytes, Task]]) -> None:
    wanted = {record.wanted: name for name, (_, _, record) in fresh.items() if record.wanted}
    if wanted:
        known = {row[0] for row in tx.rows("SELECT name FROM residents")}
        for resident, name in wanted.items():
            if resident not in known:
                raise Invalid(
                    "board.wanted", f"Task {name} wants {resident!r}, who is no resident.",
                    f"Add it with `vivarium resident add {resident}`.", field="wanted",
                )  # fmt: skip


def free_task(new: NewTask, resident: str) -> NewTask:
    """A free-time task as it is posted: for this resident alone, without a budget."""
    return evolve(new, id=None, key=None, wanted=resident, labels=(*new.labels, "free"), max_micros=0, min_micros=0)


def open_or_park(tx: Tx, name: str, not_before_at: int | None) -> None:
    """Open a task whose dependencies are done, or park it until its time."""
    if not_before_at is not None and not_before_at > tx.now:
        tx.run("UPDATE tasks SET state = 'parked', parked_for = 'time' WHERE id = ?", (name,))
    else:
        tx.run("UPDATE tasks SET state = 'open', wake_at = NULL WHERE id = ?", (name,))
        tx.opened = True


def release_dependents(tx: Tx, done: Sequence[str]) -> None:
    """Open what waited only for tasks that are done now."""
    names = json_list(done)
    if not tx.rows("SELECT 1 FROM dependencies WHERE needs IN (SELECT value FROM json_each(?)) LIMIT 1", (names,)):
        return
    ready = tx.rows(
        "SELECT DISTINCT t.id, t.wake_at FROM dependencies d JOIN tasks t ON t.id = d.task AND t.state = 'waiting' "
        "WHERE d.needs IN (SELECT value FROM json_each(?)) AND NOT EXISTS (SELECT 1 FROM dependencies o "
        "JOIN tasks n ON n.id = o.needs WHERE o.task = d.task AND n.state <> 'done') ORDER BY t.seq",
        (names,),
    )
    for name, wake_at in ready:
        open_or_park(tx, name, wake_at)
        emit(tx, "task.opened", "system:board", task=name, because="every task that it needs is done")
    park_declined(tx, [row[0] for row in ready])


def park_declined(tx: Tx, opened: Sequence[str]) -> None:
    """Ask people about tasks that were just opened and that the one resident who may take them has declined."""
    for (name,) in tx.rows(
        "SELECT id FROM tasks WHERE id IN (SELECT value FROM json_each(?)) AND state = 'open' AND wanted IS NOT NULL "
        "AND EXISTS (SELECT 1 FROM json_each(declined) WHERE value = wanted)",
        (json_list(opened),),
    ):
        reason = "the resident who is wanted for it has declined it"
        tx.run("UPDATE tasks SET state = 'parked', parked_for = 'answer', reason = ? WHERE id = ?", (reason, name))
        emit(tx, "task.parked", "system:board", task=name, **{"for": "answer", "reason": reason})


def erase_private(tx: Tx, names: Sequence[str]) -> None:
    """Erase the private texts of the steps of tasks that have ended: nobody replays them any more."""
    if names:
        tx.run(
            "UPDATE steps SET private_text = NULL, private_result = NULL WHERE (private_text IS NOT NULL "
            "OR private_result IS NOT NULL) AND attempt IN "
            "(SELECT id FROM attempts WHERE task IN (SELECT value FROM json_each(?)))",
            (json_list(names),),
        )


def fail_dependents(tx: Tx, lost: Iterable[tuple[str, str, str]]) -> None:
    """Fail waiting tasks, given as (task, the one it needs, that one's state), and whatever waits for them."""
    level = list(lost)
    while level:  # very many may wait for one, which is done in few statements
        reasons: dict[str, str] = {}
        for name, need, state in level:
            reasons.setdefault(name, why_lost(need, state))
        waiting = [
            row[0]
            for row in tx.rows(
                "SELECT id FROM tasks WHERE state = 'waiting' AND id IN (SELECT value FROM json_each(?)) ORDER BY seq",
                (json_list(list(reasons)),),
            )
        ]
        if not waiting:
            return
        tx.update(
            "tasks", "state = 'failed', reason = v.column2, wake_at = NULL, ended_at = v.column3",
            "tasks.id = v.column1", [(name, reasons[name], tx.now) for name in waiting],
        )  # fmt: skip
        for name in waiting:
            emit(tx, "task.failed", "system:board", task=name, reason=reasons[name])
        level = [(name, need, "failed") for name, need in dependents(tx, waiting)]


def why_lost(need: str, state: str) -> str:
    """Why a task fails that needs another one."""
    return f"it needs {need}, which is {state}"


# One of its needs is named by :func:`why_lost` as the reason of its failure: it was not tried, or not for that.
_LOST = (
    "EXISTS (SELECT 1 FROM dependencies o WHERE o.task = t.id "
    "AND substr(t.reason, 1, length(o.needs) + 20) = 'it needs ' || o.needs || ', which is ')"
)


def failed_for(tx: Tx, need: str) -> list[str]:
    """Tasks that need this one and failed for nothing but a need that was lost."""
    rows = tx.rows(
        f"SELECT t.id FROM dependencies d JOIN tasks t ON t.id = d.task AND t.state = 'failed' WHERE d.needs = ? "
        f"AND {_LOST} ORDER BY t.seq",
        (need,),
    )
    return [row[0] for row in rows]


def lost_need(source: Tx | View, name: str) -> tuple[str, str] | None:
    """The first need of a task that has ended and is not done, and its state; None where all may yet be done."""
    row = source.row(
        "SELECT n.id, n.state FROM dependencies d JOIN tasks n ON n.id = d.needs WHERE d.task = ? "
        "AND n.state IN ('failed', 'cancelled', 'blocked') ORDER BY n.seq",
        (name,),
    )
    return None if row is None else (row[0], row[1])


def dependents(tx: Tx, names: Sequence[str]) -> list[Row]:
    """(task, the one it needs) of the tasks that wait for any of ``names``."""
    return tx.rows(
        "SELECT d.task, d.needs FROM dependencies d JOIN tasks t ON t.id = d.task AND t.state = 'waiting' "
        "WHERE d.needs IN (SELECT value FROM json_each(?)) ORDER BY t.seq DESC",
        (json_list(list(names)),),
    )


# Reading


def task(source: Tx | View, name: str) -> Task:
    """One task by its id; raises NotFound."""
    row = source.row(f"SELECT {TASK_COLUMNS} FROM tasks WHERE id = ?", (name,))
    if row is None:
        raise NotFound("board.task", f"There is no task {name!r}.", "See `vivarium task list`.")
    return task_of(row)


def tasks_of(source: Tx | View, names: Sequence[str]) -> list[Task]:
    """These tasks, in this order; all of them exist."""
    rows = source.rows(
        f"SELECT {TASK_COLUMNS} FROM tasks WHERE id IN (SELECT value FROM json_each(?))", (json_list(list(names)),)
    )
    found = {each.id: each for each in map(task_of, rows)}
    return [found[name] for name in names]


def tasks(
    view: View | Tx,
    *,
    state: str | None = None,
    label: str | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[Task]:
    """Tasks in the order in which they were posted, after the number ``after``."""
    clause, params = ["seq > ?"], [after]
    if state is not None:
        clause.append("state = ?")
        params.append(state)  # type: ignore[arg-type]
    if label is not None:
        clause.append("EXISTS (SELECT 1 FROM json_each(spec, '$.labels') WHERE value = ?)")
        params.append(label)  # type: ignore[arg-type]
    return [
        task_of(row)
        for row in view.rows(
            f"SELECT {TASK_COLUMNS} FROM tasks WHERE {' AND '.join(clause)} ORDER BY seq LIMIT ?", (*params, limit)
        )
    ]


def counts(view: View | Tx) -> dict[str, int]:
    """How many tasks are in each state; reads small partial indexes, never the finished tasks."""
    total = (view.row("SELECT count(*) FROM tasks") or (0,))[0]
    found: dict[str, int] = dict(
        view.rows(
            "SELECT state, count(*) FROM tasks WHERE state IN ('claimed', 'parked', 'review', 'waiting') GROUP BY state"
            " UNION ALL SELECT state, count(*) FROM tasks WHERE state IN ('failed', 'cancelled', 'blocked') "
            "GROUP BY state UNION ALL SELECT 'open', "
            "(SELECT count(*) FROM tasks WHERE state = 'open' AND held_for IS NULL) + "
            "(SELECT count(*) FROM tasks WHERE state = 'open' AND held_for IS NOT NULL)"
        )
    )
    found["done"] = total - sum(found.values())
    return {
        state: found.get(state, 0)
        for state in ("waiting", "open", "claimed", "parked", "review", "done", "failed", "cancelled", "blocked")
    }


def left(view: View | Tx) -> tuple[bool, bool]:
    """Whether any task is open, and whether any is claimed or in backoff. Reads partial indexes alone."""
    row = view.row(
        "SELECT EXISTS (SELECT 1 FROM tasks WHERE state = 'open' AND held_for IS NULL) OR "
        "EXISTS (SELECT 1 FROM tasks WHERE state = 'open' AND held_for IS NOT NULL), "
        "EXISTS (SELECT 1 FROM tasks WHERE state IN ('claimed', 'parked', 'review', 'waiting') AND "
        "(state = 'claimed' OR (state = 'parked' AND parked_for = 'backoff')))"
    )
    return (bool(row[0]), bool(row[1])) if row else (False, False)


def openings(view: View) -> tuple[int, ...]:
    """What tells the open tasks from those that were open before: it differs when one came, went or was tried.

    It reads them all, by their indexes: ask where that is seldom.
    """
    half = "SELECT seq, attempts FROM tasks WHERE state = 'open' AND held_for IS {} NULL"
    row = view.row(f"SELECT count(*), sum(seq), sum(attempts) FROM ({half.format('')} UNION ALL {half.format('NOT')})")
    return row or ()


def needs_of(view: View | Tx, name: str) -> tuple[str, ...]:
    """The ids of the tasks that a task needs."""
    return tuple(row[0] for row in view.rows("SELECT needs FROM dependencies WHERE task = ? ORDER BY needs", (name,)))


def attempts(view: View | Tx, name: str) -> list[Attempt]:
    """Every attempt at a task with its output, oldest first: the dead-letter list of a task that failed."""
    return [
        Attempt(*row)
        for row in view.rows(f"SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE task = ? ORDER BY id", (name,))
    ]


def attempt(view: View | Tx, number: int) -> Attempt:
    """One attempt; raises NotFound."""
    row = view.row(f"SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE id = ?", (number,))
    if row is None:
        raise NotFound("board.attempt", f"There is no attempt {number}.")
    return Attempt(*row)


def steps(view: View | Tx, number: int) -> list[Step]:
    """The steps of an attempt, in order. Private texts are left out: the record keeps their digest."""
    return [
        Step(*[*row[:6], _json(row[6]), row[7], _json(row[8]), *row[9:-1], False, bool(row[-1])])
        for row in view.rows(f"SELECT {STEP_COLUMNS} FROM steps WHERE attempt = ? ORDER BY number", (number,))
    ]


def steps_as_they_were(view: View, number: int) -> list[Step]:
    """The same with whole results, also those that may not be shown: for the attempt that goes on from them."""
    found = steps(view, number)
    hidden: dict[int, str] = dict(
        view.rows("SELECT number, private_result FROM steps WHERE attempt = ? AND private_result IS NOT NULL",
                  (number,))
    )  # fmt: skip
    return [
        replace(step, result=_json(hidden[step.number]), private=True) if step.number in hidden else step
        for step in found
    ]


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
