"""Promises that the machines and simulations once found broken: each as the shortest story that shows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from vivarium_kernel.circuit import Circuit
from vivarium_kernel.cycle import _failed
from vivarium_kernel.errors import Conflict, Distrusted, Invalid, LeaseLapsed, OverBudget, VivariumError
from vivarium_kernel.models import Message, Price, Reply, Request
from vivarium_kernel.records import Entitlement, NewTask, Outcome, Usage
from vivarium_kernel.settings import Models
from vivarium_kernel.stepping import Holder, Intent, Result
from vivarium_kernel.store import Tx

from vivarium_kernel import board, claiming, deciding, holds, ledger, model_calls, processes, settling, stepping

from .scene import Scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene('residents = ["ada", "ben"]')
    yield made
    made.close()


def pay(scene: Scene, key: str, payer: str, micros: int) -> Any:
    return scene.call(
        lambda tx, _: tx.books.transfer(key, payer, "commons", "aid", micros, "paid", "test", "system:test", "test:1")
    )


@pytest.mark.promise("transfer-keys")
def test_a_transfer_that_was_made_stays_made_when_its_payer_has_nothing_left(scene: Scene) -> None:
    assert pay(scene, "k", "resident:ada:free", 100_000_000)
    assert pay(scene, "k", "resident:ada:free", 100_000_000) is False
    with pytest.raises(Conflict) as refused:
        pay(scene, "k", "resident:ada:free", 99)
    assert refused.value.rule == "ledger.key"


@pytest.mark.promise("transfer-keys")
def test_minting_that_was_done_stays_done_when_its_cap_is_reached(scene: Scene) -> None:
    def mint(tx: Tx, key: str) -> bool:
        return ledger.mint(tx, "gift", "commons", 10, key=key, reason="gift", actor="system:test", ref="test:1")

    scene.call(lambda tx, _: ledger.declare_policy(tx, "gift", 10))
    assert scene.call(mint, "one") is True
    assert scene.call(mint, "one") is False
    with pytest.raises(OverBudget):
        scene.call(mint, "two")


@pytest.mark.promise("double-entry")
def test_who_catches_the_refusal_of_minting_has_minted_nothing(scene: Scene) -> None:
    def reward(tx: Tx, _: None) -> str:
        try:
            ledger.mint(tx, "gift", "commons", 11, key="k", reason="gift", actor="system:test", ref="test:1")
        except OverBudget:
            return "capped"
        return "minted"

    scene.call(lambda tx, _: ledger.declare_policy(tx, "gift", 10))
    assert scene.call(reward) == "capped"
    assert scene.rows("SELECT 1 FROM transfers WHERE key = 'k'") == []


@pytest.mark.promise("double-entry")
def test_a_hold_pays_all_or_nothing(scene: Scene) -> None:
    number = scene.call(
        lambda tx, _: holds.hold(
            tx, "resident:ada:free", "aid", 50, key="h", owner="p", actor="system:test", ref="test:1"
        )
    )

    def settle(tx: Tx, _: None) -> None:
        with pytest.raises(Invalid):
            holds.settle_hold(tx, number, [("commons", 5), ("operator", 0)], owner="p", reason="r", actor="system:test")

    scene.call(settle)
    scene.check_books()
    assert scene.rows("SELECT balance FROM accounts WHERE name = ?", (f"hold:{number}",)) == [(50,)]


@pytest.mark.promise("kernel-and-parts-commit-together")
def test_a_part_that_repeats_a_key_takes_nothing_of_its_request_along(scene: Scene) -> None:
    pay(scene, "k", "operator", 7)
    with scene.store.exclusive() as connection:
        connection.execute("CREATE TABLE tabled_notes (text TEXT)")

    def request(tx: Tx, _: None) -> str:
        tx.books.transfer("before", "operator", "commons", "aid", 1, "paid", "test", "system:test", "test:1")
        with tx.part("tabled"):
            tx.books.transfer("k", "operator", "commons", "aid", 7, "paid", "test", "system:test", "test:1")
        return "done"

    assert scene.together([(request, None)]) == ["done"]
    scene.check_books()
    assert scene.rows("SELECT key FROM transfers WHERE key IN ('before', 'k') ORDER BY id") == [("k",), ("before",)]


def post(scene: Scene, *tasks: NewTask) -> list[str]:
    return [task.id for task in scene.call(board.post, board.Posting(tasks, "operator:test"))]


@pytest.mark.promise("idempotent-post")
def test_a_task_without_an_id_takes_none_that_somebody_chose(scene: Scene) -> None:
    post(scene, NewTask(id="t2", mode="llm", prompt="p"))
    assert post(scene, NewTask(mode="llm", prompt="p"), NewTask(id="t4", mode="llm"), NewTask(mode="llm")) == [
        "t3", "t4", "t5",
    ]  # fmt: skip


@pytest.mark.promise("impossible-tasks")
def test_two_tasks_of_one_post_with_one_key_are_refused(scene: Scene) -> None:
    with pytest.raises(Invalid) as refused:
        post(scene, NewTask(key="k", mode="llm"), NewTask(key="k", mode="llm", prompt="other"))
    assert (refused.value.rule, refused.value.field) == ("board.twice", "key")
    assert scene.rows("SELECT 1 FROM tasks") == []


def claimed(scene: Scene, process: int, *names: str) -> list[Any]:
    with scene.store.view() as view:
        shown = claiming.Window().read(view, 64)
    picks = [claiming.Pick(name, tuple(shown)) for name in names]
    found: list[Any] = scene.together([(claiming.claim, claiming.Round(picks, process))])[0]
    return found


def joined(scene: Scene) -> int:
    me = processes.Self("here", 1, "1")
    number: int = scene.call(processes.register, processes.Register(me, "run", 1_000.0))
    return number


@pytest.mark.promise("lapsed-lease")
@pytest.mark.parametrize("stranger_first", [True, False])
def test_a_stranger_who_shares_a_commit_with_the_holder_is_told_apart(scene: Scene, stranger_first: bool) -> None:
    post(scene, NewTask(id="a", mode="llm"))
    (won,) = claimed(scene, joined(scene), "ada")
    intents = [
        (stepping.intend, Intent(won.attempt, number, holder, "tool", "t", "once", "{}", "ada", "a"))
        for number, holder in ((1, won.holder), (2, Holder(999)))
    ]
    answers = scene.together(intents[::-1] if stranger_first else intents)
    mine, strangers = answers[::-1] if stranger_first else answers
    assert mine is None
    assert isinstance(strangers, LeaseLapsed)


@pytest.mark.promise("recorded-results-stand")
def test_a_step_is_written_once(scene: Scene) -> None:
    post(scene, NewTask(id="a", mode="llm", max_micros=100))
    (won,) = claimed(scene, joined(scene), "ada")
    intent = Intent(won.attempt, 1, won.holder, "tool", "t", "once", "{}", "ada", "a", 60)
    first, again = scene.together([(stepping.intend, intent), (stepping.intend, intent)])
    assert first is None
    assert isinstance(again, VivariumError)
    result = Result(won.attempt, 1, won.holder, "ada", "a", "done", "{}", 60, provider="p")
    first, again = scene.together([(stepping.record, result), (stepping.record, result)])
    assert first is None
    assert isinstance(again, LeaseLapsed)
    assert scene.rows("SELECT spent_micros, pending_micros FROM attempts") == [(60, 0)]


@pytest.mark.promise("one-cycle-at-a-time")
def test_a_resident_who_asks_twice_in_one_round_gets_one_task(scene: Scene) -> None:
    post(scene, NewTask(id="a", mode="llm"), NewTask(id="b", mode="llm"))
    first, second = claimed(scene, joined(scene), "ada", "ada")
    assert (first.task.id, second.rule) == ("a", "resident.busy")


@pytest.mark.promise("board-model")
def test_a_task_that_was_tried_since_a_resident_looked_is_not_claimed_by_what_it_knew(scene: Scene) -> None:
    post(scene, NewTask(id="a", mode="llm"))
    with scene.store.view() as view:
        old = claiming.Window().read(view, 64)
    process = joined(scene)
    (won,) = claimed(scene, process, "ada")
    scene.call(settling.settle, settling.Settlement(won.attempt, won.holder, "released"))
    (refused,) = scene.call(claiming.claim, claiming.Round([claiming.Pick("ben", tuple(old))], process))
    assert refused.rule == "taken"
    (again,) = claimed(scene, process, "ben")
    assert again.number == 2


@pytest.mark.promise("missed-parts")
def test_a_part_that_fails_when_an_unclaimed_task_is_cancelled_is_kept(scene: Scene) -> None:
    post(scene, NewTask(id="a", mode="llm"))
    failed = SimpleNamespace(plugin="p", error=ValueError("boom"))
    scene.call(deciding.decide, deciding.Decision("a", "cancel", "operator:test", "no", lambda *_: [failed]))
    assert scene.rows("SELECT plugin, hook, task, attempt FROM missed") == [("p", "end_attempt", "a", None)]


# What providers report


class Desk:
    """What a model call needs of a job."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self.ended: dict[str, Any] = {}
        self.distrusted = ""
        self.models = Models()
        self.now = time.monotonic
        self.number = 1

    def provider(self, name: str) -> Any:
        return SimpleNamespace(price=lambda model: Price(10**6, 10**6), complete=self._complete)

    async def _complete(self, request: Request) -> Reply:
        return Reply("done", self._usage)

    def entitled(self) -> Entitlement:
        return Entitlement()

    async def begin(self, *_: Any, worst_micros: int, **__: Any) -> None:
        self.worst = worst_micros

    def end(self, state: str, result: Any, **more: Any) -> None:
        self.ended = more

    def step_key(self, number: int) -> str:
        return f"t:ada.0.{number}"

    def circuit(self, model: str) -> Circuit:
        return Circuit()

    def distrust(self, provider: str, reason: str) -> None:
        self.distrusted = reason


@pytest.mark.promise("caps-hold")
@pytest.mark.parametrize(
    ("usage", "spent", "distrusted"),
    [
        (Usage(1, 2), 3, False),
        (Usage(0, 0), 0, False),
        (Usage(1, 10**6), None, True),
        (Usage(1, 10**20), None, True),
        (Usage(-5, 1), None, True),
        (Usage(1, 1.5), None, True),  # type: ignore[arg-type]
        (Usage(True, 1), None, True),
        (Usage("1", 1), None, True),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_report_that_can_not_be_true_costs_what_was_reserved(
    usage: Usage, spent: int | None, distrusted: bool
) -> None:
    desk = Desk(usage)
    reply = asyncio.run(model_calls.call(desk, Request("p:m", [Message("user", "hello")], max_tokens=10)))  # type: ignore[arg-type]
    assert desk.ended["spent_micros"] == (desk.worst if spent is None else spent)
    assert bool(desk.distrusted) is distrusted
    assert type(reply.usage.tokens_in) is type(reply.usage.tokens_out) is int


@pytest.mark.promise("uncounted-faults")
def test_a_provider_that_is_distrusted_fails_nobodys_task() -> None:
    outcome: Outcome = _failed(Distrusted("model.distrusted", "p is refused."))
    assert outcome.fault == "provider"


@pytest.mark.promise("dependencies-need-done")
def test_very_many_dependents_fail_level_by_level_each_with_its_reason(scene: Scene) -> None:
    post(scene, NewTask(id="hub", command=("ls",)))
    post(scene, *[NewTask(id=f"a{n}", command=("ls",), needs=("hub",)) for n in range(2_000)])
    post(scene, NewTask(id="last", command=("ls",), needs=("a7", "a1999", "hub")))
    post(scene, NewTask(id="behind", command=("ls",), needs=("last",)))
    writes: list[int] = []

    def cancel(tx: Tx, _: None) -> None:
        deciding.decide(tx, deciding.Decision("hub", "cancel", "human:test"))
        writes.append(tx.writes)

    scene.call(cancel)
    assert writes[0] < 100
    reasons = dict(scene.rows("SELECT id, reason FROM tasks WHERE state = 'failed'"))
    assert len(reasons) == 2_002
    assert reasons["a7"] == reasons["last"] == "it needs hub, which is cancelled"
    assert reasons["behind"] == "it needs last, which is failed"
    told = scene.rows("SELECT count(DISTINCT task), count(*) FROM events WHERE kind = 'task.failed'")
    assert told == [(2_002, 2_002)]


def test_a_requeued_task_has_its_new_deadline_whatever_its_holder_remembers(scene: Scene) -> None:
    post(scene, NewTask(id="one", command=("ls",), retry_seconds=10.0))
    process = joined(scene)
    with scene.store.view() as view:
        old = board.task(view, "one")
    scene.clock.advance(8)
    for what in ("cancel", "requeue"):
        scene.call(deciding.decide, deciding.Decision("one", what, "human:test"))
    (won,) = claimed(scene, process, "ada")
    scene.clock.advance(4)
    asked = settling.Settlement(won.attempt, won.holder, "released", outcome=Outcome(fault="provider"), task=old)
    scene.call(settling.settle, asked)
    assert scene.rows("SELECT state FROM tasks") == [("parked",)]


def test_decisions_are_carried_out_in_the_order_that_is_given_but_for_what_needs_what(scene: Scene) -> None:
    post(scene, NewTask(id="base", command=("ls",)))
    post(scene, NewTask(id="between", command=("ls",), needs=("base",)), NewTask(id="d", command=("ls",)))
    post(scene, NewTask(id="c", command=("ls",), needs=("between",)))

    def order(what: deciding.What, *names: str) -> list[str]:
        asked = {name: deciding.Decision(name, what, "human:test") for name in names}
        return [one.task for one in scene.call(lambda tx, _: deciding._in_order(tx, asked))]

    assert order("requeue", "c", "d") == ["c", "d"]
    assert order("requeue", "d", "c", "base") == ["d", "base", "c"]
    assert order("cancel", "base", "d", "c") == ["d", "c", "base"]
