"""A village without key, GPU or network; models without a price; and tasks that stand behind many others."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.store import Tx
from vivarium_kernel.village import Village, With

from vivarium_kernel import (
    NewTask,
    Plugin,
    Price,
    ProviderFault,
    Reject,
    Reply,
    Request,
    Usage,
    board,
    hookimpl,
    ledger,
)


class Gate(Plugin):
    """Refuses every task with the label ``forbidden``."""

    name = "gate"

    @hookimpl
    def claim_filter(self, resident: Any, tasks: Sequence[Any], view: Any) -> list[Reject]:
        return [Reject(task.id, "not for anybody") for task in tasks if "forbidden" in task.labels]


class Priceless:
    """A provider that answers, but nobody knows for how much; it counts its calls."""

    name = "priceless"

    def __init__(self) -> None:
        self.calls = 0

    def price(self, model: str) -> Price | None:
        return None

    async def complete(self, request: Request) -> Reply:
        self.calls += 1
        return Reply("done", Usage(1, 1))


class Overloaded:
    """A provider that fails ``faults`` times before it answers."""

    name = "overloaded"

    def __init__(self, faults: int) -> None:
        self.faults = faults
        self.calls = 0

    def price(self, model: str) -> Price | None:
        return Price(1_000_000, 1_000_000)

    async def complete(self, request: Request) -> Reply:
        self.calls += 1
        if self.calls <= self.faults:
            raise ProviderFault("429: too many requests", started=False)
        return Reply("done", Usage(5, 5))


def village_in(folder: Path, settings: str = 'residents = ["ada"]\n', **how: Any) -> Village:
    (folder / "vivarium.toml").write_text(settings, encoding="utf-8")
    return Village(folder, With(threaded=True, **how), environ={})


def copies(tx: Tx, more: int) -> None:
    """Put the only task of the board there as often again, under other names: posting as many takes far longer."""
    columns = [row[1] for row in tx.rows("PRAGMA table_info(tasks)")]
    values = ", ".join({"seq": "seq + n", "id": "'f' || n"}.get(name, name) for name in columns)
    tx.run(
        f"WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {more}) "
        f"INSERT INTO tasks ({', '.join(columns)}) SELECT {values} FROM tasks, numbers WHERE id = 'f0'"
    )


async def run_out(village: Village, residents: int = 1) -> None:
    async with Runtime(village, residents, until_done=True) as runtime:
        await asyncio.wait_for(runtime.run(), 60)


@pytest.mark.promise("no-key-no-network")
def test_a_village_works_without_key_gpu_or_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something looked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    with village_in(tmp_path) as village:
        village.post([NewTask(id="say", prompt="Say something."), NewTask(id="echo", command=("echo", "hello"))])
        asyncio.run(run_out(village))
        with village.store.view() as view:
            assert board.task(view, "say").state == board.task(view, "echo").state == "done"
            assert "no LLM" in (board.attempts(view, "say")[0].answer or "")
            assert board.attempts(view, "echo")[0].stdout == "hello\n"


@pytest.mark.promise("no-price-no-call")
def test_a_model_without_a_known_price_is_never_called(tmp_path: Path) -> None:
    with village_in(tmp_path) as village:
        provider = Priceless()
        village.add_provider(provider)
        village.post([NewTask(id="ask", prompt="x", model="priceless:any", max_attempts=1)])
        asyncio.run(run_out(village))
        with village.store.view() as view:
            assert board.task(view, "ask").state == "failed"
            assert "price" in board.task(view, "ask").reason
        assert provider.calls == 0


@pytest.mark.promise("uncounted-faults")
def test_a_providers_faults_are_not_counted_and_cost_nothing(tmp_path: Path) -> None:
    settings = 'residents = ["ada"]\n[retries]\nbackoff_seconds = 0.05\nbackoff_max_seconds = 0.1\n'
    with village_in(tmp_path, settings) as village:
        provider = Overloaded(faults=4)
        village.add_provider(provider)
        village.post([NewTask(id="ask", prompt="x", model="overloaded:any", max_attempts=1, max_micros=1_000_000)])
        asyncio.run(run_out(village))
        with village.store.view() as view:
            task = board.task(view, "ask")
            assert (task.state, task.failures, task.faults, task.attempts) == ("done", 0, 4, 5)
            assert ledger.balance(view, "provider:overloaded", "usd") == 10
            assert not ledger.verify(view).problems


def test_a_fault_that_lasts_past_the_deadline_fails_the_task(tmp_path: Path) -> None:
    settings = 'residents = ["ada"]\n[retries]\nbackoff_seconds = 0.05\nbackoff_max_seconds = 0.1\n'
    with village_in(tmp_path, settings) as village:
        village.add_provider(Overloaded(faults=1000))
        village.post([NewTask(id="ask", prompt="x", model="overloaded:any", retry_seconds=0.5)])
        asyncio.run(run_out(village))
        with village.store.view() as view:
            task = board.task(view, "ask")
            assert task.state == "failed"
            assert "deadline" in task.reason
            assert task.failures == 0


@pytest.mark.promise("nothing-hides-a-task")
def test_a_task_behind_a_hundred_thousand_is_found(tmp_path: Path) -> None:
    with village_in(tmp_path, plugins=(Gate,)) as village:
        village.post([NewTask(id="f0", prompt="x", labels=("forbidden",))])
        village.store.call(copies, 99_999)
        village.post([NewTask(id="mine", prompt="x")])
        asyncio.run(run_out(village))
        with village.store.view() as view:
            assert board.task(view, "mine").state == "done"
            assert board.counts(view)["open"] == 100_000
