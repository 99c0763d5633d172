"""Kill -9 of workers and servers at random moments: nothing that was acknowledged is lost, nothing is done twice."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from kernel.faults.scene import effect_faults, faults_of, states, until
from vivarium_kernel.store import View

from vivarium_kernel import board

from .nursery import Nursery
from .village_processes import PAID_MICROS, acknowledged, found, opened

WORKERS, SERVERS, RESIDENTS = 2, 2, 3


def storm(
    folder: Path, nursery: Nursery, kills: int, seed: int, most_seconds: float = 0.5, bug: str | None = None
) -> int:
    """Kill random processes at random moments, each replaced at once; then let one process finish all that is left.

    ``bug`` is planted in every process.
    """
    chance = random.Random(seed)
    running: dict[int, tuple[str, object]] = {}

    def start(function: str, name: object) -> None:
        found = f"kernel.processes.village_processes:{function}"
        if bug is None:
            pid = nursery.start(found, str(folder), name)
        else:
            pid = nursery.start("kernel.processes.planting:with_bug", bug, found, str(folder), name)
        running[pid] = (function, name)

    for _ in range(WORKERS):
        start("worker", RESIDENTS)
    for number in range(SERVERS):
        start("server", f"s{number}")
    time.sleep(0.3)
    for _ in range(kills):
        time.sleep(chance.uniform(0.0, most_seconds))
        victim = chance.choice(sorted(running))
        function, name = running.pop(victim)
        assert nursery.kill(victim) == -signal.SIGKILL, f"{function} ended by itself"
        start(function, name)
    # However slow the machine is, the kills fell into work.
    until(lambda: len(acknowledged(folder, "done")) > kills // 3, "some tasks to be done", 60)
    for pid in running:
        nursery.kill(pid)
    return nursery.run("kernel.processes.village_processes:finisher", str(folder), 6)


def losses(folder: Path, view: View) -> list[str]:
    """What was acknowledged and is not so, what was done twice, and whatever does not balance."""
    wrong = faults_of(view) + effect_faults(folder, board.tasks(view, limit=1_000_000))
    ends = states(view)
    orders = Counter(row[0] for row in view.rows("SELECT json_extract(spec, '$.data.order') FROM tasks"))
    wrong += [f"{key} was acknowledged and is lost" for key in acknowledged(folder, "posted") if not orders[key]]
    wrong += [f"{key} is on the board {times} times" for key, times in orders.items() if times > 1]
    done = Counter(acknowledged(folder, "done"))
    wrong += [f"{task} was acknowledged as done and is {ends.get(task)}" for task in done if ends.get(task) != "done"]
    wrong += [f"{task} was acknowledged as done {times} times" for task, times in done.items() if times > 1]
    paid = dict(view.rows("SELECT ref, sum(micros) FROM transfers WHERE reason = 'gift' GROUP BY ref"))
    for key in acknowledged(folder, "paid"):
        if paid.get(f"gift:{key}") != PAID_MICROS:
            wrong.append(f"the gift {key} was acknowledged once, and {paid.get(f'gift:{key}')} millionths were moved")
    wrong += [f"{task} is {state}" for task, state in ends.items() if state not in ("done", "failed", "review")]
    return wrong


def assert_nothing_lost(folder: Path) -> dict[str, str]:
    with opened(folder, threaded=False) as village, village.store.view() as view:
        wrong = losses(folder, view)
        ends = states(view)
    assert not wrong, "\n".join(wrong[:20])
    return ends


def weathered(tmp_path: Path, kills: int, seed: int, most_seconds: float) -> None:
    folder = found(tmp_path / "village", lease_seconds=2.0)
    with Nursery() as nursery:
        assert storm(folder, nursery, kills, seed, most_seconds) == 0
    ends = assert_nothing_lost(folder)
    assert Counter(ends.values())["done"] > 0


@pytest.mark.promise("kill-workers", "effects-unknown", "transfer-keys", "idempotent-post")
def test_kill_9_at_random_moments_loses_and_repeats_nothing(tmp_path: Path) -> None:
    weathered(tmp_path, 15, 20260101, 0.4)


@pytest.mark.long
@pytest.mark.promise("kill-workers")
@pytest.mark.parametrize("seed", range(20))
def test_ten_thousand_kills_lose_and_repeat_nothing(tmp_path: Path, seed: int) -> None:
    weathered(tmp_path, 500, seed, 0.25)
