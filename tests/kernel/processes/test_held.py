"""A plugin's plain code that holds the process: the watchdog ends it, the next one lives without that hook."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from kernel.faults.scene import effect_faults, faults_of, marks, states, until
from vivarium_kernel.records import NewTask

from vivarium_kernel import board

from .nursery import Nursery
from .supervised import BEAT_SECONDS, LIMIT_SECONDS
from .village_processes import found, opened


def posted(tmp_path: Path) -> Path:
    folder = found(tmp_path / "village", lease_seconds=600.0)
    with opened(folder, threaded=False) as village:
        village.post(
            [NewTask(id=f"t{n}", mode="deed", prompt="x", effect="idempotent", max_micros=900) for n in range(12)]
        )
    return folder


@pytest.mark.promise("watchdog", "missed-parts")
@pytest.mark.parametrize("hook", ["claim_filter", "enrich_prompt", "end_attempt"])
def test_a_hook_that_holds_the_process_is_switched_off_in_the_next_one_and_nothing_is_lost(
    tmp_path: Path, hook: str
) -> None:
    """The next process takes up at once what the last one held: it was of this machine, and is gone."""
    folder = posted(tmp_path)
    begun = time.monotonic()
    with Nursery() as nursery:
        assert nursery.run("kernel.processes.supervised:held", str(folder), hook) == 0
    assert time.monotonic() - begun > LIMIT_SECONDS
    said = (folder / "said").read_text()
    assert f"plugin 'holder' held the process for too long in {hook}" in said
    assert "supervised.py:" in said
    assert said.count("starting again") == 1
    with opened(folder, threaded=False) as village, village.store.view() as view:
        assert faults_of(view) == []
        assert effect_faults(folder, board.tasks(view)) == []
        assert set(states(view).values()) == {"done"}
        missed = view.rows("SELECT plugin, hook FROM missed")
    # What the plugin's part would have been is kept while it is off.
    assert set(missed) == ({("holder", "end_attempt")} if hook == "end_attempt" else set())


@pytest.mark.promise("watchdog", "failed-check-is-no-allow")
def test_a_safety_check_that_holds_the_process_lets_nothing_through_while_it_is_off(tmp_path: Path) -> None:
    folder = posted(tmp_path)
    with Nursery() as nursery:
        pid = nursery.start("kernel.processes.supervised:held", str(folder), "check_safety")
        until(lambda: (folder / "said").exists() and "starting again" in (folder / "said").read_text(), "the restart")
        time.sleep(LIMIT_SECONDS + 2 * BEAT_SECONDS)
        nursery.kill(pid, signal.SIGKILL)
    assert not marks(folder)
    with opened(folder, threaded=False) as village, village.store.view() as view:
        assert set(states(view).values()) <= {"open", "claimed"}
