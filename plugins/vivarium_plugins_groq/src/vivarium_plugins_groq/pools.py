"""The room of the connections to Groq: many small pools, for one large one becomes slow.

A pool of httpx goes through all of its connections at each request and each answer; with hundreds of calls in one pool
that is most of the work (README.md has the figures).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
from attrs import define

POOL_CONNECTIONS = 4


@define(eq=False)
class _Pool:
    transport: httpx.AsyncHTTPTransport
    busy: int = 0


class Pools(httpx.AsyncBaseTransport):
    """A transport that gives each request to the first pool with a free connection, and makes another when none has.

    How many requests come at once is for whoever sends them to bound.
    """

    def __init__(self) -> None:
        self._pools: list[_Pool] = []
        self._tls = httpx.create_ssl_context()  # costs 20 ms, and all can share it

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        pool = next((each for each in self._pools if each.busy < POOL_CONNECTIONS), None)
        if pool is None:
            limits = httpx.Limits(max_connections=POOL_CONNECTIONS, max_keepalive_connections=POOL_CONNECTIONS)
            pool = _Pool(httpx.AsyncHTTPTransport(verify=self._tls, limits=limits))
            self._pools.append(pool)
        pool.busy += 1
        try:
            response = await pool.transport.handle_async_request(request)
        except BaseException:
            pool.busy -= 1
            raise
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _Counted(response.stream, pool)
        return response

    async def aclose(self) -> None:
        pools, self._pools = self._pools, []
        for pool in pools:
            await pool.transport.aclose()


class _Counted(httpx.AsyncByteStream):
    """A body whose connection is free again when it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, pool: _Pool) -> None:
        self._stream = stream
        self._pool: _Pool | None = pool

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        pool, self._pool = self._pool, None
        try:
            await self._stream.aclose()
        finally:
            if pool is not None:
                pool.busy -= 1
