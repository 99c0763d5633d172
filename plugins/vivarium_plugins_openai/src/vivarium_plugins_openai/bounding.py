"""The room of the bound: no answer of a server, whatever it is an answer to, takes more memory than this.

It is laid on the response before anything reads it, so that it holds for lists, streams and pages of errors too.
"""

from __future__ import annotations

import httpx2

from vivarium_kernel import ProviderFault

MOST_BYTES = 32_000_000  # unpacked


class _Bounded(httpx2.AsyncByteStream):
    """The unpacked bytes of a response. Who goes through it twice goes on where the first stopped, as on the wire."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._parts = response.aiter_bytes()
        self._length = 0

    def __aiter__(self) -> _Bounded:
        return self

    async def __anext__(self) -> bytes:
        part = await anext(self._parts)
        self._length += len(part)
        if self._length > MOST_BYTES:
            raise ProviderFault(f"its answer is longer than {MOST_BYTES:,} bytes", started=True, kind="nonsense")
        return part

    async def aclose(self) -> None:
        await self._response.aclose()


async def bound(response: httpx2.Response) -> None:
    """Bound a response whose head has come."""
    packed = httpx2.Response(response.status_code, headers=response.headers, stream=response.stream)
    response.headers.pop("content-encoding", None)
    response.stream = _Bounded(packed)
