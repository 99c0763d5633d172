"""The room of what must hold: what a village's database is checked for once nothing runs, whatever happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vivarium_kernel import audit, ledger
from vivarium_kernel.store import Store
from vivarium_kernel.terms import ENDED_STATES

_LOST = ", ".join(f"'{state}'" for state in ENDED_STATES[1:])
MUST_BE_EMPTY = {
    "an attempt still runs": "SELECT id FROM attempts WHERE state = 'running'",
    "a task is claimed and nobody is at it": "SELECT id FROM tasks WHERE state = 'claimed' AND id NOT IN "
    "(SELECT task FROM attempts WHERE state = 'running')",
    "a task in review has no outcome to review": "SELECT id FROM tasks WHERE state = 'review' AND 1 <> "
    "(SELECT count(*) FROM attempts WHERE task = tasks.id AND state = 'review')",
    "a step has an intent and no end": "SELECT attempt, number FROM steps WHERE state = 'intended'",
    "a budget is still reserved": "SELECT scope, reserved FROM budgets WHERE reserved <> 0",
    "a task is not done exactly once": "SELECT id FROM tasks t WHERE (state = 'done') <> "
    "(SELECT count(*) FROM attempts WHERE task = t.id AND ending = 'accepted')",
    "a done task was tried again": "SELECT a.task, a.id FROM attempts a JOIN attempts d ON d.task = a.task AND "
    "d.ending = 'accepted' AND a.id > d.id",
    "an attempt did not end exactly once": "SELECT id FROM attempts a WHERE (state = 'ended') <> "
    "(SELECT count(*) FROM events WHERE kind = 'attempt.ended' AND task = a.task AND attempt = a.id)",
    "a task ran before what it needs": "SELECT d.task, d.needs FROM dependencies d JOIN attempts a ON a.task = d.task "
    "JOIN tasks n ON n.id = d.needs WHERE n.state <> 'done' OR n.ended_at > a.started_at",
    "a resident did two things at once": "WITH acts AS (SELECT a.id, a.resident, a.started_at, min(e.at) AS over_at "
    "FROM attempts a JOIN events e ON e.attempt = a.id AND e.kind IN ('attempt.review', 'attempt.ended') "
    "GROUP BY a.id) "
    "SELECT a.id, b.id FROM acts a JOIN acts b ON b.resident = a.resident AND b.id > a.id AND b.started_at < a.over_at",
    "a reward was not paid once, for a done task": "SELECT ref, count(*) FROM transfers "
    "WHERE source = 'task_reward.task' GROUP BY ref HAVING count(*) > 1 OR substr(ref, 6) NOT IN "
    "(SELECT id FROM tasks WHERE state = 'done')",
    "a done task that saved money was not rewarded": "SELECT t.id FROM tasks t JOIN attempts a ON a.task = t.id AND "
    "a.ending = 'accepted' WHERE t.max_micros > a.spent_micros AND a.confidence IS NOT NULL AND 'task:' || t.id NOT IN "
    "(SELECT ref FROM transfers WHERE source = 'task_reward.task') AND NOT EXISTS (SELECT 1 FROM events "
    "WHERE kind = 'task_reward.capped' AND task = t.id)",
    "an attempt was not charged what its steps cost": "SELECT a.id FROM attempts a WHERE a.spent_micros <> "
    "(SELECT coalesce(sum(spent_micros), 0) FROM steps WHERE attempt = a.id)",
    "a dependency failed and something still waits": f"SELECT d.task FROM dependencies d JOIN tasks t ON t.id = d.task "
    f"JOIN tasks n ON n.id = d.needs WHERE t.state = 'waiting' AND n.state IN ({_LOST}) AND NOT EXISTS (SELECT 1 FROM "
    "events WHERE kind = 'task.requeued' AND task = t.id)",
}
SPENT = (
    "SELECT 'task:' || task, sum(spent_micros) FROM attempts GROUP BY 1 UNION ALL "
    "SELECT 'village', coalesce(sum(spent_micros), 0) FROM attempts UNION ALL "
    "SELECT 'village-day:' || budget_day, sum(spent_micros) FROM attempts WHERE budget_day IS NOT NULL GROUP BY 1 "
    "UNION ALL SELECT 'resident-day:' || resident || ':' || budget_day, sum(spent_micros) FROM attempts "
    "WHERE budget_day IS NOT NULL GROUP BY 1"
)


def problems(store: Store, owed_micros: int = 0, more: Mapping[str, str] | None = None) -> Iterator[str]:
    """Everything that is not as it must be, in words; providers say that they are owed ``owed_micros`` at least.

    ``more`` are further queries that must find nothing, by what it means when they do.
    """
    with store.view() as view:
        rows = view.rows
        yield from ledger.verify(view).problems
        broken = audit.verify(view)[2]
        if broken is not None:
            yield f"event {broken.id}: {broken.why}"
        for sentence, sql in (MUST_BE_EMPTY | dict(more or {})).items():
            yield from (f"{sentence}: {row}" for row in rows(sql)[:5])
        charged = rows("SELECT coalesce(sum(micros), 0) FROM transfers WHERE reason = 'model_call'")[0][0]
        if charged < owed_micros:
            yield f"providers are owed {owed_micros} millionths and were paid {charged}"
        caps: dict[str, int] = dict(rows("SELECT scope, cap FROM budgets WHERE currency = 'usd'"))
        for scope, spent in rows(SPENT):
            if spent > caps.get(scope, spent):
                yield f"{scope} spent {spent} millionths, its cap is {caps[scope]}"
