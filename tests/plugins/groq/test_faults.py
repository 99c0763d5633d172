"""Promises about what goes wrong with Groq: each bad answer has its name, its retry class, and never the key."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from vivarium_plugins_groq.plugin import GroqConfig
from vivarium_plugins_groq.provider import TRIES, GroqProvider

from vivarium_kernel import Invalid, NotFound, ProviderFault, Reply, Usage, VivariumError

from .service import (
    KEY,
    MODEL,
    Answer,
    Clock,
    Got,
    Say,
    Somewhere,
    chunk,
    completion,
    error,
    groq,
    listing,
    ok,
    request,
    service,
    stream,
)  # fmt: skip


@frozen
class Bad:
    """A bad answer, and the fault that it is: its kind, and whether it may have cost something."""

    name: str
    say: Answer | None
    kind: str
    started: bool
    words: str = ""
    streamed: bool = False
    times: int = 1


HALF = stream([chunk({"content": "Hel"}), chunk({"content": "lo"})], done=False)
BAD = [
    Bad("401", error(401, f"Invalid API Key: {KEY}", "invalid_api_key"), "unauthorized", False, "vivarium key status"),
    Bad("403", error(403, "Not for you."), "unauthorized", False),
    Bad("429 for ever", error(429, "Slow down."), "rate_limited", False, "Slow down.", times=TRIES),
    Bad("498", error(498, "Flex is full."), "overloaded", False, times=TRIES),
    Bad("500", error(500, "Oh."), "server", True, "answered 500: Oh."),
    Bad("502 with a page", Answer(b"<html>bad gateway", 502), "server", True, "bad gateway"),
    Bad("503", error(503, "Maintenance."), "overloaded", True),
    Bad("503, no room", error(503, "The model is over capacity."), "overloaded", False, times=TRIES),
    Bad("elsewhere", Answer(b"", 302, {"location": "http://127.0.0.1:1/"}), "nonsense", False),
    Bad("404 of another server", Answer(b"not here", 404), "server", False, "base_url"),
    Bad("half an answer", Answer(b'{"choices": [', cut=True), "cut", True),
    Bad("half a stream", HALF, "cut", True, "broke off", streamed=True),
    Bad("half a stream, cut", Answer(HALF.body, headers=HALF.headers, cut=True), "cut", True, streamed=True),
    Bad("an error in a stream", stream([chunk({"content": "H"}), {"error": {"message": f"no {KEY}"}}]), "server", True,
        "broke off", streamed=True),
    Bad("invalid JSON", Answer(b'{"choices": [}'), "nonsense", True, "not JSON"),
    Bad("invalid JSON in a stream", Answer(b"data: {oh\n\n"), "nonsense", True, streamed=True),
    Bad("JSON of another kind", Answer(b"[1, 2]"), "nonsense", True),
    Bad("deep JSON", Answer(b"[" * 200_000), "nonsense", True),
    Bad("no choice", ok(completion() | {"choices": []}), "nonsense", True, "without a choice"),
    Bad("a text that is none", ok(completion(7)), "nonsense", True),  # type: ignore[arg-type]
    Bad("a tool without a name", ok(completion(None, message={"tool_calls": [{"id": "c"}]})), "nonsense", True),
    Bad("no usage", ok(completion(usage=None)), "nonsense", True, "what it used"),
    Bad("a usage in words", ok(completion(usage={"prompt_tokens": "9", "completion_tokens": 1})), "nonsense", True),
    Bad("an empty body", Answer(b""), "nonsense", True, "nothing at all"),
    Bad("nothing at all", None, "connection", True, "no answer"),
    Bad("a tool badly written", error(400, "Failed to call a function.", "tool_use_failed"), "nonsense", True),
]  # fmt: skip


def fault_of(answer: Say | Answer, **more: Any) -> tuple[VivariumError, list[Got], Clock]:
    """What a call ends with whose service answers so."""
    clock = Clock()

    async def go() -> tuple[VivariumError, list[Got]]:
        async with groq(answer, clock=clock) as (provider, found, _):
            with pytest.raises(VivariumError) as caught:
                await provider.complete(request(**more))
            return caught.value, found.got

    return *asyncio.run(go()), clock


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_a_bad_answer_has_its_name_and_its_retry_class(bad: Bad) -> None:
    more = {"say": lambda _: None} if bad.streamed else {}
    found, got, _ = fault_of(lambda _: bad.say, **more)
    assert isinstance(found, ProviderFault)
    assert (found.kind, found.started) == (bad.kind, bad.started)
    assert bad.words in found.reason
    assert len(got) == bad.times
    assert KEY not in f"{found!r} {found} {found.__context__!r}" and len(found.reason) < 500


@pytest.mark.parametrize(
    ("status", "code", "rule"),
    [(400, "context_length_exceeded", "model.request"), (413, "", "model.size"), (422, "", "model.request")],
)
def test_a_request_that_it_will_never_take_fails_the_task_at_once(status: int, code: str, rule: str) -> None:
    found, got, _ = fault_of(error(status, "Too long.", code))
    assert isinstance(found, Invalid) and found.rule == rule
    assert "Too long." in found.message and len(got) == 1


@pytest.mark.parametrize(("status", "code"), [(404, "model_not_found"), (400, "model_decommissioned")])
def test_a_model_that_was_shut_down_is_refused_naming_those_that_there_are(status: int, code: str) -> None:
    def say(got: Got) -> Answer:
        if got.path.endswith("/models"):
            return listing("openai/gpt-oss-20b", "openai/gpt-oss-120b")
        return error(status, "The model `llama-3.1-8b-instant` does not exist.", code)

    found, got, _ = fault_of(say, model="groq:llama-3.1-8b-instant")
    assert isinstance(found, NotFound)
    assert "llama-3.1-8b-instant" in found.message
    assert "openai/gpt-oss-120b, openai/gpt-oss-20b" in found.next_step
    assert [each.body["model"] for each in got if each.body] == ["llama-3.1-8b-instant"]  # and no other was tried


def test_a_shut_down_model_is_refused_also_when_the_list_cannot_be_had() -> None:
    found, _, _ = fault_of(lambda got: error(404, "No.", "model_not_found") if got.body else error(500, "Oh."))
    assert isinstance(found, NotFound) and "could not be asked" in found.next_step


def test_raw_control_characters_and_half_characters_are_read() -> None:
    body = json.dumps(completion("a\tb\x01c\ud83d")).replace("\\t", "\t").replace("\\u0001", "\x01").encode()

    async def go() -> Reply:
        async with groq(Answer(body)) as (provider, _, _):
            return await provider.complete(request())

    assert asyncio.run(go()).text == "a\tb\x01c\ufffd"


def test_a_megabyte_of_text_is_an_answer() -> None:
    async def go(say: Callable[[str], None] | None) -> str:
        text = "x" * 1_000_000
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        answer = (
            ok(completion(text)) if say is None else stream([chunk({"content": text}, finish="length", usage=usage)])
        )
        async with groq(answer) as (provider, _, _):
            return (await provider.complete(request(say=say))).text

    heard: list[str] = []
    assert len(asyncio.run(go(None))) == len(asyncio.run(go(heard.append))) == len("".join(heard)) == 1_000_000


def test_more_than_can_be_an_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivarium_plugins_groq.bounding.MOST_BYTES", 100_000)
    found, _, _ = fault_of(ok(completion("x" * 1_000_000)))
    assert isinstance(found, ProviderFault) and (found.kind, found.started) == ("nonsense", True)


@pytest.mark.parametrize("usage", [Usage(-5, 1), Usage(10**15, 1), Usage(1, 1, 9)])
def test_a_usage_that_cannot_be_true_is_handed_on_for_the_kernel_to_judge(usage: Usage) -> None:
    told = {
        "prompt_tokens": usage.tokens_in, "completion_tokens": usage.tokens_out,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }  # fmt: skip

    async def go() -> Usage:
        async with groq(ok(completion(usage=told))) as (provider, _, _):
            return (await provider.complete(request())).usage

    assert asyncio.run(go()) == usage


def test_a_reply_after_the_deadline_is_a_timeout_that_may_have_cost() -> None:
    late = Answer(json.dumps(completion()).encode(), after=30.0)

    async def go() -> ProviderFault:
        async with groq(late) as (provider, _, _):
            with pytest.raises(ProviderFault) as caught:
                await provider.complete(request(timeout_seconds=3.0))  # long enough to be sent on a busy machine
            return caught.value

    fault = asyncio.run(go())
    assert (fault.kind, fault.started) == ("timeout", True)


def test_a_call_that_found_no_free_connection_in_time_has_cost_nothing() -> None:
    late = Answer(json.dumps(completion()).encode(), after=30.0)

    async def go() -> tuple[ProviderFault, int]:
        async with groq(late, connections=1) as (provider, found, _):
            first = asyncio.create_task(provider.complete(request()))
            while not found.got:
                await asyncio.sleep(0.001)
            with pytest.raises(ProviderFault) as caught:
                await provider.complete(request(timeout_seconds=0.05))
            first.cancel()
            await asyncio.wait({first})
            return caught.value, len(found.got)

    fault, sent = asyncio.run(go())
    assert (fault.kind, fault.started, sent) == ("timeout", False, 1)


@pytest.mark.parametrize("where", ["a port that nobody listens at", "a name that is none"])
def test_a_service_that_cannot_be_reached_has_cost_nothing(where: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}" if where.startswith("a port") else "https://nowhere.invalid"

    async def go() -> ProviderFault:
        provider = GroqProvider(Somewhere({}), GroqConfig(base_url=address))
        with pytest.raises(ProviderFault) as caught:
            await provider.complete(request())
        await provider.close()
        return caught.value

    fault = asyncio.run(go())
    assert (fault.kind, fault.started) == ("connection", False)
    assert "can't be reached" in fault.reason and KEY not in repr(fault)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_that_is_wrong_gets_no_key(tmp_path: Path) -> None:
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    asked = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*asked, "-subj", "/CN=localhost", *files], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def go() -> tuple[ProviderFault, list[Got]]:
        async with service(lambda _: ok(completion()), tls) as found:
            provider = GroqProvider(Somewhere({}), GroqConfig(base_url=found.address))
            with pytest.raises(ProviderFault) as caught:
                await provider.complete(request())
            await provider.close()
            return caught.value, found.got

    fault, got = asyncio.run(go())
    assert (fault.kind, fault.started) == ("connection", False)
    assert "certificate" in fault.reason.lower() and not got


@pytest.mark.parametrize("secret", [None, "", "two words", "gsk_\nX-Evil: 1", "schlüssel"])
def test_without_a_key_that_can_be_one_nothing_is_sent(secret: str | None) -> None:
    async def go() -> tuple[ProviderFault, int]:
        async with groq(ok(completion()), secret=secret) as (provider, found, _):
            with pytest.raises(ProviderFault) as caught:
                await provider.complete(request())
            return caught.value, found.connections

    fault, connections = asyncio.run(go())
    assert (fault.kind, fault.started, connections) == ("unauthorized", False, 0)
    assert "vivarium key set groq" in fault.reason
    assert not secret or secret not in fault.reason


def test_a_call_that_is_cancelled_leaves_no_connection_busy() -> None:
    late = Answer(json.dumps(completion()).encode(), after=30.0)

    async def go() -> int:
        async with groq(late) as (provider, found, _):
            calls = [asyncio.create_task(provider.complete(request())) for _ in range(10)]
            while len(found.got) < 10:
                await asyncio.sleep(0.001)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert provider._client is not None
            return sum(pool.busy for pool in provider._client._client._transport._pools)  # type: ignore[attr-defined]

    assert asyncio.run(go()) == 0


def test_the_model_that_is_asked_for_is_the_one_that_is_sent() -> None:
    async def go() -> set[str]:
        async with groq(ok(completion())) as (provider, found, _):
            await provider.complete(request())
            return {got.body["model"] for got in found.got}

    assert asyncio.run(go()) == {MODEL}
