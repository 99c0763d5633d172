"""Promises about the journals' arithmetic: exact in whole aid, as the README's table has it."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction
from itertools import combinations_with_replacement
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivarium_plugins_social.journal_rules import Decision, JournalPhysics, cost, decide

PHYSICS = JournalPhysics()
POINTS = {"reject": 0, "accept": 1, "exceptional": 2, "gaming": 0}
A, E, R, G = "accept", "exceptional", "reject", "gaming"
choices = st.lists(st.sampled_from(sorted(POINTS)), max_size=12)


def by_the_book(votes: list[str], paid: int) -> Decision:
    """The rule as it is written, by other means than the code's own."""
    if not votes:
        return Decision("returned", paid)
    if Fraction(votes.count(G), len(votes)) >= Fraction(1, 2):
        return Decision("gaming")
    mean = Fraction(sum(POINTS[vote] for vote in votes), len(votes))
    if mean < 1:
        return Decision("rejected")
    s = mean - 1
    refund = ceil(paid * (Fraction(1, 2) + s / 2))
    with localcontext() as exact:
        exact.prec = 60
        power = (Decimal(s.numerator) / s.denominator) ** Decimal("1.5")
        bonus = int((paid * power + Decimal("1e-40")).to_integral_value(ROUND_FLOOR))
    return Decision("accepted", refund, min(bonus, 2 * paid - refund))


@pytest.mark.promise("a journal's vote pays exactly what the rules say")
@pytest.mark.parametrize(
    ("votes", "refund", "bonus"),
    [
        ([A], 5, 0),  # the mean is 1.0: 5 together
        ([A, A, A], 5, 0),
        ([E, A, R], 5, 0),
        ([A, A, E], 7, 1),  # 1.33: 8
        ([A, E], 8, 3),  # 1.5: 11
        ([A, E, E], 9, 5),  # 1.67: 14
        ([E], 10, 10),  # 2.0: 20
        ([E, E, E], 10, 10),
        ([E, E, R], 7, 1),
        ([E, E, G], 7, 1),  # a third is not half
    ],
)
def test_the_table_of_payouts_for_a_cost_of_ten(votes: Any, refund: int, bonus: int) -> None:
    assert decide(votes, 10, PHYSICS) == Decision("accepted", refund, bonus)


@pytest.mark.parametrize("votes", [[R], [R, A], [R, R, E], [A, R, R], [A, A, R], [A, A, G], [R, E, G], [R, R, G]])
def test_a_mean_below_one_gives_nothing(votes: Any) -> None:
    assert decide(votes, 10, PHYSICS) == Decision("rejected")


@pytest.mark.parametrize("votes", [[G], [G, E], [G, G, E], [G, G, G], [G, G, E, E]])
def test_half_of_the_votes_for_gaming_is_gaming_whatever_the_others_say(votes: Any) -> None:
    assert decide(votes, 10, PHYSICS) == Decision("gaming")


def test_without_a_vote_the_cost_returns() -> None:
    assert decide([], 13, PHYSICS) == Decision("returned", 13)


@pytest.mark.promise("a journal's vote pays exactly what the rules say")
@pytest.mark.parametrize("paid", [1, 2, 3, 9, 10, 13, 100, 10_000])
def test_every_vote_of_up_to_four_pays_as_the_rule_is_written(paid: int) -> None:
    for count in range(5):
        for votes in combinations_with_replacement(sorted(POINTS), count):
            assert decide(list(votes), paid, PHYSICS) == by_the_book(list(votes), paid), votes  # type: ignore[arg-type]


@given(choices, st.integers(1, 10_000))
def test_any_vote_pays_as_the_rule_is_written_and_at_most_twice_the_cost(votes: Any, paid: int) -> None:
    found = decide(votes, paid, PHYSICS)
    assert found == by_the_book(votes, paid)
    assert 0 <= found.refund <= paid
    assert 0 <= found.refund + found.bonus <= 2 * paid


@given(choices, st.randoms(use_true_random=False))
def test_the_order_of_votes_is_nothing(votes: Any, chance: Any) -> None:
    mixed = chance.sample(votes, len(votes))
    assert decide(mixed, 10, PHYSICS) == decide(votes, 10, PHYSICS)


@pytest.mark.parametrize(("base", "penalised"), [(1, 2), (4, 5), (8, 10), (10, 13), (11, 14), (12, 15)])
def test_a_penalty_makes_it_a_quarter_dearer_rounded_up(base: int, penalised: int) -> None:
    assert cost(base, False, PHYSICS) == base
    assert cost(base, True, PHYSICS) == penalised
