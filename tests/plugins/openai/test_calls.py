"""Promises about calls that go well: what is sent, what is read, streams, keys, names, prices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from vivarium_kernel.models import Closing
from vivarium_kernel.problems import InputError
from vivarium_kernel.structuring import structure
from vivarium_plugins_openai.asking import fits_strict
from vivarium_plugins_openai.provider import OpenAIProvider, provider
from vivarium_plugins_openai.settings import OpenAIConfig, Server

from vivarium_kernel import Catalog, Invalid, Message, Price, Reply, Request, Tool, ToolCall, Usage

from .loopback import KEY, WALK, Answering, Asked, Folder, Loopback, piece, request, says, sent, streams, usage, whole

YES = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": False}


def called(answer: Answering, quirks: dict[str, Any] | None = None, **more: Any) -> tuple[Reply, Asked]:
    """The reply, and what the server was asked."""

    async def run() -> tuple[Reply, Asked]:
        async with Loopback(answer) as loopback:
            if quirks is None:
                made, model = provider(Folder({"base_url": loopback.url}, {"openai": KEY})), "openai:m-1"
            else:
                servers = {"local": {"base_url": loopback.url, "keyless": True} | quirks}
                made, model = provider(Folder({"servers": servers})), "openai:local/m-1"
            reply = await made.complete(request(model=model, **more))
            await made.close()
            return reply, loopback.asked[0]

    return asyncio.run(run())


def test_a_call_says_what_the_request_says_and_no_more() -> None:
    reply, asked = called(says(whole()), max_tokens=77)
    assert reply == Reply("Hello.", Usage(20, 3, 16), (), "stop", "m-1")
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "m-1", "messages": [{"role": "user", "content": "Hi."}], "max_completion_tokens": 77,
    }  # fmt: skip


def test_a_stream_is_handed_on_piece_by_piece_and_its_usage_comes_last() -> None:
    heard: list[str] = []
    answer = streams(piece(role="assistant", content=""), piece(content="Hel"), piece(content="lo."), piece("stop"),
                     usage(prompt_tokens_details={"cached_tokens": 16}))  # fmt: skip
    reply, asked = called(answer, say=heard.append)
    assert heard == ["Hel", "lo."]
    assert reply == Reply("Hello.", Usage(20, 3, 16), (), "stop", "m-1")
    assert (asked.body["stream"], asked.body["stream_options"]) == (True, {"include_usage": True})


def test_a_piece_is_heard_before_the_next_is_there() -> None:
    heard = asyncio.Event()

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        writer.write(f"data: {json.dumps(piece(content='one'))}\n\n".encode())
        await writer.drain()
        await heard.wait()
        writer.write(f"data: {json.dumps(piece('stop', content=' two'))}\n\ndata: [DONE]\n\n".encode())
        writer.close()

    reply, _ = called(answer, say=lambda _: heard.set())
    assert reply.text == "one two"


def test_streamed_tool_calls_are_put_together_by_their_number() -> None:
    pieces = [
        piece(tool_calls=[{"index": 0, "id": "a", "function": {"name": "walk", "arguments": ""}}]),
        piece(tool_calls=[{"index": 0, "function": {"arguments": '{"to": '}}]),
        piece(tool_calls=[{"index": 1, "id": "b", "function": {"name": "walk", "arguments": '{"to": "home"}'}}]),
        piece(tool_calls=[{"index": 0, "function": {"arguments": '"hall"}'}}]),
        piece("tool_calls"),
        usage(),
    ]
    reply, _ = called(streams(*pieces), say=lambda _: None, tools=(WALK,))
    assert reply.tool_calls == (ToolCall("a", "walk", '{"to": "hall"}'), ToolCall("b", "walk", '{"to": "home"}'))
    assert reply.finish == "tool_calls"


@pytest.mark.parametrize(
    "finish, expected",
    [("stop", "stop"), ("length", "length"), ("content_filter", "stop"), (None, "stop"), ("eos", "stop")],
)
def test_why_an_answer_ended_is_one_of_three(finish: str | None, expected: str) -> None:
    data = whole(None if finish == "content_filter" else "text")
    data["choices"][0]["finish_reason"] = finish
    reply, _ = called(says(data))
    assert reply.finish == expected
    assert ("withheld" in reply.text) == (finish == "content_filter")


@pytest.mark.parametrize("finish, expected", [("stop", "tool_calls"), ("length", "length")])
def test_wanted_tools_end_an_answer_whatever_it_calls_that(finish: str, expected: str) -> None:
    data = whole(None, tool_calls=[{"id": "a", "function": {"name": "walk", "arguments": "{}"}}])
    data["choices"][0]["finish_reason"] = finish
    assert called(says(data))[0].finish == expected


def test_a_conversation_with_tools_is_sent_so_that_a_server_can_read_it_again() -> None:
    calls = (ToolCall("a", "walk", '{"to": "hall"}'), ToolCall("b", "walk", '{"to": "ha'), ToolCall("c", "walk", "[1]"))
    told = Request(
        "openai:m-1",
        (Message("system", "Be brief."), Message("assistant", "", calls), Message("tool", "You are there.", (), "a")),
        tools=(WALK,),
    )

    async def run() -> Any:
        async with Loopback(says(whole())) as loopback:
            made = provider(Folder({"base_url": loopback.url}, {"openai": KEY}))
            await made.complete(told)
            await made.close()
            return loopback.asked[0].body

    body = asyncio.run(run())
    system, assistant, tool = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert assistant["content"] is None
    arguments = [json.loads(call["function"]["arguments"]) for call in assistant["tool_calls"]]
    assert arguments == [{"to": "hall"}, {"unreadable": '{"to": "ha'}, {"unreadable": "[1]"}]
    assert tool == {"role": "tool", "content": "You are there.", "tool_call_id": "a"}
    assert body["tools"][0]["function"]["strict"] is True


@pytest.mark.parametrize(
    "quirk, loose, strict", [("no", None, None), ("fitting", None, True), ("all", True, True)]
)  # fmt: skip
def test_strict_goes_to_the_tools_that_the_server_takes_it_for(quirk: str, loose: Any, strict: Any) -> None:
    open_ended = Tool("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}})
    _, asked = called(says(whole()), {"strict_tools": quirk}, tools=(open_ended, WALK))
    assert [tool["function"].get("strict") for tool in asked.body["tools"]] == [loose, strict]


def test_what_fits_strict_names_all_and_allows_no_more() -> None:
    assert fits_strict(YES)
    assert not fits_strict(YES | {"required": []})
    assert not fits_strict({"type": "object", "properties": {"deep": YES | {"additionalProperties": True}},
                            "required": ["deep"], "additionalProperties": False})  # fmt: skip
    assert not fits_strict({"type": "array", "items": {"type": "object"}})


def test_a_schema_is_told_in_the_way_that_the_server_knows() -> None:
    _, asked = called(says(whole('{"yes": true}')), {}, schema=YES)
    form = asked.body["response_format"]
    assert (form["type"], form["json_schema"]["schema"]) == ("json_schema", YES)
    for way in ("json_object", "prompt"):
        _, asked = called(says(whole('{"yes": true}')), {"schemas": way}, schema=YES)
        assert json.dumps(YES) in asked.body["messages"][-1]["content"]
        assert asked.body.get("response_format") == ({"type": "json_object"} if way == "json_object" else None)


def test_quirks_are_data() -> None:
    heard: list[str] = []
    quirks: dict[str, Any] = {
        "streams": False, "extra_body": {"temperature": 0.1}, "headers": {"X-Title": "village"},
        "max_tokens_field": "max_tokens",
    }  # fmt: skip
    reply, asked = called(says(whole()), quirks, say=heard.append, options={"seed": 7})
    assert heard == [reply.text] == ["Hello."]
    assert asked.body == {
        "temperature": 0.1, "seed": 7, "model": "m-1", "messages": [{"role": "user", "content": "Hi."}],
        "max_tokens": 512,
    }  # fmt: skip
    assert asked.headers["x-title"] == "village"
    assert "authorization" not in asked.headers
    _, asked = called(streams(piece("stop", content="x"), usage()), {"stream_usage": False}, say=heard.append)
    assert "stream_options" not in asked.body


def test_an_option_that_would_replace_the_request_is_refused() -> None:
    with pytest.raises(Invalid, match="messages is no option"):
        called(says(whole()), options={"messages": []})


def test_an_account_of_the_environment_is_told_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "account-of-mine")
    _, asked = called(says(whole()), {})
    assert "account-of-mine" not in str(asked.headers)


def test_a_proxy_of_the_environment_is_not_asked_for_what_is_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert called(says(whole()))[0].text == "Hello."


def test_a_proxy_of_the_environment_is_asked_for_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with Loopback(says(whole())) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.root)
            made = provider(Folder({"base_url": "http://models.example/v1"}, {"openai": KEY}))
            assert (await made.complete(request())).text == "Hello."
            await made.close()
            assert proxy.asked[0].path == "http://models.example/v1/chat/completions"

    for name in ("http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    asyncio.run(run())


def test_each_server_gets_its_own_key_as_it_is_at_the_call() -> None:
    async def run() -> None:
        async with Loopback(says(whole())) as ours, Loopback(says(whole())) as theirs:
            place = Folder(
                {"base_url": ours.url, "servers": {"theirs": {"base_url": theirs.url}}},
                {"openai": "key-one", "theirs": "key-two"},
            )
            made = provider(place)
            await made.complete(request())
            await made.complete(request(model="openai:theirs/org/m-1"))
            place.keys["openai"] = "key-three"
            await made.complete(request())
            await made.close()
            assert [asked.headers["authorization"] for asked in ours.asked] == ["Bearer key-one", "Bearer key-three"]
            assert [asked.headers["authorization"] for asked in theirs.asked] == ["Bearer key-two"]
            assert theirs.asked[0].body["model"] == "org/m-1"

    asyncio.run(run())


def test_a_closed_provider_opens_anew_and_leaves_no_connection() -> None:
    async def run() -> None:
        async with Loopback(says(whole())) as loopback:
            made = provider(Folder({"base_url": loopback.url}, {"openai": KEY}))
            assert isinstance(made, Closing)
            for _ in range(2):
                assert (await made.complete(request())).text == "Hello."
                await made.close()

    asyncio.run(run())


def test_no_more_calls_are_under_way_than_there_may_be_connections() -> None:
    open_now, most = 0, 0

    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.01)
        open_now -= 1
        writer.write(sent(200, json.dumps(whole()).encode()))

    async def run() -> None:
        async with Loopback(answer) as loopback:
            made = provider(Folder({"base_url": loopback.url, "connections": 3}, {"openai": KEY}))
            await asyncio.gather(*(made.complete(request()) for _ in range(12)))
            await made.close()

    asyncio.run(run())
    assert most == 3


# Names, lists, prices


def test_the_models_of_every_server_are_listed_and_one_that_is_down_is_noted() -> None:
    listed = {"data": [{"id": "m-1", "context_length": 8192}, {"id": "m-2", "meta": {"n_ctx": 4096}}, {"no": "id"}]}

    async def run() -> list[tuple[str, int | None, bool]]:
        async with Loopback(says(listed)) as up, Loopback(says(b"", 500)) as down:
            servers = {"up": {"base_url": up.url, "keyless": True}, "down": {"base_url": down.url, "keyless": True}}
            made = provider(Folder({"servers": servers}))
            assert isinstance(made, Catalog)
            models = await made.models()
            await made.close()
            return [(model.name, model.context_tokens, bool(model.note)) for model in models]

    assert asyncio.run(run()) == [("up/m-1", 8192, False), ("up/m-2", 4096, False), ("down/*", None, True)]


def test_a_default_server_is_one_of_those_that_are_named() -> None:
    config = structure(OpenAIConfig, {"default": "a", "servers": {"a": {"base_url": "http://a/v1"}}})
    assert config.server("m")[1:] == ("m", Server("http://a/v1", "a"))
    assert config.server("a/m")[:2] == ("a", "m")
    assert config.server("b/m")[:2] == ("", "b/m")
    with pytest.raises(InputError, match="must have the server 'b'"):
        structure(OpenAIConfig, {"default": "b"})


@pytest.mark.parametrize(
    "url", ["ftp://a/v1", "127.0.0.1:8080", "http://me:secret@a/v1", "http://a/v1?x=1", "http://a:99999999/v1"]
)
def test_an_address_that_is_none_or_holds_a_password_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="base_url"):
        structure(OpenAIConfig, {"base_url": url})


@pytest.mark.parametrize(
    "source, model, expected",
    [
        ("free", "anything", lambda price: price == Price(0, 0)),
        ("", "gpt-4o-mini", lambda price: price is None),
        ("openai", "no-such-model-9", lambda price: price is None),
        ("nobody", "gpt-4o-mini", lambda price: price is None),
        ("openai", "gpt-4o-mini", lambda price: (price.in_micros, price.out_micros) == (150_000, 600_000)),
    ],
)
def test_a_price_is_from_the_source_that_is_named_or_not_known(
    source: str, model: str, expected: Callable[[Any], bool]
) -> None:
    servers = {"s": {"base_url": "http://a/v1", "prices": source}}
    made = OpenAIProvider(Folder(), structure(OpenAIConfig, {"servers": servers}))
    assert expected(made.price(f"s/{model}"))


def test_a_price_in_tiers_is_the_dearest_of_them() -> None:
    made = OpenAIProvider(Folder(), structure(OpenAIConfig, {"servers": {"g": {"base_url": "http://a/v1",
                                                                              "prices": "google"}}}))  # fmt: skip
    price = made.price("g/gemini-2.5-pro")
    assert price is not None
    assert (price.in_micros, price.out_micros) == (2_500_000, 15_000_000)
