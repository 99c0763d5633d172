"""Promises about several vLLM servers behind one name: who is asked, what is sent, what is known of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from vivarium_kernel.models import Closing
from vivarium_kernel.problems import InputError
from vivarium_kernel.structuring import structure
from vivarium_plugins_vllm.settings import VLLMConfig

from vivarium_kernel import Catalog, Invalid, ModelInfo, NotFound, Price, ProviderFault

from ..openai.loopback import KEY, WALK, Loopback
from .scene import Fake, chats, made, request

YES = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}


@pytest.fixture
def dead() -> Iterator[str]:
    """An address at which nobody answers, for as long as the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_call_brings_its_priority_turned_round_for_theirs_is_lower_first() -> None:
    async def run() -> None:
        async with Loopback(Fake()) as server:
            provider = made(server, key=KEY)
            reply = await provider.complete(request(priority=7, tools=(WALK,), schema=YES))
            assert isinstance(provider, Closing)
            await provider.close()
            assert reply.text == "Hello."
            (body,) = chats(server)
            assert body["priority"] == -7
            assert body["max_tokens"] == 512
            assert body["tools"][0]["function"]["strict"] is True
            assert body["response_format"]["json_schema"]["schema"] == YES
            assert server.asked[-1].headers["authorization"] == f"Bearer {KEY}"

    asyncio.run(run())


def test_a_call_goes_to_the_server_with_the_fewest_under_way() -> None:
    async def run() -> None:
        async with Loopback(Fake(slow_seconds=0.2)) as one, Loopback(Fake(slow_seconds=0.2)) as two:
            provider = made(one, two)
            await asyncio.gather(*(provider.complete(request()) for _ in range(8)))
            await provider.close()
            assert (len(chats(one)), len(chats(two))) == (4, 4)

    asyncio.run(run())


def test_a_server_that_died_is_left_out_and_tried_again_later() -> None:
    async def run() -> None:
        async with Loopback(Fake()) as server:
            async with Loopback(Fake()) as mortal:
                provider = made(mortal, server)
                await provider.complete(request())
                assert (len(chats(mortal)), len(chats(server))) == (1, 0)
            first = provider._replicas[0]
            with contextlib.suppress(ProviderFault):  # a call on a connection that was kept may be lost with it
                await provider.complete(request())
            for _ in range(3):
                assert (await provider.complete(request())).text == "Hello."
            assert len(chats(mortal)) == 1
            assert first.rests
            async with mortal:
                await provider.complete(request())
                assert len(chats(mortal)) == 1
                first._down_until = 0.0
                await provider.complete(request())
                assert len(chats(mortal)) == 2
            await provider.close()

    asyncio.run(run())


def test_all_servers_down_is_a_fault_that_cost_nothing_and_says_each(dead: str) -> None:
    async def run() -> None:
        provider = made(dead, "http://127.0.0.1:9")
        for _ in range(2):  # those that rest are asked all the same when there is no other
            with pytest.raises(ProviderFault) as caught:
                await provider.complete(request())
            assert (caught.value.kind, caught.value.started) == ("connection", False)
            assert dead in caught.value.reason and "127.0.0.1:9" in caught.value.reason
        await provider.close()

    asyncio.run(run())


def test_a_full_queue_sends_the_call_to_the_next_server() -> None:
    async def run() -> None:
        full = Fake(status=503, reply={"error": {"message": "The request queue is full", "code": 503}})
        async with Loopback(full) as one, Loopback(Fake()) as two:
            provider = made(one, two)
            assert (await provider.complete(request())).text == "Hello."
            await provider.close()
            assert (len(chats(one)), len(chats(two))) == (1, 1)

    asyncio.run(run())


def test_what_may_have_cost_something_is_not_tried_at_another_server() -> None:
    async def run() -> None:
        async with Loopback(Fake(status=500)) as one, Loopback(Fake()) as two:
            provider = made(one, two)
            with pytest.raises(ProviderFault) as caught:
                await provider.complete(request())
            await provider.close()
            assert caught.value.started
            assert chats(two) == []

    asyncio.run(run())


def test_a_model_is_asked_for_where_it_is_and_a_missing_one_named_with_all() -> None:
    async def run() -> None:
        big = Fake([{"id": "big", "max_model_len": 8192}])
        async with Loopback(Fake()) as one, Loopback(big) as two:
            provider = made(one, two)
            await provider.complete(request(model="vllm:big"))
            assert (len(chats(one)), len(chats(two))) == (0, 1)
            with pytest.raises(NotFound) as caught:
                await provider.complete(request(model="vllm:huge"))
            await provider.close()
            assert "huge" in caught.value.message
            assert "tiny" in caught.value.next_step and "big" in caught.value.next_step

    asyncio.run(run())


def test_a_model_that_only_a_dead_server_may_have_is_waited_for(dead: str) -> None:
    async def run() -> None:
        async with Loopback(Fake()) as server:
            provider = made(dead, server)
            for _ in range(2):  # also once the dead one is left out
                with pytest.raises(ProviderFault, match="can't be reached"):
                    await provider.complete(request(model="vllm:big"))
            await provider.close()

    asyncio.run(run())


def test_a_model_that_was_added_since_the_list_was_read_is_found() -> None:
    async def run() -> None:
        fake = Fake()
        async with Loopback(fake) as server:
            provider = made(server)
            await provider.complete(request())
            fake.models.append({"id": "poet", "parent": "tiny", "max_model_len": None})
            await provider.complete(request(model="vllm:poet"))
            await provider.close()

    asyncio.run(run())


# The context


def sent(tokens: int | None, text: str, max_tokens: int = 1000) -> tuple[int, bool]:
    """The max_tokens that a server is sent for a prompt of so many tokens, and whether it was asked to count."""

    async def run() -> tuple[int, bool]:
        async with Loopback(Fake(tokens=tokens)) as server:
            provider = made(server)
            try:
                await provider.complete(request(text, max_tokens=max_tokens))
            finally:
                await provider.close()
            (body,) = chats(server)
            return body["max_tokens"], any(asked.path == "/tokenize" for asked in server.asked)

    return asyncio.run(run())


def test_an_answer_is_made_to_fit_beside_its_prompt() -> None:
    assert sent(100, "short") == (1000, False)
    assert sent(3000, "x" * 5000) == (1000, True)
    assert sent(3500, "x" * 5000) == (596, True)
    assert sent(None, "x" * 15_000) == (pytest.approx(331, abs=15), True)  # by an estimate
    assert sent(4090, "x" * 5000, max_tokens=6) == (6, True)


def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers() -> None:
    with pytest.raises(Invalid, match="4,050 tokens, and tiny reads 4,096"):
        sent(4050, "x" * 5000)


# What is known of them


def models(*servers: Loopback | str, **settings: Any) -> Any:
    async def run() -> list[ModelInfo]:
        provider = made(*servers, **settings)
        assert isinstance(provider, Catalog)
        try:
            return list(await provider.models())
        finally:
            await provider.close()

    return run()


def test_models_are_listed_with_context_queue_cache_and_adapters() -> None:
    served = [{"id": "tiny", "max_model_len": 4096}, {"id": "poet", "parent": "tiny", "max_model_len": None}]

    async def run() -> list[ModelInfo]:
        async with Loopback(Fake(served)) as server:
            found: list[ModelInfo] = await models(server, scheduling_policy="priority")
            return found

    assert asyncio.run(run()) == [
        ModelInfo("poet", 4096, 3, 5, 0.75, "adapter of tiny"),
        ModelInfo("tiny", 4096, 3, 5, 0.75, ""),
    ]


def test_several_servers_are_added_up_and_a_dead_one_is_noted(dead: str) -> None:
    async def run() -> list[ModelInfo]:
        async with Loopback(Fake()) as one, Loopback(Fake(page="nothing")) as two:
            found: list[ModelInfo] = await models(one, two, dead, scheduling_policy="priority")
            return found

    tiny, down = asyncio.run(run())
    assert tiny == ModelInfo("tiny", 4096, 3, 5, 0.75, "on 2 of 3 servers")
    assert dead in down.name and "can't be reached" in down.note


def test_no_server_up_is_a_fault(dead: str) -> None:
    with pytest.raises(ProviderFault):
        asyncio.run(models(dead))


@pytest.mark.parametrize(
    "told, setting, note, warnings",
    [
        ("priority", "", "", 0),
        ("fcfs", "", "serves in the order of arrival, priorities do nothing", 1),
        ("", "fcfs", "serves in the order of arrival, priorities do nothing", 1),
        ("fcfs", "priority", "", 0),
        ("", "", "whether it heeds priorities is not known (scheduling_policy)", 0),
    ],
)
def test_a_server_that_ignores_priorities_is_told_of_once(
    told: str, setting: str, note: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> str:
        async with Loopback(Fake(policy=told)) as server:
            provider = made(server, scheduling_policy=setting)
            for _ in range(3):
                await provider.complete(request(priority=5))
            (info,) = await provider.models()
            await provider.close()
            return info.note

    caplog.set_level(logging.WARNING)
    assert asyncio.run(run()) == note
    assert len([record for record in caplog.records if "priorities do nothing" in record.message]) == warnings


def test_a_server_of_ones_own_is_free() -> None:
    assert made("http://127.0.0.1:9").price("tiny") == Price(0, 0)


@pytest.mark.parametrize(
    "servers", [[], ["127.0.0.1:8000"], ["http://a:1", "http://a:1/v1/"], ["http://me:pass@a"]], ids=str
)
def test_what_names_no_servers_is_refused(servers: list[str]) -> None:
    with pytest.raises(InputError, match="servers"):
        structure(VLLMConfig, {"servers": servers})
