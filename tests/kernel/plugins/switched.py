"""A process that works on a village while its plugins are switched, and notes on a file what its plugin was told.

Run as ``python switched.py FOLDER NOTES``; it lives until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With

from vivarium_kernel import Plugin, hookimpl, runtime

NOTES = Path(sys.argv[2]) if __name__ == "__main__" else Path()


class Noted(Plugin):
    """Notes when it is started and shut down, and the attempts whose begin and end it saw."""

    name = "noted"

    def _note(self, what: str) -> None:
        with NOTES.open("a", encoding="utf-8") as file:
            file.write(f"{what}\n")

    @hookimpl
    async def startup(self, village: Any) -> None:
        self._note("startup")

    @hookimpl
    async def shutdown(self, village: Any) -> None:
        self._note("shutdown")

    @hookimpl
    def enrich_prompt(self, resident: Any, task: Any, view: Any) -> list[Any]:
        self._note(f"begun {task.id}")
        return []

    @hookimpl
    def end_attempt(self, task: Any, ending: Any, tx: Any) -> None:
        self._note(f"ended {task.id}")


async def live(folder: Path) -> None:
    runtime.BEAT_SECONDS = 0.01  # so that it takes up nearly every switch
    with Village(folder, With(threaded=True, plugins=[Noted], installed=False), environ={}) as village:
        async with Runtime(village, 4, kind="work"):
            print("ready", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1])))
