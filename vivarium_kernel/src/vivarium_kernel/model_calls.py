"""The room of the budgeted call: one call of a model as a step of an attempt.

Its intent sets the worst case aside, its result settles what it cost (docs/rules.md, "Money"). A model without a known
price can't be called under a cap; one whose provider fails again and again is left alone for a while.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from attrs import evolve, frozen

from vivarium_kernel import routing
from vivarium_kernel.errors import Forbidden, VivariumError
from vivarium_kernel.health import describe, where
from vivarium_kernel.meters import Meter
from vivarium_kernel.models import (
    BYTES_A_TOKEN,
    MESSAGE_TOKENS,
    Price,
    Provider,
    ProviderFault,
    Reply,
    Request,
    Tool,
    ToolCall,
    split_name,
)
from vivarium_kernel.records import Entitlement, Usage
from vivarium_kernel.terms import Effect

if TYPE_CHECKING:
    from vivarium_kernel.jobs import Job

MOST_TOKENS = 10**12
UNLOCKED_BYTES = 2_047
_encode = msgspec.json.Encoder().encode


@frozen
class _Terms:
    """What one call may use and cost, settled before it is made."""

    price: Price
    worst_micros: int
    aid_rate: int
    aid_worst_micros: int
    meter: Meter | None
    prompt: str

    @property
    def effect(self) -> Effect:
        """A call that can cost nothing and counts towards no limit may simply be made again: it needs no intent."""
        costs = self.worst_micros or self.aid_worst_micros or self.meter is not None
        return "idempotent" if costs else "pure"


async def call(job: Job, request: Request) -> Reply:
    """Call a model within the job's budget; a call that a step already records is not made again.

    Raises OverBudget when the worst case doesn't fit, RateLimited at a limit, Forbidden without entitlement or price,
    ProviderFault, and what a provider raises for a request that it will never take.
    """
    provider_name, model = split_name(request.model)
    entitlement = job.entitled()
    routing.check(request.model, entitlement, job.models)
    try:
        provider = job.provider(provider_name)
        its_price = provider.price(model)
    except VivariumError:
        raise
    except Exception as error:
        raise ProviderFault(_broken(request.model, error), started=False) from error
    price = routing.price_of(request.model, its_price, job.models)
    terms = _terms(request, price, entitlement)
    recorded = await job.begin(
        "model",
        request.model,
        terms.effect,
        {"max_tokens": request.max_tokens, "prompt": terms.prompt},
        worst_micros=terms.worst_micros,
        aid_micros=terms.aid_worst_micros,
        meter=terms.meter,
    )
    if recorded is not None:
        return _again(recorded)
    began = job.now()
    reply = await _answered(job, request, provider, terms)
    return _record(job, request, reply, terms, job.now() - began)


def _terms(request: Request, price: Price | None, entitlement: Entitlement) -> _Terms:
    if price is None:
        raise Forbidden(
            "model.price",
            f"The price of {request.model} is not known, so it can't be called under a budget.",
            "Set it in vivarium.toml under [models.prices], or choose a model with a known one.",
        )
    said = _said(request)
    size = len(said) + sum([tool.size for tool in request.tools])
    likely = -(-size // BYTES_A_TOKEN) + MESSAGE_TOKENS * len(request.messages)
    # A token of any tokenizer is a byte at least: money goes by that, for a cap must hold whatever the text is.
    most = size + MESSAGE_TOKENS * (len(request.messages) + len(request.tools) + 1)
    rate = entitlement.aid_micros_per_1k.get(request.model, 0)
    return _Terms(
        price,
        0 if price.is_free else price.worst(most, request.max_tokens, request.timeout_seconds),
        rate,
        math.ceil((likely + request.max_tokens) * rate / 1000),
        meter_of(entitlement, likely + request.max_tokens),
        _hash(said, request.tools),
    )


async def _answered(job: Job, request: Request, provider: Provider, terms: _Terms) -> Reply:
    """The provider's answer, in time; whatever it is instead ends the step, and the model's breaker hears of it."""
    circuit = job.circuit(request.model)
    wait = circuit.wait_seconds(job.now())
    if wait:
        reason = f"{request.model} failed {circuit.failures} times in a row and is left alone: {circuit.reason}"
        job.end("void", {"fault": reason, "kind": "open"}, prompt=terms.prompt)
        raise ProviderFault(reason, started=False, kind="open", retry_seconds=wait)
    try:
        reply = await _in_time(provider, request if request.key else evolve(request, key=job.step_key(job.number)))
    except ProviderFault as fault:
        state, spent, aid = ("unknown", terms.worst_micros, terms.aid_worst_micros) if fault.started else ("void", 0, 0)
        job.end(
            state, {"fault": fault.reason, "kind": fault.kind}, spent_micros=spent, aid_micros=aid, prompt=terms.prompt
        )  # fmt: skip
        if fault.kind == "unauthorized":
            circuit.undecided()  # no key, or a wrong one, is nothing that time mends: the task waits for people
        elif circuit.failed(job.now(), fault.reason):
            job.note_circuit(request.model, fault.reason)
        raise
    except VivariumError as error:  # the request is one that this provider will never take: it cost nothing
        circuit.undecided()
        job.end("void", {"fault": error.message, "kind": error.rule}, prompt=terms.prompt)
        raise
    except BaseException:
        circuit.undecided()
        raise
    if circuit.went_well():
        job.note_circuit(request.model, "")
    return reply


async def _in_time(provider: Provider, request: Request) -> Reply:
    try:
        async with asyncio.timeout(request.timeout_seconds):
            reply = await provider.complete(request)
    except TimeoutError:
        said = f"{request.model} did not answer within {request.timeout_seconds:g} s"
        raise ProviderFault(said, started=True, kind="timeout") from None
    except VivariumError:
        raise
    except Exception as error:  # a fault of the provider's own code, and not of the plugin that asks it
        raise ProviderFault(_broken(request.model, error), started=True) from error
    if not (isinstance(reply, Reply) and isinstance(reply.text, str) and isinstance(reply.usage, Usage)):
        raise ProviderFault(f"the provider of {request.model} answered no sound Reply: {reply!r:.200}", started=True)
    return reply


def _broken(model: str, error: Exception) -> str:
    at = where(error)
    return f"the provider of {model} failed: {describe(error)}" + (f" ({at})" if at else "")


def _record(job: Job, request: Request, reply: Reply, terms: _Terms, seconds: float) -> Reply:
    """Settle a call by what its provider reports, at most what was reserved; a report that can't be true costs that."""
    provider, model = split_name(request.model)
    usage = reply.usage
    if _can_be_true(usage):
        spent = terms.price.of(usage.tokens_in, usage.tokens_out, usage.cached_tokens, seconds)
    else:
        job.distrust(provider, f"{request.model} reported {usage!r:.200}, which can't be true")
        usage, spent = Usage(), terms.worst_micros
        reply = evolve(reply, usage=usage)
    result: dict[str, Any] = {"text": reply.text, "usage": [usage.tokens_in, usage.tokens_out, usage.cached_tokens]}
    if reply.tool_calls:
        result["tool_calls"] = [attrs.asdict(each) for each in reply.tool_calls]
    if reply.finish != "stop":
        result["finish"] = reply.finish
    if reply.model and reply.model != model:
        result["model"] = reply.model
    if spent > terms.worst_micros:
        # More than the worst case was reported: it is charged the reservation, and the report is kept for people.
        result["reported_micros"] = spent
        job.distrust(provider, f"{request.model} reported {spent} millionths, {terms.worst_micros} were reserved")
    hidden = None
    private = {tool.name for tool in request.tools if tool.private}
    if any(each.name in private for each in reply.tool_calls):
        # What the model wrote for a private tool is nobody's to read: the record keeps that it was used.
        hidden = result
        result = {"usage": result["usage"], "text": "", "private": [each.name for each in reply.tool_calls]}
    aid_micros = math.ceil((usage.tokens_in + usage.tokens_out) * terms.aid_rate / 1000)
    job.end(
        "done", result, hidden=hidden, spent_micros=min(spent, terms.worst_micros), tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out, aid_micros=aid_micros, prompt=terms.prompt,
    )  # fmt: skip
    return reply


def meter_of(entitlement: Entitlement, worst_tokens: int) -> Meter | None:
    """What limits a call; None if nothing does."""
    limits = (entitlement.requests_per_minute, entitlement.tokens_per_day, entitlement.concurrency)
    return None if limits == (None, None, None) else Meter(*limits, worst_tokens=worst_tokens)


def _said(request: Request) -> bytes:
    """All that is sent beside the tools, as the model reads it."""
    schema = _encode(request.schema) if request.schema is not None else b""
    calls = "".join([call.name + call.arguments for message in request.messages for call in message.tool_calls])
    return b"%b%b%b" % (request.text.encode(), schema, calls.encode())


def _hash(said: bytes, tools: Sequence[Tool]) -> str:
    """What one prompt is told from another by, in the log."""
    found = sha256(b"".join([tool.digest for tool in tools[:32]]))
    for tool in tools[32:]:
        found.update(tool.digest)
    # In pieces for which hashlib keeps the interpreter's lock: to give it up and get it back takes ten times as long.
    for start in range(0, len(said), UNLOCKED_BYTES):
        found.update(said[start : start + UNLOCKED_BYTES])
    return found.hexdigest()[:16]


def _again(recorded: dict[str, Any]) -> Reply:
    calls = [ToolCall(**each) for each in recorded.get("tool_calls", ())]
    return Reply(
        recorded["text"], Usage(*recorded["usage"]), calls, recorded.get("finish", "stop"), recorded.get("model", "")
    )


def _can_be_true(usage: Usage) -> bool:
    for number in (usage.tokens_in, usage.tokens_out, usage.cached_tokens):
        if type(number) is not int or not 0 <= number <= MOST_TOKENS:
            return False
    return usage.cached_tokens <= usage.tokens_in
