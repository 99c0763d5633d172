"""The room of the costs: what was spent on models and is reserved, by whom and how fast, and when a cap is reached.

Money is what the ledger says: the transfers of ``usd`` to providers. Whose it was is the step's that each of them pays.
Docs: docs/models.md, "Money".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from attrs import define, frozen

from vivarium_kernel.amounts import LARGEST_MICROS
from vivarium_kernel.claiming import DAY_MICROS
from vivarium_kernel.store import View
from vivarium_kernel.terms import MICROS

By = Literal["resident", "task", "model", "day"]
GROUPS: tuple[By, ...] = get_args(By)
HOUR_SECONDS = 3_600

# The day of an attempt is that whose budgets it draws on: the one in which it was claimed.
_GROUP: Mapping[By, str] = {
    "resident": "a.resident",
    "task": "a.task",
    "model": "s.name",
    "day": f"coalesce(a.budget_day, a.started_at / {DAY_MICROS})",
}
# A payment's key is step:ATTEMPT.NUMBER; what is not a step's is nobody's, and is still counted.
_PAID = (
    "FROM transfers t LEFT JOIN steps s ON t.key GLOB 'step:*.*' AND s.attempt = CAST(substr(t.key, 6) AS INTEGER) "
    "AND s.number = CAST(substr(t.key, instr(t.key, '.') + 1) AS INTEGER) LEFT JOIN attempts a ON a.id = s.attempt "
    "WHERE t.currency = 'usd' AND t.payee GLOB 'provider:*'"
)

# What a model was asked, as opposed to a step that an earlier attempt's answer was given for, or that never was.
CALLED = "s.kind = 'model' AND s.state IN ('done', 'unknown') AND NOT s.replayed"


@frozen
class Cap:
    """A budget that has a cap. ``seconds`` is when nothing is left of it at the rate of the last hour.

    ``seconds`` is None when nothing was spent in the last hour, or when the day of the cap is over before that.
    """

    scope: str
    cap_micros: int
    reserved_micros: int
    spent_micros: int
    left_micros: int
    seconds: float | None


@frozen
class Line:
    """What one resident, task, model or day cost. ``rate_micros`` is what was spent in the last hour.

    ``reserved_micros`` is set aside for what runs now. ``cap`` is the budget of this line alone, if it has one.
    """

    name: str
    spent_micros: int
    reserved_micros: int
    rate_micros: int
    calls: int
    tokens_in: int
    tokens_out: int
    cap: Cap | None


@frozen
class Costs:
    """What models cost. ``lines`` are those that cost most, ``total`` is all of them; money in millionths of ``usd``.

    ``caps`` are those of the village and of its present day.
    """

    by: By
    total: Line
    caps: tuple[Cap, ...]
    lines: tuple[Line, ...]
    more: int


@define
class _Sum:
    spent: int = 0
    reserved: int = 0
    rate: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, other: _Sum) -> None:
        self.spent += other.spent
        self.reserved += other.reserved
        self.rate += other.rate
        self.calls += other.calls
        self.tokens_in += other.tokens_in
        self.tokens_out += other.tokens_out


def costs(view: View, by: By, limit: int | None = None) -> Costs:
    """What models cost, grouped; at most ``limit`` lines, those that cost most first."""
    sums, total = _sums(view, by), _Sum()
    for each in sums.values():
        total.add(each)
    budgets = _budgets(view)
    today = view.now // DAY_MICROS
    shown = sorted(sums.items(), key=lambda item: (-item[1].spent, -item[1].reserved, str(item[0] or "")))[:limit]
    return Costs(
        by,
        _line("", total, None),
        tuple(_caps(view, budgets, ("village", f"village-day:{today}"), total.rate, today)),
        tuple(_line(_named(by, group), found, _cap_of(view, budgets, by, group, found.rate)) for group, found in shown),
        len(sums) - len(shown),
    )


def _sums(view: View, by: By) -> dict[Any, _Sum]:
    group = _GROUP[by]
    sums: dict[Any, _Sum] = defaultdict(_Sum)
    hour_ago = view.now - HOUR_SECONDS * MICROS
    paid = view.rows(
        f"SELECT {group}, sum(t.micros), coalesce(sum(CASE WHEN t.at > ? THEN t.micros END), 0) {_PAID} GROUP BY 1",
        (hour_ago,),
    )
    for name, spent, rate in paid:
        sums[name].spent, sums[name].rate = spent, rate
    called = view.rows(
        f"SELECT {group}, count(*), sum(s.tokens_in), sum(s.tokens_out) FROM steps s JOIN attempts a "
        f"ON a.id = s.attempt WHERE {CALLED} GROUP BY 1"
    )
    for name, calls, tokens_in, tokens_out in called:
        found = sums[name]
        found.calls, found.tokens_in, found.tokens_out = calls, tokens_in, tokens_out
    # An attempt that runs has its whole budget reserved; of it, what it has spent is counted above.
    model = _GROUP[by] if by != "model" else "a.model"
    running = view.rows(
        f"SELECT {model}, sum(a.reserved_micros - a.spent_micros) FROM attempts a "
        "WHERE a.state = 'running' AND a.reserved_micros > 0 GROUP BY 1"
    )
    for name, reserved in running:
        sums[name].reserved = reserved
    return sums


def _budgets(view: View) -> dict[str, tuple[int, int, int]]:
    """(cap, reserved, spent) of every budget of real money that has a cap, by its scope; a cap is as it is wanted."""
    return {
        scope: (cap, reserved, spent)
        for scope, cap, reserved, spent in view.rows(
            "SELECT scope, coalesce(wanted, cap), reserved, spent FROM budgets WHERE currency = 'usd' AND cap < ?",
            (LARGEST_MICROS,),
        )
    }


def _caps(
    view: View, budgets: Mapping[str, tuple[int, int, int]], scopes: Iterable[str], rate: int, day: int
) -> Iterable[Cap]:
    for scope in scopes:
        if scope not in budgets:
            continue
        cap, reserved, spent = budgets[scope]
        left = max(0, cap - reserved - spent)
        seconds = left * HOUR_SECONDS / rate if rate else None
        if seconds is not None and "-day:" in scope and seconds * MICROS >= (day + 1) * DAY_MICROS - view.now:
            seconds = None
        yield Cap(scope, cap, reserved, spent, left, seconds)


def _cap_of(view: View, budgets: Mapping[str, tuple[int, int, int]], by: By, group: Any, rate: int) -> Cap | None:
    """The budget of one line: a resident's of today, a task's, a day's of the village; a model has none."""
    today = view.now // DAY_MICROS
    scope = {"resident": f"resident-day:{group}:{today}", "task": f"task:{group}", "day": f"village-day:{group}"}.get(
        by
    )
    day = group if by == "day" and group is not None else today
    found = () if scope is None else tuple(_caps(view, budgets, (scope,), rate, day))
    return found[0] if found else None


def _named(by: By, group: Any) -> str:
    if group is None:
        return ""
    return f"{datetime.fromtimestamp(group * DAY_MICROS // MICROS, UTC):%Y-%m-%d}" if by == "day" else str(group)


def _line(name: str, found: _Sum, cap: Cap | None) -> Line:
    return Line(
        name, found.spent, found.reserved, found.rate, found.calls, found.tokens_in, found.tokens_out, cap
    )  # fmt: skip
