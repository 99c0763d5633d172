"""Promises that a real vLLM server keeps: a tiny model of random weights, so that all but its words is real."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from vivarium_plugins_vllm.provider import VLLMProvider

from vivarium_kernel import Invalid, ModelInfo, NotFound, ProviderFault, Tool

from .conftest import CONTEXT, SEQUENCES, RealServer
from .scene import made, request

pytestmark = pytest.mark.vllm
T = TypeVar("T")

WHERE = {"to": {"type": "string", "enum": ["market", "home"]}, "fast": {"type": "boolean"}}
WALK = Tool(
    "walk", "Walks.",
    {"type": "object", "properties": WHERE, "required": ["to", "fast"], "additionalProperties": False},
)  # fmt: skip
ANSWER = {
    "type": "object",
    "properties": {"verdict": {"type": "string", "enum": ["yes", "no"]}, "sure": {"type": "boolean"}},
    "required": ["verdict", "sure"],
    "additionalProperties": False,
}
LONG = {"timeout_seconds": 120.0}


def with_provider(server: RealServer, use: Callable[[VLLMProvider], Awaitable[T]], *more: str, **settings: Any) -> T:
    """What ``use`` makes of a provider for the server."""

    async def run() -> T:
        provider = made(*more, server.root, key=server.key, **settings)
        try:
            return await use(provider)
        finally:
            await provider.close()

    return asyncio.run(run())


def test_a_call_is_answered_and_counted(real_vllm: RealServer) -> None:
    reply = with_provider(real_vllm, lambda it: it.complete(request("Hello there.", max_tokens=8, **LONG)))
    assert reply.model == "tiny"
    assert reply.text
    assert reply.usage.tokens_in > 3 and 0 < reply.usage.tokens_out <= 8


def test_a_stream_brings_the_same_as_its_pieces(real_vllm: RealServer) -> None:
    heard: list[str] = []
    asked = request("Tell me.", max_tokens=24, say=heard.append, options={"ignore_eos": True}, **LONG)
    reply = with_provider(real_vllm, lambda it: it.complete(asked))
    assert len(heard) > 3
    assert "".join(heard) == reply.text
    assert (reply.usage.tokens_out, reply.finish) == (24, "length")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_strict_tool_call_fits_its_schema(real_vllm: RealServer, streamed: bool) -> None:
    asked = request(
        "Go.", max_tokens=400, tools=(WALK,), say=(lambda _: None) if streamed else None,
        options={"tool_choice": {"type": "function", "function": {"name": "walk"}}}, **LONG,
    )  # fmt: skip
    reply = with_provider(real_vllm, lambda it: it.complete(asked))
    assert reply.finish == "tool_calls"
    (call,) = reply.tool_calls
    assert call.id and call.name == "walk"
    arguments = json.loads(call.arguments, strict=False)
    assert arguments["to"] in ("market", "home") and type(arguments["fast"]) is bool


def test_a_guided_answer_fits_its_schema(real_vllm: RealServer) -> None:
    reply = with_provider(real_vllm, lambda it: it.complete(request("Well?", schema=ANSWER, max_tokens=200, **LONG)))
    answer = json.loads(reply.text, strict=False)
    assert answer["verdict"] in ("yes", "no") and type(answer["sure"]) is bool


def test_its_models_are_listed_as_they_are(real_vllm: RealServer) -> None:
    async def look(provider: VLLMProvider) -> dict[str, ModelInfo]:
        return {model.name: model for model in await provider.models()}

    models = with_provider(real_vllm, look)
    assert set(models) == {"tiny", "poet"}
    assert models["tiny"].context_tokens == models["poet"].context_tokens == CONTEXT
    assert models["tiny"].note == ""  # it says itself that it heeds priorities
    assert "adapter of tiny" in models["poet"].note
    assert (models["tiny"].running, models["tiny"].waiting) == (0, 0)


def test_an_adapter_answers_in_its_own_way(real_vllm: RealServer) -> None:
    async def both(provider: VLLMProvider) -> list[str]:
        asked = {"max_tokens": 24, "options": {"temperature": 0}, **LONG}
        return [
            (await provider.complete(request("Who are you?", f"vllm:{model}", **asked))).text
            for model in ("tiny", "poet")
        ]

    tiny, poet = with_provider(real_vllm, both)
    assert tiny != poet


def test_a_prompt_that_it_knows_comes_from_its_cache(real_vllm: RealServer) -> None:
    async def twice(provider: VLLMProvider) -> tuple[int, int, float | None]:
        asked = request("A promise is kept in the village of the residents. " * 60, max_tokens=2, **LONG)
        first, second = await provider.complete(asked), await provider.complete(asked)
        (info,) = [model for model in await provider.models() if model.name == "tiny"]
        assert first.usage.tokens_in == second.usage.tokens_in
        return second.usage.tokens_in, second.usage.cached_tokens, info.cached

    tokens, cached, part = with_provider(real_vllm, twice)
    assert cached >= 0.6 * tokens
    assert part is not None and 0 < part < 1


def test_an_answer_is_cut_to_the_context_and_a_prompt_that_does_not_fit_is_refused(real_vllm: RealServer) -> None:
    async def look(provider: VLLMProvider) -> None:
        prompt = "village " * 1000
        tokens = (await provider.complete(request(prompt, max_tokens=1, **LONG))).usage.tokens_in
        more = "village " * (1000 * (CONTEXT - 100) // tokens)
        asked = request(more, max_tokens=2000, options={"ignore_eos": True}, **LONG)
        reply = await provider.complete(asked)
        assert reply.finish == "length"
        assert reply.usage.tokens_in + reply.usage.tokens_out == CONTEXT
        with pytest.raises(Invalid):
            await provider.complete(request(more * 2, **LONG))

    with_provider(real_vllm, look)


def test_what_is_not_there_and_a_wrong_key_are_told(real_vllm: RealServer) -> None:
    with pytest.raises(NotFound, match="poet, tiny"):
        with_provider(real_vllm, lambda it: it.complete(request(model="vllm:huge")))
    wrong = "wrong-key-0123456789"
    with pytest.raises(ProviderFault) as caught:
        with_provider(RealServer(real_vllm.root, wrong), lambda it: it.complete(request()))
    assert (caught.value.kind, caught.value.started) == ("unauthorized", False)
    assert wrong not in str(caught.value)


def test_a_dead_server_before_it_is_skipped(real_vllm: RealServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        reply = with_provider(real_vllm, lambda it: it.complete(request(max_tokens=4, **LONG)), dead)
    assert reply.model == "tiny"


POOR, RICH = 16, 4
HOLDING = 100  # ahead of everyone


@pytest.mark.parametrize("priority", [10, 0], ids=["rich", "as poor"])
def test_under_load_a_rich_residents_requests_finish_ahead_of_a_poor_ones(real_vllm: RealServer, priority: int) -> None:
    """Others hold the server while sixteen of a poor resident's requests come to wait and then four of a rich one's,
    so that no clock but the server's own order decides: with a higher priority the rich one's are answered before all
    the poor one's, without it after them."""

    async def race(provider: VLLMProvider) -> list[str]:
        done: list[str] = []

        async def one(who: str, number: int, priority: int) -> None:
            await provider.complete(request(f"{who} {number}", max_tokens=100, priority=priority, **LONG))
            done.append(who)

        async def hold(number: int) -> None:
            while True:
                await provider.complete(request(f"hold {number}", max_tokens=CONTEXT, priority=HOLDING, **LONG))

        async def queued(running: int, waiting: int) -> None:
            seen: tuple[int | None, int | None] | None = None
            while seen != (running, waiting):
                await asyncio.sleep(0.05)
                seen = next((m.running, m.waiting) for m in await provider.models() if m.name == "tiny")

        async with asyncio.timeout(LONG["timeout_seconds"]), asyncio.TaskGroup() as group:
            # Twice as many as run at once: where one ends, another that holds is the next.
            holding = [group.create_task(hold(number)) for number in range(2 * SEQUENCES)]
            await queued(SEQUENCES, SEQUENCES)
            poor = [group.create_task(one("poor", number, 0)) for number in range(POOR)]
            await queued(SEQUENCES, SEQUENCES + POOR)
            rich = [group.create_task(one("rich", number, priority)) for number in range(RICH)]
            await queued(SEQUENCES, SEQUENCES + POOR + RICH)
            for task in holding:
                task.cancel()
            await asyncio.gather(*poor, *rich)
        return done

    done = with_provider(real_vllm, race, extra_body={"ignore_eos": True})
    first = done[:RICH] if priority else done[-RICH:]
    # As many run at once as the server has sequences, so of two that run together either may be heard of first.
    assert first.count("rich") >= RICH - SEQUENCES + 1, done
