"""Carries letters in the background, from the village's opening to its end."""

import asyncio
from typing import Any

from vivarium_kernel import Plugin, hookimpl


class Courier(Plugin):
    name = "courier"

    @hookimpl
    async def startup(self, village: Any) -> None:
        self.letters: asyncio.Queue[str] = asyncio.Queue()
        self.delivered: list[str] = []
        self.work = asyncio.create_task(self._deliver())

    @hookimpl
    async def shutdown(self, village: Any) -> None:
        self.work.cancel()
        await asyncio.gather(self.work, return_exceptions=True)

    async def _deliver(self) -> None:
        while True:
            self.delivered.append(await self.letters.get())
