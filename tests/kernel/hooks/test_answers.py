"""How several answers become one: the tables of cases, and what holds for every answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivarium_kernel.records import Entitlement, Review, Verdict

from vivarium_kernel import answers, hookspecs


def test_every_hook_has_a_reader() -> None:
    specs = {name for name, value in vars(hookspecs).items() if hasattr(value, "vivarium_spec")}
    assert specs == set(answers.READERS)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], Entitlement()),
        ([Entitlement(tool_calls=3)], Entitlement(tool_calls=3)),
        ([Entitlement(models=("a", "b")), Entitlement(models=None)], Entitlement(models=("a", "b"))),
        ([Entitlement(models=("a", "b")), Entitlement(models=("b", "c"))], Entitlement(models=("b",))),
        ([Entitlement(models=()), Entitlement(models=("a",))], Entitlement(models=())),
        (
            [Entitlement(requests_per_minute=5, tokens_per_day=9), Entitlement(requests_per_minute=7, concurrency=1)],
            Entitlement(requests_per_minute=5, tokens_per_day=9, concurrency=1),
        ),
        ([Entitlement(priority=3), Entitlement(priority=-1)], Entitlement(priority=-1)),
        (
            [Entitlement(aid_micros_per_1k={"a": 5}), Entitlement(aid_micros_per_1k={"a": 2, "b": 1})],
            Entitlement(aid_micros_per_1k={"a": 5, "b": 1}),
        ),
        ([Entitlement(models=("a",), concurrency=4, priority=2), answers.FLOOR], answers.FLOOR),
    ],
)
def test_the_smallest_of_each_entitlement_counts(said: list[Entitlement], expected: Entitlement) -> None:
    assert answers.smallest(said) == expected
    assert answers.smallest(said[::-1]) == expected


LIMIT = st.none() | st.integers(0, 9)
ENTITLEMENTS = st.builds(
    Entitlement,
    models=st.none() | st.lists(st.sampled_from("abc"), unique=True).map(tuple),
    requests_per_minute=LIMIT,
    tokens_per_day=LIMIT,
    concurrency=LIMIT,
    tool_calls=LIMIT,
    priority=st.integers(-3, 3),
    aid_micros_per_1k=st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
)


@given(st.lists(ENTITLEMENTS, min_size=1, max_size=4), ENTITLEMENTS)
def test_another_plugin_never_loosens_an_entitlement(said: list[Entitlement], more: Entitlement) -> None:
    before, after = answers.smallest(said), answers.smallest([*said, more])
    for limit in ("requests_per_minute", "tokens_per_day", "concurrency", "tool_calls"):
        old, new = getattr(before, limit), getattr(after, limit)
        assert old is None or (new is not None and new <= old)
    assert before.models is None or (after.models is not None and set(after.models) <= set(before.models))
    assert after.priority <= before.priority
    assert all(after.aid_micros_per_1k[model] >= price for model, price in before.aid_micros_per_1k.items())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], None),
        (["allow"], "allow"),
        (["allow", "ask"], "ask"),
        (["deny", "ask", "allow"], "deny"),
        (["ask", "ask"], "ask"),
    ],
)
def test_the_strictest_verdict_counts(said: list[str], expected: str | None) -> None:
    by = [(f"p{n}", Verdict(answer, f"rule-{n}")) for n, answer in enumerate(said)]  # type: ignore[arg-type]
    found = answers.strictest_verdict(by)
    assert (found and found.answer) == expected
    assert found is None or found is next(v for _, v in by if v.answer == expected)


@pytest.mark.parametrize(
    ("said", "decision", "confidence"),
    [
        ([("accept", 0.95)], "accept", 0.95),
        ([("accept", 0.5), ("accept", 0.9)], "accept", 0.5),
        ([("accept", 0.4), ("send_back", 0.8)], "send_back", 0.4),
        ([("jury", 0.9), ("send_back", 0.8)], "jury", 0.8),
        ([("human", 0.9), ("jury", 1.0)], "human", 0.9),
        ([("human", 0.9), ("reject", 1.0), ("accept", 0.1)], "reject", 0.1),
    ],
)
def test_the_strictest_review_counts_with_the_lowest_confidence(
    said: list[tuple[str, float]], decision: str, confidence: float
) -> None:
    reviews = [Review(d, c, d, {d: 1, "who": d}) for d, c in said]  # type: ignore[arg-type]
    found = answers.strictest_review(reviews)
    assert found is not None
    assert (found.decision, found.confidence, found.reason) == (decision, confidence, decision)
    assert found.facts == {**{d: 1 for d, _ in said}, "who": decision}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], [0.0, 0.0]),
        ([(1.0, [0.2, 0.8])], [0.2, 0.8]),
        ([(1.0, [0.0, 1.0]), (1.0, [1.0, 1.0])], [0.5, 1.0]),
        ([(3.0, [0.0, 1.0]), (1.0, [1.0, 1.0])], [0.25, 1.0]),
        ([(0.0, [0.7, 0.7]), (1.0, [0.1, 0.2])], [0.1, 0.2]),
        ([(0.0, [0.7, 0.7])], [0.0, 0.0]),
    ],
)
def test_scores_are_a_weighted_mean(rows: list[tuple[float, list[float]]], expected: list[float]) -> None:
    assert answers.mean(rows, 2) == pytest.approx(expected)
