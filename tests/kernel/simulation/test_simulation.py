"""Promises held by a simulated village: 50 residents for a village day, with faults, lies, crashes and an operator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from vivarium_kernel import claiming, settling, stepping
from vivarium_kernel.ledger import Books
from vivarium_kernel.testing.simulation import Plan, Report, simulate

SEEDS = 50
MANY = 1_000
SHORT = Plan(0, residents=20, tasks=40, seconds=30.0, crashes=1)


def check(report: Report) -> None:
    assert report.problems == ()
    assert report.tasks["claimed"] == 0
    assert report.tasks["done"] > 0


@pytest.mark.promise("fault-at-every-step", "reward-once", "caps-hold", "double-entry", "chain", "missed-parts")
@pytest.mark.parametrize("first", range(0, SEEDS, 5))
def test_a_simulated_village_day_leaves_everything_as_it_must_be(first: int) -> None:
    for seed in range(first, first + 5):
        check(simulate(evolve(SHORT, seed=seed)))


@pytest.mark.promise("fault-at-every-step", "faults-stay-with-their-plugin")
def test_fifty_residents_live_a_whole_day() -> None:
    report = simulate(Plan(7))
    check(report)
    assert report.tasks["done"] > 30
    assert report.lives > 2, "processes were to crash"


@pytest.mark.long
@pytest.mark.promise("fault-at-every-step")
@pytest.mark.parametrize("first", range(0, MANY, 10))
def test_a_thousand_simulated_days_leave_everything_as_it_must_be(first: int) -> None:
    for seed in range(first, first + 10):
        check(simulate(Plan(seed)))


def in_another_process(seeds: list[int], hash_seed: str) -> dict[str, str]:
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "vivarium_kernel.testing.simulation", *map(str, seeds)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    heads: dict[str, str] = json.loads(done.stdout)["heads"]
    return heads
