"""The room of the residents and tokens: who lives here, in which state, and which credentials are valid."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

from attrs import frozen

from vivarium_kernel import ledger
from vivarium_kernel.audit import emit
from vivarium_kernel.claiming import token_digest
from vivarium_kernel.errors import Conflict, Forbidden, Invalid, NotFound
from vivarium_kernel.problems import near
from vivarium_kernel.records import Resident
from vivarium_kernel.settling import EndAttempt, Settlement, settle
from vivarium_kernel.store import Tx, View
from vivarium_kernel.terms import MICROS, Actor, ResidentState, Role

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
NAMES = [
    "ada",
    "ben",
    "cyn",
    "dov",
    "eli",
    "fay",
    "gus",
    "hal",
    "ivy",
    "jan",
    "kit",
    "lea",
    "mio",
    "ned",
    "oda",
    "pia",
    "quin",
    "ren",
    "sol",
    "tam",
    "uma",
    "val",
    "wim",
    "xan",
    "yan",
    "zoe",
]
_FOR_GOOD = ("banned", "retired")
_COLUMNS = "name, state, cycles, model, reason, created_at"


@frozen
class NewResident:
    """A resident to add. ``start_micros`` of ``aid`` are its start, once."""

    name: str
    actor: Actor | str
    model: str | None = None
    start_micros: int = 0


def add(tx: Tx, new: NewResident) -> Resident:
    """Add a resident; one that is there is given back as it is.

    Raises Invalid for a bad name, and Conflict for that of one who is banned or retired.
    """
    if not NAME.fullmatch(new.name):
        raise Invalid(
            "resident.name",
            f"{new.name!r} is no name for a resident.",
            "Use a small letter, then at most 39 small letters, digits, '-' or '_'.",
            field="name",
        )
    known = tx.row(f"SELECT {_COLUMNS} FROM residents WHERE name = ?", (new.name,))
    if known is not None:
        there = Resident(*known)
        if there.state in _FOR_GOOD:
            raise _gone(there)
        return there
    tx.insert("residents", "name, model, created_at", [(new.name, new.model, tx.now)])
    emit(tx, "resident.added", new.actor, resident=new.name, model=new.model)
    if new.start_micros:
        ledger.mint(
            tx, "start", f"resident:{new.name}:free", new.start_micros, key=f"start:{new.name}", reason="start",
            actor="system:kernel", ref=f"resident:{new.name}",
        )  # fmt: skip
    return Resident(new.name, model=new.model, created_at=tx.now)


def resident(source: Tx | View, name: str) -> Resident:
    """One resident; raises NotFound."""
    row = source.row(f"SELECT {_COLUMNS} FROM residents WHERE name = ?", (name,))
    if row is None:
        raise NotFound("resident.unknown", f"There is no resident {name!r}.", "See `vivarium resident list`.")
    return Resident(*row)


def residents(source: Tx | View) -> list[Resident]:
    return [Resident(*row) for row in source.rows(f"SELECT {_COLUMNS} FROM residents ORDER BY name")]


@frozen
class Change:
    """A resident's new state, decided by an operator. ``end_attempt`` lets plugins settle the act that it ends."""

    name: str
    state: ResidentState
    actor: Actor | str
    reason: str
    end_attempt: EndAttempt | None = None


def change(tx: Tx, asked: Change) -> Resident:
    """Pause, quarantine, ban, retire or bring back a resident.

    All but pausing end the running act at once: its token is revoked, its reservations are settled, its task is open
    again. Banning and retiring are for good. Raises NotFound or Conflict.
    """
    now = resident(tx, asked.name)
    if now.state == asked.state:
        return now
    if now.state in _FOR_GOOD:
        raise _gone(now)
    tx.run("UPDATE residents SET state = ?, reason = ? WHERE name = ?", (asked.state, asked.reason, asked.name))
    emit(tx, f"resident.{asked.state}", asked.actor, resident=asked.name, reason=asked.reason, before=now.state)
    if asked.state in ("quarantined", "banned", "retired"):
        tx.run(
            "UPDATE tokens SET revoked_at = ? WHERE role = 'resident' AND name = ? AND revoked_at IS NULL",
            (tx.now, asked.name),
        )
        end_running(tx, asked.name, f"{asked.name} is {asked.state}", str(asked.actor), asked.end_attempt)
    if asked.state != "active":
        tx.opened = True
        # What was held for this resident anybody may take.
        tx.run("UPDATE tasks SET held_for = NULL WHERE held_for = ? AND wanted IS NULL", (asked.name,))
    return resident(tx, asked.name)


def _gone(one: Resident) -> Conflict:
    return Conflict(
        "resident.for_good", f"{one.name} is {one.state}, and that is for good.",
        "Add a resident with another name: vivarium resident add NAME.",
    )  # fmt: skip


def end_running(tx: Tx, name: str, reason: str, actor: str, end_attempt: EndAttempt | None) -> None:
    """End the attempt that a resident is at, and put its task back."""
    for (number,) in tx.rows("SELECT id FROM attempts WHERE resident = ? AND state = 'running'", (name,)):
        settle(tx, [Settlement(number, None, "released", reason, actor=actor, end_attempt=end_attempt)])


def nobodys(view: View, named: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Of these names those that no resident has, each with what may be done."""
    names = {row[0] for row in view.rows("SELECT name FROM residents")}
    for name in sorted(named):
        if name not in names:
            meant = near(name, names)
            yield name, f"did you mean {meant}?" if meant else f"vivarium resident add {name}, or mend the name"


def free_resident(view: View) -> Resident | None:
    """A resident whom no process drives and who is at nothing, for one task run now."""
    row = view.row(
        "SELECT name, state, cycles, model, reason, created_at FROM residents r "
        "WHERE state = 'active' AND process IS NULL "
        "AND NOT EXISTS (SELECT 1 FROM attempts WHERE resident = r.name AND state = 'running') ORDER BY name LIMIT 1"
    )
    return Resident(*row) if row else None


# Tokens


@frozen
class NewToken:
    """A token to make. ``secret`` comes from the clock; the database keeps only its digest."""

    role: Role
    name: str
    secret: str
    actor: Actor | str
    kind: str = "bearer"
    scope: tuple[str, ...] | None = None
    note: str = ""
    seconds: float | None = None


def make_token(tx: Tx, new: NewToken) -> int:
    """Make a token and return its number. A resident's token needs a resident who may act."""
    if new.role == "resident" and resident(tx, new.name).state not in ("active", "paused"):
        raise Conflict("token.resident", f"{new.name} may not act.")
    expires = None if new.seconds is None else tx.now + int(new.seconds * MICROS)
    number = (tx.row("SELECT coalesce(max(id), 0) + 1 FROM tokens") or (1,))[0]
    tx.insert(
        "tokens", "id, digest, role, name, scope, kind, note, created_at, expires_at",
        [(number, token_digest(new.secret), new.role, new.name,
          None if new.scope is None else json.dumps(new.scope), new.kind, new.note, tx.now, expires)],
    )  # fmt: skip
    emit(tx, "token.made", new.actor, number=number, role=new.role, name=new.name, type=new.kind)
    return int(number)


def revoke_token(tx: Tx, asked: tuple[int, Actor | str]) -> None:
    """Revoke a token at once. Raises NotFound."""
    number, actor = asked
    if not tx.run("UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (tx.now, number)):
        raise NotFound("token.unknown", f"There is no valid token {number}.", "See `vivarium token list`.")
    emit(tx, "token.revoked", actor, number=number)


def use_login(tx: Tx, asked: tuple[str, str]) -> Actor:
    """Turn a one-time login link's secret into a session's; it is dead afterwards. Raises Forbidden."""
    secret, session = asked
    row = tx.row(
        "SELECT id, role, name FROM tokens WHERE digest = ? AND kind = 'login' AND revoked_at IS NULL "
        "AND expires_at > ?",
        (token_digest(secret), tx.now),
    )
    if row is None:
        raise Forbidden(
            "login.used",
            "This login link was used before or is too old.",
            "Make one with `vivarium token create --login`.",
        )
    revoke_token(tx, (row[0], f"{row[1]}:{row[2]}"))
    make_token(tx, NewToken(row[1], row[2], session, f"{row[1]}:{row[2]}", "session", seconds=7 * 86_400))
    return Actor(row[1], row[2])


def actor_of(view: View, secret: str, kinds: Sequence[str] = ("bearer", "session")) -> Actor | None:
    """Who a secret belongs to, or None. The token of a running attempt acts as its resident, in that attempt only."""
    digest = token_digest(secret)
    row = view.row(
        "SELECT role, name, scope, id, kind FROM tokens WHERE digest = ? AND revoked_at IS NULL "
        "AND (expires_at IS NULL OR expires_at > ?)",
        (digest, view.now),
    )
    if row is not None:
        if row[4] not in kinds:
            return None
        return Actor(row[0], row[1], None, row[3], None if row[2] is None else tuple(json.loads(row[2])))
    row = view.row(
        "SELECT resident, id FROM attempts WHERE token = ? AND state = 'running' AND lease_until_at >= ?",
        (digest, view.now),
    )
    return None if row is None else Actor("resident", row[0], attempt=row[1])


def tokens(view: View) -> list[dict[str, Any]]:
    """Every token without its secret, newest first; ``scope`` is None for all that its role may do."""
    names = ("id", "role", "name", "kind", "scope", "note", "created_at", "expires_at", "revoked_at")
    found = [
        dict(zip(names, row, strict=True))
        for row in view.rows(f"SELECT {', '.join(names)} FROM tokens ORDER BY id DESC")
    ]
    for token in found:
        token["scope"] = None if token["scope"] is None else tuple(json.loads(token["scope"]))
    return found


def free_names(taken: Callable[[str], bool]) -> Iterator[str]:
    """Names that nobody has yet, each once, without end."""
    for number in count(1):
        for name in NAMES:
            found = name if number == 1 else f"{name}-{number}"
            if not taken(found):
                yield found
