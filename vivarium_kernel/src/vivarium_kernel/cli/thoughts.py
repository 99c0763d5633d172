"""The room of what models did: for each task its calls, tokens, steps, cost and citations, and the sums of them."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from vivarium_kernel.store import View

# A step that an earlier attempt's result was given for is no step; one that certainly never was is none either.
_STEPS = (
    "SELECT a.task, count(*) AS steps, sum(s.kind = 'model') AS calls, sum(s.tokens_in) AS tokens_in, "
    "sum(s.tokens_out) AS tokens_out, sum(s.spent_micros) AS spent FROM steps s JOIN attempts a ON a.id = s.attempt "
    "WHERE s.state IN ('done', 'unknown') AND NOT s.replayed AND s.kind <> 'command' {only} GROUP BY a.task"
)
_THOUGHTS = (
    "SELECT t.id, coalesce(a.model, ''), coalesce(json_extract(a.facts, '$.instead_of'), ''), "
    "coalesce(json_extract(a.facts, '$.because'), ''), coalesce(d.calls, 0), coalesce(d.steps, 0), "
    "coalesce(d.tokens_in, 0), coalesce(d.tokens_out, 0), coalesce(d.spent, 0), "
    "coalesce(json_extract(a.facts, '$.citations'), 0), coalesce(json_extract(a.facts, '$.verified'), 0), "
    "coalesce(json_array_length(a.facts, '$.wrong'), 0) FROM tasks t "
    "JOIN attempts a ON a.id = (SELECT max(id) FROM attempts WHERE task = t.id) "
    "LEFT JOIN ({steps}) d ON d.task = t.id WHERE t.mode <> 'command' AND (d.calls > 0 OR a.model IS NOT NULL) "
)


@frozen
class Thought:
    """What models did for one task, in all of its attempts. ``spent_micros`` is in ``usd``.

    ``model`` is that of the last attempt, ``instead_of`` the one that was wished for first and ``because`` why it was
    not had. ``citations`` are those of the last outcome, of which ``verified`` hold; ``wrong`` ones are kept whole in
    its facts, the first of them.
    """

    task: str
    model: str
    instead_of: str
    because: str
    calls: int
    steps: int
    tokens_in: int
    tokens_out: int
    spent_micros: int
    citations: int
    verified: int
    wrong: int


@frozen
class Sums:
    """All model tasks together."""

    tasks: int = 0
    calls: int = 0
    steps: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    spent_micros: int = 0
    citations: int = 0
    verified: int = 0


def thoughts(view: View, after_at: int = 0) -> Iterator[Thought]:
    """Every task at which a model was tried, in the order of posting; of steps only those begun after a moment."""
    steps = _STEPS.format(only=f"AND s.started_at >= {int(after_at)}")
    for row in view.rows(f"{_THOUGHTS.format(steps=steps)} ORDER BY t.seq"):
        yield Thought(*row)


def sums(found: list[Thought]) -> Sums:
    """What they come to."""
    return Sums(
        len(found), sum(one.calls for one in found), sum(one.steps for one in found),
        sum(one.tokens_in for one in found), sum(one.tokens_out for one in found),
        sum(one.spent_micros for one in found), sum(one.citations for one in found),
        sum(one.verified for one in found),
    )  # fmt: skip


def cited(one: Thought | Sums) -> str:
    """How many citations hold, as people read it; empty where there are none."""
    if not one.citations:
        return ""
    return f"{one.verified}" if one.verified == one.citations else f"{one.verified} of {one.citations}"


def named(one: Thought) -> str:
    """The model as people read it, marked in front when it stood in for another."""
    return f"* {one.model}" if one.instead_of else one.model


def stood_in(one: Thought) -> str:
    """What the mark means."""
    return f"* {one.task}: {one.model} stood in for {one.instead_of}: {one.because}"
