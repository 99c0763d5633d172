"""Promises about the status: a cap that was lowered below what is set aside is shown with the one that it goes to."""

from __future__ import annotations

import pytest

from .running import Here, vivarium
from .test_doctor import change, settings


@pytest.fixture
def capped(here: Here) -> Here:
    settings("\n[budgets]\nvillage_usd = 5\n")(here.folder)
    assert vivarium("run", ".", cwd=here.folder).status == 0
    return here


def test_a_cap_is_shown_with_what_was_spent_of_it(capped: Here) -> None:
    assert "0 USD of 5 USD\n" in capped("status").out
    assert capped("status", "--json").document["village_usd"] == {
        "cap_micros": 5_000_000, "reserved_micros": 0, "spent_micros": 0, "wanted_micros": None,
    }  # fmt: skip


def test_a_cap_below_what_is_set_aside_is_shown_with_the_one_that_is_wanted(capped: Here) -> None:
    change("UPDATE budgets SET reserved = 3000000, spent = 1000000, cap = 4000000, wanted = 2000000 "
           "WHERE scope = 'village' AND currency = 'usd'")(capped.folder)  # fmt: skip
    assert "1 USD of 4 USD; the cap is to be 2 USD: " in capped("status").out
    assert capped("status", "--json").document["village_usd"] == {
        "cap_micros": 4_000_000, "reserved_micros": 3_000_000, "spent_micros": 1_000_000, "wanted_micros": 2_000_000,
    }  # fmt: skip
    assert "the village has used 4 USD of 2 USD" in capped("doctor").out
