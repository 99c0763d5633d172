"""A process of its own that keeps a village with the world in it, in real time, until it is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "vivarium_plugins_world" / "src"))

from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With
from vivarium_plugins_world.world import World


def keeper(folder: str) -> int:
    """Drive nobody: only be there, as host or to become it."""
    asyncio.run(_keep(Path(folder)))
    return 0


async def _keep(folder: Path) -> None:
    with Village(folder, With(threaded=True, installed=False, plugins=(World,)), environ={}) as village:
        async with Runtime(village, 0, kind="work") as runtime:
            await runtime.run()
