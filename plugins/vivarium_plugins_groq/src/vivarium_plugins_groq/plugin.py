"""The room of Groq's settings: where the service is, and how many calls may be under way at once."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from attrs import Attribute, field, frozen
from attrs.validators import ge, le
from vivarium_kernel.clock import SimulatedLoop

from vivarium_kernel import Plugin, hookimpl

HOME = "https://api.groq.com"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _address(_: Any, __: Attribute[str], value: str) -> None:
    """An address that the key may be sent to: over TLS, or without it to this machine alone."""
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f'must be an address such as "{HOME}"') from None
    if not host or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f'must be an address such as "{HOME}", without a name, a query or a fragment')
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise ValueError("must begin with https://; http:// would show the key to the network, save on 127.0.0.1")


@frozen
class GroqConfig:
    """``[plugins.groq]`` of vivarium.toml. The key is no setting: ``vivarium key set groq``."""

    base_url: str = field(
        default=HOME,
        validator=_address,
        metadata={"doc": "Where the service is; /openai/v1/… is appended. https, or http on this machine."},
    )
    connections: int = field(
        default=512,
        validator=[ge(1), le(10_000)],
        metadata={"doc": "The most calls that are under way at once; further ones wait for their turn."},
    )


class Groq(Plugin):
    """The models of Groq, as ``groq:NAME``."""

    name = "groq"
    Config = GroqConfig

    @hookimpl
    async def startup(self) -> None:
        """Import the tables of prices in a thread: the first call asks for them on the loop, and all would wait."""
        if not isinstance(asyncio.get_running_loop(), SimulatedLoop):  # no thread can wake a simulation
            await asyncio.to_thread(import_module, "genai_prices.data")
