"""The room of the settings: a server's address, the name of its key, and how it differs from others, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from attrs import Attribute, evolve, field, frozen
from attrs.validators import ge

OPENAI_URL = "https://api.openai.com/v1"


def is_address(_: Any, __: Attribute[str], value: str) -> None:
    """Refuse what is no address of a server, or holds a password, which messages and logs would then show."""
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError as error:
        raise ValueError(f"must be the address of a server: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as http://127.0.0.1:8080/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or a password: keys are set with `vivarium key set`")
    if parts.query or parts.fragment:
        raise ValueError("must end with its path")


@frozen
class Server:
    """One server, as ``[plugins.openai.servers.NAME]`` describes it."""

    base_url: str = field(validator=is_address, metadata={"doc": "Its address, to the end of `/v1`."})
    key: str = field(
        default="",
        metadata={"doc": "The name under which its key is kept (`vivarium key set NAME`); the server's own if empty."},
    )
    keyless: bool = field(
        default=False, metadata={"doc": "Whether it can do without a key. A key that is set is sent all the same."}
    )
    prices: str = field(
        default="",
        metadata={
            "doc": "Where its prices are from: `free`, or a provider's id at genai-prices (`openai`, `openrouter`, …). "
            "Empty: not known, so that they have to be set under `[models.prices]`."
        },
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = field(
        default="max_tokens", metadata={"doc": "What it calls the most tokens of an answer."}
    )
    strict_tools: Literal["no", "fitting", "all"] = field(
        default="no",
        metadata={
            "doc": "Which tools are sent with `strict`: none, those whose schema names every property as required and "
            "allows no other, or all."
        },
    )
    schemas: Literal["json_schema", "json_object", "prompt"] = field(
        default="json_schema",
        metadata={
            "doc": "How it is told the JSON Schema of an answer: by `response_format`, by `json_object` and words in "
            "the prompt, or by words alone."
        },
    )
    streams: bool = field(default=True, metadata={"doc": "Whether it streams answers, also those with tool calls."})
    stream_usage: bool = field(
        default=True, metadata={"doc": "Whether it takes `stream_options` with `include_usage`."}
    )
    headers: Mapping[str, str] = field(factory=dict, metadata={"doc": "More headers of each request. No key in here."})
    extra_body: Mapping[str, Any] = field(
        factory=dict, metadata={"doc": "More fields of each request's body, such as `{ temperature = 0.2 }`."}
    )

    def kept_as(self, name: str) -> Server:
        """The same server, whose key is kept under ``name`` unless it says another."""
        return self if self.key else evolve(self, key=name)


def openai_itself(base_url: str = OPENAI_URL) -> Server:
    """A server that does everything as OpenAI does."""
    return Server(base_url, "openai", prices="openai", max_tokens_field="max_completion_tokens", strict_tools="fitting")


@frozen
class OpenAIConfig:
    """``[plugins.openai]`` of vivarium.toml."""

    base_url: str = field(
        default=OPENAI_URL,
        validator=is_address,
        metadata={"doc": "Where `openai:MODEL` is, a server that does all as OpenAI does."},
    )
    default: str = field(
        default="", metadata={"doc": "The one of `servers` that `openai:MODEL` means in place of `base_url`."}
    )
    connections: int = field(
        default=512, validator=ge(1), metadata={"doc": "The most calls of one server at a time; more wait their turn."}
    )
    servers: Mapping[str, Server] = field(
        factory=dict,
        metadata={
            "doc": "Other servers by name: `[plugins.openai.servers.NAME]`. Their models are `openai:NAME/MODEL`."
        },
    )

    @servers.validator
    def _has_default(self, _: Attribute[Any], value: Mapping[str, Server]) -> None:
        if self.default and self.default not in value:
            raise ValueError(f"must have the server {self.default!r} that `default` names")
        for name in value:
            if not name or "/" in name:
                raise ValueError(f"names a server {name!r}: a name is not empty and has no slash")

    def server(self, model: str) -> tuple[str, str, Server]:
        """Whose model ``NAME/MODEL`` or ``MODEL`` is: the server's name (empty for the default one), the model's own
        name, and the server."""
        name, slash, rest = model.partition("/")
        if slash and name in self.servers:
            return name, rest, self.servers[name].kept_as(name)
        if self.default:
            return "", model, self.servers[self.default].kept_as(self.default)
        return "", model, openai_itself(self.base_url)
