"""The room of the holds: money set aside until it is settled, released or expires. Rules: docs/rules.md, "Money"."""

from __future__ import annotations

from collections.abc import Sequence

from vivarium_kernel.errors import Conflict, Forbidden, NotFound
from vivarium_kernel.ledger import check_amount
from vivarium_kernel.store import Tx


def hold(
    tx: Tx, payer: str, currency: str, micros: int, *, key: str, owner: str, actor: str, ref: str,
    expires_at: int | None = None,
) -> int:  # fmt: skip
    """Set money aside in an account of its own until it is settled, released or expires. Returns the hold's number."""
    known = tx.row("SELECT id, payer, currency, micros, owner FROM holds WHERE key = ?", (key,))
    if known is not None:
        if known[1:] != (payer, currency, micros, owner):
            raise Conflict("ledger.key", f"The key {key!r} was used for another hold.", "Use a new key.")
        return int(known[0])
    check_amount(micros)
    number = (tx.row("SELECT coalesce(max(id), 0) + 1 FROM holds") or (1,))[0]
    tx.books.transfer(f"hold:{key}", payer, f"hold:{number}", currency, micros, "hold", owner, actor, ref)
    tx.insert(
        "holds", "id, key, payer, currency, micros, owner, ref, state, expires_at, at",
        [(number, key, payer, currency, micros, owner, ref, "held", expires_at, tx.now)],
    )  # fmt: skip
    return int(number)


def settle_hold(tx: Tx, number: int, payees: Sequence[tuple[str, int]], *, owner: str, reason: str, actor: str) -> bool:
    """Pay from a hold to payees, together at most what it holds; the rest returns. False if it ended before."""
    payer, currency, micros, ref, state = _hold(tx, number, owner)
    if state != "held":
        return False
    for _, amount in payees:
        check_amount(amount)  # all of them before any is paid
    if sum(amount for _, amount in payees) > micros:
        raise Conflict("ledger.hold", f"Hold {number} has {micros} millionths; more was asked.", "Pay less.")
    account = f"hold:{number}"
    left = micros
    for place, (payee, amount) in enumerate(payees):
        tx.books.transfer(f"hold:{number}:{place}", account, payee, currency, amount, reason, owner, actor, ref)
        left -= amount
    _end_hold(tx, number, "settled", left, payer, currency, owner, actor, ref)
    return True


def release_hold(tx: Tx, number: int, *, owner: str, actor: str, state: str = "released") -> bool:
    """Return a hold to its payer. False if it ended before."""
    payer, currency, micros, ref, found = _hold(tx, number, owner)
    if found != "held":
        return False
    _end_hold(tx, number, state, micros, payer, currency, owner, actor, ref)
    return True


def expire_holds(tx: Tx) -> int:
    """Return every hold whose time is over; returns how many."""
    due = tx.rows("SELECT id, owner FROM holds WHERE state = 'held' AND expires_at <= ? LIMIT 500", (tx.now,))
    for number, owner in due:
        release_hold(tx, number, owner=owner, actor="system:clock", state="expired")
    return len(due)


def _hold(tx: Tx, number: int, owner: str) -> tuple[str, str, int, str, str]:
    row = tx.row("SELECT payer, currency, micros, ref, state, owner FROM holds WHERE id = ?", (number,))
    if row is None:
        raise NotFound("ledger.hold", f"There is no hold {number}.")
    if row[5] != owner:
        raise Forbidden("ledger.hold", f"Hold {number} belongs to {row[5]}, not {owner}.")
    return row[0], row[1], row[2], row[3], row[4]


def _end_hold(
    tx: Tx, number: int, state: str, left: int, payer: str, currency: str, owner: str, actor: str, ref: str
) -> None:
    if left:
        tx.books.transfer(f"hold:{number}:rest", f"hold:{number}", payer, currency, left, state, owner, actor, ref)
    tx.run("UPDATE holds SET state = ? WHERE id = ?", (state, number))
