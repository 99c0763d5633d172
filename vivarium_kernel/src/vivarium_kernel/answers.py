"""The room of answers: what each hook may answer, and how several answers become one.

A reader takes what an implementation answered and returns it clean, or raises :class:`Nonsense`. It runs inside the
call loop's containment, so that an odd ``__len__`` or ``__iter__`` is also the plugin's fault. The functions that join
answers are given clean ones.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from vivarium_kernel.records import Entitlement, NewTask, Outcome, Reject, Review, Section, Verdict
from vivarium_kernel.terms import FOR_PEOPLE

Reader = Callable[[Any, tuple[Any, ...]], Any]

VERDICTS = ("allow", "ask", "deny")  # from lax to strict
DECISIONS = ("accept", "send_back", "jury", "human", "reject")  # from lax to strict
_STRICTNESS = {answer: rank for scale in (VERDICTS, DECISIONS) for rank, answer in enumerate(scale)}
SLOTS = frozenset(("rules", "identity", "tools", "overlay", "memory", "situation", "task"))

# What counts for an entitlement whose plugin failed: nothing that costs. Commands still run.
FLOOR = Entitlement(models=(), requests_per_minute=0, tokens_per_day=0, concurrency=0, tool_calls=0)


class Nonsense(TypeError):
    """An implementation answered something that its hook cannot use."""


def nothing(value: Any, arguments: tuple[Any, ...]) -> None:
    """For hooks whose answer is ignored; work that was made but never ran is still a fault."""
    if value is None:
        return
    if inspect.iscoroutine(value):
        value.close()
    if inspect.isawaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise Nonsense(f"answered {_named(value)}, which never ran; do the work before returning")


def items(value: Any, arguments: tuple[Any, ...]) -> Sequence[Any]:
    """Any items: their own room checks them."""
    if value is None:
        return ()
    if isinstance(value, (list, tuple)):
        return tuple(value)
    if inspect.iscoroutine(value):
        value.close()
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return tuple(value)
    raise Nonsense(f"answered {_named(value)}; answer a list or a tuple")


def rejections(value: Any, arguments: tuple[Any, ...]) -> Sequence[Reject]:
    found = items(value, arguments)
    for item in found:
        if not (isinstance(item, Reject) and isinstance(item.task_id, str) and isinstance(item.reason, str)):
            raise Nonsense(f"answered a list with {_named(item)}; every item is Reject(task_id, reason)")
    return found


def proposals(value: Any, arguments: tuple[Any, ...]) -> Sequence[NewTask]:
    found = items(value, arguments)
    for item in found:
        if not isinstance(item, NewTask):
            raise Nonsense(f"answered a list with {_named(item)}; every item is a NewTask")
    return found


def sections(value: Any, arguments: tuple[Any, ...]) -> Sequence[Section]:
    found = items(value, arguments)
    for item in found:
        if not isinstance(item, Section):
            raise Nonsense(f"answered a list with {_named(item)}; every item is a Section")
        if item.slot not in SLOTS:
            raise Nonsense(f"answered a section for slot {item.slot!r}; the slots are {', '.join(sorted(SLOTS))}")
        if not isinstance(item.text, str) or not isinstance(item.priority, int):
            raise Nonsense("answered a section whose text is not a string or whose priority is not an integer")
    return found


def scores(value: Any, arguments: tuple[Any, ...]) -> list[float] | None:
    """Finite floats, one a task; None abstains. Whether they lie in 0..1 is for the caller to see."""
    if value is None:
        return None
    expected = len(arguments[1])
    if len(value) != expected:
        raise Nonsense(f"answered {len(value)} scores for {expected} tasks; answer one for each, in their order")
    total = sum(value)  # also refuses strings, which float() would take
    found = list(map(float, value))
    if not math.isfinite(total):
        raise Nonsense(f"answered {total!r} among its scores; a score is a number from 0 to 1")
    return found


def entitlement(value: Any, arguments: tuple[Any, ...]) -> Entitlement | None:
    if value is None:
        return None
    if not isinstance(value, Entitlement):
        raise Nonsense(f"answered {_named(value)}; answer an Entitlement or None")
    for number in (value.requests_per_minute, value.tokens_per_day, value.concurrency, value.tool_calls):
        if number is not None and not (type(number) is int and number >= 0):
            raise Nonsense(f"answered the limit {number!r} in {value}; a limit is None or an integer from 0")
    if type(value.priority) is not int:
        raise Nonsense(f"answered priority={value.priority!r}; it is an integer")
    if value.models is not None and not (
        isinstance(value.models, (tuple, list)) and all(isinstance(model, str) for model in value.models)
    ):
        raise Nonsense(f"answered models={value.models!r}; it is None or a tuple of names")
    for model, micros in value.aid_micros_per_1k.items() if value.aid_micros_per_1k else ():
        if type(micros) is not int or micros < 0:
            raise Nonsense(f"answered the price {micros!r} for {model!r}; a price is an integer from 0")
    return value


def verdict(value: Any, arguments: tuple[Any, ...]) -> Verdict | None:
    if value is None:
        return None
    if not isinstance(value, Verdict):
        raise Nonsense(f"answered {_named(value)}; answer a Verdict or None")
    if value.answer not in VERDICTS:
        raise Nonsense(f"answered the verdict {value.answer!r}; it is allow, ask or deny")
    return value


def outcome(value: Any, arguments: tuple[Any, ...]) -> Outcome | None:
    if value is None:
        return None
    if not isinstance(value, Outcome):
        raise Nonsense(f"answered {_named(value)}; answer an Outcome or None")
    # It is kept as JSON with a part that was missed, and must be read back then.
    for name in ("answer", "reason", "stdout", "stderr"):
        if type(getattr(value, name)) is not str:
            raise Nonsense(f"answered an outcome whose {name} is {_named(getattr(value, name))}; it is a string")
    if value.waits_for is not None and value.waits_for not in FOR_PEOPLE:
        raise Nonsense(f"answered an outcome that waits for {value.waits_for!r}; choose {', '.join(FOR_PEOPLE)}")
    if value.exit_code is not None and type(value.exit_code) is not int:
        raise Nonsense(f"answered the exit code {value.exit_code!r}; it is an integer or None")
    if type(value.seconds) not in (float, int) or not math.isfinite(value.seconds):
        raise Nonsense(f"answered {value.seconds!r} seconds; they are a finite number")
    usage = value.usage
    if usage is not None and not (type(usage.tokens_in) is type(usage.tokens_out) is type(usage.cached_tokens) is int):
        raise Nonsense(f"answered {usage!r:.200}; tokens are integers")
    if value.data:
        try:
            msgspec.json.encode(value.data)
        except (TypeError, ValueError, OverflowError) as error:
            raise Nonsense(f"answered data that is no JSON: {error}") from error
    return value


def review(value: Any, arguments: tuple[Any, ...]) -> Review | None:
    if value is None:
        return None
    if not isinstance(value, Review):
        raise Nonsense(f"answered {_named(value)}; answer a Review or None")
    if value.decision not in DECISIONS:
        raise Nonsense(f"answered the decision {value.decision!r}; it is one of {', '.join(DECISIONS)}")
    confidence = value.confidence
    if isinstance(confidence, bool) or not isinstance(confidence, (int, float)) or not 0 <= confidence <= 1:
        raise Nonsense(f"answered the confidence {confidence!r}; it is a number from 0 to 1")
    if not isinstance(value.facts, Mapping):
        raise Nonsense(f"answered the facts {_named(value.facts)}; they are a mapping")
    return value


def context(value: Any, arguments: tuple[Any, ...]) -> Any:
    if hasattr(type(value), "__aenter__") and hasattr(type(value), "__aexit__"):
        return value
    if inspect.iscoroutine(value):
        value.close()
    raise Nonsense(f"answered {_named(value)}; answer an asynchronous context manager")


READERS: Mapping[str, Reader] = {
    "startup": nothing,
    "shutdown": nothing,
    "register_actions": items,
    "register_routes": items,
    "register_panels": items,
    "propose_activity": proposals,
    "entitle": entitlement,
    "claim_filter": rejections,
    "claim_score": scores,
    "claim_reserve": nothing,
    "enrich_prompt": sections,
    "check_safety": verdict,
    "around_execution": context,
    "execute_task": outcome,
    "review_outcome": review,
    "end_attempt": nothing,
    "on_event": nothing,
    "on_tick": nothing,
}


def smallest(answers: Sequence[Entitlement]) -> Entitlement:
    """The smallest of each: models that all allow, the lowest limits and priority, and the highest price of a model.

    (A price counts at its highest because a plugin may tighten what another said and never loosen it.)
    """
    if not answers:
        return Entitlement()
    if len(answers) == 1:
        return answers[0]
    first = answers[0]
    models, prices, priority = first.models, first.aid_micros_per_1k, first.priority
    requests, tokens = first.requests_per_minute, first.tokens_per_day
    concurrency, tools = first.concurrency, first.tool_calls
    for answer in answers[1:]:
        if answer.models is not None:
            models = answer.models if models is None else tuple(m for m in models if m in answer.models)
        requests = _lower(requests, answer.requests_per_minute)
        tokens = _lower(tokens, answer.tokens_per_day)
        concurrency = _lower(concurrency, answer.concurrency)
        tools = _lower(tools, answer.tool_calls)
        priority = min(priority, answer.priority)
        more = answer.aid_micros_per_1k
        if more:
            prices = {model: max(prices.get(model, 0), more.get(model, 0)) for model in {**prices, **more}}
    return Entitlement(models, requests, tokens, concurrency, tools, priority, prices)


def _lower(one: int | None, other: int | None) -> int | None:
    return other if one is None or (other is not None and other < one) else one


def strictest_verdict(by: Sequence[tuple[str, Verdict]]) -> Verdict | None:
    """The first of the strictest verdicts, or None if there is none at all."""
    found: Verdict | None = None
    for _, said in by:
        if found is None or _STRICTNESS[said.answer] > _STRICTNESS[found.answer]:
            found = said
    return found


def strictest_review(reviews: Sequence[Review]) -> Review | None:
    """The first of the strictest decisions, with the lowest confidence and the facts of all."""
    if len(reviews) < 2:
        return reviews[0] if reviews else None
    decisive = reviews[0]
    confidence = decisive.confidence
    facts: dict[str, Any] = {}
    for review in reviews:
        if _STRICTNESS[review.decision] > _STRICTNESS[decisive.decision]:
            decisive = review
        confidence = min(confidence, review.confidence)
        facts.update(review.facts)
    facts.update(decisive.facts)
    return Review(decisive.decision, confidence, decisive.reason, facts)


def mean(rows: Sequence[tuple[float, list[float]]], count: int) -> list[float]:
    """The weighted mean of several scorers' rows; zeros when nobody scored."""
    if len(rows) == 1 and rows[0][0]:
        return rows[0][1]
    total = sum([weight for weight, _ in rows])
    if not total:
        return [0.0] * count
    if len({weight for weight, _ in rows}) == 1:
        shared = len(rows)
        if shared == 2:
            return [(one + other) / 2 for one, other in zip(rows[0][1], rows[1][1], strict=True)]
        return [sum(column) / shared for column in zip(*[row for _, row in rows], strict=True)]
    weighed = [[weight * score for score in row] for weight, row in rows]
    return [sum(column) / total for column in zip(*weighed, strict=True)]


def _named(value: Any) -> str:
    return f"a {type(value).__name__}"
