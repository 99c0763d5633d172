"""The room of the worker's line to a village: HTTP/1.1 on connections that are kept, and streams of events.

It speaks to one server, sends JSON and reads JSON or problem pages. A call that is cancelled closes its connection, so
that the server knows that nobody waits any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from vivarium_kernel.errors import (
    Conflict,
    Forbidden,
    Invalid,
    LeaseLapsed,
    NotFound,
    OverBudget,
    RateLimited,
    StoreError,
    Unauthorized,
    VivariumError,
)
from vivarium_kernel.replies import TooOften

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode
_BY_STATUS: Mapping[int, type[VivariumError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    503: StoreError,
}
_LONGEST = 64_000_000  # bytes of one answer


class Unreachable(VivariumError):
    """The village can't be reached now."""

    status = 503


class _Refused(msgspec.Struct):
    """What counts here of a problem page."""

    detail: str = ""
    rule: str = "http"
    next_step: str = ""
    field: str | None = None


class Server:
    """One village's server, and the credential that is used where a call names no other."""

    def __init__(self, url: str, token: str) -> None:
        """Raises Invalid for what is no address."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(
                "remote.url", f"{url!r} is no village's address.", "Write it as http://HOST:PORT.", field="url"
            )
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._name = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")
        self._token = token
        self._idle: list[_Line] = []

    async def post(
        self, path: str, body: object, kind: type[T], *, token: str | None = None, seconds: float = 30.0
    ) -> T:
        """Say something; returns the answer as a ``kind``. Raises what the server refuses with, or Unreachable."""
        raw = await self._ask("POST", path, _encode(body), token or self._token, seconds)
        return msgspec.json.decode(raw, type=kind)

    async def events(self, path: str) -> AsyncIterator[tuple[str, bytes]]:
        """Server-sent events (name, data) until the stream ends. Raises Unreachable when it breaks."""
        line = await self._connect()
        try:
            await line.send(self._head("GET", path, self._token, 0))
            status, headers = await line.head()
            if status != 200:
                raise _refused(status, headers, await line.body(headers))
            name, data = "message", b""
            async for text in line.lines(headers):
                field, _, value = text.partition(b": ")
                if field == b"event":
                    name = value.decode()
                elif field == b"data":
                    data += value
                elif not text and data:
                    yield name, data
                    name, data = "message", b""
        except (OSError, EOFError, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            line.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _ask(self, method: str, path: str, body: bytes, token: str, seconds: float) -> bytes:
        head = self._head(method, path, token, len(body))
        while True:
            kept = bool(self._idle)
            line = self._idle.pop() if kept else await self._connect()
            try:
                async with asyncio.timeout(seconds):
                    await line.send(head + body)
                    status, headers = await line.head()
                    answer = await line.body(headers)
            except TimeoutError:
                line.close()
                raise self._unreachable(f"no answer within {seconds:g} s") from None
            except (OSError, EOFError, ValueError) as error:
                line.close()
                if kept and not line.heard:
                    continue  # it was closed at the other end while it was idle: nothing was said on it
                raise self._unreachable(error) from error
            except BaseException:
                line.close()
                raise
            if headers.get("connection", "").lower() == "close":
                line.close()
            else:
                self._idle.append(line)
            if status >= 300:
                raise _refused(status, headers, answer)
            return answer

    def _head(self, method: str, path: str, token: str, length: int) -> bytes:
        lines = [f"{method} {self._prefix}{path} HTTP/1.1", f"Host: {self._name}", f"Authorization: Bearer {token}"]
        if method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {length}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def _connect(self) -> _Line:
        try:
            async with asyncio.timeout(10.0):
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls or None)
        except (OSError, TimeoutError) as error:
            raise self._unreachable(error) from error
        return _Line(reader, writer)

    def _unreachable(self, why: object) -> Unreachable:
        return Unreachable(
            "remote.unreachable",
            f"The village at {self._name} can't be reached: {why or 'no answer'}.",
            "Check the address, and that `vivarium up` or `vivarium serve` runs there.",
        )


class _Line:
    """One connection. ``heard`` tells whether an answer to what was sent last has begun."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.heard = False

    async def send(self, data: bytes) -> None:
        self.heard = False
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and headers of an answer."""
        first = await self._line()
        self.heard = True
        words = first.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
            raise ValueError("it does not speak HTTP")
        headers: dict[str, str] = {}
        while text := await self._line():
            name, _, value = text.partition(b":")
            headers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
        return int(words[1]), headers

    async def body(self, headers: Mapping[str, str]) -> bytes:
        found = bytearray()
        async for chunk in self._chunks(headers):
            found += chunk
            if len(found) > _LONGEST:
                raise ValueError(f"the answer has more than {_LONGEST:,} bytes")
        return bytes(found)

    async def lines(self, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The body's lines as they come."""
        rest = b""
        async for chunk in self._chunks(headers):
            *whole, rest = (rest + chunk).split(b"\n")
            for text in whole:
                yield text.rstrip(b"\r")

    async def _chunks(self, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            while size := int((await self._line()).partition(b";")[0], 16):
                yield await self._reader.readexactly(size)
                await self._line()
            while await self._line():
                pass  # trailers
        elif "content-length" in headers:
            yield await self._reader.readexactly(int(headers["content-length"]))
        else:
            while chunk := await self._reader.read(65_536):
                yield chunk

    async def _line(self) -> bytes:
        text = await self._reader.readline()
        if not text.endswith(b"\n"):
            raise EOFError("it hung up")
        return text.rstrip(b"\r\n")

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be closed already
            self._writer.transport.abort()


def _refused(status: int, headers: Mapping[str, str], body: bytes) -> VivariumError:
    """A problem page as the error that it was."""
    try:
        page = msgspec.json.decode(body, type=_Refused)
    except msgspec.MsgspecError:
        page = _Refused(detail=f"the answer was {status}: {body[:200].decode(errors='replace')}")
    if page.rule.startswith("meter."):
        return RateLimited(page.rule, page.detail, page.next_step)
    if status == 429:
        wait: Any = headers.get("retry-after", "1")
        return TooOften(page.rule, page.detail, float(wait) if wait.isdigit() else 1.0)
    if page.rule == "attempt.lapsed":
        return LeaseLapsed(page.rule, page.detail, page.next_step)
    if page.rule.startswith("budget."):
        return OverBudget(page.rule, page.detail, page.next_step)
    return _BY_STATUS.get(status, VivariumError)(page.rule, page.detail, page.next_step, field=page.field)
