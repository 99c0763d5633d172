"""Promises about prizes: the rule of who gets how much, for any slots, teams and choices."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vivarium_plugins_economy.prizes import Slots, Work, payouts, split, team

NAMES = ("ada", "ben", "cyn", "dov", "eli")
teams = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True).map(tuple)


@st.composite
def choices(draw: st.DrawFn) -> list[tuple[int, list[Work]]]:
    """Two prizes and the works that a judge named for them, each work once."""
    numbers = draw(st.lists(st.integers(1, 30), max_size=6, unique=True))
    cut = draw(st.integers(0, len(numbers)))
    works = [Work(number, draw(st.integers(1, 12)), draw(teams)) for number in numbers]
    return [(draw(st.integers(0, 10**15)), works[:cut]), (draw(st.integers(0, 10**6)), works[cut:])]


@pytest.mark.parametrize(
    ("place", "expected"), [(1, "1"), (3, "1"), (4, "1/2"), (5, "1/4"), (7, "1/16"), (8, "1/20"), (10**6, "1/20")]
)
def test_past_the_slots_each_place_pays_half_and_never_less_than_a_twentieth(place: int, expected: str) -> None:
    assert Slots(3).multiplier(place) == Fraction(expected)


@given(st.integers(0, 10**15), st.integers(1, 50))
def test_a_split_loses_nothing_and_favours_only_the_first(micros: int, among: int) -> None:
    parts = split(micros, among)
    assert sum(parts) == micros
    assert len(set(parts[1:])) <= 1
    assert 0 <= parts[0] - parts[-1] < among


def test_a_founder_who_left_shares_nothing() -> None:
    assert team(("dov", "ben", "cyn"), "cyn") == ("cyn", "ben", "dov")
    assert team(("dov", "ben"), "cyn") == ("ben", "dov")


@settings(max_examples=200)
@given(choices(), st.integers(1, 5))
def test_no_choice_pays_more_than_the_prizes_or_a_resident_for_two_submissions(
    prizes: list[tuple[int, list[Work]]], slots: int
) -> None:
    found = payouts(prizes, Slots(slots))
    for place, (micros, _) in enumerate(prizes, 1):
        assert sum(each.micros for each in found if each.prize == place) <= micros
    residents = [each.resident for each in found]
    assert len(residents) == len(set(residents))
    assert all(each.micros > 0 for each in found)
    shares = {work.submission: work.residents for _, works in prizes for work in works}
    assert all(each.resident in shares[each.submission] for each in found)


def test_who_got_nothing_of_one_prize_may_share_in_the_other() -> None:
    """A prize too small for three leaves two of them with nothing: they were not rewarded."""
    found = payouts([(1, [Work(1, 1, ("ada", "ben", "cyn"))]), (9, [Work(2, 2, ("ben",))])], Slots(2))
    assert [(each.resident, each.micros) for each in found] == [("ada", 1), ("ben", 9)]


@settings(max_examples=100)
@given(choices())
def test_within_the_slots_and_without_a_resident_in_two_teams_all_is_paid(prizes: list[tuple[int, list[Work]]]) -> None:
    alone = [(micros, [Work(w.submission, w.place, (f"r{w.submission}",)) for w in works]) for micros, works in prizes]
    paid = sum(each.micros for each in payouts(alone, Slots(12)))
    assert paid == sum(micros for micros, works in prizes if works)
