"""The room of the processes: leases of those that run residents, which one is the host, and what dead ones left."""

from __future__ import annotations

import contextlib
import os
import socket
from itertools import islice
from pathlib import Path

from attrs import field, frozen

from vivarium_kernel import people, village_time
from vivarium_kernel.audit import emit
from vivarium_kernel.records import MICROS, Actor, EndingKind
from vivarium_kernel.settling import EndAttempt, Retries, Settlement, settle
from vivarium_kernel.store import Tx, View

DRIVEN_AT_ONCE = 256  # residents that one transaction takes up or makes: more would hold the loop


@frozen
class Self:
    """What tells this process from every other, also after its number is used again."""

    machine: str
    pid: int
    started: str


def this_process() -> Self:
    return Self(_machine(), os.getpid(), _started(os.getpid()) or "?")


def _machine() -> str:
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}"


def _started(pid: int) -> str | None:
    """When a process of this machine started, in clock ticks since boot; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state_and_rest = text.rpartition(")")[2].split()
    return None if state_and_rest[0] in "ZX" else state_and_rest[19]


def is_gone(me: Self, machine: str, pid: int, started: str) -> bool:
    """Whether a process of this machine has ended, as a killed one does whose lease still stands."""
    return machine == me.machine and _started(pid) != started


@frozen
class Register:
    """This process joins the village for ``lease_seconds``, to drive ``residents`` residents (names it may make)."""

    me: Self
    kind: str
    lease_seconds: float


def register(tx: Tx, asked: Register) -> int:
    """Write this process's lease row; returns its number."""
    number = (tx.row("SELECT coalesce(max(id), 0) + 1 FROM processes") or (1,))[0]
    tx.insert(
        "processes", "id, machine, pid, pid_started, kind, started_at, lease_until_at",
        [(number, asked.me.machine, asked.me.pid, asked.me.started, asked.kind, tx.now,
          tx.now + int(asked.lease_seconds * MICROS))],
    )  # fmt: skip
    emit(tx, "process.started", "system:kernel", process=number, type=asked.kind)
    return int(number)


def renew(tx: Tx, asked: tuple[int, float]) -> bool:
    """Renew one lease row for all of a process's attempts. False when it had lapsed: they are not its any more."""
    number, seconds = asked
    row = tx.row("SELECT lease_until_at, host FROM processes WHERE id = ? AND ended_at IS NULL", (number,))
    if row is None or row[0] < tx.now:
        return False
    if row[1]:
        fold_time(tx)
    tx.run("UPDATE processes SET lease_until_at = ? WHERE id = ?", (tx.now + int(seconds * MICROS), number))
    return True


def take_host(tx: Tx, number: int) -> bool:
    """Become the host if no live process is: the one that runs ticks, event listeners and the village's clock."""
    row = tx.row("SELECT id, lease_until_at FROM processes WHERE host = 1")
    if row is not None:
        if row[0] == number:
            return True
        if row[1] >= tx.now:
            return False
    fold_time(tx)
    tx.run("UPDATE processes SET host = 0 WHERE host = 1")
    tx.run("UPDATE processes SET host = 1 WHERE id = ?", (number,))
    emit(tx, "process.host", "system:kernel", process=number)
    return True


def leave(tx: Tx, asked: tuple[int, EndAttempt | None]) -> None:
    """End a process: whatever it still runs is put back, its residents are free for others."""
    number, end_attempt = asked
    fold_time(tx)
    _end_process(tx, number, "the process ended", "released", end_attempt, Retries())
    emit(tx, "process.ended", "system:kernel", process=number)


def fold_time(tx: Tx) -> None:
    """Add the time that has passed to the village's counter, so that a change of pace can't move it back."""
    hours = tx.times.hours_micros_at(tx.now)
    tx.run("UPDATE village SET hours_micros = ?, since_at = ?", (hours, tx.now))
    tx.times = village_time.read_times(tx)


@frozen
class Reap:
    """Look for processes that are gone. ``me`` also tells processes of this machine that have died.

    ``release`` lets anybody take what is held for residents whom no process drives any more.
    """

    me: Self | None
    end_attempt: EndAttempt | None
    retries: Retries = field(factory=Retries)
    release: bool = True


def reap(tx: Tx, asked: Reap) -> int:
    """End the attempts of processes and remote jobs whose lease has lapsed. Returns how many attempts ended."""
    ended = 0
    for number, machine, pid, started, lease, host in tx.rows(
        "SELECT id, machine, pid, pid_started, lease_until_at, host FROM processes WHERE ended_at IS NULL"
    ):
        dead = asked.me is not None and is_gone(asked.me, machine, pid, started)
        if lease < tx.now or dead:
            if host:  # its lease is what the village's time has gone by since it renewed it
                fold_time(tx)
            ended += _end_process(tx, number, "its process is gone", "lapsed", asked.end_attempt, asked.retries)
            emit(tx, "process.lost", "system:kernel", process=number)
    for (attempt,) in tx.rows(
        "SELECT id FROM attempts WHERE state = 'running' AND process IS NULL AND lease_until_at < ?", (tx.now,)
    ):
        _lapse(tx, attempt, "its remote worker is gone", "lapsed", asked.end_attempt, asked.retries)
        ended += 1
    if asked.release:
        release_unheld(tx)
    return ended


def has_died(view: View, me: Self) -> bool:
    """Whether a process of this machine is gone although its lease still stands."""
    return any(
        is_gone(me, *row) for row in view.rows("SELECT machine, pid, pid_started FROM processes WHERE ended_at IS NULL")
    )


def _end_process(
    tx: Tx, number: int, reason: str, kind: EndingKind, end_attempt: EndAttempt | None, retries: Retries
) -> int:
    tx.run(
        "UPDATE processes SET ended_at = ?, host = 0, lease_until_at = min(lease_until_at, ?) WHERE id = ?",
        (tx.now, tx.now, number),
    )
    tx.run("UPDATE residents SET process = NULL WHERE process = ?", (number,))
    attempts = tx.rows("SELECT id FROM attempts WHERE process = ? AND state = 'running'", (number,))
    for (attempt,) in attempts:
        _lapse(tx, attempt, reason, kind, end_attempt, retries)
    return len(attempts)


def _lapse(
    tx: Tx, attempt: int, reason: str, kind: EndingKind, end_attempt: EndAttempt | None, retries: Retries
) -> None:
    """End an attempt whose holder is gone; its task is held for the same resident, who continues it."""
    settle(
        tx,
        [
            Settlement(
                attempt, None, kind, reason, actor="system:kernel", end_attempt=end_attempt, retries=retries,
                hold=kind == "lapsed",
            )
        ],
    )  # fmt: skip


def release_unheld(tx: Tx) -> None:
    """Let anybody take what is held for a resident whom no process drives."""
    tx.opened = True
    tx.run(
        "UPDATE tasks SET held_for = NULL WHERE state = 'open' AND held_for IS NOT NULL "
        "AND wanted IS NULL AND held_for IN (SELECT name FROM residents WHERE process IS NULL OR state <> 'active')"
    )


@frozen
class Drive:
    """Ask for ``count`` residents to drive; new ones are made when too few are free, ``DRIVEN_AT_ONCE`` at a time."""

    process: int
    count: int
    start_micros: int
    actor: Actor | str = "system:kernel"


def drive(tx: Tx, asked: Drive) -> list[str]:
    """Give this process residents that no other process drives, up to ``count`` in all; returns all that it drives.

    One transaction takes up ``DRIVEN_AT_ONCE`` more at most: whoever wants more asks again until there are enough.
    """
    mine = [row[0] for row in tx.rows("SELECT name FROM residents WHERE process = ? ORDER BY name", (asked.process,))]
    inactive = {row[0] for row in tx.rows("SELECT name FROM residents WHERE state <> 'active'")}
    keep = [name for name in mine if name not in inactive][: asked.count]
    free = [
        row[0]
        for row in tx.rows(
            "SELECT name FROM residents WHERE state = 'active' AND process IS NULL ORDER BY name IN "
            "(SELECT held_for FROM tasks WHERE state = 'open' AND held_for IS NOT NULL) DESC, created_at, name LIMIT ?",
            (min(asked.count - len(keep), DRIVEN_AT_ONCE),),
        )
    ]
    names = keep + free
    new = min(asked.count - len(names), DRIVEN_AT_ONCE - len(free))
    if new > 0:
        taken = {row[0] for row in tx.rows("SELECT name FROM residents")}
        for name in islice(people.free_names(taken.__contains__), new):
            people.add(tx, people.NewResident(name, asked.actor, start_micros=asked.start_micros))
            names.append(name)
    held, driven = set(mine), set(names)
    for name in [name for name in mine if name not in driven]:
        tx.run("UPDATE residents SET process = NULL WHERE name = ?", (name,))
    tx.update(
        "residents", "process = v.column2", "residents.name = v.column1",
        [(name, asked.process) for name in names if name not in held],
    )  # fmt: skip
    return names
