"""Each harness of this folder finds the bug that is planted for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vivarium_kernel.runtime import Runtime

from vivarium_kernel import settling, stepping

from . import test_halting, test_leases
from .nursery import Nursery
from .test_kills import losses, storm
from .village_processes import found, opened

pytestmark = pytest.mark.promise("harnesses-find-planted-bugs")


def found_by_the_storm(tmp_path: Path, bug: str, rounds: int = 8) -> str:
    """What a storm of kills finds of a planted bug; storms go on until one does, for chance may miss it."""
    for seed in range(rounds):
        folder = found(tmp_path / f"village{seed}", lease_seconds=2.0)
        with Nursery() as nursery:
            storm(folder, nursery, 8, seed, 0.2, bug)
        with opened(folder, threaded=False) as village, village.store.view() as view:
            wrong = losses(folder, view)
        if wrong:
            return "\n".join(wrong)
    return ""


def test_the_storm_finds_an_answer_before_the_commit(tmp_path: Path) -> None:
    # What was acknowledged is gone, or was done anew because nobody knew of it.
    wrong = found_by_the_storm(tmp_path, "answers before the commit")
    assert re.search(r"acknowledged|was done [2-9] times", wrong)


def test_the_storm_finds_a_missing_idempotency_key(tmp_path: Path) -> None:
    wrong = found_by_the_storm(tmp_path, "no idempotency key")
    assert "on the board 2 times" in wrong or "millionths were moved" in wrong


def test_the_storm_finds_effects_that_are_not_intended_first(tmp_path: Path) -> None:
    assert re.search(r"was done [2-9] times", found_by_the_storm(tmp_path, "no intents"))


def test_the_leases_harness_finds_missing_fencing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "fenced", lambda mine, lease_until_at, now: True)
    monkeypatch.setattr(settling, "fenced", lambda mine, lease_until_at, now: True)
    scene = test_leases.Scene(tmp_path / "village")
    with pytest.raises(pytest.fail.Exception, match="a late intent was taken"):
        test_leases.test_a_lapsed_lease_cannot_intend_record_or_settle(scene)
    scene.village.close()


def test_the_halting_harness_finds_a_halt_that_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Runtime) -> None:
        return None

    monkeypatch.setattr(Runtime, "_halt", nothing)
    with pytest.raises(AssertionError, match="an effect a second after the halt"):
        test_halting.test_a_halt_kills_what_runs_within_a_second_and_nothing_is_lost(found(tmp_path / "village", 30.0))
