"""Promises about money, held against a small model under any sequence of acts: alone, grouped, in parts that fail."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from vivarium_kernel.processes import Register, Self
from vivarium_kernel.records import NewTask
from vivarium_kernel.store import Tx, setwise

from vivarium_kernel import board, ledger, processes

from . import ledger_model as model
from .scene import Scene

CAN_OWE = ("treasury", "operator", "provider:one")
ACCOUNTS = (*CAN_OWE, "commons", "resident:ada:free", "resident:ben:free", "plugin:plain:pot")
RESIDENTS = ("ada", "ben", "cyn")
CAPPED = ("village", "resident-day:ada:1", "resident-day:ben:1")  # from the start
SCOPES = (*CAPPED, "village-day:1", "village-day:2", "resident-day:cyn:1", "resident-day:ada:2")
AMOUNTS = st.one_of(st.integers(1, 40), st.sampled_from([0, -5, True, 2.0, 10**15, 10**15 + 1]))
KEYS = st.sampled_from([f"k{number}" for number in range(8)])
POLICIES = st.sampled_from(["task", "stipend", "unheard-of"])
OWNERS = st.sampled_from(["plain", "tabled"])

pays = st.builds(
    model.Pay, KEYS, st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS),
    st.sampled_from(["aid", "aid", "usd", "eur"]), AMOUNTS,
)  # fmt: skip
mints = st.builds(model.Mint, KEYS.map("m{}".format), POLICIES, st.sampled_from(ACCOUNTS[3:]), AMOUNTS)
holds = st.builds(
    model.Hold, KEYS.map("h{}".format), st.sampled_from(ACCOUNTS[3:]), st.just("aid"), AMOUNTS, OWNERS,
    st.sampled_from([None, 1_750_000_100_000_000, 1_750_000_900_000_000]),
)  # fmt: skip
NUMBERS = st.integers(1, 4)
ended = st.one_of(
    st.builds(
        model.Settle,
        NUMBERS,
        OWNERS,
        st.lists(st.tuples(st.sampled_from(ACCOUNTS[3:]), AMOUNTS), max_size=2).map(tuple),
    ),
    st.builds(model.Release, NUMBERS, OWNERS),
    st.just(model.Expire()),
)
caps = st.one_of(
    st.builds(model.Cap, st.sampled_from(SCOPES), st.integers(0, 120)),
    st.builds(model.Declare, st.sampled_from(["task", "stipend"]), st.integers(0, 120)),
)
plain = st.one_of(pays, pays, mints, holds, ended, caps)
simple = plain | st.builds(model.Attempted, plain) | st.builds(model.Attempted, mints)
parts = st.builds(
    model.Part, st.just("plain"), st.lists(simple, min_size=1, max_size=3).map(tuple), st.booleans()
) | st.builds(
    model.Part, st.just("tabled"), st.lists(simple | st.builds(model.Note, KEYS), min_size=1, max_size=3).map(tuple),
    st.booleans(),
)  # fmt: skip
acts = simple | parts


@setwise(20)
def in_tries(tx: Tx, items: list[Any]) -> list[Any]:
    """Acts of one setwise request each in a try of its own, as claims are."""
    answers: list[Any] = []
    for act in items:
        with tx.trying() as trial:
            answers.append(act.on_kernel(tx))
        if trial.error is not None:
            answers.append(trial.error)
    return answers


def alone(tx: Tx, act: Any) -> Any:
    return act.on_kernel(tx)


class LedgerMachine(RuleBasedStateMachine):
    """Every act is done to the village's ledger and to the model, and must be answered alike."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()
        self.books = model.Books()

    @initialize()
    def found(self) -> None:
        scene = self.scene
        number = scene.call(processes.register, Register(Self("here", 1, "1"), "run", 1e6))
        scene.call(processes.take_host, number)  # the village's days pass only while somebody hosts it
        with scene.store.exclusive() as connection:
            connection.execute("CREATE TABLE tabled_notes (text TEXT)")
        self.books.now = self.books.founded_at = scene.clock.now()
        scene.call(board.post, board.Posting([NewTask(id="work", mode="llm", max_micros=0)], "operator:test"))
        for name in RESIDENTS:
            key = f"start:{name}"
            self.books.move(key, "treasury", f"resident:{name}:free", "aid", 100_000_000, "start", f"resident:{name}")
        self.books.budgets["mint:start", "aid"] = [10**15, 0, 0]
        self.books.budgets["mint:start:0", "aid"] = [10**15, 0, 300_000_000]
        for act in [model.Cap(scope, 100) for scope in CAPPED] + [
            model.Declare("task", 60),
            model.Declare("stipend", 30),
        ]:
            self.do(act)
        # From here on small change decides: whoever has a start of 100 aid can pay anything.
        for name in RESIDENTS:
            self.do(model.Pay(f"spend:{name}", f"resident:{name}:free", "commons", "aid", 99_999_950))
        self.do(model.Pay("spend:commons", "commons", "operator", "aid", 299_999_820))

    def teardown(self) -> None:
        self.scene.close()

    def do(self, act: Any) -> None:
        """One act in a commit of its own."""
        self.expect([act], self.scene.together([(alone, act)]))

    def expect(self, done: list[Any], answers: list[Any]) -> None:
        for act, answer in zip(done, answers, strict=True):
            said, rule_ = model.whole(act, self.books)
            heard = getattr(answer, "rule", repr(answer)) if isinstance(answer, BaseException) else None
            assert (heard, None if heard else answer) == (rule_, said), act

    @rule(act=acts)
    def one(self, act: Any) -> None:
        self.do(act)

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A transfer that was made, asked for again: nothing moves, whatever its accounts hold now."""
        key = data.draw(st.sampled_from(sorted(self.books.moved)))
        payer, payee, currency, micros, reason, ref = self.books.moved[key]
        assert self.scene.call(
            lambda tx, _: tx.books.transfer(key, payer, payee, currency, micros, reason, "test", "system:test", ref)
        ) is False  # fmt: skip

    @rule(
        grouped=st.lists(acts, max_size=4), single=st.lists(acts, max_size=3), carefully=st.booleans(),
        broken=st.none() | acts,
    )  # fmt: skip
    def many(self, grouped: list[Any], single: list[Any], carefully: bool, broken: Any) -> None:
        """Requests that share a commit: each its own answer; one whose code raises takes nothing else along."""

        def breaks(tx: Tx, act: Any) -> None:
            alone(tx, act)
            raise ZeroDivisionError

        requests: list[tuple[Any, Any]] = [(in_tries, act) for act in grouped]
        if broken is not None:
            requests.append((breaks, broken))
        requests += [(alone, act) for act in single]
        answers = self.scene.together(requests, carefully=carefully)
        if broken is not None:
            assert isinstance(answers.pop(len(grouped)), Exception)
        self.expect([*grouped, *single], answers)

    @rule(resident=st.sampled_from(RESIDENTS), day=st.sampled_from([1, 1, 2]), micros=st.integers(1, 40))
    def begin(self, resident: str, day: int, micros: int) -> None:
        if resident not in self.books.running:
            self.do(model.Begin(resident, day, micros))

    @rule(data=st.data(), part=st.floats(0, 1.2))
    def end(self, data: st.DataObject, part: float) -> None:
        if self.books.running:
            resident = data.draw(st.sampled_from(sorted(self.books.running)))
            day, micros = self.books.running[resident]
            self.do(model.End(resident, day, micros, int(micros * part)))

    @rule(scope=st.sampled_from(SCOPES), cap=st.integers(0, 60))
    def cap(self, scope: str, cap: int) -> None:
        self.do(model.Cap(scope, cap))

    @rule(seconds=st.sampled_from([1.0, 60.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.scene.clock.advance(seconds)
        self.books.now = self.scene.clock.now()

    @invariant()
    def the_ledger_is_its_model(self) -> None:
        with self.scene.store.view() as view:
            found = {(name, currency): micros for name, currency, micros in ledger.balances(view) if micros}
            assert found == {place: micros for place, micros in self.books.balances.items() if micros}
            budgets = {(row[0], row[1]): row[2:] for row in view.rows(
                "SELECT scope, currency, cap, reserved, spent, wanted FROM budgets")}  # fmt: skip
            assert budgets == {
                place: (max(asked, reserved + spent), reserved, spent, asked if asked < reserved + spent else None)
                for place, (asked, reserved, spent) in self.books.budgets.items()
            }
            assert dict(view.rows("SELECT id, state FROM holds")) == {
                n: h["state"] for n, h in self.books.holds.items()
            }
            keys = {row[0]: row[1:] for row in view.rows(
                "SELECT key, payer, payee, currency, micros, reason, ref FROM transfers")}  # fmt: skip
            assert keys == self.books.moved
            told = view.rows("SELECT count(*), sum(data ->> 'micros') FROM events WHERE kind = 'money.moved'")
            assert told == [(len(keys), sum(row[3] for row in keys.values()))]
            if view.rows("SELECT 1 FROM sqlite_master WHERE name = 'tabled_notes'"):
                assert [row[0] for row in view.rows("SELECT text FROM tabled_notes")] == self.books.notes
        self.scene.check_books()

    @invariant()
    def nobody_owes_and_no_cap_is_passed(self) -> None:
        below = "SELECT name FROM accounts WHERE balance < 0 AND name NOT IN ('treasury', 'operator', 'provider:one')"
        assert self.scene.rows(below) == []
        assert (
            self.scene.rows("SELECT scope FROM budgets WHERE reserved < 0 OR spent < 0 OR reserved + spent > cap") == []
        )


def run(examples: int, steps: int, *, shrink: bool = True) -> None:
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, derandomize=not shrink, database=None,
            phases=phases, report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.promise(
    "ledger-model", "double-entry", "transfer-keys", "amounts-are-positive", "kernel-and-parts-commit-together"
)
def test_the_ledger_agrees_with_its_model() -> None:
    run(60, 25)


@pytest.mark.long
@pytest.mark.promise("ledger-model")
def test_the_ledger_agrees_with_its_model_for_long() -> None:
    run(20_000, 60)
