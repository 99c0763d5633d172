"""2,000 calls of 1 s, 500 at a time, through the provider to a server on this machine; README.md has the figures.

``python benchmarks/calls.py [CONNECTIONS_A_POOL ...]``: by default what the provider uses, and one pool for all.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivarium_plugins_groq import pools
from vivarium_plugins_groq.plugin import GroqConfig
from vivarium_plugins_groq.provider import GroqProvider

from vivarium_kernel import Message, Request

CALLS, IN_FLIGHT, SECONDS = 2_000, 500, 1.0
REPLY = json.dumps(
    {
        "model": "m",
        "choices": [{"message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2},
    }
).encode()


class Answering(asyncio.Protocol):
    """One connection of the server: every request is answered after a second."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._come = b""

    def data_received(self, data: bytes) -> None:
        head, found, rest = (self._come + data).partition(b"\r\n\r\n")
        length = next(
            (int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length")), 0
        )
        if found and len(rest) >= length:
            self._come = rest[length:]
            asyncio.get_running_loop().call_later(SECONDS, self._answer)
        else:
            self._come += data

    def _answer(self) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(REPLY)}\r\n\r\n"
        self._transport.write(head.encode() + REPLY)


class Here:
    """A place with a key."""

    folder = Path()
    environ: Mapping[str, str] = {}

    def config(self, name: str, cls: type[Any]) -> Any:
        return cls()

    def key(self, name: str) -> str:
        return "none"


def serve(port: multiprocessing.Queue[int]) -> None:
    async def go() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=1_024)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(go())


async def measure(port: int) -> None:
    provider = GroqProvider(Here(), GroqConfig(base_url=f"http://127.0.0.1:{port}", connections=IN_FLIGHT))
    request = Request("groq:m", (Message("user", "Say hello."),), timeout_seconds=600.0)
    await provider.complete(request)  # imports the client
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(provider.complete(request) for _ in range(CALLS)))
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    await provider.close()
    print(f"{pools.POOL_CONNECTIONS} a pool: {seconds:.1f} s, {cpu / CALLS * 1_000:.1f} ms of CPU a call", flush=True)


def main() -> None:
    port: multiprocessing.Queue[int] = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    server.start()
    at = port.get()
    for size in [int(x) for x in sys.argv[1:]] or [pools.POOL_CONNECTIONS, IN_FLIGHT]:
        pools.POOL_CONNECTIONS = size
        asyncio.run(measure(at))
    server.terminate()


if __name__ == "__main__":
    main()
