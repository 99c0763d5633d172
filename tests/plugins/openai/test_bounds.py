"""Promises about how much of an answer is read, what may have a price, and what the loop never waits for."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from genai_prices import data_snapshot
from vivarium_plugins_openai import plugin
from vivarium_plugins_openai.prices import price_of
from vivarium_plugins_openai.provider import provider
from vivarium_plugins_openai.reading import Answer

from vivarium_kernel import Price, ProviderFault

from .loopback import KEY, Answering, Folder, Loopback, piece, request, says, sent, streams, usage, whole

BLANKS = b" " * 200_000
PACKED = {"content_encoding": "gzip"}


@pytest.fixture
def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivarium_plugins_openai.bounding.MOST_BYTES", 100_000)


def fault_of(answer: Answering, **more: Any) -> ProviderFault:
    async def run() -> ProviderFault:
        async with Loopback(answer) as loopback:
            made = provider(Folder({"base_url": loopback.url}, {"openai": KEY}))
            with pytest.raises(ProviderFault) as caught:
                await (made.complete(request(**more)) if "models" not in more else made.models())
            await made.close()
            return caught.value

    return asyncio.run(run())


ANSWERS = {
    "a whole answer": says(whole("x" * 200_000)),
    "one that is small until it is unpacked": says(gzip.compress(BLANKS), **PACKED),
    "an error": says(BLANKS, 500),
    "an error that is small until it is unpacked": says(gzip.compress(BLANKS), 401, **PACKED),
}


@pytest.mark.usefixtures("small_bound")
@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_is_read_beyond_the_bound(name: str) -> None:
    fault = fault_of(ANSWERS[name])
    assert (fault.kind, fault.started) == ("nonsense", True)
    assert "longer than 100,000 bytes" in fault.reason and "127.0.0.1" in fault.reason


@pytest.mark.usefixtures("small_bound")
def test_neither_is_a_stream_nor_a_list_of_models() -> None:
    long = streams(*[piece(content="x" * 1_000) for _ in range(200)])
    assert "longer than 100,000 bytes" in fault_of(long, say=lambda _: None).reason
    fault = fault_of(says(BLANKS), models=True)
    assert "longer than 100,000 bytes" in fault.reason and not fault.started


@pytest.mark.usefixtures("small_bound")
def test_an_answer_without_an_end_is_left_where_the_bound_is() -> None:
    """The server would go on for ever; it is told that nobody listens any more."""
    written = 0

    async def answer(_: Any, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n")
        while True:
            writer.write(BLANKS)
            await writer.drain()
            written += len(BLANKS)

    assert "longer than 100,000 bytes" in fault_of(answer, timeout_seconds=60.0).reason
    assert written < 32_000_000


def test_what_is_packed_is_read_and_streams_share_a_connection() -> None:
    connections = set()
    packed = sent(200, gzip.compress(b'{"data": [{"id": "m"}]}'), content_encoding="gzip")
    streamed = streams(piece(content="Hello."), piece("stop"), usage())

    async def answer(asked: Any, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        if asked.path.endswith("/models"):
            writer.write(packed)
        else:
            await streamed(asked, writer)

    async def run() -> None:
        async with Loopback(answer) as loopback:
            made = provider(Folder({"base_url": loopback.url}, {"openai": KEY}))
            assert [model.name for model in await made.models()] == ["m"]
            for _ in range(5):
                assert (await made.complete(request(say=lambda _: None))).text == "Hello."
            await made.close()

    asyncio.run(run())
    assert len(connections) == 1


@pytest.mark.parametrize("numbered", [True, False])
def test_a_hundred_thousand_tool_calls_are_read_one_after_the_other(numbered: bool) -> None:
    asked = [
        {"index": number if numbered else 0, "id": f"c{number}", "function": {"name": "walk", "arguments": "{}"}}
        for number in range(100_000)
    ]
    began = time.process_time()
    answer = Answer()
    answer.add(piece("tool_calls", tool_calls=asked))
    assert len(answer.reply(request()).tool_calls) == 100_000
    assert time.process_time() - began < 30.0  # a second, or the better part of an hour


@pytest.mark.parametrize(
    ("source", "more", "read"),
    [
        ("openai", {}, 1),
        ("openai", {"cache_read_mtok": None, "cache_write_mtok": Decimal("1.25")}, 1.25),
        ("openai", {"web_searches_kcount": 10, "input_audio_mtok": 40}, 1),
        ("openai", {"requests_kcount": 12}, None),
        ("openai", {"output_reasoning_mtok": 3}, None),
        ("perplexity", {"web_searches_kcount": 10}, None),
    ],
)
def test_a_model_that_costs_by_something_else_too_has_no_price(
    monkeypatch: pytest.MonkeyPatch, source: str, more: dict[str, Any], read: float | None
) -> None:
    rates = SimpleNamespace(input_mtok=Decimal(1), output_mtok=Decimal(2), **more)
    model = SimpleNamespace(get_prices=lambda _: rates)
    snapshot = SimpleNamespace(find_provider_model=lambda *_: (None, model))
    monkeypatch.setattr(data_snapshot, "get_snapshot", lambda: snapshot)
    expected = None if read is None else Price(int(read * 1_000_000), 2_000_000)
    assert price_of(source, "m") == expected


def test_a_model_that_is_paid_by_the_request_too_is_not_priced_by_its_tokens_alone() -> None:
    assert price_of("perplexity", "sonar") is None
    assert price_of("openai", "gpt-4.1-mini") == Price(400_000, 1_600_000, 100_000)


def test_what_takes_long_to_import_is_never_imported_on_the_loop() -> None:
    code = """
import asyncio, sys, threading
from types import SimpleNamespace
from vivarium_kernel import Message, ProviderFault, Request
from vivarium_plugins_openai.plugin import OpenAI
from vivarium_plugins_openai.provider import provider
config = OpenAI.Config(base_url="http://127.0.0.1:9/v1")
place = SimpleNamespace(config=lambda *_: config, key=lambda _: "secret")
begun = {}
class Watch:
    def find_spec(self, name, path=None, target=None):
        begun.setdefault(name, threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Watch())
async def go():
    await OpenAI(place, config).startup()
    made = provider(place)
    made.price("any")
    try:
        await made.complete(Request("openai:any", (Message("user", "Hi."),), timeout_seconds=20))
    except ProviderFault as fault:
        assert fault.kind == "connection", fault
    await made.close()
asyncio.run(go())
print([(name, begun.get(name)) for name in ("genai_prices.data", "openai", "pydantic")])
"""
    source = str(Path(plugin.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": source},
    )  # fmt: skip
    assert done.stdout.strip() == str([(name, False) for name in ("genai_prices.data", "openai", "pydantic")])
