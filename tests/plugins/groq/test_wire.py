"""Promises about calls of Groq: what is sent, what comes back, whole and in pieces, and what it costs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import genai_prices.data
import pytest
from vivarium_kernel.inputs import InputError
from vivarium_plugins_groq import plugin
from vivarium_plugins_groq.plugin import GroqConfig
from vivarium_plugins_groq.prices import price_of

from vivarium_kernel import Invalid, Message, ModelInfo, Price, Tool, ToolCall, Usage

from .service import KEY, MODEL, Answer, Got, Somewhere, chunk, completion, groq, listing, ok, request, stream

WEATHER = Tool("weather", "How it is outside.", {"type": "object", "properties": {"town": {"type": "string"}}})
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_a_call_is_sent_as_the_service_takes_it_and_its_answer_is_a_reply() -> None:
    messages = (
        Message("system", "Be short."),
        Message("user", "How is it?"),
        Message("assistant", "", (ToolCall("c1", "weather", '{"town": "Ulm"}'),)),
        Message("tool", "rain", answers="c1"),
    )

    async def go() -> None:
        usage = {"prompt_tokens": 40, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 32}}
        async with groq(ok(completion("Wet.", usage=usage))) as (provider, service, _):
            reply = await provider.complete(
                request(messages=messages, tools=(WEATHER,), max_tokens=77, options={"temperature": 0})
            )
            assert (reply.text, reply.finish, reply.model) == ("Wet.", "stop", MODEL)
            assert reply.usage == Usage(40, 3, 32)
            (got,) = service.got
            assert got.path == "/openai/v1/chat/completions"
            assert got.headers["authorization"] == f"Bearer {KEY}"
            assert got.body["model"] == MODEL
            assert (got.body["max_completion_tokens"], got.body["stream"], got.body["temperature"]) == (77, False, 0)
            assert got.body["messages"][2]["tool_calls"][0]["function"] == {
                "name": "weather", "arguments": '{"town": "Ulm"}',
            }  # fmt: skip
            assert got.body["messages"][3] == {"role": "tool", "tool_call_id": "c1", "content": "rain"}
            assert got.body["tools"][0]["function"]["parameters"] == WEATHER.parameters

    asyncio.run(go())


def test_an_answer_is_streamed_piece_by_piece_with_its_usage_in_the_last() -> None:
    heard: list[str] = []
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    pieces = [
        chunk({"role": "assistant", "content": ""}, x_groq={"id": "r"}), chunk({"content": "Hel"}),
        chunk({"content": "lo\u2028\x1c."}), chunk({}, finish="stop", x_groq={"id": "r", "usage": usage}),
    ]  # fmt: skip

    async def go() -> None:
        async with groq(stream(pieces)) as (provider, service, _):
            reply = await provider.complete(request(say=heard.append))
            assert heard == ["Hel", "lo\u2028\x1c."]
            assert (reply.text, reply.usage) == ("Hello\u2028\x1c.", Usage(9, 2, 4))
            assert service.got[0].body["stream"] is True

    asyncio.run(go())


def test_calls_of_tools_come_whole_and_in_pieces() -> None:
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "weather", "arguments": f'{{"n": {n}}}'}}
        for n in range(10)
    ]
    pieces = [chunk({"tool_calls": [{"index": n, **call}]}) for n, call in enumerate(calls[:2])]
    pieces += [
        chunk({"tool_calls": [{"index": 2, "id": "c2", "function": {"name": "weather", "arguments": '{"n"'}}]}),
        chunk({"tool_calls": [{"index": 2, "function": {"arguments": ": 2}"}}]}),
        chunk({}, finish="tool_calls", x_groq={"usage": {"prompt_tokens": 9, "completion_tokens": 2}}),
    ]

    def say(got: Got) -> Answer:
        if got.body["stream"]:
            return stream(pieces)
        return ok(completion(None, message={"tool_calls": calls}, finish="stop"))

    async def go() -> None:
        async with groq(say) as (provider, _, _):
            whole = await provider.complete(request(tools=(WEATHER,)))
            assert whole.tool_calls == [ToolCall(f"c{n}", "weather", f'{{"n": {n}}}') for n in range(10)]
            assert (whole.text, whole.finish) == ("", "tool_calls")
            streamed = await provider.complete(request(tools=(WEATHER,), say=lambda _: None))
            assert streamed.tool_calls == whole.tool_calls[:3]

    asyncio.run(go())


def test_a_schema_is_sent_as_such_and_beside_tools_told_in_words() -> None:
    async def go() -> None:
        async with groq(ok(completion('{"n": 1}'))) as (provider, service, _):
            await provider.complete(request(schema=SCHEMA, say=lambda _: None))
            await provider.complete(request(schema=SCHEMA, tools=(WEATHER,)))
            alone, beside = (got.body for got in service.got)
            assert alone["response_format"]["json_schema"]["schema"] == SCHEMA
            assert alone["stream"] is False  # the service streams none
            assert "response_format" not in beside
            assert json.dumps(SCHEMA) in beside["messages"][-1]["content"]

    asyncio.run(go())


def test_an_option_that_could_change_model_or_price_is_refused() -> None:
    async def go() -> None:
        async with groq(ok(completion())) as (provider, service, _):
            with pytest.raises(Invalid, match="no option 'n'"):
                await provider.complete(request(options={"n": 5}))
            assert not service.got

    asyncio.run(go())


def test_the_models_are_those_that_the_service_lists() -> None:
    rows = [
        {"id": "b", "active": True, "context_window": 131_072},
        {"id": "a", "active": False, "context_window": "?"},
        {"no": 1},
    ]

    async def go() -> None:
        async with groq(ok({"object": "list", "data": rows})) as (provider, service, _):
            assert await provider.models() == [ModelInfo("a", note="not active"), ModelInfo("b", 131_072)]
            assert service.got[0].path == "/openai/v1/models"

    asyncio.run(go())


def test_a_new_key_is_used_at_the_next_call() -> None:
    async def go() -> None:
        async with groq(ok(completion())) as (provider, service, place):
            await provider.complete(request())
            place.held = "gsk_another"
            await provider.complete(request())
            assert [got.headers["authorization"] for got in service.got] == [f"Bearer {KEY}", "Bearer gsk_another"]

    asyncio.run(go())


def test_a_closed_provider_opens_anew() -> None:
    async def go() -> None:
        async with groq(ok(completion())) as (provider, service, _):
            await provider.complete(request())
            await provider.close()
            await provider.complete(request())
            assert service.connections == 2

    asyncio.run(go())


def test_no_more_calls_are_under_way_than_are_set() -> None:
    busy, most = 0, 0

    async def go() -> None:
        def say(got: Got) -> Answer:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            asyncio.get_running_loop().call_later(0.02, leave)
            return Answer(json.dumps(completion()).encode(), after=0.02)

        def leave() -> None:
            nonlocal busy
            busy -= 1

        async with groq(say, connections=20) as (provider, service, _):
            await asyncio.gather(*(provider.complete(request()) for _ in range(100)))
            assert len(service.got) == 100
            assert most <= 20 and service.connections <= 24  # whole pools

    asyncio.run(go())


def test_prices_are_known_for_models_that_are_and_none_is_invented() -> None:
    async def go() -> None:
        async with groq(ok(completion())) as (provider, _, _):
            small, large = provider.price("openai/gpt-oss-20b"), provider.price("openai/gpt-oss-120b")
            assert small is not None and (small.in_micros, small.out_micros) == (75_000, 300_000)
            assert large is not None and (large.in_micros, large.out_micros) == (150_000, 600_000)
            assert provider.price("nobody/knows-1b") is None
            assert provider.price("whisper-large-v3") is None  # priced by the hour: no price of tokens

    asyncio.run(go())


def test_the_table_serves_where_genai_prices_knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genai_prices.data, "providers", [])
    assert price_of("openai/gpt-oss-20b") == Price(75_000, 300_000)
    assert price_of("qwen/qwen3-32b") is None


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"base_url": "http://api.groq.com"}, "base_url"),
        ({"base_url": "https://me:secret@api.groq.com"}, "base_url"),
        ({"base_url": "https://"}, "base_url"),
        ({"base_url": "http://127.0.0.1:99999999"}, "base_url"),
        ({"connections": 0}, "connections"),
        ({"api_key": "x"}, "api_key"),
    ],
)
def test_a_setting_that_is_wrong_is_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=f"plugins.groq.{field}"):
        Somewhere(settings).config("groq", GroqConfig)


def test_the_key_is_in_no_log_and_no_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def go() -> None:
        async with groq(lambda got: listing("a") if got.body is None else ok(completion())) as (provider, _, _):
            await provider.complete(request())
            await provider.models()
            assert KEY not in repr(provider) + repr(provider._client)

    asyncio.run(go())
    assert caplog.records and KEY not in caplog.text


def test_nothing_heavy_is_imported_before_the_first_call() -> None:
    code = (
        "import sys, vivarium_plugins_groq.plugin, vivarium_plugins_groq.provider;"
        "print(sorted(set(sys.modules) & {'groq', 'httpx', 'genai_prices', 'pydantic'}))"
    )
    source = str(Path(plugin.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": source},
    )
    assert done.stdout == "[]\n"
