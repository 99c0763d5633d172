"""The room of the money: accounts, transfers and budgets. Rules: docs/rules.md, "Money".

Amounts are integer millionths. An account is ``treasury``, ``commons``, ``resident:NAME:free``, ``plugin:NAME:…``,
``hold:NUMBER``, ``operator`` or ``provider:NAME``; every account but the treasury, the operator's and the providers'
has a floor of 0. Every transfer carries an idempotency key, kept for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import define, frozen

from vivarium_kernel.amounts import LARGEST_MICROS, money_text
from vivarium_kernel.budgets import Budget
from vivarium_kernel.errors import Conflict, Forbidden, Invalid, OverBudget
from vivarium_kernel.records import Transfer
from vivarium_kernel.store import Tx, View, json_list
from vivarium_kernel.terms import Actor

CURRENCIES = ("aid", "usd")
_FLOORLESS = ("treasury", "operator", "provider:", "outside")
# The budgets of real money, besides its task's, that a running attempt holds its reservation in.
_HELD_IN = "'village', 'village-day:' || budget_day, 'resident-day:' || resident || ':' || budget_day"
_NEW_BUDGET = (
    "INSERT INTO budgets (scope, currency, cap, reserved, wanted) "
    "SELECT ?1, ?2, max(?3, held), held, CASE WHEN ?3 < held THEN ?3 END FROM ("
    "SELECT coalesce(sum(reserved_micros), 0) AS held FROM attempts "
    f"WHERE state = 'running' AND ?2 = 'usd' AND ?1 IN ({_HELD_IN})) RETURNING cap, reserved, spent, wanted"
)


@define
class _Account:
    balance: int
    floor: int | None
    new: bool
    changed: bool = False


@define
class _Budget:
    """``wanted`` is a cap below what is reserved and spent; until enough of that is back, ``cap`` is just that."""

    cap: int
    reserved: int
    spent: int
    wanted: int | None
    changed: bool = False

    def aim(self, cap: int) -> None:
        """Go as near to this cap as what is reserved and spent allows."""
        used = self.reserved + self.spent
        self.cap, self.wanted = max(cap, used), cap if cap < used else None


class Books:
    """The accounts, transfers and budgets that the open transaction changes, written when it is flushed."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._budgets: dict[tuple[str, str], _Budget | None] = {}
        self._transfers: list[tuple[Any, ...]] = []
        self._by_key: dict[str, tuple[Any, ...]] = {}
        self._undo: list[tuple[Any, ...]] = []

    # What the transaction's participants do

    def mark(self) -> tuple[int, int]:
        return len(self._undo), len(self._transfers)

    def rollback(self, mark: tuple[int, int], written: bool) -> None:
        if written:
            self._accounts.clear()
            self._budgets.clear()
            self._transfers.clear()
            self._by_key.clear()
            self._undo.clear()
            return
        for undo in reversed(self._undo[mark[0] :]):
            if len(undo) == 2:
                undo[0].balance = undo[1]
            else:
                undo[0].cap, undo[0].reserved, undo[0].spent, undo[0].wanted = undo[1:]
        del self._undo[mark[0] :]
        for row in self._transfers[mark[1] :]:
            del self._by_key[row[0]]
        del self._transfers[mark[1] :]

    def flush(self) -> None:
        tx = self._tx
        if self._accounts:
            changed = [(n, c, a) for (n, c), a in self._accounts.items() if a.changed]
            tx.insert(
                "accounts",
                "name, currency, balance, floor",
                [(n, c, a.balance, a.floor) for n, c, a in changed if a.new],
            )
            tx.update(
                "accounts",
                "balance = v.column3",
                "accounts.name = v.column1 AND accounts.currency = v.column2",
                [(n, c, a.balance) for n, c, a in changed if not a.new],
            )
            for _, _, account in changed:
                account.new = account.changed = False
        if self._transfers:
            tx.insert(
                "transfers", "key, payer, payee, currency, micros, reason, source, actor, ref, at", self._transfers
            )
            self._transfers.clear()
        moved = [(s, c, b) for (s, c), b in self._budgets.items() if b is not None and b.changed]
        if moved:
            tx.update(
                "budgets",
                "cap = v.column3, reserved = v.column4, spent = v.column5, wanted = v.column6",
                "budgets.scope = v.column1 AND budgets.currency = v.column2",
                [(s, c, b.cap, b.reserved, b.spent, b.wanted) for s, c, b in moved],
            )
            for _, _, budget in moved:
                budget.changed = False
        self._undo.clear()

    # Accounts

    def load(self, names: Iterable[str], currency: str) -> None:
        """Read accounts ahead, many in one statement."""
        missing = [n for n in dict.fromkeys(names) if (n, currency) not in self._accounts]
        if not missing:
            return
        for name, balance, floor in self._tx.rows(
            "SELECT name, balance, floor FROM accounts WHERE currency = ? AND name IN (SELECT value FROM json_each(?))",
            (currency, json_list(missing)),
        ):
            self._accounts[name, currency] = _Account(balance, floor, False)
        for name in missing:
            if (name, currency) not in self._accounts:
                self._accounts[name, currency] = _Account(0, None if name.startswith(_FLOORLESS) else 0, True)

    def account(self, name: str, currency: str) -> _Account:
        found = self._accounts.get((name, currency))
        if found is None:
            self.load((name,), currency)
            found = self._accounts[name, currency]
        return found

    def transfer(
        self,
        key: str,
        payer: str,
        payee: str,
        currency: str,
        micros: int,
        reason: str,
        source: str,
        actor: str,
        ref: str,
    ) -> bool:
        """Move money. False when this very transfer was made before; raises on any fault, having changed nothing."""
        check_amount(micros)
        if currency not in CURRENCIES:
            raise Invalid(
                "ledger.currency", f"No such currency: {currency!r}.", "Use 'aid' or 'usd'.", field="currency"
            )
        if payer == payee:
            raise Invalid("ledger.same", f"{payer} can't pay itself.", field="payee")
        if not key or not reason or not ref:
            raise Invalid("ledger.words", "A transfer needs a key, a reason and a reference.", field="reason")
        row = (key, payer, payee, currency, micros, reason, source, actor, ref, self._tx.now)
        before = self._made(key) if self._tx.careful else self._by_key.get(key)
        source_account = self.account(payer, currency)
        target_account = self.account(payee, currency)
        lacks = source_account.floor is not None and source_account.balance - micros < source_account.floor
        if before is None and lacks:
            # What was paid before needs no money now.
            before = self._made(key)
        if before is not None:
            # A key that repeats in a grouped run makes its INSERT fail, and the careful run comes here.
            if tuple(before[:6]) != row[:6] or before[8] != ref:
                raise Conflict(
                    "ledger.key",
                    f"The key {key!r} was used for another transfer: "
                    f"{before[4]} millionths from {before[1]} to {before[2]}.",
                    "Use a new key for a new transfer.",
                )
            return False
        if lacks:
            raise Conflict(
                "ledger.floor",
                f"{payer} holds {source_account.balance} millionths of {currency} and can't pay {micros}.",
                "Pay less, or wait until the account holds more.",
            )
        self._undo.append((source_account, source_account.balance))
        self._undo.append((target_account, target_account.balance))
        source_account.balance -= micros
        target_account.balance += micros
        source_account.changed = target_account.changed = True
        self._transfers.append(row)
        self._by_key[key] = row
        self._tx.log.add(
            "money.moved",
            actor,
            {"key": key, "payer": payer, "payee": payee, "currency": currency, "micros": micros, "reason": reason,
             "ref": ref},
            *_about(payer, payee, ref),
        )  # fmt: skip
        return True

    def _made(self, key: str) -> tuple[Any, ...] | None:
        """The transfer that was made under a key, in this transaction or ever."""
        found = self._by_key.get(key)
        if found is None:
            found = self._tx.row(
                "SELECT key, payer, payee, currency, micros, reason, source, actor, ref, at FROM transfers "
                "WHERE key = ?",
                (key,),
            )
            if found is not None:
                self._by_key[key] = found
        return found

    def refuse_over_cap(self, scope: str, currency: str, micros: int, key: str, cap: int | None) -> None:
        """Raise OverBudget if ``micros`` don't fit, unless the transfer with this key was made before.

        ``cap`` is that of a budget that is yet to be made.
        """
        budget = self.budget(scope, currency)
        if budget is None and cap is not None:
            budget = _Budget(cap, 0, 0, None)
        if budget is not None and micros > budget.cap - budget.reserved - budget.spent and self._made(key) is None:
            raise _over_cap(scope, currency, budget, micros)

    # Budgets

    def load_budgets(self, scopes: Iterable[str], currency: str) -> None:
        """Read budgets ahead, many in one statement."""
        missing = [s for s in dict.fromkeys(scopes) if (s, currency) not in self._budgets]
        if not missing:
            return
        for scope in missing:
            self._budgets[scope, currency] = None
        for scope, cap, reserved, spent, wanted in self._tx.rows(
            "SELECT scope, cap, reserved, spent, wanted FROM budgets "
            "WHERE currency = ? AND scope IN (SELECT value FROM json_each(?))",
            (currency, json_list(missing)),
        ):
            self._budgets[scope, currency] = _Budget(cap, reserved, spent, wanted)

    def budget(self, scope: str, currency: str) -> _Budget | None:
        if (scope, currency) not in self._budgets:
            self.load_budgets((scope,), currency)
        return self._budgets[scope, currency]

    def reserve(self, scopes: Sequence[str], currency: str, micros: int) -> None:
        """Set ``micros`` aside in every scope that has a budget, or in none: raises OverBudget naming the scope."""
        budgets = [(scope, self.budget(scope, currency)) for scope in scopes]
        for scope, budget in budgets:
            if budget is not None and budget.reserved + budget.spent + micros > budget.cap:
                raise _over_cap(scope, currency, budget, micros)
        for _, budget in budgets:
            if budget is not None:
                self._change(budget, micros, 0)

    def consume(self, scopes: Sequence[str], currency: str, reserved: int, spent: int) -> None:
        """Turn ``reserved`` that was set aside into ``spent`` (at most as much); the rest returns."""
        if not 0 <= spent <= reserved:
            raise Invalid("budget.spent", f"{spent} can't be spent of {reserved} that were reserved.")
        for scope in scopes:
            budget = self.budget(scope, currency)
            if budget is not None:
                self._change(budget, -reserved, spent)
                if budget.wanted is not None:
                    budget.aim(budget.wanted)

    def _change(self, budget: _Budget, reserved: int, spent: int) -> None:
        self._undo.append((budget, budget.cap, budget.reserved, budget.spent, budget.wanted))
        budget.reserved += reserved
        budget.spent += spent
        budget.changed = True

    def make_budget(self, scope: str, currency: str, cap: int) -> None:
        """Make a budget if there is none, else change its cap. A new one holds what running attempts have set aside.

        Below a cap that is less than what is reserved and spent nothing more fits, and what comes back lowers it.
        """
        budget = self.budget(scope, currency)
        if budget is None:
            self._tx.writes += 1  # one statement makes it and tells what it holds
            self._budgets[scope, currency] = _Budget(*self._tx.rows(_NEW_BUDGET, (scope, currency, cap))[0])
        elif cap != (budget.cap if budget.wanted is None else budget.wanted):
            self._change(budget, 0, 0)
            budget.aim(cap)


def _about(payer: str, payee: str, ref: str) -> tuple[str | None, str | None, int | None]:
    """The resident, task and attempt that a transfer is about: who is paid, or else who pays, and what for."""
    account = payee if payee.startswith("resident:") else payer
    resident = account.split(":", 2)[1] if account.startswith("resident:") else None
    kind, _, name = ref.partition(":")
    attempt = int(name) if kind == "attempt" and name.isdecimal() else None
    return resident, name if kind == "task" else None, attempt


def _over_cap(scope: str, currency: str, found: _Budget, micros: int) -> OverBudget:
    budget = Budget(found.cap, found.reserved, found.spent, found.wanted)
    for_now = budget.in_line.holds(micros)
    if for_now:
        step = "Wait for what is set aside to come back, or raise the cap."
    elif micros > budget.asked_micros:
        step = "It never fits: raise the cap, or post the task with a smaller budget."
    elif scope.rpartition(":")[2].isdigit():
        step = "Wait for the next day, or raise the cap."
    else:
        step = "What was spent does not come back: raise the cap."
    left, cap = money_text(budget.left_micros), money_text(budget.asked_micros)
    return OverBudget(
        "budget.cap",
        f"The budget {scope} has {left} {currency} left of {cap}; {money_text(micros)} is needed.",
        step,
        scope=scope,
        requested=micros,
        remaining=budget.left_micros,
        cap=budget.asked_micros,
        for_now=for_now,
    )


def check_amount(micros: Any) -> None:
    """Amounts from outside are positive integers of millionths, or refused."""
    if type(micros) is not int or not 0 < micros <= LARGEST_MICROS:
        raise Invalid(
            "ledger.amount",
            f"An amount is a whole number of millionths from 1 to {LARGEST_MICROS}, not {micros!r}.",
            "Give a positive amount.",
            field="micros",
        )


def mint(tx: Tx, policy: str, payee: str, micros: int, *, key: str, reason: str, actor: str, ref: str) -> bool:
    """Make new ``aid`` under a named policy; refused when the policy's cap of the day is reached."""
    check_amount(micros)
    scope = f"mint:{policy}:{tx.day}"
    cap = None
    if tx.books.budget(scope, "aid") is None:
        declared = tx.books.budget(f"mint:{policy}", "aid")
        if declared is None:
            raise Forbidden("ledger.policy", f"There is no minting policy {policy!r}.", "Declare it first.")
        cap = declared.cap
    # Asked before anything is changed, so that who catches OverBudget and goes on has minted nothing.
    tx.books.refuse_over_cap(scope, "aid", micros, key, cap)
    if not tx.books.transfer(key, "treasury", payee, "aid", micros, reason, policy, actor, ref):
        return False
    if cap is not None:
        tx.books.make_budget(scope, "aid", cap)
    tx.books.reserve((scope,), "aid", micros)
    tx.books.consume((scope,), "aid", micros, micros)
    return True


def declare_policy(tx: Tx, policy: str, cap_per_day_micros: int) -> None:
    """Declare a minting policy, or change its cap from the next village day on."""
    tx.books.make_budget(f"mint:{policy}", "aid", cap_per_day_micros)


@frozen
class Audit:
    """What ``verify`` found: problems in words, empty when the books agree."""

    accounts: int
    transfers: int
    problems: tuple[str, ...]


def verify(view: View) -> Audit:
    """Recompute every balance from the transfers, and every hold and budget from what they stand for."""
    problems = [
        f"{name}: the balance says {balance} millionths of {currency}, its transfers say {moved}"
        for name, currency, balance, moved in view.rows(
            "WITH moved AS (SELECT name, currency, sum(micros) AS micros FROM ("
            "SELECT payee AS name, currency, micros FROM transfers UNION ALL "
            "SELECT payer, currency, -micros FROM transfers) GROUP BY name, currency) "
            "SELECT name, currency, coalesce(balance, 0), coalesce(micros, 0) FROM moved LEFT JOIN accounts "
            "USING (name, currency) WHERE coalesce(balance, 0) <> coalesce(micros, 0) UNION ALL "
            "SELECT name, currency, balance, 0 FROM accounts WHERE balance <> 0 AND (name, currency) NOT IN "
            "(SELECT name, currency FROM moved)"
        )
    ]
    problems += [
        f"all balances of {currency} together are {total} millionths, not 0"
        for currency, total in view.rows("SELECT currency, sum(balance) FROM accounts GROUP BY currency")
        if total
    ]
    problems += [
        f"hold {number} is {state} but its account holds {balance} millionths"
        for number, state, micros, balance in view.rows(
            "SELECT h.id, h.state, h.micros, coalesce(a.balance, 0) FROM holds h LEFT JOIN accounts a "
            "ON a.name = 'hold:' || h.id AND a.currency = h.currency"
        )
        if balance != (micros if state == "held" else 0)
    ]
    problems += [
        f"budget {scope}: {reserved} millionths are reserved, its running attempts say {wanted}"
        for scope, reserved, wanted in view.rows(
            "WITH running AS MATERIALIZED (SELECT task, resident, budget_day, reserved_micros FROM attempts "
            "WHERE state = 'running'), held AS (SELECT scope, sum(micros) AS micros FROM ("
            "SELECT 'task:' || task AS scope, reserved_micros AS micros FROM running UNION ALL "
            "SELECT 'village', reserved_micros FROM running UNION ALL "
            "SELECT 'village-day:' || budget_day, reserved_micros FROM running UNION ALL "
            "SELECT 'resident-day:' || resident || ':' || budget_day, reserved_micros FROM running) GROUP BY scope) "
            "SELECT scope, reserved, coalesce(micros, 0) FROM budgets LEFT JOIN held USING (scope) "
            "WHERE currency = 'usd' AND reserved <> coalesce(micros, 0)"
        )
    ]
    accounts = view.row("SELECT count(*) FROM accounts")
    transfers = view.row("SELECT count(*) FROM transfers")
    return Audit(accounts[0] if accounts else 0, transfers[0] if transfers else 0, tuple(problems))


def balances(view: View, prefix: str = "") -> list[tuple[str, str, int]]:
    """(account, currency, millionths) of every account whose name begins with ``prefix``."""
    return [
        (row[0], row[1], row[2])
        for row in view.rows(
            "SELECT name, currency, balance FROM accounts WHERE substr(name, 1, ?) = ? ORDER BY name, currency",
            (len(prefix), prefix),
        )
    ]


def balance(source: View | Tx, account: str, currency: str = "aid") -> int:
    """One account's balance in millionths; 0 for an account that nothing has touched."""
    row = source.row("SELECT balance FROM accounts WHERE name = ? AND currency = ?", (account, currency))
    return int(row[0]) if row else 0


def history(view: View, account: str | None = None, limit: int = 100) -> list[Transfer]:
    """The newest transfers, newest first, of one account or of all."""
    clause, params = ("payer = ? OR payee = ?", [account, account]) if account else ("1", [])
    rows = view.rows(
        f"SELECT key, payer, payee, currency, micros, reason, source, actor, ref, at FROM transfers "
        f"WHERE {clause} ORDER BY id DESC LIMIT ?",
        (*params, limit),
    )
    return [Transfer(*row) for row in rows]


def may_pay(actor: Actor, account: str) -> bool:
    """Whether this actor's credential is the payer's own."""
    if actor.role == "operator":
        return True
    return actor.role == "resident" and account.startswith(f"resident:{actor.name}:")
