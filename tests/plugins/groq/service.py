"""A server on the loopback interface that speaks the wire of Groq, and says whatever a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from vivarium_kernel.structuring import structure
from vivarium_plugins_groq.plugin import GroqConfig
from vivarium_plugins_groq.provider import GroqProvider

from vivarium_kernel import Message, Place, Request

KEY = "gsk_notARealKey0123456789abcdef"
MODEL = "openai/gpt-oss-20b"


@frozen
class Answer:
    """What is said to one request. ``cut`` breaks the connection off behind the body; ``after`` waits before it."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = {}
    cut: bool = False
    after: float = 0.0


@frozen
class Got:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: Any


Say = Callable[[Got], Answer | None]


@define
class Service:
    """The server while it runs. ``say`` answers each request; None closes the connection without a word."""

    say: Say
    address: str = ""
    got: list[Got] = field(factory=list)
    connections: int = 0
    serving: set[asyncio.Task[Any]] = field(factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
                raw = await reader.readexactly(int(headers.get("content-length", "0")))
                got = Got(head[0].split()[1], headers, json.loads(raw) if raw else None)
                self.got.append(got)
                answer = self.say(got)
                if answer is None:
                    break
                await asyncio.sleep(answer.after)
                length = len(answer.body) + (1 if answer.cut else 0)
                named = {"content-type": "application/json", "content-length": str(length), **answer.headers}
                lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
                writer.write(f"HTTP/1.1 {answer.status} X\r\n{lines}\r\n".encode() + answer.body)
                await writer.drain()
                if answer.cut:
                    break
        writer.close()


@contextlib.asynccontextmanager
async def service(say: Say, tls: ssl.SSLContext | None = None) -> AsyncIterator[Service]:
    """A server that answers with ``say``."""
    found = Service(say)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    found.address = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        for task in found.serving:
            task.cancel()
        await asyncio.gather(*found.serving, return_exceptions=True)


def completion(text: str | None = "Hello.", **more: Any) -> dict[str, Any]:
    """A whole answer as the service gives it."""
    usage = more.pop("usage", {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25, "queue_time": 0.01})
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": more.pop("finish", "stop")}],
        "usage": usage,
        "x_groq": {"id": "req_1"},
    } | more


def ok(page: Any, **headers: str) -> Answer:
    return Answer(json.dumps(page).encode(), headers={k.replace("_", "-"): v for k, v in headers.items()})


def error(status: int, message: str, code: str = "", **headers: str) -> Answer:
    """An error as the service gives it."""
    page = {"error": {"message": message, "type": "invalid_request_error", "code": code or None}}
    return Answer(json.dumps(page).encode(), status, {k.replace("_", "-"): v for k, v in headers.items()})


def chunk(delta: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """One piece of a streamed answer."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": more.pop("finish", None)}]
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": MODEL, "choices": choices} | more


def stream(chunks: Sequence[Mapping[str, Any]], *, done: bool = True, cut: bool = False) -> Answer:
    """A streamed answer."""
    lines = [f"data: {json.dumps(each)}\n\n" for each in chunks] + (["data: [DONE]\n\n"] if done else [])
    return Answer("".join(lines).encode(), headers={"content-type": "text/event-stream"}, cut=cut)


def listing(*names: str) -> Answer:
    """The list of models."""
    rows = [{"id": name, "object": "model", "active": True, "context_window": 131_072} for name in names]
    return ok({"object": "list", "data": rows})


@define
class Somewhere:
    """A place for a provider: a folder, and a key that a test may change."""

    settings: Mapping[str, Any]
    held: str | None = KEY
    folder: Path = Path()
    environ: Mapping[str, str] = {}

    def config(self, name: str, cls: type[Any]) -> Any:
        return structure(cls, dict(self.settings), f"plugins.{name}")

    def key(self, name: str) -> str | None:
        assert name == "groq"
        return self.held


@define
class Clock:
    """A clock that a test sets: sleeping takes no time and moves it."""

    at: float = 1_000.0
    slept: list[float] = field(factory=list)

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.at += seconds


@contextlib.asynccontextmanager
async def groq(
    say: Say | Answer, *, clock: Clock | None = None, secret: str | None = KEY, **settings: Any
) -> AsyncIterator[tuple[GroqProvider, Service, Somewhere]]:
    """A provider whose service answers with ``say``."""
    async with service((lambda got: say) if isinstance(say, Answer) else say) as found:
        place = Somewhere({"base_url": found.address} | settings, secret)
        fixed: Place = place
        timing = {} if clock is None else {"now": clock.now, "sleep": clock.sleep}
        provider = GroqProvider(fixed, place.config("groq", GroqConfig), **timing)
        try:
            yield provider, found, place
        finally:
            await provider.close()


def request(text: str = "Say hello.", **more: Any) -> Request:
    """A call of a model."""
    more.setdefault("timeout_seconds", 10.0)
    return Request(more.pop("model", f"groq:{MODEL}"), more.pop("messages", (Message("user", text),)), **more)
