"""A process that stops while its acts are being ended stops all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from vivarium_kernel.jobs import Job
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import NewTask, Outcome
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With


class Dreamer(Plugin):
    """Does a task for ever."""

    name = "dreamer"

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        await asyncio.Event().wait()
        return None


@pytest.mark.promise("drain", "halt")
@pytest.mark.parametrize("at_once", [True, False])
def test_a_process_stops_though_its_act_is_ended_at_the_same_moment(tmp_path: Path, at_once: bool) -> None:
    """Both cancellations reach the resident as one exception; neither may be lost."""
    (tmp_path / "vivarium.toml").write_text('name = "stopping"\nresidents = ["ada"]\n')

    async def stopped() -> None:
        with Village(tmp_path, With(threaded=True, installed=False, plugins=(Dreamer,)), environ={}) as village:
            village.post([NewTask(id="dream", prompt="Dream.")])
            runtime = Runtime(village, 1)
            await runtime.__aenter__()
            async with asyncio.timeout(10):
                while not runtime.running:
                    await asyncio.sleep(0.01)
                (attempt,) = runtime.running
                runtime._interrupt([attempt])
                if not at_once:
                    await asyncio.sleep(0)
                await runtime.__aexit__()
            with village.store.view() as view:
                assert view.rows("SELECT state, ending FROM attempts") == [("ended", "released")]

    asyncio.run(stopped())
