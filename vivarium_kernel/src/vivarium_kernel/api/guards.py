"""The room of the gate: which host a request may name, from which origin it may come, and how large it may be.

A page of another site that is open in somebody's browser can reach a loopback address. It can't forge ``Host`` (so a
name that was rebound to 127.0.0.1 is refused) nor ``Origin`` (so its own requests are), and these are asked first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vivarium_kernel.api.problem import Misdirected, TooLarge, answer
from vivarium_kernel.errors import Forbidden, VivariumError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Hosts:
    """The names that requests may carry: loopback names, the address that is listened on, and those that are set.

    On a wildcard address any literal address will do: only names can be rebound.
    """

    def __init__(self, listening_on: str, more: Iterable[str] = ()) -> None:
        wildcard = listening_on in ("0.0.0.0", "::", "")  # noqa: S104 - recognised, not bound
        self._any_address = wildcard
        named = {*LOOPBACK, *([] if wildcard else [listening_on]), *more}
        self._names = {name.strip("[]").lower() for name in named}

    def allows(self, host: str) -> bool:
        """Whether ``host`` (a ``Host`` header, with or without port) may be named."""
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if not name:
            return False
        if name in self._names:
            return True
        if self._any_address:
            with contextlib.suppress(ValueError):
                return bool(ip_address(name))
        return False


class Gate:
    """ASGI middleware: refuses before anything else looks at the request."""

    def __init__(self, app: ASGIApp, hosts: Hosts, body_bytes: Callable[[str], int]) -> None:
        self._app = app
        self._hosts = hosts
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._body_bytes(scope["path"])
        refused = self._refused(headers, limit)
        if refused is None:
            await self._app(scope, _counted(receive, limit), _with_headers(send))
        elif scope["type"] == "http":
            await answer(refused)(scope, receive, _with_headers(send))
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": refused.rule})

    def _refused(self, headers: Headers, limit: int) -> VivariumError | None:
        host = headers.get("host", "")
        if not self._hosts.allows(host):
            return Misdirected(
                "request.host", f"This village is not called {host!r}.",
                "Use the address that it prints at its start, or add the name to hosts in [api] of vivarium.toml.",
                field="Host",
            )  # fmt: skip
        origin = headers.get("origin")
        if origin is not None and not same_origin(origin, host):
            return Forbidden(
                "request.origin", f"Requests from {origin!r} are not taken.",
                "Open the village's own address in the browser; programs send no Origin.", field="Origin",
            )  # fmt: skip
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > limit:
            return _too_large(limit)
        return None


def same_origin(origin: str, host: str) -> bool:
    """Whether a page's origin is this very server."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _too_large(limit: int) -> TooLarge:
    return TooLarge("request.size", f"The body is larger than {limit:,} bytes.",
                    "Send less, or raise body_bytes in [api] of vivarium.toml.")  # fmt: skip


def _counted(receive: Receive, limit: int) -> Receive:
    """Count a body that comes without its length."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _too_large(limit)
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("Cache-Control", "no-store")
            headers.setdefault("X-Content-Type-Options", "nosniff")
            # Not no-referrer: with it a browser hides the origin of the login form, which is checked.
            headers.setdefault("Referrer-Policy", "same-origin")
        await send(message)

    return with_headers
