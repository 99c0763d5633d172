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
from vivarium_kernel.settling import EndAttempt, Retries, Settlement, settle
from vivarium_kernel.store import Tx, View, setwise
from vivarium_kernel.terms import MICROS, Actor, EndingKind

REMOTE = "remote"  # the kind of a worker elsewhere, which has its row here
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
    """This process joins the village for ``lease_seconds``; ``address`` is the URL of the API that it serves."""

    me: Self
    kind: str
    lease_seconds: float
    address: str | None = None


def register(tx: Tx, asked: Register) -> int:
    """Write this process's lease row; returns its number."""
    number = (tx.row("SELECT coalesce(max(id), 0) + 1 FROM processes") or (1,))[0]
    tx.insert(
        "processes", "id, machine, pid, pid_started, kind, started_at, lease_until_at, address",
        [(number, asked.me.machine, asked.me.pid, asked.me.started, asked.kind, tx.now,
          tx.now + int(asked.lease_seconds * MICROS), asked.address)],
    )  # fmt: skip
    emit(tx, "process.started", "system:kernel", process=number, type=asked.kind)
    return int(number)


def open_at(tx: Tx, asked: tuple[int, str]) -> None:
    """A process serves the API at this address from now on."""
    number, address = asked
    tx.run("UPDATE processes SET address = ? WHERE id = ?", (address, number))


@frozen
class Process:
    """A process whose lease stands. ``gone`` is one of this machine that was killed; ``address`` is its API's URL."""

    id: int
    kind: str
    pid: int
    machine: str
    host: bool
    started_at: int
    lease_until_at: int
    gone: bool
    address: str | None


def present(view: View) -> list[Process]:
    """The processes whose leases stand, the oldest first."""
    me = this_process()
    return [
        Process(number, kind, pid, machine, bool(host), at, until, is_gone(me, machine, pid, started), address)
        for number, kind, pid, machine, host, at, until, started, address in view.rows(
            "SELECT id, kind, pid, machine, host, started_at, lease_until_at, pid_started, address FROM processes "
            "WHERE ended_at IS NULL AND lease_until_at >= ? ORDER BY id",
            (view.now,),
        )
    ]


@frozen
class Renewal:
    """Renew a process's lease for so many seconds. ``stands``: it does so by a clock of its own that never jumps."""

    process: int
    seconds: float
    stands: bool = False


@setwise(5)
def renew(tx: Tx, asked: list[Renewal]) -> list[bool]:
    """Renew one lease row for all of a process's attempts. False when it had lapsed: they are not its any more.

    It comes before what the process's residents ask in the same commit, which may have waited for its turn for long.
    """
    return [_renewed(tx, each) for each in asked]


def _renewed(tx: Tx, asked: Renewal) -> bool:
    number, seconds = asked.process, asked.seconds
    row = tx.row("SELECT lease_until_at, host FROM processes WHERE id = ? AND ended_at IS NULL", (number,))
    if row is None or (row[0] < tx.now and not asked.stands):
        return False
    if row[1]:
        fold_time(tx)
    tx.run("UPDATE processes SET lease_until_at = ? WHERE id = ?", (tx.now + int(seconds * MICROS), number))
    return True


@frozen
class Jump:
    """The clock of the village's machine went another way than its seconds did.

    A lease lasts ``lease_seconds``, and the longest pause before a next try ``pause_seconds``.
    """

    seconds: float
    lease_seconds: float
    pause_seconds: float


def stand(tx: Tx, jump: Jump) -> None:
    """After a jump of the clock, let the leases of workers elsewhere that stood before it stand as if just renewed.

    They renew by clocks of their own, and know nothing of this one; the processes of this machine see the jump. Each of
    them may say so: it is the same thing again. After a clock was set back, what waits for its next try
    waits no longer than the longest pause.
    """
    until, passed = tx.now + int(jump.lease_seconds * MICROS), tx.now - int(max(0.0, jump.seconds) * MICROS)
    for table, elsewhere in (
        ("processes", f"kind = '{REMOTE}' AND ended_at IS NULL"),
        ("attempts", "state = 'running' AND process IS NULL"),
    ):
        tx.run(f"UPDATE {table} SET lease_until_at = ? WHERE {elsewhere} AND lease_until_at >= ?", (until, passed))
    if jump.seconds < 0:
        latest = tx.now + int(jump.pause_seconds * MICROS)
        tx.run(
            "UPDATE tasks SET wake_at = ?1 WHERE state = 'parked' AND parked_for = 'backoff' AND wake_at > ?1",
            (latest,),
        )


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
    """Ask for ``count`` residents to drive; new ones are made when too few are free, ``DRIVEN_AT_ONCE`` at a time.

    ``main``: it is for the village's own number of residents, and not for those of a further process. ``least`` are
    made whoever keeps a place.
    """

    process: int
    count: int
    start_micros: int
    actor: Actor | str = "system:kernel"
    main: bool = False
    least: int = 0


@frozen
class Staff:
    """The residents as one process finds them: those that it drives, and active ones whom nobody drives.

    ``kept`` are the places of those that are paused or quarantined: of those that it drove then, and for a ``main``
    process also of those whom nobody drove. ``stopped``: nobody at all is active, and somebody may come back. Either
    way nobody is made in their place: who did that did not want their work to go on.
    """

    driven: int
    free: int
    kept: int
    stopped: bool

    def missing(self, count: int, least: int = 0) -> int:
        """How many residents are to be made, so that ``count`` have a place, and ``least`` of them are at work."""
        return (
            0 if self.stopped else max(0, count - self.kept - self.driven - self.free, least - self.driven - self.free)
        )


def staff(source: View | Tx, process: int, *, main: bool) -> Staff:
    """Count the residents for this process."""
    rows = source.rows(
        "SELECT sum(state = 'active' AND process IS ?1), sum(state = 'active' AND process IS NULL), "
        "sum(state <> 'active' AND (process IS ?1 OR (?2 AND process IS NULL))), sum(state = 'active') = 0 "
        "FROM residents WHERE state IN ('active', 'paused', 'quarantined')",
        (process, main),
    )
    driven, free, kept, stopped = (found or 0 for found in rows[0])
    return Staff(driven, free, kept, bool(stopped))


def drive(tx: Tx, asked: Drive) -> list[str] | None:
    """Give this process residents that no other process drives, up to ``count`` in all; returns all that it drives.

    One transaction takes up ``DRIVEN_AT_ONCE`` more at most: whoever wants more asks again until there are enough. None
    for a process that was ended: it drives nobody before it has joined again.
    """
    if not tx.rows("SELECT 1 FROM processes WHERE id = ? AND ended_at IS NULL", (asked.process,)):
        return None
    sql = "SELECT name, state FROM residents WHERE process = ? ORDER BY name"
    mine: dict[str, str] = dict(tx.rows(sql, (asked.process,)))
    keep = [name for name, state in mine.items() if state == "active"][: asked.count]
    free = [
        row[0]
        for row in tx.rows(
            "SELECT name FROM residents WHERE state = 'active' AND process IS NULL ORDER BY name IN "
            "(SELECT held_for FROM tasks WHERE state = 'open' AND held_for IS NOT NULL) DESC, created_at, name LIMIT ?",
            (min(asked.count - len(keep), DRIVEN_AT_ONCE),),
        )
    ]
    names = keep + free
    new = min(staff(tx, asked.process, main=asked.main).missing(asked.count, asked.least), DRIVEN_AT_ONCE - len(free))
    if new > 0:
        taken = {row[0] for row in tx.rows("SELECT name FROM residents")}
        for name in islice(people.free_names(taken.__contains__), new):
            people.add(tx, people.NewResident(name, asked.actor, start_micros=asked.start_micros))
            names.append(name)
    driven = set(names)
    for name, state in mine.items():
        if name not in driven and state not in ("paused", "quarantined"):
            tx.run("UPDATE residents SET process = NULL WHERE name = ?", (name,))
    tx.update(
        "residents", "process = v.column2", "residents.name = v.column1",
        [(name, asked.process) for name in names if name not in mine],
    )  # fmt: skip
    return names
