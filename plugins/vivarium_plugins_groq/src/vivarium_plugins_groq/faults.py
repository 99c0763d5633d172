"""The room of what goes wrong with Groq: each answer that is none becomes the error that says whose fault it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vivarium_kernel import Invalid, ProviderFault, VivariumError
from vivarium_plugins_groq.limits import retry_after_seconds

_TOO_LARGE = 413
_NO_CAPACITY = 498
_GONE = ("model_not_found", "model_decommissioned")
# The model wrote something that the server would not hand on: what was written has been paid for.
_BADLY_WRITTEN = ("tool_use_failed", "json_validate_failed", "output_parse_failed")


class NoSuchModel(Exception):
    """The server does not have the model; which it has is still to be asked."""


def of_status(status: int, headers: Mapping[str, str], body: bytes, key: str) -> VivariumError | NoSuchModel:
    """The error that an answer with this status is. No text in it holds the key."""
    code, said = _read(body)
    said = without(said, key)
    if code in _GONE:
        return NoSuchModel(said)
    told = f"Groq answered {status}" + (f": {said}" if said else "")
    if status == _TOO_LARGE:
        return Invalid("model.size", f"{told}.", "Ask for less: a shorter prompt, or a smaller models.max_tokens.")
    if status in (400, 422) and code not in _BADLY_WRITTEN:
        return Invalid("model.request", f"{told}.", "Change what the task asks for, or take another model.")
    return _fault(status, headers, told, code)


def _fault(status: int, headers: Mapping[str, str], told: str, code: str) -> ProviderFault:
    """What is not the task's fault. It has certainly cost nothing where the service turned the call away."""
    if status in (401, 403):
        return ProviderFault(f"{told}; see `vivarium key status groq`", started=False, kind="unauthorized")
    wait = retry_after_seconds(headers)
    if status in (429, _NO_CAPACITY, 503):
        started = status == 503 and not _turned_away(headers, told)
        return ProviderFault(
            told, started=started, kind="rate_limited" if status == 429 else "overloaded", retry_seconds=wait
        )
    if status >= 500:
        return ProviderFault(told, started=True, kind="server", retry_seconds=wait)
    if code in _BADLY_WRITTEN:
        return ProviderFault(told, started=True, kind="nonsense")
    if status < 400:
        return ProviderFault(f"{told}, which is no answer", started=False, kind="nonsense")
    return ProviderFault(f"{told}; is plugins.groq.base_url right?", started=False, kind="server")


def _turned_away(headers: Mapping[str, str], said: str) -> bool:
    """Whether a 503 certainly began nothing: it names a time to come back, or says that there was no room."""
    return "retry-after" in headers or "capacity" in said.lower() or "queue" in said.lower()


def of_connection(error: BaseException, key: str) -> ProviderFault:
    """The error that no answer is: only what failed before anything was sent has certainly cost nothing."""
    import httpx

    cause = error
    while cause.__cause__ is not None and not isinstance(cause, httpx.HTTPError):
        cause = cause.__cause__
    if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout):
        said = without(str(cause), key) or "no connection in time"
        return ProviderFault(f"Groq can't be reached: {said}", started=False, kind="connection")
    said = without(str(cause), key) or type(cause).__name__
    return ProviderFault(f"Groq gave no answer: {said}", started=True, kind="connection")


def without(text: str, key: str) -> str:
    """A text from outside, short and without the key: a server may repeat what it was sent."""
    return (text.replace(key, "[the key]") if key else text)[:300]


def _read(body: bytes) -> tuple[str, str]:
    """(code, message) of an error page; of one that is not as it should be, its beginning."""
    text = body.decode("utf-8", "replace")
    try:
        page: Any = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return "", " ".join(text.split())
    error = page.get("error") if isinstance(page, dict) else None
    if not isinstance(error, dict):
        return "", error if isinstance(error, str) else " ".join(text.split())
    return str(error.get("code") or error.get("type") or ""), str(error.get("message") or "")
