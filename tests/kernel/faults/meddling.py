"""Stepping a cycle by hand, and doing something to it at its n-th suspension."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from attrs import define
from vivarium_kernel.claiming import Claimed
from vivarium_kernel.rounds import Won
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.settling import Settled


@define
class Meddle:
    """What happens at suspension ``at`` (from 1).

    ``error`` is thrown into the cycle: instead of waiting, or with ``lost`` when what it waited for has happened, so
    that the write stands and its reply is lost. ``do`` is called with the runtime and the claim before it waits.
    """

    at: int
    error: Callable[[], BaseException] | None = None
    lost: bool = False
    do: Callable[[Runtime, Claimed], object] | None = None
    seen: int = 0
    met: bool = False


class Meddled(Runtime):
    """A runtime whose cycles are stepped by hand."""

    def __init__(self, *arguments: Any, meddle: Meddle, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._meddle = meddle

    async def _through(self, won: Won) -> Settled:
        found: Settled = await stepped(super()._through(won), self._meddle, self, won.claimed)
        return found


@types.coroutine
def stepped(
    cycle: Coroutine[Any, Any, Any], meddle: Meddle, runtime: Runtime, claimed: Claimed
) -> Generator[Any, Any, Any]:
    """Run a coroutine to its end, forwarding what it waits for; meddle once, at its suspension."""
    thrown: BaseException | None = None
    while True:
        try:
            waits_for = cycle.throw(thrown) if thrown is not None else cycle.send(None)
        except StopIteration as done:
            return done.value
        thrown = None
        meddle.seen += 1
        meets = meddle.seen == meddle.at and not meddle.met
        if meets:
            meddle.met = True
            if meddle.do is not None:
                meddle.do(runtime, claimed)
            if meddle.error is not None and not meddle.lost:
                if asyncio.isfuture(waits_for):
                    waits_for._asyncio_future_blocking = False
                thrown = meddle.error()
                continue
        try:
            yield waits_for
            # A suspension may be woken for another reason than its own: wait until what it waits for has happened.
            while meets and meddle.lost and asyncio.isfuture(waits_for) and not waits_for.done():
                waits_for._asyncio_future_blocking = True
                yield waits_for
        except BaseException as error:
            thrown = error
            continue
        if meets and meddle.lost and meddle.error is not None:
            thrown = meddle.error()
