"""The room of the server: listens, says where, and ends without cutting anybody off in the middle of a word."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import uvicorn

from vivarium_kernel.api import wire
from vivarium_kernel.api.app import api_of, app_of
from vivarium_kernel.api.operations import Api
from vivarium_kernel.errors import Conflict, Invalid
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village
from vivarium_kernel.wording import url_of

GRACE_SECONDS = 3  # how long an answer that was begun may take once the server is closing
KEEP_ALIVE_SECONDS = 75


async def serve(
    village: Village,
    *,
    host: str | None = None,
    port: int | None = None,
    runtime: Runtime | None = None,
    ready: Callable[[str], Awaitable[None] | None] | None = None,
) -> None:
    """Serve the village's API until cancelled; ``ready`` (a function, or a coroutine function) is told the address
    once requests are taken.

    Without a ``runtime`` that the caller has entered, one without residents of its own keeps the process's place in the
    village: its lease, the host's ticks, what is due. Raises Conflict for a port that is taken.
    """
    settings = village.settings.api
    host = settings.host if host is None else host
    listening = listen(host, settings.port if port is None else port)
    with contextlib.closing(listening):
        url = url_of(*listening.getsockname()[:2])
        async with contextlib.AsyncExitStack() as stack:
            ending: asyncio.Future[None]
            if runtime is None:
                runtime = await stack.enter_async_context(Runtime(village, 0, kind="serve"))
                ending = asyncio.ensure_future(runtime.run())
            else:
                ending = asyncio.ensure_future(_forever())
            api = api_of(village, runtime)
            watching: asyncio.Future[None] = asyncio.ensure_future(wire.watch(api))
            async with _closing(api, [ending, watching]), _listening(api, host, listening) as serving:
                await runtime.open_at(url)
                told = None if ready is None else ready(url)
                if told is not None:
                    await told
                done, _ = await asyncio.wait({serving, ending, watching}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()


async def _forever() -> None:
    """The caller's own runtime is the caller's to watch."""
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def _closing(api: Api, others: list[asyncio.Future[None]]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for task in (*others, *api.tasks):
            task.cancel()
        await asyncio.gather(*others, *api.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _listening(api: Api, host: str, listening: socket.socket) -> AsyncIterator[asyncio.Future[None]]:
    config = uvicorn.Config(
        app_of(api, host=host),
        http="h11",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        yield serving  # the socket listens already: who comes now waits a moment
    finally:
        api.closing.set()  # streams and waiting claims end by themselves
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: whoever calls decides what a signal means."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises what is wrong with the address in the operator's words."""
    # The protocol is named: asyncio sends small answers at once (TCP_NODELAY) only where it can tell that this is TCP.
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(1024)
        return found
    except (OSError, OverflowError) as error:
        found.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise Conflict(
                "api.port",
                f"Port {port} of {host} is taken by another program.",
                "Stop that one, or choose another with --port (0 takes a free one).",
                field="port",
            ) from error
        raise Invalid(
            "api.host",
            f"{host} port {port} can't be listened on: {error}.",
            "Choose an address of this machine with --host, and a port from 1024 on.",
            field="host",
        ) from error
