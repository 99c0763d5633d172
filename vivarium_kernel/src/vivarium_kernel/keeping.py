"""The room of keeping: beside the residents, it keeps breakers and timings of this process and the store in step."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from vivarium_kernel import breakers, timings
from vivarium_kernel.breakers import Closing, LeftOut, Tripped
from vivarium_kernel.errors import StoreError
from vivarium_kernel.terms import LOADING
from vivarium_kernel.timings import Growth, Timing
from vivarium_kernel.village import Village

LOOK_SECONDS = 0.25  # how soon what was switched elsewhere is switched here
FLUSH_LOOKS = 20  # looks between two times that figures are written: 5 s
log = logging.getLogger("vivarium")


class Keeper:
    """One runtime's keeper. ``process`` tells the runtime's number, ``kick`` that the board is to be looked at."""

    def __init__(self, village: Village, process: Callable[[], int], kick: Callable[[], None]) -> None:
        self._village = village
        self._process = process
        self._kick = kick
        self._written: dict[tuple[str, str], tuple[int, int, int, float]] = {}  # (calls, errors, slow, seconds)
        self._noting: set[asyncio.Task[None]] = set()
        self._left_out: dict[str, str] | None = None  # as it was noted last

    async def begin(self) -> None:
        """From now on every switch is noted; what the watchdog switched off before is noted at once."""
        loop = asyncio.get_running_loop()
        health = self._village.health

        def changed(plugin: str, hook: str, state: str, cause: str) -> None:
            loop.call_soon_threadsafe(self._note, plugin, hook, state, cause)

        for plugin, hooks in health.switched_off.items():
            for hook, cause in hooks.items():
                if (plugin, hook) not in health.kept:
                    self._note(plugin, hook, "off", cause)
        health.on_change = changed
        await self._village.store.write(timings.forget_old, None)
        await self._note_left_out()

    async def serve(self) -> None:
        """Follow what others switch, and write the figures now and then, for ever."""
        looks = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                with self._village.store.view() as view:
                    switched_on = breakers.follow(view, self._village.health)
            except StoreError as error:
                log.error("what is switched off can't be read: %s", error)
                continue
            if switched_on:
                self._kick()
            with contextlib.suppress(StoreError):  # the next look tries again
                await self._note_left_out()
            looks += 1
            if looks % FLUSH_LOOKS == 0:
                await self._flush()

    async def end(self) -> None:
        """Write what is still to be written."""
        self._village.health.on_change = None  # its loop ends
        for ended in await asyncio.gather(*self._noting, return_exceptions=True):
            if isinstance(ended, Exception):
                log.error("a switch could not be noted: %r", ended)
        await self._flush()

    async def _note_left_out(self) -> None:
        causes = {each.name: "; ".join(map(str, each.errors)) for each in self._village.failed}
        if causes == self._left_out:
            return
        with self._village.store.view() as view:
            noted = breakers.breakers(view, hook=LOADING)
        if causes or noted:
            await self._village.store.write(breakers.note_left_out, LeftOut(causes, self._process()))
        self._left_out = causes

    def _note(self, plugin: str, hook: str, state: str, cause: str) -> None:
        noting = asyncio.ensure_future(self._noted(plugin, hook, state, cause))
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def _noted(self, plugin: str, hook: str, state: str, cause: str) -> None:
        store, health = self._village.store, self._village.health
        with contextlib.suppress(StoreError):  # the breaker itself holds; only nobody else learns of it
            if state == "off":
                probed = health.tally(plugin, hook).probe_at is not None
                await store.write(breakers.trip, Tripped(plugin, hook, cause, probed, self._process()))
                health.kept.add((plugin, hook))  # so that its row's going is seen, however soon it goes
            else:
                await store.write(breakers.close, Closing(plugin, hook, cause=cause))
                health.kept.discard((plugin, hook))

    async def _flush(self) -> None:
        grown, totals = [], {}
        for row in self._village.health.view():
            key = (row["plugin"], row["hook"])
            total = (row["calls"], row["errors"], row["slow"], row["seconds"])
            calls, errors, slow, seconds = self._written.get(key, (0, 0, 0, 0.0))
            if total != (calls, errors, slow, seconds):
                totals[key] = total
                grown.append(
                    Timing(*key, total[0] - calls, total[1] - errors, total[2] - slow, total[3] - seconds,
                           row["slowest_seconds"], row["last_error"])
                )  # fmt: skip
        if grown:
            with contextlib.suppress(StoreError):  # it is said again with what has grown until then
                await self._village.store.write(timings.add, Growth(self._process(), grown))
                self._written |= totals
