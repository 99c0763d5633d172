"""Promises about the shared budget: exact to the millionth, the minimum for everybody, or refused with the sum."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from vivarium_kernel.errors import Invalid
from vivarium_plugins_intent.sharing import shared

shares = st.lists(st.integers(1, 100), min_size=1, max_size=6)


@given(st.integers(0, 10**15), shares, st.integers(0, 10**12))
def test_a_budget_is_shared_out_to_the_last_millionth(total: int, parts: list[int], least: int) -> None:
    assume(max(least, 1 if total else 0) * len(parts) <= total)
    found = shared(total, parts, least)
    assert sum(found) == total
    assert all(micros >= least for micros in found)
    assert all(found) or not total
    for one, its in zip(found, parts, strict=True):
        for other, others in zip(found, parts, strict=True):
            if its > others:
                assert one >= other
            if its == others:
                assert abs(one - other) <= 1


@given(shares, st.integers(1, 10**12), st.data())
def test_a_budget_below_the_minimum_of_all_is_refused(parts: list[int], least: int, data: st.DataObject) -> None:
    with pytest.raises(Invalid):
        shared(data.draw(st.integers(0, least * len(parts) - 1)), parts, least)


def test_what_does_not_divide_goes_to_the_largest_remainder() -> None:
    assert shared(100, [1, 1, 1]) == [34, 33, 33]
    assert shared(10, [3, 3, 1]) == [4, 4, 2]
    assert shared(0, [1, 2]) == [0, 0]


def test_a_refusal_shows_its_arithmetic() -> None:
    with pytest.raises(Invalid) as refused:
        shared(100_000, [1, 1, 1, 1], 30_000)
    assert "4 * 0.03 = 0.12 USD, and the budget is 0.10 USD" in refused.value.message
    assert refused.value.rule == "plan.budget"
