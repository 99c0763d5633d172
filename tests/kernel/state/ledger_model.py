"""The ledger as a small model: what each act does to plain dictionaries, written from docs/rules.md, not from the code.

An act is data. ``on_model`` does it to a :class:`Books`, ``on_kernel`` to a transaction; both answer a value or raise
an error with a ``rule``, and the two must agree.
"""

from __future__ import annotations

import copy
from typing import Any

from attrs import define, field, frozen
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.store import Tx

from vivarium_kernel import holds, ledger

DEBTORS = ("treasury", "operator", "provider:")
LARGEST = 10**15
HOUR_MICROS = 10_000_000  # at the pace of 2.0


class Refused(Exception):
    """The model's refusal."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


@define
class Books:
    """All that the ledger has to know."""

    balances: dict[tuple[str, str], int] = field(factory=dict)
    moved: dict[str, tuple[Any, ...]] = field(factory=dict)
    budgets: dict[tuple[str, str], list[int]] = field(factory=dict)  # the cap that was asked for, reserved, spent
    running: dict[str, tuple[int, int]] = field(factory=dict)  # by resident: the day and what the attempt set aside
    holds: dict[int, dict[str, Any]] = field(factory=dict)
    notes: list[str] = field(factory=list)  # a plugin's own table
    now: int = 0
    founded_at: int = 0

    @property
    def day(self) -> int:
        return (self.now - self.founded_at) // HOUR_MICROS // 24

    def move(self, key: str, payer: str, payee: str, currency: str, micros: Any, reason: str, ref: str) -> bool:
        amount(micros)
        if currency not in ("aid", "usd"):
            raise Refused("ledger.currency")
        if payer == payee:
            raise Refused("ledger.same")
        body = (payer, payee, currency, micros, reason, ref)
        if key in self.moved:
            if self.moved[key] != body:
                raise Refused("ledger.key")
            return False
        left = self.balances.get((payer, currency), 0) - micros
        if left < 0 and not payer.startswith(DEBTORS):
            raise Refused("ledger.floor")
        self.balances[payer, currency] = left
        self.balances[payee, currency] = self.balances.get((payee, currency), 0) + micros
        self.moved[key] = body
        return True

    def set_cap(self, scope: str, currency: str, cap: int) -> None:
        held = [
            micros for name, (day, micros) in self.running.items() if currency == "usd" and scope in scopes(name, day)
        ]  # fmt: skip
        self.budgets.setdefault((scope, currency), [cap, sum(held), 0])[0] = cap

    def reserve(self, scopes: tuple[str, ...], currency: str, micros: int) -> None:
        found = [self.budgets[scope, currency] for scope in scopes if (scope, currency) in self.budgets]
        if any(cap - reserved - spent < micros for cap, reserved, spent in found):
            raise Refused("budget.cap")
        for budget in found:
            budget[1] += micros

    def consume(self, scopes: tuple[str, ...], currency: str, reserved: int, spent: int) -> None:
        if not 0 <= spent <= reserved:
            raise Refused("budget.spent")
        for scope in scopes:
            if budget := self.budgets.get((scope, currency)):
                budget[1] -= reserved
                budget[2] += spent

    def end_hold(self, number: int, owner: str, state: str, payees: tuple[tuple[str, int], ...], reason: str) -> bool:
        if number not in self.holds:
            raise Refused("ledger.hold")
        held = self.holds[number]
        if held["owner"] != owner:
            raise Refused("ledger.hold")
        if held["state"] != "held":
            return False
        for _, micros in payees:
            amount(micros)
        left = held["micros"] - sum(micros for _, micros in payees)
        if left < 0:
            raise Refused("ledger.hold")
        for place, (payee, micros) in enumerate(payees):
            self.move(f"hold:{number}:{place}", f"hold:{number}", payee, held["currency"], micros, reason, held["ref"])
        if left:
            self.move(
                f"hold:{number}:rest", f"hold:{number}", held["payer"], held["currency"], left, state, held["ref"]
            )
        held["state"] = state
        return True


def scopes(resident: str, day: int) -> tuple[str, ...]:
    """What an attempt draws on, where there is such a budget."""
    return ("village", f"village-day:{day}", f"resident-day:{resident}:{day}")


def amount(micros: Any) -> None:
    if type(micros) is not int or not 0 < micros <= LARGEST:
        raise Refused("ledger.amount")


def whole(act: Any, books: Books) -> tuple[Any, str | None]:
    """Do an act whole or not at all: its answer, and the rule that refused it."""
    before = copy.deepcopy(books)
    try:
        return act.on_model(books), None
    except Refused as refused:
        for name in ("balances", "moved", "budgets", "running", "holds", "notes"):
            setattr(books, name, getattr(before, name))
        return None, refused.rule


@frozen
class Pay:
    key: str
    payer: str
    payee: str
    currency: str
    micros: Any

    def on_model(self, books: Books) -> bool:
        return books.move(self.key, self.payer, self.payee, self.currency, self.micros, "paid", "test:1")

    def on_kernel(self, tx: Tx) -> Any:
        return tx.books.transfer(
            self.key, self.payer, self.payee, self.currency, self.micros, "paid", "test", "system:test", "test:1"
        )


@frozen
class Mint:
    key: str
    policy: str
    payee: str
    micros: Any

    def on_model(self, books: Books) -> bool:
        amount(self.micros)
        scope = f"mint:{self.policy}:{books.day}"
        policy = books.budgets.get((f"mint:{self.policy}", "aid"))
        if policy is None:
            raise Refused("ledger.policy")
        cap, _, minted = books.budgets.get((scope, "aid"), policy)
        if self.key not in books.moved and minted + self.micros > cap:
            raise Refused("budget.cap")
        if not books.move(self.key, "treasury", self.payee, "aid", self.micros, "minted", "test:1"):
            return False
        books.budgets[scope, "aid"] = [cap, 0, minted + self.micros]
        return True

    def on_kernel(self, tx: Tx) -> Any:
        return ledger.mint(
            tx, self.policy, self.payee, self.micros, key=self.key, reason="minted", actor="system:test", ref="test:1"
        )


@frozen
class Declare:
    policy: str
    cap: int

    def on_model(self, books: Books) -> None:
        books.set_cap(f"mint:{self.policy}", "aid", self.cap)

    def on_kernel(self, tx: Tx) -> Any:
        return ledger.declare_policy(tx, self.policy, self.cap)


@frozen
class Cap:
    scope: str
    cap: int

    def on_model(self, books: Books) -> None:
        books.set_cap(self.scope, "usd", self.cap)

    def on_kernel(self, tx: Tx) -> Any:
        return tx.books.make_budget(self.scope, "usd", self.cap)


@frozen
class Begin:
    """An attempt begins, with what it sets aside."""

    resident: str
    day: int
    micros: int

    def on_model(self, books: Books) -> None:
        books.reserve(scopes(self.resident, self.day), "usd", self.micros)
        books.running[self.resident] = (self.day, self.micros)

    def on_kernel(self, tx: Tx) -> Any:
        tx.books.reserve(scopes(self.resident, self.day), "usd", self.micros)
        tx.insert(
            "attempts", "task, resident, number, cycle, state, started_at, reserved_micros, budget_day",
            [("work", self.resident, 1, 1, "running", tx.now, self.micros, self.day)],
        )  # fmt: skip


@frozen
class End:
    """The attempt of a resident ends, having spent a part of what it set aside."""

    resident: str
    day: int
    reserved: int
    spent: int

    def on_model(self, books: Books) -> None:
        books.consume(scopes(self.resident, self.day), "usd", self.reserved, self.spent)
        del books.running[self.resident]

    def on_kernel(self, tx: Tx) -> Any:
        tx.books.consume(scopes(self.resident, self.day), "usd", self.reserved, self.spent)
        tx.run(
            "UPDATE attempts SET state = 'ended', ending = 'accepted' WHERE resident = ? AND state = 'running'",
            (self.resident,),
        )


@frozen
class Hold:
    key: str
    payer: str
    currency: str
    micros: Any
    owner: str
    expires_at: int | None

    def on_model(self, books: Books) -> int:
        for number, held in books.holds.items():
            if held["key"] == self.key:
                if any(held[name] != getattr(self, name) for name in ("payer", "currency", "micros", "owner")):
                    raise Refused("ledger.key")
                return number
        amount(self.micros)
        number = len(books.holds) + 1
        books.move(f"hold:{self.key}", self.payer, f"hold:{number}", self.currency, self.micros, "hold", "test:1")
        books.holds[number] = {
            "key": self.key, "payer": self.payer, "currency": self.currency, "micros": self.micros,
            "owner": self.owner, "ref": "test:1", "state": "held", "expires_at": self.expires_at,
        }  # fmt: skip
        return number

    def on_kernel(self, tx: Tx) -> Any:
        return holds.hold(
            tx, self.payer, self.currency, self.micros, key=self.key, owner=self.owner, actor="system:test",
            ref="test:1", expires_at=self.expires_at,
        )  # fmt: skip


@frozen
class Settle:
    number: int
    owner: str
    payees: tuple[tuple[str, int], ...]

    def on_model(self, books: Books) -> bool:
        return books.end_hold(self.number, self.owner, "settled", self.payees, "settled")

    def on_kernel(self, tx: Tx) -> Any:
        return holds.settle_hold(tx, self.number, self.payees, owner=self.owner, reason="settled", actor="system:test")


@frozen
class Release:
    number: int
    owner: str

    def on_model(self, books: Books) -> bool:
        return books.end_hold(self.number, self.owner, "released", (), "")

    def on_kernel(self, tx: Tx) -> Any:
        return holds.release_hold(tx, self.number, owner=self.owner, actor="system:test")


@frozen
class Expire:
    def on_model(self, books: Books) -> int:
        due = [
            number for number, held in books.holds.items()
            if held["state"] == "held" and held["expires_at"] is not None and held["expires_at"] <= books.now
        ]  # fmt: skip
        for number in due:
            books.end_hold(number, books.holds[number]["owner"], "expired", (), "")
        return len(due)

    def on_kernel(self, tx: Tx) -> Any:
        return holds.expire_holds(tx)


@frozen
class Note:
    """A plugin writes to its own table."""

    text: str

    def on_model(self, books: Books) -> None:
        books.notes.append(self.text)

    def on_kernel(self, tx: Tx) -> None:
        tx.run_as("tabled", "INSERT INTO tabled_notes (text) VALUES (?)", (self.text,))


@frozen
class Attempted:
    """A refusal that the caller catches and goes on: it must have changed nothing."""

    act: Any

    def on_model(self, books: Books) -> str | None:
        return whole(self.act, books)[1]

    def on_kernel(self, tx: Tx) -> str | None:
        try:
            self.act.on_kernel(tx)
        except VivariumError as refused:
            return refused.rule
        return None


@frozen
class Part:
    """A plugin's part: all of its acts or, when one is refused or its own code raises, none. True when it stands.

    Which of several faults is named is left open: keys that were used before are looked up only when it matters.
    """

    plugin: str
    acts: tuple[Any, ...]
    raises: bool

    def on_model(self, books: Books) -> bool:
        def body(inner: Books) -> None:
            for act in self.acts:
                act.on_model(inner)
            if self.raises:
                raise Refused("boom")

        return whole(_Body(body), books)[1] is None

    def on_kernel(self, tx: Tx) -> bool:
        failed = None
        try:
            with tx.part(self.plugin):
                try:
                    for act in self.acts:
                        act.on_kernel(tx)
                    if self.raises:
                        raise Refused("boom")
                except Exception as error:
                    failed = error
                    raise
        except Exception as error:
            if error is not failed or not hasattr(error, "rule"):
                raise  # the store's own: the transaction runs again, and so does this part
            return False
        return True


@frozen
class _Body:
    on_model: Any
