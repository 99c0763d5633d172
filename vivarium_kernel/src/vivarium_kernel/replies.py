"""The room of repeated requests: replies kept by idempotency key, and how often what is rate-limited may be done.

Both are rows of one table, written in the transaction that does what was asked: a key holds also across processes.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
from attrs import frozen

from vivarium_kernel.errors import Conflict
from vivarium_kernel.store import Tx
from vivarium_kernel.terms import MICROS, Actor

_canonical = msgspec.json.Encoder(order="sorted").encode


class TooOften(Conflict):
    """A limit of requests in a minute is reached; ``seconds`` from now it may be tried again."""

    status = 429

    def __init__(self, rule: str, message: str, seconds: float) -> None:
        super().__init__(rule, message, f"Try again in {seconds:.1f} s.")
        self.seconds = seconds


@frozen
class Key:
    """An actor's idempotency key and the digest of what was asked under it. Keys of others never meet it."""

    name: str
    digest: bytes


def key_of(actor: Actor, key: str | None, what: str, body: Any) -> Key | None:
    """The key under which ``what`` (an action, a route) is asked with ``body``; None without a key."""
    if key is None:
        return None
    return Key(f"key:{actor}:{key}", sha256(what.encode() + b"\0" + _canonical(body)).digest())


def before(tx: Tx, key: Key | None) -> str | None:
    """The reply that was given under this key; raises Conflict when something else was asked under it."""
    row = None if key is None else tx.row("SELECT digest, reply FROM replies WHERE key = ?", (key.name,))
    if row is None or key is None:
        return None
    if row[0] != key.digest:
        raise Conflict(
            "request.key",
            "This idempotency key was used for another request.",
            "Use a new key for a new request, and the same one only to repeat the same request.",
            field="Idempotency-Key",
        )
    return str(row[1])


def keep(tx: Tx, key: Key | None, reply: str) -> None:
    """Keep a reply under its key."""
    if key is not None:
        tx.insert("replies", "key, digest, reply, at", [(key.name, key.digest, reply, tx.now)])


def pace(tx: Tx, actor: Actor, what: str, per_minute: int) -> None:
    """Let an actor do something ``per_minute`` times a real minute, at once or spread; raises TooOften.

    One row an actor and thing: when its allowance will be whole again (the generic cell rate algorithm).
    """
    name = f"rate:{actor}:{what}"
    row = tx.row("SELECT reply FROM replies WHERE key = ?", (name,))
    each = 60 * MICROS // per_minute
    whole_at = max(tx.now, int(row[0]) if row else 0) + each
    late = whole_at - tx.now - 60 * MICROS
    if late > 0:
        raise TooOften("action.rate", f"{what} may be done {per_minute} times a minute.", late / MICROS)
    tx.run(
        "INSERT INTO replies (key, digest, reply, at) VALUES (?1, x'', ?2, ?3) "
        "ON CONFLICT (key) DO UPDATE SET reply = ?2, at = ?3",
        (name, str(whole_at), tx.now),
    )
