"""The room of the supervisor: it keeps a server running until it is told to stop, and leaves no process behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence

from attrs import field, frozen

from vivarium_kernel import Conflict

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
STEADY_SECONDS = 60.0  # after so long a life the next pause is the first one again
LOOK_SECONDS = 0.25  # between two looks whether it is up
END_SECONDS = 20.0  # to end by itself
STILLBORN = 3  # deaths in a row before it was ever up: it never will be


@frozen
class Service:
    """What is to be kept running: a command, its environment, and where it answers ``GET /health`` when it is up."""

    command: Sequence[str]
    host: str
    port: int
    environ: Mapping[str, str] = field(repr=False)
    first_pause_seconds: float = FIRST_PAUSE_SECONDS


async def supervise(service: Service, tell: Callable[[str], None]) -> None:
    """Start the service, and again whenever it dies, until SIGINT or SIGTERM. ``tell`` hears what happens.

    Raises Conflict when it dies again and again before it was ever up.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    pause, stillborn, was_up = service.first_pause_seconds, 0, False
    try:
        while not stop.is_set():
            began = loop.time()
            code, up = await _one_life(service, stop, tell)
            if stop.is_set():
                return
            was_up, stillborn = was_up or up, 0 if up else stillborn + 1
            if not was_up and stillborn >= STILLBORN:
                raise Conflict(
                    "vllm.start",
                    f"The server ended {stillborn} times before it was up, the last time with {code}.",
                    "What it wrote is above.",
                )
            if loop.time() - began > STEADY_SECONDS:
                pause = service.first_pause_seconds
            tell(f"The server ended with {code}; it is started again in {pause:g} s.")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _one_life(service: Service, stop: asyncio.Event, tell: Callable[[str], None]) -> tuple[int, bool]:
    """Run the service once; returns how it ended, and whether it was ever up."""
    process = await asyncio.create_subprocess_exec(
        *service.command,
        stdin=asyncio.subprocess.DEVNULL,
        env=dict(service.environ),
        start_new_session=True,  # it has children, and a Ctrl-C at the terminal is ours to hand on
    )
    ended, stopping = asyncio.ensure_future(process.wait()), asyncio.ensure_future(stop.wait())
    up = asyncio.ensure_future(_up(service))
    try:
        done, _ = await asyncio.wait({ended, stopping, up}, return_when=asyncio.FIRST_COMPLETED)
        if up in done:
            tell(f"The server is up at http://{service.host}:{service.port}.")
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        was_up = up.done()
        if not ended.done():
            tell("The server is told to end.")
            _send(process.pid, signal.SIGTERM)
            await asyncio.wait({ended}, timeout=END_SECONDS)
    finally:
        up.cancel()
        stopping.cancel()
        _send(process.pid, signal.SIGKILL)  # its children too, which may outlive it
        await ended
    return ended.result(), was_up


def _send(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


async def _up(service: Service) -> None:
    """Wait until the service says that it is well."""
    while not await _is_well(service):  # noqa: ASYNC110 - another process sets no event of ours
        await asyncio.sleep(LOOK_SECONDS)


async def _is_well(service: Service) -> bool:
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(service.host, service.port)
            try:
                writer.write(f"GET /health HTTP/1.0\r\nHost: {service.host}\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
