"""The writer's turn: between the processes of a village, and between a loop and plain code on its own thread."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from pathlib import Path

import pytest
from kernel.faults.scene import states
from vivarium_kernel.records import NewTask

from vivarium_kernel import board

from .village_processes import found, opened


def task(name: str) -> NewTask:
    return NewTask(id=name, mode="deed", prompt="x")


@pytest.mark.promise("plain code on the loop's own thread never waits for that loop")
def test_a_call_on_the_loops_thread_while_another_process_writes_ends(tmp_path: Path) -> None:
    folder = found(tmp_path / "village", lease_seconds=30.0)
    another = os.open(folder / "vivarium.lock", os.O_RDWR)

    async def main() -> None:
        fcntl.flock(another, fcntl.LOCK_EX)
        threading.Timer(0.3, fcntl.flock, (another, fcntl.LOCK_UN)).start()
        writing = village.store.write(board.post, village.posting([task("written")], "operator:test"))
        await asyncio.sleep(0.1)
        village.post([task("called")])
        await asyncio.wait_for(writing, 10)

    with opened(folder) as village:
        # Should it hang, only this thread does: the test can still fail.
        thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
        thread.start()
        thread.join(15)
        assert not thread.is_alive(), "the call and the loop wait for each other"
        with village.store.view() as view:
            assert states(view) == {"written": "open", "called": "open"}
    os.close(another)
