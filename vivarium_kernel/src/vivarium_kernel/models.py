"""The room of the models: what a provider implements, and the budgeted call around it.

A call is a step: its intent sets the worst case aside, its result settles what it cost (docs/rules.md,
"Money"). A model without a known price can't be called under a cap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from attrs import evolve, field, frozen

from vivarium_kernel.errors import Forbidden, Invalid, NotFound, VivariumError
from vivarium_kernel.meters import Meter
from vivarium_kernel.records import Effect, Entitlement, Section, Usage

if TYPE_CHECKING:
    from vivarium_kernel.cycle import Job

MOST_TOKENS = 10**12
BYTES_A_TOKEN = 4  # tokens are counted as UTF-8 bytes ÷ 4, rounded up, where no tokenizer is known


@frozen
class Price:
    """Millionths of ``usd`` for a million tokens read and a million written."""

    in_micros: int
    out_micros: int

    def of(self, tokens_in: int, tokens_out: int) -> int:
        """What so many tokens cost, rounded up to a whole millionth."""
        return math.ceil((tokens_in * self.in_micros + tokens_out * self.out_micros) / 1_000_000)


@frozen
class Request:
    """One call of a model. ``key`` is the step's own: a provider that knows it answers the same again."""

    model: str
    sections: Sequence[Section]
    max_tokens: int = 512
    timeout_seconds: float = 60.0
    priority: int = 0
    key: str = ""
    options: Mapping[str, Any] = field(factory=dict)

    @property
    def text(self) -> str:
        return "\n\n".join(section.text for section in self.sections)


@frozen
class Reply:
    """What a model answered, and what it used."""

    text: str
    usage: Usage
    tool_calls: Sequence[Mapping[str, Any]] = ()


class ProviderFault(VivariumError):
    """A call that failed through no fault of the task. ``started`` False is certain knowledge that it cost nothing."""

    def __init__(self, reason: str, *, started: bool) -> None:
        super().__init__("model.fault", reason, "It is tried again after a pause.")
        self.reason = reason
        self.started = started


class Provider(Protocol):
    """What a model provider implements; its name is the part before the colon in ``provider:model``."""

    name: str

    def price(self, model: str) -> Price | None:
        """What the model costs; ``Price(0, 0)`` is free, None is unknown. Raises NotFound for no such model."""
        ...

    async def complete(self, request: Request) -> Reply:
        """Answer; raises ProviderFault for whatever is not the task's fault."""
        ...


def count_tokens(text: str) -> int:
    """An upper estimate of a text's tokens where no tokenizer is known."""
    return -(-len(text.encode()) // BYTES_A_TOKEN)


def meter_of(entitlement: Entitlement, worst_tokens: int) -> Meter | None:
    """What limits a call; None if nothing does."""
    if entitlement.requests_per_minute is None and entitlement.tokens_per_day is None:
        return None
    return Meter(entitlement.requests_per_minute, entitlement.tokens_per_day, worst_tokens)


def split_name(name: str) -> tuple[str, str]:
    """``provider:model`` in its two parts; raises Invalid."""
    provider, colon, model = name.partition(":")
    if not colon or not provider or not model:
        raise Invalid("model.name", f"A model is named PROVIDER:MODEL, not {name!r}.", 'For example "scripted:echo".',
                      field="model")  # fmt: skip
    return provider, model


def check_entitled(name: str, entitlement: Entitlement) -> None:
    """Refuse a model that the resident may not use, naming those that it may."""
    if entitlement.models is not None and name not in entitlement.models:
        raise Forbidden(
            "model.entitlement",
            f"The resident may not use {name}.",
            f"It may use: {', '.join(entitlement.models) or 'none'}.",
        )


async def call(job: Job, request: Request) -> Reply:
    """Call a model within the job's budget; a call that a step already records is not made again.

    Raises OverBudget when the worst case doesn't fit, Forbidden without entitlement or price, ProviderFault.
    """
    provider_name, model = split_name(request.model)
    provider = job.provider(provider_name)
    entitlement = job.entitled()
    check_entitled(request.model, entitlement)
    price = provider.price(model)
    if price is None:
        raise Forbidden(
            "model.price",
            f"The price of {request.model} is not known, so it can't be called under a budget.",
            "Set its price, or choose a model with a known one.",
        )
    worst_in = count_tokens(request.text) + 16 * len(request.sections)
    worst = price.of(worst_in, request.max_tokens)
    aid_rate = entitlement.aid_micros_per_1k.get(request.model, 0)
    aid_worst = math.ceil((worst_in + request.max_tokens) * aid_rate / 1000)
    meter = meter_of(entitlement, worst_in + request.max_tokens)
    # A call that can cost nothing and counts towards no limit may simply be made again: it needs no intent.
    effect: Effect = "idempotent" if worst or aid_worst or meter is not None else "pure"
    recorded = await job.begin(
        "model",
        request.model,
        effect,
        {"max_tokens": request.max_tokens},
        worst_micros=worst,
        aid_micros=aid_worst,
        meter=meter,
    )
    if recorded is not None:
        return Reply(recorded["text"], Usage(*recorded["usage"]), recorded.get("tool_calls", ()))
    try:
        reply = await provider.complete(request)
    except ProviderFault as fault:
        if fault.started:
            job.end("unknown", {"fault": fault.reason}, spent_micros=worst)
        else:
            job.end("void", {"fault": fault.reason})
        raise
    usage = reply.usage
    if _can_be_true(usage):
        spent = price.of(usage.tokens_in, usage.tokens_out)
    else:
        job.distrust(provider_name, f"{request.model} reported {usage!r:.200}, which can't be true")
        usage, spent = Usage(), worst
        reply = evolve(reply, usage=usage)
    result: dict[str, Any] = {"text": reply.text, "usage": [usage.tokens_in, usage.tokens_out, usage.cached_tokens]}
    if reply.tool_calls:
        result["tool_calls"] = list(reply.tool_calls)
    if spent > worst:
        # More than the worst case was reported: it is charged the reservation, and the report is kept for people.
        result["reported_micros"] = spent
        job.distrust(provider_name, f"{request.model} reported {spent} millionths, {worst} were reserved")
    job.end(
        "done", result, spent_micros=min(spent, worst), tokens_in=usage.tokens_in, tokens_out=usage.tokens_out,
        aid_micros=math.ceil((usage.tokens_in + usage.tokens_out) * aid_rate / 1000),
    )  # fmt: skip
    return reply


def _can_be_true(usage: Usage) -> bool:
    numbers = (usage.tokens_in, usage.tokens_out, usage.cached_tokens)
    return all(type(number) is int and 0 <= number <= MOST_TOKENS for number in numbers)


def unknown_provider(name: str, known: Sequence[str]) -> VivariumError:
    return NotFound(
        "model.provider",
        f"There is no model provider {name!r}.",
        f"Installed are: {', '.join(sorted(known))}. Install the plugin that brings it.",
    )
