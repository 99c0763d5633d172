"""The room of the explanations: what a resident would claim and why, and why an attempt was claimed.

What is explained now is asked on one snapshot through the plugins' real hooks, as a round asks it; nothing is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec
from attrs import frozen

from vivarium_kernel import board, breakers, budgets, claiming, people, village_time
from vivarium_kernel.amounts import money_text
from vivarium_kernel.calls import Call, Hooks
from vivarium_kernel.checking import judge
from vivarium_kernel.claiming import DAY_MICROS, Window
from vivarium_kernel.health import Health, describe
from vivarium_kernel.records import Entitlement, Reject, Resident, Task, Verdict
from vivarium_kernel.runtime import GUARD_SECONDS
from vivarium_kernel.store import View
from vivarium_kernel.terms import ENDED_STATES, MICROS, TaskState
from vivarium_kernel.village import Village
from vivarium_kernel.weighing import Kept, judged, model_missing, unexecuted

LOOKED_BACK = 2000  # events, for a check that could not judge a few seconds ago


@frozen
class Obstacle:
    """Why the kernel would not give the task out: ``kind`` is what stands in the way."""

    kind: str
    what: str


@frozen
class Said:
    """What one plugin answered. ``milliseconds`` is None for one that was not asked, because it is off."""

    plugin: str
    answer: str
    milliseconds: float | None
    refuses: bool = False


@frozen
class Scored:
    """What one plugin gave the task. ``score`` is None where it abstained, failed or is off; ``note`` says which."""

    plugin: str
    score: float | None
    weight: float
    milliseconds: float | None
    note: str = ""


@frozen
class Explanation:
    """What would become of a task and a resident now.

    ``place`` is the task's among ``wishes`` tasks that the resident may take, from 1, in a batch of ``weighed``, and
    ``first`` is what it would take. ``reserves`` are the plugins that are asked in the claim's own transaction.
    """

    task: str
    state: str
    resident: str
    may: bool
    reasons: tuple[Obstacle, ...]
    entitlement: Entitlement
    entitled: tuple[Said, ...]
    filters: tuple[Said, ...]
    scores: tuple[Scored, ...]
    score: float | None
    weighed: int
    wishes: int
    place: int | None
    first: str | None
    reserves: tuple[str, ...]


@frozen
class Past:
    """An attempt, and how its task had been weighed when it was claimed; None for an attempt of older versions."""

    attempt: int
    number: int
    resident: str
    started_at: int
    state: str
    ending: str | None
    kept: Kept | None


@frozen
class Claims:
    """What residents make of a task now, each who was asked, and how it was weighed at its claims, oldest first.

    ``reason`` is why it is in its state; ``safety`` is what the checks say of it as it stands, None once it has ended.
    """

    task: str
    state: TaskState
    reason: str
    safety: Verdict | None
    now: tuple[Explanation, ...]
    past: tuple[Past, ...]


async def claims(village: Village, task_id: str, resident: str | None = None) -> Claims:
    """Explain a task to this resident, or to each that is active. Raises NotFound for one of the two that is not."""
    with village.store.view() as view:
        task = board.task(view, task_id)
        before = past(view, task_id)
        names = asked(view, task, resident)
    safety = None if task.state in ENDED_STATES else await judge(village, task)
    now = []
    for name in names:
        # In the loop, as a round asks plugins; between two residents others have their turn.
        now.append(explain(village, task_id, name))
        await asyncio.sleep(0)
    return Claims(task_id, task.state, task.reason, safety, tuple(now), tuple(before))


def asked(view: View, task: Task, resident: str | None = None) -> list[str]:
    """Whom to ask about a task: this resident, or each that is active; nobody about one that has ended."""
    if resident is not None:
        return [resident]
    if task.state in ENDED_STATES:
        return []
    return [each.name for each in people.residents(view) if each.state == "active"]


def explain(village: Village, task_id: str, name: str) -> Explanation:
    """Whether this resident would get this task now, and why. Raises NotFound for a task or resident that is not."""
    with village.store.view() as view:
        task, resident = board.task(view, task_id), people.resident(view, name)
        hooks = village.hooks
        batch = _batch(view, resident, task)
        with _traced(village.health) as calls:
            right = hooks.entitle(resident, view)
            refused = hooks.claim_filter(resident, batch, view)
            reasons = [
                *_of_village(view),
                *_of_resident(view, resident),
                *_of_task(view, task, resident),
                *_guarded(view, village, task),
                *_of_budget(view, task, resident),
            ]
            filters = hooks.names("claim_filter")
            reasons += [Obstacle("plugin", why) for plugin, why in refused.get(task.id, ()) if plugin not in filters]
            settings = village.settings
            if why := unexecuted(hooks, task):
                reasons.append(Obstacle("mode", why))
            if missing := model_missing(right, resident, task, settings, village.why_absent):
                reasons.append(Obstacle(*missing))
            allowed = {
                each.id
                for each in batch
                if each.id not in refused
                and not unexecuted(hooks, each)
                and not model_missing(right, resident, each, settings, village.why_absent)
            }
            # The task is scored also where it is refused: to say what it would be worth.
            candidates = [each for each in batch if each.id in allowed or each.id == task.id]
            scores = hooks.claim_scores(resident, candidates, view)
    at = next(place for place, each in enumerate(candidates) if each.id == task.id)
    order = sorted(
        (place for place, each in enumerate(candidates) if each.id in allowed), key=lambda place: -scores.mean[place]
    )
    may = not reasons and task.id not in refused
    given = {plugin: (score, weight) for plugin, score, weight in scores.of(at)}
    return Explanation(
        task=task.id,
        state=task.state,
        resident=name,
        may=may,
        reasons=tuple(reasons),
        entitlement=right,
        entitled=tuple(_answers(hooks, village.health, calls, "entitle", _entitled)),
        filters=tuple(_answers(hooks, village.health, calls, "claim_filter", lambda call: _filtered(call, task))),
        scores=tuple(_scored(hooks, village.health, calls, given)),
        score=scores.mean[at] if given else None,
        weighed=len(batch),
        wishes=len(order),
        place=order.index(at) + 1 if may else None,
        first=candidates[order[0]].id if order else None,
        reserves=tuple(hooks.names("claim_reserve")),
    )


def past(view: View, task_id: str) -> list[Past]:
    """How the task was weighed at each of its claims, the oldest first."""
    board.task(view, task_id)
    rows = view.rows(
        "SELECT id, number, resident, started_at, state, ending, weighed FROM attempts WHERE task = ? ORDER BY id",
        (task_id,),
    )
    return [
        Past(number, count, resident, at, state, ending, msgspec.json.decode(weighed, type=Kept) if weighed else None)
        for number, count, resident, at, state, ending, weighed in rows
    ]


# What is asked


def _batch(view: View, resident: Resident, task: Task) -> list[Task]:
    """What this resident would weigh if it alone looked now, in that order, and the task in any case."""
    window = Window()
    name = resident.name
    tasks = [*window.held_for(view, {name: claiming.WEIGHED}).get(name, ()), *window.read(view, claiming.WEIGHED)]
    tasks = [each for each in tasks if each.id == task.id or name not in each.declined]
    return tasks if any(each.id == task.id for each in tasks) else [*tasks, task]


@contextlib.contextmanager
def _traced(health: Health) -> Iterator[list[Call]]:
    """Every call that this thread makes meanwhile; whoever else is told of calls is told of these, too."""
    calls: list[Call] = []
    thread = threading.get_ident()

    def note(call: Call) -> None:
        if threading.get_ident() == thread:
            calls.append(call)
        if before is not None:
            before(call)

    before, health.trace = health.trace, note
    try:
        yield calls
    finally:
        health.trace = before


def _answers(
    hooks: Hooks, health: Health, calls: Sequence[Call], hook: str, said: Callable[[Call], tuple[str, bool]]
) -> Iterator[Said]:
    by_plugin = {call.plugin: call for call in calls if call.hook == hook}
    for plugin in hooks.names(hook):
        call = by_plugin.get(plugin)
        if call is None:
            means = ", which counts as the floor" if hook == "entitle" else ""
            yield Said(plugin, f"is off{means}: {health.cause(plugin, hook)}", None)
        else:
            answer, refuses = said(call)
            yield Said(plugin, answer, call.seconds * 1000, refuses)


def _entitled(call: Call) -> tuple[str, bool]:
    if call.error is not None:
        return f"failed, which counts as the floor: {describe(call.error)}", False
    return ("says nothing" if call.value is None else limits(call.value)), False


def limits(right: Entitlement) -> str:
    """What an entitlement limits, in words."""
    said = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in (
            ("requests_per_minute", right.requests_per_minute),
            ("tokens_per_day", right.tokens_per_day),
            ("concurrency", right.concurrency),
            ("tool_calls", right.tool_calls),
        )
        if value is not None
    ]
    if right.models is not None:
        said.insert(0, f"models {', '.join(right.models) or 'none'}")
    if right.priority:
        said.append(f"priority {right.priority}")
    return ", ".join(said) or "no limits"


def _filtered(call: Call, task: Task) -> tuple[str, bool]:
    if call.error is not None:
        needed = call.plugin in task.plugins
        means = "the task needs this plugin, so it is refused" if needed else "so it abstains"
        return f"failed, {means}: {describe(call.error)}", needed
    rejects: Sequence[Reject] = call.value
    mine = [reject.reason for reject in rejects if reject.task_id == task.id]
    return (f"refuses: {'; '.join(mine)}", True) if mine else ("lets it pass", False)


def _scored(
    hooks: Hooks, health: Health, calls: Sequence[Call], given: dict[str, tuple[float, float]]
) -> Iterator[Scored]:
    by_plugin = {call.plugin: call for call in calls if call.hook == "claim_score"}
    for plugin, weight in hooks.weights("claim_score").items():
        call = by_plugin.get(plugin)
        if call is None:
            yield Scored(plugin, None, weight, None, f"is off: {health.cause(plugin, 'claim_score')}")
        elif call.error is not None:
            note = f"failed, so it abstains: {describe(call.error)}"
            yield Scored(plugin, None, weight, call.seconds * 1000, note)
        elif plugin in given:
            yield Scored(plugin, given[plugin][0], weight, call.seconds * 1000)
        else:
            yield Scored(plugin, None, weight, call.seconds * 1000, "abstains")


# What stands in the way besides the plugins


def _of_village(view: View) -> Iterator[Obstacle]:
    times = village_time.read_times(view)
    if times.halted:
        yield Obstacle("village", "the village is halted" + (f": {times.halt_reason}" if times.halt_reason else ""))
    if times.paused:
        yield Obstacle("village", "the village is paused")


def _of_resident(view: View, resident: Resident) -> Iterator[Obstacle]:
    if resident.state != "active":
        why = f": {resident.reason}" if resident.reason else ""
        yield Obstacle("resident", f"{resident.name} is {resident.state}{why}")
    row = view.row("SELECT task FROM attempts WHERE resident = ? AND state = 'running'", (resident.name,))
    if row is not None:
        yield Obstacle("resident", f"{resident.name} is at {row[0]}")


def _of_task(view: View, task: Task, resident: Resident) -> Iterator[Obstacle]:
    name = resident.name
    if task.state == "waiting":
        for need in board.needs_of(view, task.id):
            state = board.task(view, need).state
            if state != "done":
                yield Obstacle("needs", f"it needs {need}, which is {state}")
    elif task.state != "open":
        what = f"it is {task.state}"
        if task.parked_for is not None:
            what += f" for {task.parked_for}"
        if task.wake_at is not None:
            what += f" until {datetime.fromtimestamp(task.wake_at / MICROS, UTC):%Y-%m-%d %H:%M:%S} UTC"
        yield Obstacle("state", what + (f": {task.reason}" if task.reason else ""))
    row = view.row("SELECT held_for FROM tasks WHERE id = ?", (task.id,))
    if row is not None and row[0] not in (None, name):
        why = "wanted from" if task.wanted == row[0] else "held for"
        yield Obstacle("held", f"it is {why} {row[0]}")
    if name in task.declined:
        yield Obstacle("declined", f"{name} has declined it")


def _guarded(view: View, village: Village, task: Task) -> Iterator[Obstacle]:
    """Checks that can't judge now what the task needs judged."""
    kinds = set(judged(task))
    off = {each.plugin: each.cause for each in breakers.breakers(view, hook="check_safety")}
    rows = view.rows(
        "SELECT data FROM events WHERE id > (SELECT max(id) FROM events) - ? AND kind = 'safety.cannot_judge' "
        "AND at >= ? ORDER BY id DESC",
        (LOOKED_BACK, view.now - int(GUARD_SECONDS * MICROS)),
    )
    for data in map(json.loads, (row[0] for row in rows)):
        off.setdefault(data["plugin"], data["reason"])
    for plugin, cause in off.items():
        known = village.plugins.get(plugin)
        guards = None if known is None else type(known).guards
        if known is not None and (guards is None or kinds & set(guards)):
            yield Obstacle("guarded", f"the safety check {plugin} can't judge it now: {cause}")


def _of_budget(view: View, task: Task, resident: Resident) -> Iterator[Obstacle]:
    """What the claim would set aside: all that is left of the task's budget, in every scope."""
    if not task.max_micros:
        return
    left = _left(view, f"task:{task.id}") or 0
    if left < task.min_micros:
        needs = f"it is not begun with less than {money_text(task.min_micros)}"
        yield Obstacle("budget", f"{money_text(left)} USD are left of its budget, and {needs}")
    day = view.now // DAY_MICROS
    for scope, template in (
        ("village", "village"),
        (f"village-day:{day}", "village-day"),
        (f"resident-day:{resident.name}:{day}", "resident-day"),
    ):
        room = _left(view, scope)
        if room is None and scope != template:
            room = _left(view, template)
        if room is not None and room < left:
            wants = f"it sets {money_text(left)} aside"
            yield Obstacle("budget", f"{money_text(room)} USD are left of {scope}, and {wants}")


def _left(view: View, scope: str) -> int | None:
    found = budgets.budget(view, scope)
    return None if found is None else found.left_micros
