"""Promises about a village whose tasks are done with a model over the wire: tools, money, faults, and its key."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator

import pytest
from vivarium_kernel.testing import RunCycles, StagedVillage, assert_sound, assert_transfer, rows
from vivarium_plugins_openai.plugin import OpenAI
from vivarium_plugins_openai.provider import provider

from .loopback import Answering, Asked, Loopback, piece, says, sent, streams, usage, whole

pytestmark = pytest.mark.village(real_time=True)
Opened = Callable[..., StagedVillage]
DONE = "Done, as asked."
RETRIES = {"backoff_seconds": 0.01, "jitter": 0.0}


class Told:
    """Gives each of its answers once, and then always the same, as a stream where one is asked for."""

    def __init__(self) -> None:
        self.answers: list[Answering] = []

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        done = (streams(piece("stop", content=DONE), usage()), says(whole(DONE)))[not asked.body.get("stream")]
        await (self.answers.pop(0) if self.answers else done)(asked, writer)


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server in a thread of its own: the village has its own loop."""
    loopback, loop = Loopback(Told()), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(loopback.__aenter__(), loop).result(10)
    yield loopback
    asyncio.run_coroutine_threadsafe(loopback.__aexit__(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def opened(make_village: Opened, server: Loopback) -> StagedVillage:
    config = {"openai": {"servers": {"it": {"base_url": server.url, "keyless": True}}}}
    prices = {"openai:it/m": {"in_usd": "1", "out_usd": "2"}}
    return make_village(
        plugins=[OpenAI], models=[provider], config=config,
        settings={"model": "openai:it/m", "models": {"prices": prices}, "retries": RETRIES},
    )  # fmt: skip


def test_a_task_is_done_over_the_wire_and_paid_as_it_was_used(
    opened: StagedVillage, server: Loopback, run_cycles: RunCycles
) -> None:
    opened.task("Say that it is done.", max_micros=1_000_000)
    (attempt,) = run_cycles(village=opened, within_seconds=10)
    assert attempt.answer == DONE
    assert attempt.spent_micros == 20 + 2 * 3
    paid = assert_transfer(opened, reason="model_call", currency="usd")
    assert paid is not None and paid.micros == 26
    assert "Say that it is done." in json.dumps(server.asked[0].body["messages"])
    assert_sound(opened)


def test_a_servers_fault_puts_the_task_back_uncounted(
    opened: StagedVillage, server: Loopback, run_cycles: RunCycles
) -> None:
    async def overloaded(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(sent(503, b'{"error": {"message": "The request queue is full"}}'))

    told = server.answer
    assert isinstance(told, Told)
    told.answers = [overloaded]
    task = opened.task("Wait.", max_micros=1_000_000, max_attempts=1)
    run_cycles(village=opened, within_seconds=10)
    assert len(server.asked) == 2
    assert opened.state(task) == "done"
    assert rows(opened, "SELECT failures FROM tasks") == [(0,)]
    assert_transfer(opened, times=1, reason="model_call")
    assert_sound(opened)
