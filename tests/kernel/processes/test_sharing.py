"""Eight processes on one village: each task done once, the work shared, and nobody told that the database is locked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from kernel.faults.scene import faults_of, marks, states, until
from vivarium_kernel.records import NewTask

from vivarium_kernel import board

from .nursery import Nursery
from .village_processes import acknowledged, found, opened

PROCESSES, TASKS, RESIDENTS = 8, 2_000, 4


@pytest.mark.promise("eight-processes", "one-cycle-at-a-time")
def test_eight_processes_do_each_of_2000_tasks_once_and_share_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = found(tmp_path / "village", lease_seconds=30.0)
    with Nursery() as nursery:
        pids = [
            nursery.start("kernel.processes.village_processes:claimant", str(folder), RESIDENTS)
            for _ in range(PROCESSES)
        ]
        until(lambda: len(acknowledged(folder, "ready")) == PROCESSES, "all processes to join", 60)
        with opened(folder, threaded=False) as village:
            posting = [NewTask(mode="deed", prompt="x", data={"seconds": 0.01}) for _ in range(TASKS)]
            village.store.call(board.post, village.posting(posting, "operator:test"))
        assert [nursery.wait(pid) for pid in pids] == [0] * PROCESSES
    with opened(folder, threaded=False) as village, village.store.view() as view:
        assert faults_of(view) == []
        assert Counter(states(view).values()) == {"done": TASKS}
        shares = dict(view.rows("SELECT process, count(*) FROM attempts GROUP BY process"))
        residents = view.rows("SELECT count(DISTINCT resident) FROM attempts")
    assert Counter(marks(folder).values()) == {1: TASKS}
    assert sum(shares.values()) == TASKS
    assert len(shares) == PROCESSES
    assert min(shares.values()) >= TASKS / PROCESSES / 4, shares
    assert residents == [(PROCESSES * RESIDENTS,)]
    assert "locked" not in capfd.readouterr().err
