"""The room of the audit log: events that are only ever appended, each hashed over the one before.

An event's hash is sha256(the previous hash + the event as canonical JSON: sorted keys, no spaces, UTF-8). The first
event's previous hash is 32 zero bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from attrs import frozen

from vivarium_kernel.errors import StoreCorrupt, StoreError
from vivarium_kernel.records import Event
from vivarium_kernel.store import Tx, View
from vivarium_kernel.terms import Actor

GENESIS = bytes(32)
_HEAD = "SELECT id, hash FROM events ORDER BY id DESC LIMIT 1"
COLUMNS = "id, at, day, hour, kind, actor, resident, task, attempt, cycle, model, data"
_encode = msgspec.json.Encoder(order="sorted").encode


def canonical(row: Sequence[Any]) -> bytes:
    """An event's row (``COLUMNS``) as the bytes that are hashed."""
    return _encode([row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10], row[11]])


class Log:
    """The events of the open transaction, chained and written when it is flushed."""

    def __init__(self, tx: Tx, day: int, hour: int) -> None:
        self._tx = tx
        self._day = day
        self._hour = hour
        self._events: list[tuple[Any, ...]] = []
        self._head: tuple[int, bytes] | None = None

    def add(
        self,
        kind: str,
        actor: str,
        data: dict[str, Any],
        resident: str | None = None,
        task: str | None = None,
        attempt: int | None = None,
        cycle: int | None = None,
        model: str | None = None,
    ) -> None:
        """Append an event. ``data`` holds ids, amounts and reasons, never private texts or secrets."""
        self._events.append((kind, actor, resident, task, attempt, cycle, model, data))

    def mark(self) -> tuple[int, tuple[int, bytes] | None]:
        return len(self._events), self._head

    def rollback(self, mark: tuple[int, tuple[int, bytes] | None], written: bool) -> None:
        if written:
            self._events.clear()
            self._head = mark[1]
        else:
            del self._events[mark[0] :]

    def _last_head(self) -> tuple[int, bytes]:
        rows = self._tx.rows(_HEAD)
        return (rows[0][0], rows[0][1]) if rows else (0, GENESIS)

    def flush(self) -> None:
        if not self._events:
            return
        number, head = self._head or self._last_head()
        at, day, hour = self._tx.logged_at, self._day, self._hour
        rows = []
        for kind, actor, resident, task, attempt, cycle, model, data in self._events:
            number += 1
            row = (
                number, at, day, hour, kind, actor, resident, task, attempt, cycle, model, _encode(data).decode(),
            )  # fmt: skip
            head = sha256(head + _encode(row)).digest()
            rows.append((*row, head))
        self._tx.insert("events", f"{COLUMNS}, hash", rows)
        self._head = (number, head)
        self._events.clear()


def emit(tx: Tx, kind: str, actor: Actor | str, **fields: Any) -> None:
    """Append an event about a resident, task or attempt; other fields become its data."""
    known = {name: fields.pop(name, None) for name in ("resident", "task", "attempt", "cycle", "model")}
    tx.log.add(kind, str(actor), fields, **known)


def read_head(source: Tx | View) -> tuple[int, bytes]:
    """The number and hash of the last event."""
    row = source.row(_HEAD)
    return (row[0], row[1]) if row else (0, GENESIS)


@frozen
class Filter:
    """Which events to read; ``None`` is any. ``kind`` may end in ``*``."""

    resident: str | None = None
    task: str | None = None
    day: int | None = None
    kind: str | None = None
    model: str | None = None
    attempt: int | None = None

    def clause(self) -> tuple[str, list[Any]]:
        parts, params = [], []
        for name in ("resident", "task", "day", "model", "attempt"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name} = ?")
                params.append(value)
        if self.kind is not None:
            parts.append("kind GLOB ?")
            params.append(self.kind)
        return " AND ".join(parts) or "1", params


# With the hash of the event before: what is read is shown only if the chain holds there.
_LINKS = f"{COLUMNS}, hash, (SELECT hash FROM events before WHERE before.id = events.id - 1)"


def tail(view: View, after: int = 0, limit: int = 1000, only: Filter | None = None) -> list[Event]:
    """Events after the cursor ``after`` (an event's number), oldest first, at most ``limit``.

    Raises StoreCorrupt for one that is not as it was written.
    """
    clause, params = (only or Filter()).clause()
    rows = view.rows(
        f"SELECT {_LINKS} FROM events WHERE id > ? AND {clause} ORDER BY id LIMIT ?", (after, *params, limit)
    )
    return [_event(row) for row in rows]


def last(view: View, limit: int = 20, only: Filter | None = None) -> list[Event]:
    """The newest events, oldest of them first. Raises as :func:`tail` does."""
    clause, params = (only or Filter()).clause()
    rows = view.rows(f"SELECT {_LINKS} FROM events WHERE {clause} ORDER BY id DESC LIMIT ?", (*params, limit))
    return [_event(row) for row in reversed(rows)]


def _event(row: Sequence[Any]) -> Event:
    before = GENESIS if row[0] == 1 else row[13]
    if before is None or _link(before, row) != row[12]:
        raise StoreCorrupt(
            "audit.chain", f"Event {row[0]} of the log is not as it was written, or the one before it is gone.",
            "Run `vivarium doctor`, and see `vivarium log verify`; the newest backup has what stood there.",
        )  # fmt: skip
    return Event(*[*row[:11], msgspec.json.decode(row[11]), row[12].hex()])


def _link(before: bytes, row: Sequence[Any]) -> bytes | None:
    """The hash that an event must have behind this one; None for a row that no event ever was."""
    try:
        return sha256(before + canonical(row)).digest()
    except (TypeError, msgspec.MsgspecError):
        return None


@frozen
class Broken:
    """The first event that is not as it was written, and why."""

    id: int
    why: str


def verify(view: View, batch: int = 5000) -> tuple[int, str, Broken | None]:
    """Check the whole chain: number of events that are right, the head's hash, and the first bad event if any."""
    number, head = 0, GENESIS
    for row in _all(view, batch):
        if row[0] != number + 1:
            return number, head.hex(), Broken(row[0], f"event {number + 1} is missing")
        found = _link(head, row)
        if found is None:
            return number, head.hex(), Broken(row[0], "it can't be read")
        if found != row[12]:
            return number, head.hex(), Broken(row[0], "its content is not what was hashed")
        number, head = row[0], found
    return number, head.hex(), None


def _all(view: View, batch: int) -> Iterator[Sequence[Any]]:
    after = 0
    while rows := view.rows(f"SELECT {COLUMNS}, hash FROM events WHERE id > ? ORDER BY id LIMIT ?", (after, batch)):
        yield from rows
        after = rows[-1][0]


def write_head(view: View, path: Path) -> tuple[int, str]:
    """Append the head to a file outside the database, so that a log cut short or rewritten can be told."""
    number, head = read_head(view)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{view.now} {number} {head.hex()}\n")
    return number, head.hex()


def check_heads(view: View, path: Path) -> Broken | None:
    """Compare the log with the heads that :func:`write_head` kept; returns the first that doesn't agree."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StoreError("audit.heads", f"The file of heads can't be read: {path}: {error.strerror}.") from error
    for line in lines:
        _at, number, head = line.split()
        row = view.row("SELECT hash FROM events WHERE id = ?", (int(number),))
        if int(number) and (row is None or row[0].hex() != head):
            return Broken(int(number), "the log has no such event any more" if row is None else "it has another hash")
    return None
