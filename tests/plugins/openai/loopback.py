"""The room of the model server that answers what a test tells it: real HTTP on the loopback device, byte for byte."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from vivarium_kernel import Message, Request, Tool

KEY = "sk-tellnobody-0123456789abcdef"
WALK = Tool(
    "walk", "Walks there.", {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"],
                             "additionalProperties": False},
)  # fmt: skip


@frozen
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


Answering = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@define
class Loopback:
    """A server whose answers are a function of what was asked. Use ``async with``; ``url`` ends with ``/v1``."""

    answer: Answering
    tls: ssl.SSLContext | None = None
    asked: list[Asked] = field(factory=list)
    port: int = 0
    _server: asyncio.Server | None = None
    _connections: set[asyncio.StreamWriter] = field(factory=set)

    @property
    def root(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    async def __aenter__(self) -> Loopback:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._connections:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split("\r\n")[0].split(" ")
                lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
                headers = {name.lower(): value for name, _, value in lines}
                raw = await reader.readexactly(int(headers.get("content-length", "0")))
                asked = Asked(method, path, headers, json.loads(raw) if raw else None)
                self.asked.append(asked)
                await self.answer(asked, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def sent(status: int, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status} Said", f"content-type: {kind}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def says(data: object, status: int = 200, **headers: str) -> Answering:
    """Answer everything with this JSON, or these bytes."""
    body = data if isinstance(data, bytes) else json.dumps(data).encode()

    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(sent(status, body, **headers))

    return answer


def streams(*pieces: object, done: bool = True) -> Answering:
    """Answer with server-sent events, each in a write of its own; without ``done`` the connection breaks off."""

    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in pieces:
            text = piece if isinstance(piece, str) else json.dumps(piece)
            await _chunk(writer, f"data: {text}\n\n".encode())
        if done:
            await _chunk(writer, b"data: [DONE]\n\n")
            await _chunk(writer, b"")
        else:
            writer.close()

    return answer


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


def whole(text: str | None = "Hello.", **message: Any) -> dict[str, Any]:
    """A chat completion."""
    return {
        "id": "c1", "object": "chat.completion", "created": 1, "model": "m-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, **message},
                     "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23,
                  "prompt_tokens_details": {"cached_tokens": 16}},
    }  # fmt: skip


def piece(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """One piece of a streamed chat completion."""
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m-1",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}  # fmt: skip


def usage(**counts: Any) -> dict[str, Any]:
    """The last piece of a stream: what was used."""
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": [],
            "usage": {"prompt_tokens": 20, "completion_tokens": 3} | counts}  # fmt: skip


@define
class Folder:
    """Where a provider lives in these tests: settings and keys."""

    settings: Mapping[str, Any] = field(factory=dict)
    keys: dict[str, str] = field(factory=dict)
    folder: Path = Path()
    environ: Mapping[str, str] = field(factory=dict)

    def config(self, name: str, cls: type[Any]) -> Any:
        from vivarium_kernel.structuring import structure

        return structure(cls, self.settings, f"plugins.{name}")

    def key(self, name: str) -> str | None:
        return self.keys.get(name)


def request(text: str = "Hi.", model: str = "openai:m-1", **more: Any) -> Request:
    return Request(model, (Message("user", text),), **{"timeout_seconds": 5.0, **more})
