"""Promises about the status: caps with what they go to, and which processes live."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from .running import Here, started, vivarium
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


def test_a_cap_that_was_lifted_is_no_cap(capped: Here) -> None:
    (capped.folder / "vivarium.toml").write_text('residents = ["ada"]\n')
    assert capped("pace", "1").status == 0
    assert "spent" not in capped("status").out
    assert capped("status", "--json").document["village_usd"] is None


def test_a_village_whose_process_was_killed_lives_no_more_and_says_so(here: Here) -> None:
    with (here.folder / "vivarium.toml").open("a") as settings:
        settings.write('[commands]\nsandbox = "auto"\n[commands.allow]\nsleep = "sleep"\n')
    assert here("task", "add", "--id", "long", "--timeout", "60", "--", "sleep", "60").status == 0
    with started("up", "--port", "0", cwd=here.folder) as process:
        until(here, lambda found: found["at_work"] == 1)
        assert "; 1 at work\n" in here("status").out
        process.kill()  # what runs below it dies with it
        found = until(here, lambda found: any(one["gone"] for one in found["processes"]))
    assert found["state"] == "at rest"
    told = here("status").out
    assert "was killed; the next process that lives takes up what it held" in told
    assert "; 1 at work when the process was killed\n" in told
    assert "\nwas at " in told
    shown = here("task", "show", "long").out
    assert "is gone" in shown and "who is at it" not in shown


def test_a_village_that_is_only_served_is_at_rest(here: Here) -> None:
    with started("serve", "--port", "0", cwd=here.folder):
        found = until(here, lambda found: found["processes"])
        assert (found["state"], found["processes"][0]["kind"], found["processes"][0]["gone"]) == (
            "at rest", "serve", False
        )  # fmt: skip
        assert "it serves the API alone, no resident works in it" in here("status").out


def until(here: Here, true: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The status once it is so."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found: dict[str, Any] = here("status", "--json").document
        if found["state"] != "not lived yet" and true(found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"it did not come: {found}")
