"""Promises about servers that answer badly or not at all: a named fault, the right class, and no key in any word."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vivarium_plugins_openai.provider import provider

from vivarium_kernel import Invalid, NotFound, ProviderFault, Reply, Usage, VivariumError

from .loopback import KEY, WALK, Answering, Asked, Folder, Loopback, piece, request, says, sent, streams, usage, whole

ECHO = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}
HELLO = json.dumps(whole()).encode()


async def asked_of(loopback: Loopback, **more: Any) -> Reply:
    made = provider(Folder({"base_url": loopback.url}, {"openai": KEY}))
    try:
        return await made.complete(request(**more))
    finally:
        await made.close()


def outcome(answer: Answering, **more: Any) -> Reply | VivariumError:
    """What a call of a server that answers so comes to."""

    async def run() -> Reply | VivariumError:
        async with Loopback(answer) as loopback:
            try:
                return await asked_of(loopback, **more)
            except VivariumError as error:
                assert KEY not in "".join(traceback.format_exception(error))
                return error

    return asyncio.run(run())


async def closes(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def half(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(sent(200, HELLO)[:-40])
    writer.close()


async def no_http(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n\r\n")
    writer.close()


async def never(_: Asked, __: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


FAULTS: dict[str, tuple[Answering, str, bool]] = {
    "401": (says(ECHO, 401), "unauthorized", False),
    "403": (says({"detail": "no"}, 403), "unauthorized", False),
    "402": (says({"error": "Insufficient credits"}, 402), "unauthorized", False),
    "429": (says({"error": {"message": "slow down"}}, 429, retry_after="7"), "rate_limited", False),
    "500": (says(b"oops", 500), "server", True),
    "502": (says(b"<html>bad gateway</html>", 502), "server", True),
    "503": (says(b"", 503), "overloaded", True),
    "503 with its queue full": (says({"error": {"message": "The request queue is full"}}, 503), "overloaded", False),
    "503 that says when": (says(b"", 503, retry_after="7"), "overloaded", False),
    "504": (says(b"", 504), "timeout", True),
    "a page that is not there": (says(b"<html>not found</html>", 404), "server", False),
    "a redirect": (says(b"", 307, location="http://elsewhere.example/v1"), "server", False),
    "invalid JSON": (says(b'{"choices": [{"mess'), "nonsense", True),
    "JSON that is no object": (says([1, 2]), "nonsense", True),
    "no choice": (says({"choices": []}), "nonsense", True),
    "no message": (says({"choices": [{"index": 0}]}), "nonsense", True),
    "an error that calls itself 200": (says({"error": {"message": "out of memory"}, "choices": [{}]}), "server", True),
    "an empty answer": (says(b""), "nonsense", True),
    "nothing at all": (closes, "connection", True),
    "half an answer": (half, "cut", True),
    "not HTTP": (no_http, "nonsense", True),
}
STREAM_FAULTS: dict[str, tuple[Answering, str, bool]] = {
    "half a stream": (streams(piece(content="Hel"), done=False), "cut", True),
    "a stream without its end": (streams(piece(content="Hel")), "cut", True),
    "an empty stream": (streams(), "nonsense", True),
    "a stream of no JSON": (streams(piece(content="Hel"), "{nonsense"), "nonsense", True),
    "a stream of no objects": (streams("17"), "nonsense", True),
    "an error in the stream": (streams(piece(content="Hel"), {"error": {"message": "engine died"}}), "server", True),
    "a tool call that is none": (streams(piece(tool_calls=["walk"])), "nonsense", True),
    "JSON where a stream was wanted": (says(whole()), "nonsense", True),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_answer_is_a_fault_of_its_kind_that_says_whether_it_cost(name: str) -> None:
    answer, kind, started = FAULTS[name]
    fault = outcome(answer)
    assert isinstance(fault, ProviderFault), fault
    assert (fault.kind, fault.started) == (kind, started), fault.reason
    assert "127.0.0.1" in fault.reason
    assert fault.retry_seconds == (7.0 if name in ("429", "503 that says when") else None)


@pytest.mark.parametrize("name", STREAM_FAULTS)
def test_a_bad_stream_is_a_fault_of_its_kind(name: str) -> None:
    answer, kind, started = STREAM_FAULTS[name]
    fault = outcome(answer, say=lambda _: None)
    assert isinstance(fault, ProviderFault), fault
    assert (fault.kind, fault.started) == (kind, started), fault.reason


@pytest.mark.parametrize("before", [0, 150, 190, 240, 290])
def test_an_answer_that_quotes_the_key_is_not_quoted_with_a_part_of_it(before: int) -> None:
    for answer in (says({"error": "x" * before + KEY}), says({"error": "x" * before + KEY}, 500)):
        fault = outcome(answer)
        assert isinstance(fault, ProviderFault)
        assert KEY[:8] not in fault.reason
        assert len(fault.reason) < 400


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_never_taken_is_invalid_in_the_servers_own_words(status: int) -> None:
    error = outcome(says({"error": {"message": "maximum context length is 4096 tokens"}}, status))
    assert isinstance(error, Invalid)
    assert "maximum context length is 4096 tokens" in error.message


@pytest.mark.parametrize("status", [404, 400])
def test_a_model_that_is_not_there_is_named_with_those_that_are(status: int) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.path.endswith("/models"):
            writer.write(sent(200, json.dumps({"data": [{"id": "big"}, {"id": "able"}]}).encode()))
        else:
            writer.write(sent(status, b'{"error": {"message": "no such model", "code": "model_not_found"}}'))

    error = outcome(answer)
    assert isinstance(error, NotFound)
    assert "'m-1'" in error.message and "able, big" in error.next_step


def test_an_answer_after_the_deadline_is_a_timeout() -> None:
    for more in ({}, {"say": lambda _: None}):
        fault = outcome(never, timeout_seconds=0.15, **more)
        assert isinstance(fault, ProviderFault)
        assert (fault.kind, fault.started) == ("timeout", True)


def test_a_server_that_is_down_costs_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        made = provider(Folder({"base_url": f"http://127.0.0.1:{taken.getsockname()[1]}/v1"}, {"openai": KEY}))

        async def run() -> None:
            with pytest.raises(ProviderFault) as caught:
                await made.complete(request())
            await made.close()
            assert (caught.value.kind, caught.value.started) == ("connection", False)

        asyncio.run(run())


def test_a_certificate_that_does_not_hold_is_told_and_costs_nothing(tmp_path: Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=nobody.example"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def run() -> ProviderFault:
        async with Loopback(says(whole()), tls) as loopback:
            with pytest.raises(ProviderFault) as caught:
                await asked_of(loopback)
            assert loopback.asked == []
            return caught.value

    fault = asyncio.run(run())
    assert (fault.kind, fault.started) == ("connection", False)
    assert "certificate" in fault.reason


@pytest.mark.parametrize(
    "counts",
    [{"prompt_tokens": -5}, {"completion_tokens": 10**15}, {"prompt_tokens": 1.5}, {"completion_tokens": "many"}],
    ids=str,
)
def test_an_absurd_usage_is_handed_on_as_it_came_for_the_kernel_to_refuse(counts: dict[str, Any]) -> None:
    data = whole()
    data["usage"] |= counts
    reply = outcome(says(data))
    assert isinstance(reply, Reply)
    used = data["usage"]
    assert reply.usage == Usage(used["prompt_tokens"], used["completion_tokens"], 16)


def test_a_missing_usage_is_counted_at_the_most_that_it_can_be() -> None:
    reply = outcome(streams(piece(content="Hello."), piece("stop")), text="x" * 100, say=lambda _: None)
    assert isinstance(reply, Reply)
    assert reply.usage == Usage(100, 6)
    data = whole()
    del data["usage"]
    reply = outcome(says(data), text="x" * 100, tools=(WALK,), schema={"type": "string"}, max_tokens=4)
    assert isinstance(reply, Reply)
    assert reply.usage == Usage(100 + WALK.size + len('{"type":"string"}'), 4)


def test_a_megabyte_of_text_and_ten_calls_at_once_come_whole() -> None:
    text = "é" * 500_000
    calls = [
        {"id": f"c{number}", "type": "function", "function": {"name": "nowhere", "arguments": '{"n": ' + str(number)}}
        for number in range(10)
    ]
    reply = outcome(says(whole(text, tool_calls=calls)), tools=(WALK,))
    assert isinstance(reply, Reply)
    assert reply.text == text
    # A tool that isn't there and arguments that are no JSON are handed on: what to do with them is the kernel's.
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [
        (f"c{number}", "nowhere", '{"n": ' + str(number)) for number in range(10)
    ]


def test_raw_control_characters_are_read_in_an_answer_and_left_in_its_text() -> None:
    raw = HELLO.replace(b"Hello.", b"a\x01b\tc")
    reply = outcome(says(raw))
    assert isinstance(reply, Reply)
    assert reply.text == "a\x01b\tc"
    guided = outcome(says(whole('{"a": "x\ny"}')), schema={"type": "object"})
    assert isinstance(guided, Reply)
    assert guided.text == '{"a": "x\ny"}'


@pytest.mark.parametrize(
    ("named", "model", "advice"),
    [
        (False, "openai:m-1", ["vivarium key set openai`", "its own table [plugins.openai.servers.NAME]", "default ="]),
        (True, "openai:it/m-1", ["vivarium key set its-key`", "`keyless = true` in [plugins.openai.servers.it]"]),
    ],
    ids=["base_url", "table"],
)
def test_without_a_key_nothing_is_sent_and_what_to_do_is_said(named: bool, model: str, advice: list[str]) -> None:
    async def run() -> None:
        async with Loopback(says(whole())) as loopback:
            config: dict[str, Any] = {"base_url": loopback.url}
            made = provider(Folder({"servers": {"it": config | {"key": "its-key"}}} if named else config))
            with pytest.raises(ProviderFault) as caught:
                await made.complete(request(model=model))
            await made.close()
            assert (caught.value.kind, caught.value.started) == ("unauthorized", False)
            assert [words for words in advice if words not in caught.value.reason] == []
            assert loopback.asked == []

    asyncio.run(run())


@pytest.mark.parametrize("key", ["sk-secret\nX: y", "sk-sécret"], ids=["newline", "accent"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key: str) -> None:
    made = provider(Folder({}, {"openai": key}))
    with pytest.raises(ProviderFault) as caught:
        asyncio.run(made.complete(request()))
    assert caught.value.kind == "unauthorized"
    assert "cret" not in "".join(traceback.format_exception(caught.value))


def test_no_log_and_no_repr_holds_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answers: list[Callable[[], Answering]] = [lambda: says(ECHO, 401), lambda: says(whole()), lambda: closes]

    async def run(answer: Answering) -> None:
        async with Loopback(answer) as loopback:
            made = provider(Folder({"base_url": loopback.url}, {"openai": KEY}))
            try:
                await made.complete(request())
            except ProviderFault as fault:
                assert KEY not in repr(fault) + str(fault)
            assert KEY not in repr(made) + repr(vars(made)["_wires"])
            await made.close()
            assert loopback.asked[0].headers["authorization"] == f"Bearer {KEY}"

    for answer in answers:
        asyncio.run(run(answer()))
    assert caplog.records, "nothing was logged, so nothing was looked at"
    assert KEY not in caplog.text + "".join(repr(record.args) for record in caplog.records)


def test_a_streamed_usage_that_is_absurd_is_handed_on_too() -> None:
    reply = outcome(streams(piece("stop", content="x"), usage(prompt_tokens=-1)), say=lambda _: None)
    assert isinstance(reply, Reply)
    assert reply.usage == Usage(-1, 3)
