"""The room of what a span of time came to: what was done, spent, refused, failed, and what waits for whom, and why."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from vivarium_kernel import board, costing, village_time
from vivarium_kernel.cli import thoughts
from vivarium_kernel.cli.reading import ENDED, EXPECT
from vivarium_kernel.cli.thoughts import Thought
from vivarium_kernel.costing import Cap
from vivarium_kernel.deciding import question
from vivarium_kernel.store import View
from vivarium_kernel.waiting import Wait, left

# Failed before anything was done, because a rule of models or money forbids it: [model.allow], [budget.min], ...
_REFUSED = re.compile(r"\[(?:model\.(?!fault)|budget\.)\w+\]")
MOST = 500  # entries of one sort; how many there are is counted
LONGEST = 500  # characters of a reason or an answer
_FAILED = "API_CALL_FAILURE"
_LIMITS = ("RATE_LIMITED", "BUDGET_EXCEEDED", "TASK_BUDGET_EXCEEDED")


@frozen
class Entry:
    """A task that ended in the span. ``why`` is the reason of its ending, ``said`` how its answer or output begins."""

    thought: Thought | None
    task: str
    title: str
    state: str
    expect: str
    resident: str
    attempts: int
    ended_at: int
    why: str
    said: str

    @property
    def is_refused(self) -> bool:
        return self.state == "blocked" or (self.state == "failed" and bool(_REFUSED.search(self.why)))


@frozen
class Used:
    """A model in the span. ``calls`` are those that were made, answered or not, as in the costs: what a continued
    attempt took over is not counted again. ``failures`` are all that were not answered, also those never made."""

    model: str
    calls: int
    failures: int
    tokens_in: int
    tokens_out: int
    spent_micros: int


@frozen
class Trouble:
    """What went wrong alike in the span, with a model or at a limit: how often, from when to when, and why at last.

    ``what`` is the event of the log, with the kind of fault where a call failed; ``about`` is a model or a budget's
    scope. A fault of the kind ``open`` is a call that was not even made, because the model was left alone.
    """

    what: str
    about: str
    times: int
    first_at: int
    last_at: int
    reason: str


@frozen
class Told:
    """What a resident flagged or reported."""

    kind: str
    resident: str
    task: str
    text: str
    at: int


@frozen
class Night:
    """A village in a span of time. ``counts`` are the tasks that ended in it by state; money is in ``usd``.

    ``people`` wait for a person, ``parked`` for anything else; ``more`` is how many tasks are not here.
    """

    since_at: int
    until_at: int
    standing: str
    counts: Mapping[str, int]
    spent_micros: int
    caps: tuple[Cap, ...]
    done: tuple[Entry, ...]
    refused: tuple[Entry, ...]
    failed: tuple[Entry, ...]
    people: tuple[Wait, ...]
    parked: tuple[Wait, ...]
    models: tuple[Used, ...]
    troubles: tuple[Trouble, ...]
    told: tuple[Told, ...]
    citations: int
    verified: int
    more: int


def night(view: View, since_at: int) -> Night:
    """What came of the village since a moment."""
    by_task = {one.task: one for one in thoughts.thoughts(view, since_at)}
    rows = view.rows(
        f"SELECT state, count(*) FROM tasks WHERE state IN {ENDED} AND ended_at >= ? GROUP BY 1", (since_at,)
    )
    counts: dict[str, int] = dict(rows)
    entries = list(_entries(view, since_at, by_task))
    waits = [_asking(view, wait) for wait in left(view, limit=MOST + 1)]
    spent = view.row(
        "SELECT coalesce(sum(micros), 0) FROM transfers WHERE currency = 'usd' AND payee GLOB 'provider:*' AND at >= ?",
        (since_at,),
    ) or (0,)
    troubles = _troubles(view, since_at)
    mine = [one.thought for one in entries if one.thought is not None]
    return Night(
        since_at, view.now, _standing(view), counts, spent[0], costing.costs(view, "model", 0).caps,
        tuple(one for one in entries if one.state == "done"),
        tuple(one for one in entries if one.is_refused),
        tuple(one for one in entries if one.state != "done" and not one.is_refused),
        tuple(wait for wait in waits[:MOST] if wait.kind == "person"),
        tuple(wait for wait in waits[:MOST] if wait.kind != "person"),
        tuple(_models(view, since_at, troubles)), tuple(troubles), tuple(_told(view, since_at)),
        sum(one.citations for one in mine), sum(one.verified for one in mine),
        max(0, sum(counts.values()) - len(entries)) + max(0, len(waits) - MOST),
    )  # fmt: skip


def _entries(view: View, since_at: int, by_task: Mapping[str, Thought]) -> Iterator[Entry]:
    """The tasks that ended in the span, the newest of too many, in the order in which they ended."""
    rows = view.rows(
        "SELECT t.id, coalesce(json_extract(t.spec, '$.title'), ''), t.state, "
        f"{EXPECT}, coalesce(a.resident, ''), t.attempts, t.ended_at, "
        "substr(t.reason, 1, ?2), substr(coalesce(nullif(a.answer, ''), nullif(a.stdout, ''), ''), 1, ?2) FROM tasks t "
        "LEFT JOIN attempts a ON a.id = (SELECT max(id) FROM attempts WHERE task = t.id) "
        f"WHERE t.state IN {ENDED} AND t.ended_at >= ?1 ORDER BY t.ended_at DESC, t.seq DESC LIMIT {MOST}",
        (since_at, LONGEST),
    )
    for row in reversed(rows):
        yield Entry(by_task.get(row[0]), *row)


def _asking(view: View, wait: Wait) -> Wait:
    """A wait for an answer, with the question in whole words."""
    from attrs import evolve

    if wait.kind != "person":
        return wait
    asked = question(view, board.task(view, wait.task))
    return wait if asked is None else evolve(wait, what=f"an answer: {asked.text}")


def _models(view: View, since_at: int, troubles: Sequence[Trouble]) -> Iterator[Used]:
    failures: Counter[str] = Counter()
    for one in troubles:
        if one.what.startswith(_FAILED) and one.what != f"{_FAILED} (open)":
            failures[one.about] += one.times
    for model, calls, tokens_in, tokens_out, spent in view.rows(
        f"SELECT s.name, sum({costing.CALLED}), sum(s.tokens_in), sum(s.tokens_out), sum(s.spent_micros) "
        "FROM steps s WHERE s.kind = 'model' AND s.started_at >= ? GROUP BY 1 ORDER BY 5 DESC, 1",
        (since_at,),
    ):
        yield Used(model, calls, failures[model], tokens_in, tokens_out, spent)


def _troubles(view: View, since_at: int) -> list[Trouble]:
    """What kept models from answering, and what limits kept from being done, each sort once, the oldest first."""
    kinds = (_FAILED, *_LIMITS, "model.left_alone", "model.tried_again")
    found: dict[tuple[str, str], Trouble] = {}
    for kind, about, said, times, first_at, last_at in view.rows(
        "SELECT kind, coalesce(model, json_extract(data, '$.model'), json_extract(data, '$.scope'), ''), "
        "coalesce(json_extract(data, '$.reason'), ''), count(*), min(at), max(at) FROM events "
        f"WHERE at >= ? AND kind IN ({', '.join('?' * len(kinds))}) GROUP BY 1, 2, 3 ORDER BY 6",
        (since_at, *kinds),
    ):
        sort, reason = _fault(str(said))
        what = f"{kind} ({sort})" if sort else kind
        before = found.get((what, about))
        if before is not None:
            times, first_at = before.times + times, min(before.first_at, first_at)  # noqa: PLW2901 - added up
        found[what, about] = Trouble(what, about, times, first_at, last_at, reason[:LONGEST])
    return sorted(found.values(), key=lambda one: one.first_at)[:MOST]


def _fault(reason: str) -> tuple[str, str]:
    """The kind of a call's fault and its words, as its step recorded them; other reasons are words alone."""
    try:
        told = json.loads(reason)
    except ValueError:
        return "", reason
    return (str(told.get("kind", "")), str(told.get("fault", ""))) if isinstance(told, dict) else ("", reason)


def _told(view: View, since_at: int) -> Iterator[Told]:
    if view.row("SELECT 1 FROM sqlite_master WHERE name = 'desk_told'") is None:
        return
    for row in view.rows(
        f"SELECT kind, resident, task, text, at FROM desk_told WHERE at >= ? ORDER BY kind, id LIMIT {MOST}",
        (since_at,),
    ):
        yield Told(*row)


def _standing(view: View) -> str:
    times = village_time.read_times(view)
    at_work = (view.row("SELECT count(*) FROM attempts WHERE state = 'running'") or (0,))[0]
    if times.halted:
        return "halted"
    return "paused" if times.paused else f"{at_work} at work" if at_work else "at rest"


def as_plain(found: Night) -> dict[str, Any]:
    """It as JSON has it."""
    from attrs import asdict

    return asdict(found)
