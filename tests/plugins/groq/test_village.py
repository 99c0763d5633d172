"""Promises about a village that thinks with Groq: what it used is paid for to the millionth, an outage is not."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator

import pytest
from vivarium_kernel.testing import StagedVillage, assert_sound, events, rows
from vivarium_plugins_groq.plugin import Groq
from vivarium_plugins_groq.provider import provider

from .service import KEY, MODEL, Answer, Got, completion, error, listing, ok, service


class Shop:
    """A service in a thread of its own, for villages that live on loops of theirs."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.got: list[Got] = []
        self.address = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        self._ready.wait(10)

    def _say(self, got: Got) -> Answer:
        self.got.append(got)
        if got.body is None:
            return listing(MODEL)
        return self.answers.pop(0) if self.answers else ok(completion())

    async def _serve(self) -> None:
        async with service(self._say) as found:
            self.address = found.address
            self._ready.set()
            await self._end.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def shop() -> Iterator[Shop]:
    found = Shop()
    yield found
    found.close()


@pytest.fixture
def groqs(make_village: Callable[..., StagedVillage], shop: Shop, monkeypatch: pytest.MonkeyPatch) -> StagedVillage:
    """A village whose model is one of Groq's."""
    retries = {"backoff_seconds": 0.01, "jitter": 0.0}
    found = make_village(
        plugins=[Groq], config={"groq": {"base_url": shop.address}}, models=[provider],
        settings={"model": f"groq:{MODEL}", "retries": retries},
    )  # fmt: skip
    found.environ["GROQ_API_KEY"] = KEY
    return found


@pytest.mark.village(real_time=True)
def test_what_was_used_is_paid_to_the_millionth(groqs: StagedVillage, shop: Shop) -> None:
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
    shop.answers = [ok(completion("Done.", usage=usage))]
    task = groqs.task("Say done.", max_micros=50_000)
    (attempt,) = groqs.stage.cycles(groqs)
    assert (groqs.state(task), attempt.answer) == ("done", "Done.")
    price = groqs.provider("groq").price(MODEL)
    assert price is not None and attempt.spent_micros == price.of(1_000, 100, 400) > 0
    ((paid,),) = rows(groqs, "SELECT sum(micros) FROM transfers WHERE payee = 'provider:groq'")
    assert paid == attempt.spent_micros
    assert_sound(groqs)


@pytest.mark.village(real_time=True)
def test_an_outage_is_waited_out_and_costs_neither_money_nor_an_attempt(groqs: StagedVillage, shop: Shop) -> None:
    shop.answers = [error(404, f"no {KEY}"), error(498, "Full.", retry_after="0.01")]
    task = groqs.task("Say hello.", max_micros=50_000, max_attempts=1)
    groqs.stage.cycles(groqs)
    assert groqs.state(task) == "done"
    assert sum(got.body is not None for got in shop.got) == 3
    assert [row[0] for row in rows(groqs, "SELECT failures FROM tasks")] == [0]
    assert KEY not in json.dumps([str(event) for event in events(groqs)])
    assert KEY.encode() not in (groqs.folder / "vivarium.db").read_bytes()


@pytest.mark.village(real_time=True)
def test_a_model_that_was_shut_down_fails_its_task_with_the_list(groqs: StagedVillage, shop: Shop) -> None:
    shop.answers = [error(404, "It does not exist.", "model_not_found")]
    task = groqs.task("Say hello.", model="groq:llama-3.3-70b-versatile", max_micros=50_000)
    (attempt,) = groqs.stage.cycles(groqs)
    assert groqs.state(task) == "failed"
    assert "llama-3.3-70b-versatile" in attempt.reason
    assert MODEL in attempt.reason
    assert attempt.spent_micros == 0


@pytest.mark.village(real_time=True)
@pytest.mark.parametrize("told", [(-7, 1), (1, 10**13)])
def test_a_usage_that_cannot_be_true_costs_the_worst_case_and_no_more(
    groqs: StagedVillage, shop: Shop, told: tuple[int, int]
) -> None:
    usage = {"prompt_tokens": told[0], "completion_tokens": told[1]}
    shop.answers = [ok(completion("Done.", usage=usage))]
    groqs.task("Say done.", max_micros=50_000)
    (attempt,) = groqs.stage.cycles(groqs)
    ((worst,),) = rows(groqs, "SELECT worst_micros FROM steps WHERE kind = 'model'")
    assert attempt.spent_micros == worst > 0
    assert groqs.distrusted("groq")
