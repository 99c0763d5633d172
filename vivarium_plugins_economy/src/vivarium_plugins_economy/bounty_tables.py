"""The room of the bounties' tables: bounties, who entered them, what was submitted and who was paid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Protocol

from attrs import frozen
from sqlite_utils import Migrations

from vivarium_kernel import NotFound
from vivarium_plugins_economy.prizes import Payout, Work

migrations = Migrations("bounties")

_COLUMNS = (
    "id, title, text, mode, slots, prize_micros, runner_up_micros, poster, judge, task, state, hold, posted_at, "
    "ended_at"
)
_TABLES = """
CREATE TABLE bounties_posted (
  id INTEGER PRIMARY KEY,
  title TEXT NOT NULL,
  text TEXT NOT NULL,
  mode TEXT NOT NULL CHECK (mode IN ('rivalry', 'cooperation', 'both')),
  slots INTEGER NOT NULL CHECK (slots >= 1),
  prize_micros INTEGER NOT NULL CHECK (prize_micros > 0),
  runner_up_micros INTEGER NOT NULL CHECK (runner_up_micros >= 0),
  poster TEXT NOT NULL,
  judge TEXT NOT NULL,
  task TEXT,
  state TEXT NOT NULL CHECK (state IN ('open', 'claimed', 'completed', 'cancelled')),
  hold INTEGER NOT NULL UNIQUE,
  posted_at INTEGER NOT NULL,
  ended_at INTEGER
);
CREATE INDEX bounties_posted_alive ON bounties_posted (poster) WHERE state IN ('open', 'claimed');
CREATE INDEX bounties_posted_task ON bounties_posted (task) WHERE task IS NOT NULL AND state IN ('open', 'claimed');
CREATE TABLE bounties_entries (
  id INTEGER PRIMARY KEY,
  bounty INTEGER NOT NULL REFERENCES bounties_posted (id),
  entrant TEXT NOT NULL,
  day INTEGER NOT NULL,
  UNIQUE (bounty, entrant)
);
CREATE TABLE bounties_submissions (
  id INTEGER PRIMARY KEY,
  bounty INTEGER NOT NULL REFERENCES bounties_posted (id),
  entrant TEXT NOT NULL,
  resident TEXT NOT NULL,
  team TEXT NOT NULL,
  text TEXT NOT NULL,
  artifacts TEXT NOT NULL,
  digest TEXT NOT NULL,
  attempt INTEGER,
  at INTEGER NOT NULL,
  UNIQUE (bounty, digest)
);
CREATE TABLE bounties_payouts (
  bounty INTEGER NOT NULL REFERENCES bounties_posted (id),
  resident TEXT NOT NULL,
  prize INTEGER NOT NULL CHECK (prize IN (1, 2)),
  submission INTEGER NOT NULL REFERENCES bounties_submissions (id),
  micros INTEGER NOT NULL CHECK (micros > 0),
  PRIMARY KEY (bounty, resident)
);
"""


@migrations()
def m001_bounties(db: Any) -> None:
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            db.execute(statement)


class Reads(Protocol):
    """A plugin's ``tx`` or ``view``."""

    def read(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...


class Writes(Reads, Protocol):
    """A plugin's ``tx``."""

    @property
    def now(self) -> int: ...

    @property
    def day(self) -> int: ...

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...


@frozen
class Bounty:
    """One bounty; ``poster`` and ``judge`` are actors such as ``resident:ada``."""

    id: int
    title: str
    text: str
    mode: str
    slots: int
    prize_micros: int
    runner_up_micros: int
    poster: str
    judge: str
    task: str | None
    state: str
    hold: int
    posted_at: int
    ended_at: int | None

    @property
    def alive(self) -> bool:
        return self.state in ("open", "claimed")


@frozen
class Submission:
    """What an entrant submitted; ``team`` shares its prize, the first gets what can't be split evenly."""

    id: int
    entrant: str
    resident: str
    team: tuple[str, ...]
    text: str
    artifacts: tuple[str, ...]
    attempt: int | None
    at: int


def bounty(tx: Reads, number: int) -> Bounty:
    """One bounty; raises NotFound."""
    rows = tx.read(f"SELECT {_COLUMNS} FROM bounties_posted WHERE id = ?", (number,))
    if not rows:
        raise NotFound("bounties.unknown", f"There is no bounty {number}.", "See bounties.list.", field="bounty")
    return Bounty(*rows[0])


def bounties(tx: Reads, state: str | None, after: int, limit: int) -> list[Bounty]:
    """Bounties in the order in which they were posted."""
    return [
        Bounty(*row)
        for row in tx.read(
            f"SELECT {_COLUMNS} FROM bounties_posted WHERE id > ?1 AND (?2 IS NULL OR state = ?2) ORDER BY id LIMIT ?3",
            (after, state, limit),
        )
    ]


def of_task(tx: Reads, task: str) -> list[Bounty]:
    """The bounties on a task that are not over."""
    rows = tx.read(
        f"SELECT {_COLUMNS} FROM bounties_posted WHERE task = ? AND state IN ('open', 'claimed') ORDER BY id", (task,)
    )
    return [Bounty(*row) for row in rows]


def add(tx: Writes, number: int, values: Sequence[Any]) -> None:
    """Write a new bounty: ``values`` from the title to the task, and then its hold."""
    tx.execute(
        f"INSERT INTO bounties_posted ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open', ?, ?, NULL)",
        (number, *values, tx.now),
    )


def move(tx: Writes, number: int, state: str) -> None:
    """Give a bounty its next state."""
    ended = tx.now if state in ("completed", "cancelled") else None
    tx.execute("UPDATE bounties_posted SET state = ?, ended_at = ? WHERE id = ?", (state, ended, number))


# Who entered


def enter(tx: Writes, number: int, entrant: str) -> bool:
    """Give an entrant the next place. False if it has one."""
    return bool(
        tx.execute(
            "INSERT INTO bounties_entries (bounty, entrant, day) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
            (number, entrant, tx.day),
        )
    )


def places(tx: Reads, number: int) -> dict[str, int]:
    """Every entrant's place, from 1, in the order in which they came."""
    rows = tx.read("SELECT entrant FROM bounties_entries WHERE bounty = ? ORDER BY id", (number,))
    return {row[0]: place for place, row in enumerate(rows, 1)}


def drop_idle(tx: Writes, number: int, days: int) -> bool:
    """Drop entrants who claimed ``days`` village days ago and submitted nothing since; whether any was dropped."""
    return bool(
        tx.execute(
            "DELETE FROM bounties_entries WHERE bounty = ?1 AND day <= ?2 AND entrant NOT IN "
            "(SELECT entrant FROM bounties_submissions WHERE bounty = ?1) RETURNING id",
            (number, tx.day - days),
        )
    )


# What was submitted


def digest_of(text: str, artifacts: Sequence[str]) -> str:
    """What makes two payloads identical: the words and the set of artifacts, not their spacing and order."""
    return sha256(json.dumps([" ".join(text.split()), sorted(set(artifacts))]).encode()).hexdigest()


def submitted(tx: Reads, number: int, digest: str) -> bool:
    return bool(tx.read("SELECT 1 FROM bounties_submissions WHERE bounty = ? AND digest = ?", (number, digest)))


def submit(
    tx: Writes, number: int, entrant: str, resident: str, team: Sequence[str], text: str, artifacts: Sequence[str],
    attempt: int | None,
) -> int:  # fmt: skip
    """Write a submission; returns its number."""
    rows = tx.execute(
        "INSERT INTO bounties_submissions (bounty, entrant, resident, team, text, artifacts, digest, attempt, at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (number, entrant, resident, json.dumps(team), text, json.dumps(artifacts), digest_of(text, artifacts), attempt,
         tx.now),
    )  # fmt: skip
    return int(rows[0][0])


def submissions(tx: Reads, number: int) -> list[Submission]:
    """All submissions of a bounty, in the order in which they came."""
    return [
        Submission(row[0], row[1], row[2], tuple(json.loads(row[3])), row[4], tuple(json.loads(row[5])), row[6], row[7])
        for row in tx.read(
            "SELECT id, entrant, resident, team, text, artifacts, attempt, at FROM bounties_submissions "
            "WHERE bounty = ? ORDER BY id",
            (number,),
        )
    ]


def works(tx: Reads, number: int, named: Sequence[int]) -> list[Work]:
    """The submissions that the judge named, as the rule of the prizes takes them; raises NotFound."""
    found = {each.id: each for each in submissions(tx, number)}
    there = places(tx, number)
    for name in named:
        if name not in found:
            raise NotFound("bounties.submission", f"Bounty {number} has no submission {name}.", "See bounties.show.")
    return [Work(name, there[found[name].entrant], found[name].team) for name in named]


# Who was paid


def keep_payout(tx: Writes, number: int, payout: Payout) -> None:
    tx.execute(
        "INSERT INTO bounties_payouts VALUES (?, ?, ?, ?, ?)",
        (number, payout.resident, payout.prize, payout.submission, payout.micros),
    )


def paid(tx: Reads, number: int) -> list[Payout]:
    """Who got how much, of which prize and for which submission."""
    rows = tx.read(
        "SELECT prize, submission, resident, micros FROM bounties_payouts WHERE bounty = ? "
        "ORDER BY prize, submission, resident",
        (number,),
    )
    return [Payout(*row) for row in rows]
