"""The room of the models: what is asked of a model, what it answers, and what a model provider implements.

The budgeted call around a provider is in ``model_calls``, the choice of a model in ``routing``, the loop of thought in
``thinking``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import msgspec
from attrs import field, frozen

from vivarium_kernel.errors import Invalid, NotFound, VivariumError
from vivarium_kernel.problems import near
from vivarium_kernel.records import Usage

C = TypeVar("C")
BYTES_A_TOKEN = 4  # tokens are counted as UTF-8 bytes ÷ 4, rounded up, where no tokenizer is known
PUBLISHED = ("groq", "openai", "vllm")  # providers that plugins of this project bring
MESSAGE_TOKENS = 16  # what a chat template puts around a message, at the most

FaultKind = Literal[
    "unauthorized",  # 401, 403: the key is missing, wrong or may not do this
    "rate_limited",  # 429: too much, too fast
    "overloaded",  # 503, 498, a full queue
    "server",  # any other 5xx
    "connection",  # refused, reset before an answer, a name that can't be resolved, a certificate that is wrong
    "timeout",  # no answer in time
    "cut",  # the answer broke off
    "nonsense",  # an answer that is none: not JSON, no choice, nothing at all
    "open",  # the circuit breaker let nothing through
]


@frozen
class Price:
    """Millionths of ``usd`` for a million tokens read and a million written, and for a second of local compute.

    ``cached_micros`` is the price of a million tokens that the server had read before; None: as any others.
    """

    in_micros: int
    out_micros: int
    cached_micros: int | None = None
    second_micros: int = 0

    def of(self, tokens_in: int, tokens_out: int, cached_tokens: int = 0, seconds: float = 0.0) -> int:
        """What a call cost, rounded up to a whole millionth. ``cached_tokens`` are among ``tokens_in``."""
        cached = self.in_micros if self.cached_micros is None else self.cached_micros
        fresh = tokens_in - cached_tokens
        tokens = fresh * self.in_micros + cached_tokens * cached + tokens_out * self.out_micros
        return -(-tokens // 1_000_000) + math.ceil(seconds * self.second_micros)

    def worst(self, tokens_in: int, tokens_out: int, seconds: float) -> int:
        """The most that a call of so many tokens and seconds can cost."""
        return max(
            self.of(tokens_in, tokens_out, 0, seconds), self.of(tokens_in, tokens_out, tokens_in, seconds)
        )  # a server may charge more for what it keeps

    @property
    def is_free(self) -> bool:
        return not (self.in_micros or self.out_micros or self.cached_micros or self.second_micros)


@frozen
class ToolCall:
    """A tool that the model wants used. ``arguments`` is JSON text as the model wrote it, which may be malformed."""

    id: str
    name: str
    arguments: str = "{}"


@frozen
class Message:
    """One message of a conversation. ``answers`` is the id of the tool call that a ``tool`` message answers."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    tool_calls: Sequence[ToolCall] = ()
    answers: str = ""


@frozen
class Tool:
    """A tool that a model may use. ``parameters`` is the JSON Schema of its arguments; names have no dots.

    ``private`` is one whose arguments only the resident may see. ``size`` is that of all of it as JSON, in bytes;
    ``digest`` tells it from another.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    private: bool = False
    size: int = field(init=False, repr=False)
    digest: bytes = field(init=False, repr=False)

    @size.default
    def _size(self) -> int:
        return len(self._text())

    @digest.default
    def _digest(self) -> bytes:
        return sha256(self._text()).digest()

    def _text(self) -> bytes:
        return msgspec.json.encode([self.name, self.description, self.parameters])


@frozen
class Request:
    """One call of a model.

    ``model`` is ``PROVIDER:NAME``. ``schema`` is a JSON Schema that the answer must fit, ``key`` the step's own, the
    same when it is made again. A higher ``priority`` is served sooner. With ``say`` the provider
    streams, and hands on each piece of text as it comes.
    """

    model: str
    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 512
    timeout_seconds: float = 60.0
    priority: int = 0
    key: str = ""
    say: Callable[[str], None] | None = field(default=None, eq=False, repr=False)
    options: Mapping[str, Any] = field(factory=dict)

    @property
    def name(self) -> str:
        """The model's name at its provider."""
        return self.model.partition(":")[2]

    @property
    def text(self) -> str:
        """All that is said in the messages."""
        return "\n\n".join([message.text for message in self.messages if message.text])


@frozen
class Reply:
    """What a model answered, and what it used.

    ``finish`` says why it ended: it had said all (``stop``), wants tools used (``tool_calls``), or ran into
    ``max_tokens`` (``length``). ``model`` is who answered, by the provider's own word.
    """

    text: str
    usage: Usage
    tool_calls: Sequence[ToolCall] = ()
    finish: Literal["stop", "tool_calls", "length"] = "stop"
    model: str = ""


class ProviderFault(VivariumError):
    """A call that failed through no fault of the task: it is tried again after a pause, uncounted.

    ``started`` False is certain knowledge that it cost nothing. ``retry_seconds`` is how long the server asks to wait.
    """

    def __init__(
        self, reason: str, *, started: bool, kind: FaultKind = "server", retry_seconds: float | None = None
    ) -> None:
        super().__init__("model.fault", reason, "It is tried again after a pause.")
        self.reason = reason
        self.started = started
        self.kind: FaultKind = kind
        self.retry_seconds = retry_seconds


@frozen
class ModelInfo:
    """A model that a provider serves now; None is not known. ``cached`` is the part of prompt tokens from its cache."""

    name: str
    context_tokens: int | None = None
    running: int | None = None
    waiting: int | None = None
    cached: float | None = None
    note: str = ""


class Provider(Protocol):
    """What a model provider implements; its name is the part before the colon in ``provider:model``.

    Its entry point (group ``vivarium.models``) is a function that is given a :class:`Place` and makes it.
    """

    name: str

    def price(self, model: str) -> Price | None:
        """What the model costs; ``Price(0, 0)`` is free, None is unknown. Raises NotFound for no such model."""
        ...

    async def complete(self, request: Request) -> Reply:
        """Answer within ``request.timeout_seconds``.

        Raises ProviderFault for whatever is not the task's fault; NotFound, naming those that there are, for a model
        that the server does not have; Invalid for a request that it will never take.
        """
        ...


@runtime_checkable
class Catalog(Protocol):
    """A provider that can tell which models it serves."""

    async def models(self) -> Sequence[ModelInfo]:
        """The models that the server has now. Raises ProviderFault."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A provider that holds connections: it is closed when the process that used it ends."""

    async def close(self) -> None: ...


class Place(Protocol):
    """What a provider is handed: the village, or a worker's folder on another machine."""

    folder: Path
    environ: Mapping[str, str]

    def config(self, name: str, cls: type[C]) -> C:
        """The settings below ``[plugins.NAME]`` as ``cls``. Raises InputError with every problem at its path."""
        ...

    def key(self, name: str) -> str | None:
        """The API key of a provider as it is now (``vivarium key set``), or None. Ask at each call, keep it nowhere."""
        ...


def count_tokens(text: str) -> int:
    """An upper estimate of a text's tokens where no tokenizer is known."""
    return -(-len(text.encode()) // BYTES_A_TOKEN)


def split_name(name: str) -> tuple[str, str]:
    """``provider:model`` in its two parts; raises Invalid."""
    provider, colon, model = name.partition(":")
    if not colon or not provider or not model:
        raise Invalid("model.name", f"A model is named PROVIDER:MODEL, not {name!r}.", 'For example "scripted:echo".',
                      field="model")  # fmt: skip
    return provider, model


def unknown_provider(name: str, known: Sequence[str]) -> VivariumError:
    return NotFound(
        "model.provider",
        f"There is no model provider {name!r}.",
        f"Installed are: {', '.join(sorted(known))}. {how_to_get(name, known)}",
    )


def how_to_get(provider: str, known: Iterable[str] = ()) -> str:
    """How to come by a provider that is not installed; of names that are not ours none is made up to be installed."""
    if provider in PUBLISHED:
        return (
            f"Install it: vivarium plugins install vivarium-plugins-{provider} "
            f"(in a clone: ./plugins/vivarium_plugins_{provider})."
        )
    meant = near(provider, [*known, *PUBLISHED])
    return f"Did you mean {meant}?" if meant else "Install the plugin that brings it, or name another model."
