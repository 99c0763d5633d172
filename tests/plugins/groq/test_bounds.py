"""Promises about how much of an answer is read, and how much work it is: never more than an answer can be worth."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import genai_prices.data
import pytest
from vivarium_plugins_groq import plugin
from vivarium_plugins_groq.prices import price_of
from vivarium_plugins_groq.wire import Stream

from vivarium_kernel import Price, ProviderFault

from .service import Answer, chunk, completion, groq, listing, ok, request, stream

PACKED = {"content-encoding": "gzip"}


@pytest.fixture(autouse=True)
def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivarium_plugins_groq.bounding.MOST_BYTES", 100_000)


def fault_of(answer: Answer, *, say: Any = None) -> ProviderFault:
    async def go() -> ProviderFault:
        async with groq(answer) as (provider, _, _):
            with pytest.raises(ProviderFault) as caught:
                await (provider.models() if say == "models" else provider.complete(request(say=say)))
            return caught.value

    return asyncio.run(go())


ANSWERS = {
    "a whole answer": ok(completion("x" * 200_000)),
    "one that is small until it is unpacked": Answer(gzip.compress(b" " * 200_000), headers=PACKED),
    "an error": Answer(b" " * 200_000, 500),
    "an error that is small until it is unpacked": Answer(gzip.compress(b" " * 200_000), 401, PACKED),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_is_read_beyond_the_bound(name: str) -> None:
    fault = fault_of(ANSWERS[name])
    assert fault.kind == "nonsense" and "longer than 100,000 bytes" in fault.reason


def test_neither_is_a_stream_nor_a_list_of_models() -> None:
    long = stream([chunk({"content": "x" * 1_000}) for _ in range(200)])
    assert "longer than 100,000 bytes" in fault_of(long, say=lambda _: None).reason
    assert "longer than 100,000 bytes" in fault_of(Answer(b" " * 200_000), say="models").reason


def test_what_is_packed_and_short_enough_is_read() -> None:
    async def go() -> int:
        packed = Answer(gzip.compress(listing("a", "b").body), headers=PACKED)
        async with groq(packed) as (provider, _, _):
            return len(await provider.models())

    assert asyncio.run(go()) == 2


def test_a_line_that_does_not_end_is_copied_once_however_many_pieces_it_comes_in() -> None:
    class Counted(bytes):
        copied = 0

        def __radd__(self, other: bytes) -> bytes:
            Counted.copied += len(other)
            return bytes(other) + bytes(self)

    heard: list[str] = []
    taken = Stream(heard.append, "key")
    line = ("data: " + json.dumps(chunk({"content": "x" * 10_000})) + "\n").encode()
    for start in range(0, len(line), 10):
        assert not heard
        taken.feed(Counted(line[start : start + 10]))
    assert heard == ["x" * 10_000]
    assert Counted.copied <= len(line)


@pytest.mark.parametrize(("more", "known"), [({}, True), ({"requests_kcount": 12}, False), ({"other": None}, True)])
def test_a_model_that_costs_by_something_else_too_has_no_price(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], known: bool
) -> None:
    rates = SimpleNamespace(input_mtok=Decimal(1), output_mtok=Decimal(2), cache_read_mtok=None, **more)
    model = SimpleNamespace(get_prices=lambda _: rates)
    provider = SimpleNamespace(id="groq", find_model=lambda _: model)
    monkeypatch.setattr(genai_prices.data, "providers", [provider])
    assert price_of("openai/gpt-oss-20b") == (Price(1_000_000, 2_000_000) if known else None)


def test_what_takes_long_to_import_is_never_imported_on_the_loop() -> None:
    code = """
import asyncio, sys, threading
from types import SimpleNamespace
from vivarium_kernel import Message, ProviderFault, Request
from vivarium_plugins_groq.plugin import Groq
from vivarium_plugins_groq.provider import provider
config = Groq.Config(base_url="http://127.0.0.1:9")
place = SimpleNamespace(config=lambda *_: config, key=lambda _: "secret")
begun = {}
class Watch:
    def find_spec(self, name, path=None, target=None):
        begun.setdefault(name, threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Watch())
async def go():
    await Groq(place, config).startup()
    made = provider(place)
    made.price("any")
    try:
        await made.complete(Request("groq:any", (Message("user", "Hi."),), timeout_seconds=20))
    except ProviderFault as fault:
        assert fault.kind == "connection", fault
    await made.close()
asyncio.run(go())
print([(name, begun.get(name)) for name in ("genai_prices.data", "groq", "pydantic")])
"""
    source = str(Path(plugin.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": source},
    )  # fmt: skip
    assert done.stdout.strip() == str([(name, False) for name in ("genai_prices.data", "groq", "pydantic")])
