"""The room of the faults: what a bad answer or none means, and whether it may have cost something.

All of it is pure. No text that is made here holds a key: what a server or a library said is cut and scrubbed.
"""

from __future__ import annotations

import json
import math
import os
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from vivarium_kernel import Invalid, ProviderFault, VivariumError

if TYPE_CHECKING:
    from vivarium_kernel.models import FaultKind

MOST_CHARACTERS = 300  # of what a server says, in a message
LONGEST_WAIT_SECONDS = 3600.0
FULL = ("queue", "overload", "capacity", "loading", "busy", "too many", "try again")


def of_status(status: int, headers: Mapping[str, str], body: object, who: str, key: str | None) -> VivariumError:
    """The error for an HTTP status that is no answer. ``who`` names the server, ``key`` must not be in the text."""
    words = scrub(said(body), key)
    told = f"{who} answered {status}" + (f": {words}" if words else "")
    wait = retry_seconds(headers)
    if status in (401, 402, 403):
        return ProviderFault(told, started=False, kind="unauthorized", retry_seconds=wait)
    if status in (425, 429):
        return ProviderFault(told, started=False, kind="rate_limited", retry_seconds=wait)
    if status in (400, 413, 415, 422):
        return Invalid("model.request", told, "Change the task or the server's settings: it will never take this.")
    if status in (408, 504):
        return ProviderFault(told, started=True, kind="timeout", retry_seconds=wait)
    if status in (498, 503, 529):
        # A server that says that it is full began nothing; any other 503 may come from a proxy before one that did.
        full = status == 498 or wait is not None or any(word in words.lower() for word in FULL)
        return ProviderFault(told, started=not full, kind="overloaded", retry_seconds=wait)
    if 300 <= status < 400:
        told += f", to {scrub(headers.get('location', 'nowhere'), key)[:MOST_CHARACTERS]}: base_url is not its address"
    return ProviderFault(told, started=status >= 500, kind="server", retry_seconds=wait)


def of_exception(error: BaseException, who: str, key: str | None, *, reading: bool) -> ProviderFault:
    """The fault for a call that brought no status, or broke off. ``reading`` says that its answer had begun.

    The SDK's aiohttp client calls nearly everything a timeout, so this goes by what was raised first.
    """
    import aiohttp

    raised = list(_chain(error))
    lost: tuple[str, bool, FaultKind] = ("closed the connection", True, "connection")
    cut: tuple[str, bool, FaultKind] = ("broke off its answer", True, "cut")
    causes: tuple[tuple[tuple[type[BaseException], ...], str, bool, FaultKind], ...] = (
        ((ssl.SSLError, ssl.CertificateError), "has no certificate that holds", False, "connection"),
        ((aiohttp.ConnectionTimeoutError,), "takes no connection", False, "connection"),
        ((aiohttp.ClientConnectorError,), "can't be reached", False, "connection"),
        ((TimeoutError,), "said nothing for too long", True, "timeout"),
        ((json.JSONDecodeError, UnicodeDecodeError), "answered what is not JSON", True, "nonsense"),
        ((aiohttp.ClientPayloadError,), *cut),
        ((aiohttp.ClientResponseError,), "answered what is not HTTP", True, "nonsense"),
        ((BaseException,), *(cut if reading else lost)),
    )
    found, words, started, kind = next(
        (each, words, started, kind)
        for kinds, words, started, kind in causes
        for each in reversed(raised)
        if isinstance(each, kinds)
    )
    said = str(found) or type(found).__name__
    system = getattr(found, "os_error", None)
    if isinstance(system, ConnectionError) and system.errno:
        said = os.strerror(system.errno)  # aiohttp's own words name the host again, and more
    return ProviderFault(f"{who} {words}: {scrub(said, key)}", started=started, kind=kind)


def retry_seconds(headers: Mapping[str, str]) -> float | None:
    """How long a server asks to wait; None if it does not say, or says what can't be."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
            except (ValueError, TypeError):
                continue
        if not math.isnan(seconds):
            return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)
    return None


def said(body: object) -> str:
    """What an error's body says, in its own words: servers put them in different places."""
    if isinstance(body, (str, bytes)):
        text = body.decode(errors="replace") if isinstance(body, bytes) else body
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            return " ".join(text.split())
        if not isinstance(body, Mapping):
            return " ".join(text.split())
    if isinstance(body, Mapping):
        for name in ("message", "error", "detail"):
            if body.get(name):
                return said(body[name])
    return "" if body is None else str(body)


def scrub(text: str, key: str | None) -> str:
    """A text without the key, and no longer than a message wants."""
    if key:
        text = text.replace(key, "…")
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it came from, the last raised first."""
    at: BaseException | None = error
    seen: set[int] = set()
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def is_unknown_model(status: int, body: Any) -> bool:
    """Whether a status may mean that the server does not have the model."""
    return status == 404 or (status == 400 and "model_not_found" in str(body))
