"""Promises about Groq's rate limits: a call waits for them where that is short, and its task where it is long."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from vivarium_plugins_groq.limits import LONGEST_SECONDS, Limit, duration_seconds, retry_after_seconds
from vivarium_plugins_groq.provider import TRIES

from vivarium_kernel import ProviderFault

from .service import Answer, Clock, Got, completion, error, groq, ok, request


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2m59.56s", 179.56), ("7.66s", 7.66), ("120ms", 0.12), ("1h2m3s", 3723.0), ("1d", 86_400.0), ("0s", 0.0),
        ("1m0s", 60.0), ("9999h", LONGEST_SECONDS), ("", None), ("soon", None), ("-3s", None), ("3", None), ("s", None),
    ],
)  # fmt: skip
def test_a_duration_is_read_as_the_service_writes_it(text: str, seconds: float | None) -> None:
    assert duration_seconds(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "1e30"}, LONGEST_SECONDS),
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT", "date": "Thu, 01 Jan 2026 00:00:00 GMT"}, 60.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:00 GMT", "date": "Thu, 01 Jan 2026 00:01:00 GMT"}, 0.0),
        ({"retry-after": "-1"}, None), ({"retry-after": "nan"}, None), ({"retry-after": "later"}, None), ({}, None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_both_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


def test_a_limit_that_is_used_up_holds_until_its_reset_and_no_longer() -> None:
    limit = Limit()
    limit.learn({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "7.5s"}, 100.0)
    assert limit.wait_seconds(101.0) == 6.5
    assert limit.wait_seconds(107.5) == 0.0
    limit.take(108.0)
    assert limit.wait_seconds(108.0) == 0.0


def test_each_call_that_is_sent_takes_one_of_those_that_are_left() -> None:
    limit = Limit()
    limit.learn({"x-ratelimit-remaining-requests": "2", "x-ratelimit-reset-requests": "1m"}, 0.0)
    for wait in (0.0, 0.0, 60.0):
        assert limit.wait_seconds(0.0) == wait
        limit.take(0.0)


def test_headers_that_are_nonsense_change_nothing() -> None:
    limit = Limit()
    limit.learn({"x-ratelimit-remaining-tokens": "none", "x-ratelimit-reset-tokens": "7.5s"}, 0.0)
    limit.learn({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "never"}, 0.0)
    limit.learn({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "1h"}, 0.0)
    assert limit.wait_seconds(0.0) == 0.0


def refusing(times: int, **headers: str) -> Any:
    """A service that refuses so often and then answers."""
    said: list[None] = []

    def say(got: Got) -> Answer:
        said.append(None)
        return error(429, "Slow down.", **headers) if len(said) <= times else ok(completion())

    return say


def test_a_refusal_is_tried_again_after_what_retry_after_says() -> None:
    clock = Clock()

    async def go() -> None:
        async with groq(refusing(2, retry_after="3"), clock=clock) as (provider, found, _):
            assert (await provider.complete(request())).text == "Hello."
            assert len(found.got) == 3 and clock.slept == [3.0, 3.0]

    asyncio.run(go())


def test_without_a_word_on_when_pauses_grow_and_tries_end() -> None:
    clock = Clock()

    async def go() -> None:
        async with groq(refusing(99), clock=clock) as (provider, found, _):
            with pytest.raises(ProviderFault) as caught:
                await provider.complete(request())
            assert (caught.value.kind, caught.value.started) == ("rate_limited", False)
            assert len(found.got) == TRIES and clock.slept == [0.5, 1.0, 2.0]

    asyncio.run(go())


@pytest.mark.parametrize(("retry_after", "timeout"), [("61", 600.0), ("3600", 10.0), ("20", 10.0)])
def test_a_long_wait_is_the_tasks_not_the_calls(retry_after: str, timeout: float) -> None:
    clock = Clock()

    async def go() -> None:
        async with groq(refusing(99, retry_after=retry_after), clock=clock) as (provider, found, _):
            for tries in (1, 1):  # the second is not even sent: it would be refused too
                with pytest.raises(ProviderFault) as caught:
                    await provider.complete(request(timeout_seconds=timeout))
                fault = caught.value
                assert (fault.kind, fault.started) == ("rate_limited", False)
                assert fault.retry_seconds == pytest.approx(float(retry_after))
                assert len(found.got) == tries
            assert clock.slept == []

    asyncio.run(go())


@pytest.mark.parametrize("limit", ["requests", "tokens"])
def test_a_call_waits_for_the_reset_rather_than_being_refused(limit: str) -> None:
    clock = Clock()
    headers = {f"x-ratelimit-remaining-{limit}": "0", f"x-ratelimit-reset-{limit}": "4.5s"}

    async def go() -> None:
        async with groq(ok(completion(), **headers), clock=clock) as (provider, found, _):
            await provider.complete(request())
            await provider.complete(request())
            assert len(found.got) == 2 and clock.slept == [4.5]
            await provider.complete(request(model="groq:openai/gpt-oss-120b"))
            assert clock.slept == [4.5]  # another model has limits of its own

    asyncio.run(go())


def test_a_reset_that_is_far_off_backs_the_task_off() -> None:
    clock = Clock()
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2h"}

    async def go() -> None:
        async with groq(ok(completion(), **headers), clock=clock) as (provider, found, _):
            await provider.complete(request())
            with pytest.raises(ProviderFault) as caught:
                await provider.complete(request(timeout_seconds=600.0))
            assert caught.value.retry_seconds == 7_200.0 and len(found.got) == 1

    asyncio.run(go())


def test_a_new_key_has_limits_of_its_own() -> None:
    clock = Clock()
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2h"}

    async def go() -> None:
        async with groq(ok(completion(), **headers), clock=clock) as (provider, found, place):
            await provider.complete(request())
            place.held = "gsk_another"
            await provider.complete(request())
            assert len(found.got) == 2 and clock.slept == []

    asyncio.run(go())


def test_one_refusal_holds_back_all_other_calls_of_the_model() -> None:
    """By the real clock: of ten calls at once none is sent again before the time that the service named."""
    at: list[float] = []

    def say(got: Got) -> Answer:
        at.append(time.monotonic())
        return error(429, "Slow down.", retry_after="0.2") if len(at) <= 10 else ok(completion())

    async def go() -> None:
        async with groq(say) as (provider, _, _):
            await asyncio.gather(*(provider.complete(request()) for _ in range(10)))

    asyncio.run(go())
    assert len(at) == 20 and at[10] - at[9] >= 0.15
