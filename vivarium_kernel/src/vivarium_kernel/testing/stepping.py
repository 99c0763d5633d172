"""The room of the stepped life: a runtime whose residents live a cycle when a test says so, and else wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from vivarium_kernel import audit, board
from vivarium_kernel.rounds import Won
from vivarium_kernel.runtime import Runtime

LOOK_SECONDS = 0.02  # between two looks whether a resident found something
PATIENCE_SECONDS = 10.0  # how long the listeners may take to hear of everything


class Shortage(AssertionError):
    """Fewer cycles could be lived than a test asked for."""


class Stepped(Runtime):
    """A whole runtime (leases, ticks, events, wake-ups) whose residents begin nothing by themselves."""

    _turn = 0

    async def _live(self, name: str) -> None:
        await asyncio.Event().wait()  # until it is told, see below

    async def one_by_one(self, count: int, within_seconds: float) -> list[int]:
        """So many cycles, one after the other; the attempts. Residents take turns where each finds something."""
        lived: list[int] = []
        loop = asyncio.get_running_loop()
        until = loop.time() + within_seconds
        while len(lived) < count:
            for name in self._turns():
                won = await self._offered(name)
                if won is not None:
                    self._turn += 1
                    lived.append(won.claimed.attempt)
                    await asyncio.create_task(self.live(won))
                    until = loop.time() + within_seconds
                    break
            else:
                if loop.time() >= until:
                    raise Shortage(f"{len(lived)} of {count} cycles, then nobody found anything to do: {self._why()}")
                await asyncio.sleep(0.25)
        await self.quiet()
        return lived

    async def all_at_once(self, within_seconds: float) -> list[int]:
        """Everybody lives until nothing is left to do; the attempts."""
        lived: list[int] = []

        async def live(name: str) -> None:
            while True:
                won = await self.rounds.claim(name)
                lived.append(won.claimed.attempt)
                await asyncio.create_task(self.live(won))

        loop = asyncio.get_running_loop()
        until, seen = loop.time() + within_seconds, 0
        living = [asyncio.create_task(live(name)) for name in self.residents]
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                self._refuse_fault()
                with self.village.store.view() as view:
                    is_open, is_moving = board.left(view)
                waiting = not self.running and self.rounds.waiting >= len(living)
                if waiting and not is_moving and (not is_open or (self.rounds.idle and not self.rounds.resting)):
                    break
                if len(lived) > seen:
                    until, seen = loop.time() + within_seconds, len(lived)
                if loop.time() >= until and not self.running:
                    raise Shortage(f"the board did not become empty: {self._why()}")
        finally:
            for each in living:
                each.cancel()
            await asyncio.gather(*living, return_exceptions=True)
        await self.quiet()
        return lived

    async def quiet(self) -> None:
        """Wait until every listener has been told of everything that happened."""
        listeners = self.village.hooks.names("on_event")
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_SECONDS
        while listeners and loop.time() < until:
            with self.village.store.view() as view:
                head, _ = audit.read_head(view)
                heard: dict[str, int] = dict(view.rows("SELECT name, cursor FROM plugins"))
            if all(heard.get(name, 0) >= head for name in listeners):
                return
            await asyncio.sleep(0.1)

    def _turns(self) -> Iterator[str]:
        names = self.residents
        for place in range(len(names)):
            yield names[(self._turn + place) % len(names)]

    async def _offered(self, name: str) -> Won | None:
        """What this resident may take now; None when it has seen the whole board and may take nothing."""
        claim = asyncio.ensure_future(self.rounds.claim(name))
        try:
            while not claim.done():
                await asyncio.sleep(LOOK_SECONDS)
                self._refuse_fault()
                if not claim.done() and self.rounds.waiting and self.rounds.idle:
                    return None
            return claim.result()
        finally:
            claim.cancel()
            await asyncio.gather(claim, return_exceptions=True)

    def _refuse_fault(self) -> None:
        if self.fault is not None:
            raise self.fault

    def _why(self) -> str:
        with self.village.store.view() as view:
            times = self.village.times()
            counts = {state: number for state, number in board.counts(view).items() if number}
            reasons = [
                f"{task} is {state}{f' ({reason})' if reason else ''}"
                for task, state, reason in view.rows(
                    "SELECT id, state, reason FROM tasks WHERE state NOT IN ('done', 'open') ORDER BY seq LIMIT 5"
                )
            ]
        switches = [word for word, on in (("it is halted", times.halted), ("it is paused", times.paused)) if on]
        refusals = [f"{task}: {why}" for task, why in list(self.rounds.refusals.items())[:5]]
        board_words = ", ".join(f"{number} {state}" for state, number in counts.items()) or "no tasks"
        return "; ".join([board_words, *switches, *refusals, *reasons])
