"""The room of the hosting: what a process does for the whole village, beside what its own residents do.

Every process gives back what gone processes left. One of them is the host: it lets holds expire, ticks, and tells
plugins of events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from vivarium_kernel import audit, holds, processes
from vivarium_kernel.clock import Jumps
from vivarium_kernel.errors import StoreError
from vivarium_kernel.settling import Retries
from vivarium_kernel.store import Tx, View
from vivarium_kernel.village import Village

log = logging.getLogger("vivarium")


class Hosting:
    """One runtime's part in it. ``process`` tells the runtime's number, ``kick`` that the board is to be looked at."""

    def __init__(
        self,
        village: Village,
        me: processes.Self,
        retries: Retries,
        process: Callable[[], int],
        kick: Callable[[], None],
    ) -> None:
        self._village = village
        self._me = me
        self._retries = retries
        self._process = process
        self._kick = kick
        self._host = False
        self._jumps = Jumps(village.clock)
        self._feeling = asyncio.Lock()

    async def reap(self, *, release: bool = True) -> None:
        """Give back what gone processes left; with ``release`` also what is held for residents that nobody drives."""
        asked = processes.Reap(self._me, self._village.hooks.end_attempt, self._retries, release)
        await self._village.store.write(processes.reap, asked)

    async def take(self) -> None:
        """Become the host if no live process is."""
        self._host = await self._village.store.write(processes.take_host, self._process())

    async def feel_jump(self) -> None:
        """A jump of the clock ends no lease of workers elsewhere: to be asked before one of theirs is judged by it."""
        async with self._feeling:
            seconds = self._jumps.jumped()
            if seconds:
                village = self._village
                pause = village.retries().backoff_max_seconds
                jump = processes.Jump(seconds, village.settings.lease_seconds, pause)
                try:
                    await self._village.store.write(processes.stand, jump)
                except StoreError as error:
                    log.error("workers elsewhere may lose their leases to the clock that jumped: %s", error)

    async def tick(self) -> None:
        """Once a second, for ever: what is gone is reaped; on the host, deadlines and grants."""
        clock = Jumps(self._village.clock)
        while True:
            await asyncio.sleep(1.0)
            if clock.jumped():
                continue  # by that clock every lease may have lapsed: who lives renews it within a second
            try:
                with self._village.store.view() as view:
                    work = self._upkeep(view)
                if work:
                    await self.reap()
                    self._kick()
                if not self._host:
                    await self._take_if_free()
                elif self._village.hooks.has("on_tick") or self._holds_due():
                    await self._village.store.write(_host_tick, self._village.hooks)
            except StoreError as error:
                log.error("the tick failed: %s", error)

    def _upkeep(self, view: View) -> bool:
        """Whether anything is to be reaped: a cheap look before a transaction is spent on it."""
        row = view.row(
            "SELECT EXISTS (SELECT 1 FROM processes WHERE ended_at IS NULL AND lease_until_at < ?1) OR EXISTS "
            "(SELECT 1 FROM attempts WHERE state = 'running' AND process IS NULL AND lease_until_at < ?1) OR EXISTS "
            "(SELECT 1 FROM tasks WHERE state = 'open' AND held_for IS NOT NULL AND continues IS NOT NULL "
            "AND wanted IS NULL)",
            (view.now,),
        )
        return bool(row and row[0]) or processes.has_died(view, self._me)

    async def _take_if_free(self) -> None:
        with self._village.store.view() as view:
            row = view.row("SELECT lease_until_at FROM processes WHERE host = 1")
        if row is None or row[0] < self._village.clock.now():
            await self.take()

    def _holds_due(self) -> bool:
        with self._village.store.view() as view:
            row = view.row("SELECT EXISTS (SELECT 1 FROM holds WHERE state = 'held' AND expires_at <= ?)", (view.now,))
        return bool(row and row[0])

    async def tell(self) -> None:
        """On the host, for ever: tell plugins of events after their commit, at least once, from each one's cursor."""
        while True:
            told = 0
            try:
                if self._host:
                    for plugin in self._village.hooks.names("on_event"):
                        told += await self._tell_one(plugin)
            except StoreError as error:
                log.error("plugins can't be told what happened: %s", error)
                await asyncio.sleep(10.0)
            if not told:
                await asyncio.sleep(0.5)

    async def _tell_one(self, plugin: str) -> int:
        with self._village.store.view() as view:
            row = view.row("SELECT cursor FROM plugins WHERE name = ?", (plugin,))
            events = audit.tail(view, row[0] if row else 0, 200)
        for event in events:
            await self._village.hooks.on_event(plugin, event)
        if events:
            await self._village.store.write(_keep_cursor, (plugin, events[-1].id))
        return len(events)


def _host_tick(tx: Tx, hooks: Any) -> None:
    holds.expire_holds(tx)
    hooks.on_tick(tx.now, tx)


def _keep_cursor(tx: Tx, asked: tuple[str, int]) -> None:
    tx.run("INSERT INTO plugins (name, cursor) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET cursor = ?2", asked)
