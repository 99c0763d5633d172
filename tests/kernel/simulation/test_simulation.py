"""Promises held by a simulated village: 50 residents for a village day, with faults, lies, crashes and an operator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, cast

import pytest
from attrs import evolve
from vivarium_kernel.store import Tx
from vivarium_kernel.testing.simulation import Plan, Report, simulate

from vivarium_kernel import settling, stepping

SEEDS = 50
MANY = 1_000
SHORT = Plan(0, tasks=40, seconds=30.0, crashes=1)


def check(report: Report) -> None:
    assert report.problems == ()
    assert report.tasks["claimed"] == 0


@pytest.mark.promise("fault-at-every-step", "reward-once", "caps-hold", "double-entry", "chain", "missed-parts")
@pytest.mark.parametrize("first", range(0, SEEDS, 5))
def test_a_simulated_village_day_leaves_everything_as_it_must_be(first: int) -> None:
    reports = [simulate(evolve(SHORT, seed=seed)) for seed in range(first, first + 5)]
    for report in reports:
        check(report)
    assert sum(report.tasks["done"] for report in reports) > 20


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


SET_ORDER = """
from vivarium_kernel import processes
from vivarium_kernel.testing.simulation import Plan, simulate
drive = processes.drive
processes.drive = lambda tx, asked: list(set(drive(tx, asked)))
print(simulate(Plan(1, tasks=40, seconds=10.0, crashes=0)).head)
"""


def in_another_process(seed: int, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vivarium_kernel.testing.simulation", str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return str(json.loads(done.stdout)["heads"][str(seed)])


@pytest.mark.promise("same-seed-same-log")
def test_the_same_seed_gives_the_same_log_in_any_process() -> None:
    head = simulate(Plan(1)).head
    assert simulate(Plan(1)).head == head
    assert in_another_process(1, "1") == head
    assert in_another_process(1, "4711") == head


def test_another_seed_gives_another_log() -> None:
    assert len({simulate(evolve(SHORT, seed=seed)).head for seed in range(4)}) == 4


# Each harness proves that it can fail: a bug that is planted must be found.


def once_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that ended may be ended again."""
    read = settling._read

    class Wide:
        def __init__(self, tx: Any) -> None:
            self._tx = tx

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tx, name)

        def rows(self, sql: str, params: Any = ()) -> Any:
            return self._tx.rows(sql.replace("a.state <> 'ended' AND ", ""), params)

    monkeypatch.setattr(settling, "_read", lambda tx, items: read(cast("Tx", Wide(tx)), items))
    monkeypatch.setattr(settling, "_may_end", lambda item, found, now: True)


def uncharged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead process may have spent is forgotten."""

    def charge_nothing(tx: Any, attempt: int, *_: Any) -> tuple[int, list[str]]:
        tx.run("UPDATE steps SET state = 'void' WHERE attempt = ? AND state = 'intended'", (attempt,))
        return 0, []

    monkeypatch.setattr(settling, "charge_unknown", charge_nothing)


def unfenced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes is believed, however long it slept."""
    once_widened(monkeypatch)
    monkeypatch.setattr(stepping, "fenced", lambda mine, lease, now: True)


def opened_by_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that failed counts as done for those that wait for it."""

    def wake(tx: Any, ended: Any) -> None:
        for name, _ in ended:
            tx.run("UPDATE tasks SET state = 'open' WHERE state = 'waiting' AND id IN "
                   "(SELECT task FROM dependencies WHERE needs = ?)", (name,))  # fmt: skip

    monkeypatch.setattr(settling, "_wake_dependents", wake)


def finds(sentence: str, most: int = 40) -> bool:
    """Whether one of the first simulations says this."""
    return any(
        problem.startswith(sentence) for seed in range(most) for problem in simulate(evolve(SHORT, seed=seed)).problems
    )


@pytest.mark.promise("harnesses-find-planted-bugs")
@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (unfenced, "an attempt did not end exactly once"),
        (uncharged, "providers are owed"),
        (opened_by_failure, "a task ran before what it needs"),
    ],
)
def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch, plant: Any, sentence: str) -> None:
    plant(monkeypatch)
    assert finds(sentence)


@pytest.mark.promise("harnesses-find-planted-bugs")
def test_a_clock_that_is_real_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from vivarium_kernel.clock import SimulatedClock, SystemClock

    heads = {simulate(evolve(SHORT, seed=1)).head for _ in range(2)}
    monkeypatch.setattr(SimulatedClock, "now", lambda self: SystemClock().now())
    heads |= {simulate(evolve(SHORT, seed=1)).head for _ in range(2)}
    assert len(heads) == 3


@pytest.mark.promise("harnesses-find-planted-bugs")
def test_an_order_that_follows_the_hash_seed_is_found() -> None:
    heads = {
        subprocess.run(
            [sys.executable, "-c", SET_ORDER], env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }  # fmt: skip
    assert len(heads) == 2
