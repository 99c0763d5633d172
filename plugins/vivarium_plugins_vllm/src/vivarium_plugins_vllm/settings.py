"""The room of the settings: where the vLLM servers are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import Attribute, field, frozen
from attrs.validators import ge
from vivarium_plugins_openai.settings import is_address

DEFAULT_URL = "http://127.0.0.1:8000"


def _are_addresses(instance: Any, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    if not value:
        raise ValueError(f"must name a server, for example {DEFAULT_URL}")
    for url in value:
        is_address(instance, attribute, url)
    if len({root_of(url) for url in value}) != len(value):
        raise ValueError("must not name a server twice")


@frozen
class VLLMConfig:
    """``[plugins.vllm]`` of vivarium.toml."""

    servers: tuple[str, ...] = field(
        default=(DEFAULT_URL,),
        validator=_are_addresses,
        metadata={
            "doc": "The addresses of the servers behind `vllm:MODEL`. Each call goes to the one that has the model and "
            "the fewest calls under way; one that is down is left out and tried again later."
        },
    )
    scheduling_policy: Literal["", "priority", "fcfs"] = field(
        default="",
        metadata={
            "doc": "How the servers order their queues (`vllm serve --scheduling-policy`). Empty: as they say "
            "themselves, which most don't. Only `priority` serves richer residents first."
        },
    )
    connections: int = field(
        default=512, validator=ge(1), metadata={"doc": "The most calls of one server at a time; more wait their turn."}
    )
    extra_body: Mapping[str, Any] = field(
        factory=dict, metadata={"doc": "More fields of each request's body, such as `{ temperature = 0.2 }`."}
    )


def root_of(url: str) -> str:
    """A server's address without the ``/v1`` that belongs to its chat alone."""
    return url.rstrip("/").removesuffix("/v1")
