"""The room of the doctor's checks: each looks at one thing and changes nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from attrs import frozen

from vivarium_kernel.cli.showing import money, several, shortened
from vivarium_kernel.errors import READ_ONLY_STEP, is_read_only
from vivarium_kernel.terms import LOADING, MICROS
from vivarium_kernel.wording import lasting

if TYPE_CHECKING:
    from vivarium_kernel.commands import Sandbox
    from vivarium_kernel.settings import Settings
    from vivarium_kernel.store import View
    from vivarium_kernel.village import Village

FREE_BYTES = 200_000_000  # less free space than this is a problem
LONG_SECONDS = 86_400.0  # a task that has waited for a person so long is worth a word
LOCK_SECONDS = 5.0  # a writer's turn takes milliseconds
SHOWN = 5
RESTORE = "stop the village, put the newest backup in the place of vivarium.db, remove vivarium.db-wal and -shm"


@frozen
class Finding:
    """What one check found. ``mend`` is the command or step that mends it."""

    state: Literal["good", "notice", "problem", "unknown"]
    what: str
    mend: str = ""
    check: str = ""


class Patient:
    """The village that is examined: each part of it is opened when a check first asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.locked = False
        self._open = ExitStack()

    @property
    def database(self) -> Path:
        return self.folder / "vivarium.db"

    @cached_property
    def settings(self) -> Settings:
        from vivarium_kernel.settings import load

        return load(self.folder).settings

    @cached_property
    def view(self) -> View | None:
        """A snapshot; None where no village has lived yet."""
        from vivarium_kernel.cli.opening import is_founded, looking

        return self._open.enter_context(looking(self.folder)) if is_founded(self.folder) else None

    @cached_property
    def village(self) -> Village:
        """The village with its plugins."""
        from vivarium_kernel.village import Village, With

        return self._open.enter_context(Village(self.folder, With()))

    def close(self) -> None:
        self._open.close()


def _folder(patient: Patient) -> Iterator[Finding]:
    folder = patient.folder
    if not folder.is_dir():
        yield Finding("problem", f"{folder} is no folder", f"vivarium init {folder}")
        return
    if is_read_only(folder):
        yield Finding("problem", f"{folder} is on a read-only file system", READ_ONLY_STEP)
        return
    unwritable = [
        path for path in (folder, patient.database, folder / "vivarium.lock", folder / "files")
        if path.exists() and not os.access(path, os.W_OK)
    ]  # fmt: skip
    for path in unwritable:
        yield Finding("problem", f"{path} can't be written", f"chmod u+rw{'x' if path.is_dir() else ''} {path}")
    if patient.database.exists() and patient.database.stat().st_mode & 0o077:
        yield Finding(
            "notice", f"{patient.database} can be read by others: it holds everything", f"chmod 600 {patient.database}"
        )
    if not unwritable:
        yield Finding("good", f"{folder} can be written")


def _lock(patient: Patient) -> Iterator[Finding]:
    """Writers take turns by a lock. One that keeps it (a stopped process, say) holds up everybody."""
    path = patient.folder / "vivarium.lock"
    if not path.exists():
        return
    with path.open("rb") as file:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield Finding("good", "writers take their turns")
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    break
                time.sleep(0.02)
        patient.locked = True
        holder = _holder(file.fileno())
        who = f"process {holder}" if holder else "a process"
        mend = f"kill {holder}, if it does not go on: nothing is lost" if holder else "end that process"
        yield Finding("problem", f"{who} has kept the village's lock for more than {LOCK_SECONDS:g} s", mend)


def _holder(fd: int) -> int | None:
    """The process that holds a file's lock, as far as the system tells."""
    inode = os.fstat(fd).st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
            return int(words[4])
    return None


def _disk(patient: Patient) -> Iterator[Finding]:
    free = shutil.disk_usage(patient.folder).free
    used = sum(path.stat().st_size for path in patient.folder.glob("vivarium.db*"))
    said = f"{free / 1e9:.1f} GB free; the database has {used / 1e6:.1f} MB"
    if free < max(FREE_BYTES, used // 4):
        mend = "free some space, then run it again: nothing is lost"
        yield Finding("problem", f"the disk is nearly full: {said}", mend)
    else:
        yield Finding("good", said)


def _settings(patient: Patient) -> Iterator[Finding]:
    from vivarium_kernel import taskfile

    settings = patient.settings
    count = sum(len(taskfile.read(patient.folder / name)) for name in settings.tasks)
    yield Finding("good", f"vivarium.toml is sound; {several(count, 'task')} in {several(len(settings.tasks), 'file')}")


def _database(patient: Patient) -> Iterator[Finding]:
    from vivarium_kernel import schema
    from vivarium_kernel.cli.opening import is_lost

    view = patient.view  # refuses a newer one
    if view is None:
        if is_lost(patient.folder):
            yield Finding("problem", f"the village has lived, and {patient.database} is gone", RESTORE)
            return
        yield Finding("good", "there is none yet; it is made when the village first lives")
        return
    faults = [str(row[0]) for row in view.rows(f"PRAGMA integrity_check({SHOWN})")]
    if faults == ["ok"]:
        sound = f"schema {schema.VERSION}; every page and index is sound (SQLite {sqlite3.sqlite_version})"
        yield Finding("good", sound)
        return
    for fault in faults:
        yield Finding("problem", f"damaged: {shortened(fault, 200)}", RESTORE)


def _log(patient: Patient) -> Iterator[Finding]:
    from vivarium_kernel import audit

    if patient.view is None:
        return
    number, _, broken = audit.verify(patient.view)
    if broken is None:
        yield Finding("good", f"all {number:,} events are as they were written")
        return
    mend = "restore the newest backup for which `vivarium log verify` is content, or find out who wrote to the database"
    yield Finding("problem", f"event {broken.id} is not as it was written: {broken.why}", mend)


def _ledger(patient: Patient) -> Iterator[Finding]:
    from vivarium_kernel import ledger

    if patient.view is None:
        return
    found = ledger.verify(patient.view)
    for problem in found.problems[:SHOWN]:
        yield Finding("problem", problem, "restore the newest backup for which `vivarium ledger verify` is content")
    if not found.problems:
        yield Finding("good", f"{several(found.accounts, 'account')} and {several(found.transfers, 'transfer')} agree")


def _processes(patient: Patient) -> Iterator[Finding]:
    from vivarium_kernel import processes

    view = patient.view
    if view is None:
        return
    me, living, gone = processes.this_process(), 0, 0
    for number, machine, pid, started, kind, lease in view.rows(
        "SELECT id, machine, pid, pid_started, kind, lease_until_at FROM processes WHERE ended_at IS NULL ORDER BY id"
    ):
        dead = processes.is_gone(me, machine, pid, started)
        held = (view.row("SELECT count(*) FROM attempts WHERE process = ? AND state = 'running'", (number,)) or (0,))[0]
        if not dead and lease >= view.now:
            living += 1
            continue
        gone += 1
        what = f"process {number} ({kind}, pid {pid}) {'has died' if dead else 'has not renewed its lease'}"
        if held:
            mend = "vivarium run, or any other that lives: it takes them up"
            yield Finding("problem", f"{what} with {several(held, 'task')}", mend)
        else:
            yield Finding("notice", f"{what}; it held nothing", "the next process that lives tidies it away")
    if not gone:
        yield Finding("good", f"{several(living, 'process', 'processes')} at work" if living else "none at work now")


def _tasks(patient: Patient) -> Iterator[Finding]:
    view = patient.view
    if view is None:
        return
    stuck = 0
    for what, sql, mend in _STUCK:
        rows = view.rows(sql)
        stuck += len(rows)
        for row in rows[:SHOWN]:
            yield Finding("problem", what.format(*row), mend.format(*row))
    late = view.now - int(LONG_SECONDS * MICROS)
    for name, since in view.rows(
        "SELECT t.id, max(a.ended_at) AS since FROM tasks t JOIN attempts a ON a.task = t.id WHERE t.state = 'review' "
        "GROUP BY t.id HAVING since < ? ORDER BY since LIMIT ?",
        (late, SHOWN),
    ):
        waited = lasting((view.now - since) / MICROS)
        yield Finding(
            "notice",
            f"{name} has waited for a person's review for {waited}",
            f"vivarium task approve {name}, or reject",
        )
    if not stuck:
        yield Finding("good", "none is stuck")


# What must not be: each with the rows that show it, in words, and what mends it.
_STUCK = (
    (
        "{0} is claimed, but nobody is at it",
        "SELECT id FROM tasks t WHERE state = 'claimed' AND NOT EXISTS "
        "(SELECT 1 FROM attempts WHERE task = t.id AND state = 'running')",
        "vivarium task cancel {0}",
    ),
    (
        "{0} is at {1}, whose task is {2}",
        "SELECT a.resident, t.id, t.state FROM attempts a JOIN tasks t ON t.id = a.task "
        "WHERE a.state = 'running' AND t.state <> 'claimed'",
        "vivarium resident quarantine {0}, then vivarium resident resume {0}",
    ),
    (
        "{0} waits, though everything that it needs is done",
        "SELECT id FROM tasks t WHERE state = 'waiting' AND NOT EXISTS (SELECT 1 FROM dependencies d "
        "JOIN tasks n ON n.id = d.needs WHERE d.task = t.id AND n.state <> 'done')",
        "vivarium task cancel {0}, then vivarium task requeue {0}",
    ),
    (
        "{0} waits for {1}, which is {2} and will not be done",
        "SELECT t.id, n.id, n.state FROM tasks t JOIN dependencies d ON d.task = t.id JOIN tasks n ON n.id = d.needs "
        "WHERE t.state = 'waiting' AND n.state IN ('failed', 'cancelled', 'blocked')",
        "vivarium task requeue {1}, or vivarium task cancel {0}",
    ),
    (
        "{0} is wanted from {1}, who is {2} for good",
        "SELECT t.id, r.name, r.state FROM tasks t JOIN residents r ON r.name = t.wanted "
        "WHERE t.state IN ('open', 'waiting', 'parked') AND r.state IN ('banned', 'retired')",
        "vivarium task cancel {0}",
    ),
    (
        "{0} is in review without an attempt to decide on",
        "SELECT id FROM tasks t WHERE state = 'review' AND NOT EXISTS "
        "(SELECT 1 FROM attempts WHERE task = t.id AND state = 'review')",
        "vivarium task cancel {0}",
    ),
)


def _commands(patient: Patient) -> Iterator[Finding]:
    from vivarium_kernel.commands import BadAllow, Runner, resolve_allowed
    from vivarium_kernel.commands.spawner import Unavailable, find_wrapper

    asked = patient.settings.commands
    try:
        find_wrapper()
    except Unavailable as missing:
        yield Finding("problem", missing.what, missing.next_step)
    try:
        runner = Runner(patient.folder, [Path(root) for root in asked.read_roots], cast("Sandbox", asked.sandbox))
    except ValueError as error:
        yield Finding("problem", str(error), "mend [commands] in vivarium.toml")
        return
    active = runner.active
    runner.close()
    if active != "none":
        yield Finding("good", f"confined by {active}")
    elif asked.sandbox == "landlock" and asked.allow:
        yield Finding(
            "problem", f"this kernel has no Landlock: {', '.join(sorted(asked.allow))} are refused",
            'use a newer Linux, or set sandbox = "auto" in [commands] of vivarium.toml to run them unconfined',
        )  # fmt: skip
    else:
        yield Finding(
            "notice",
            "run without a sandbox; the rules for their arguments and limits stand",
            "use a Linux with Landlock",
        )
    try:
        resolve_allowed({name: program for name, program in asked.allow.items() if program != "{python}"})
    except BadAllow as error:
        for fault in error.faults:
            what, _, mend = fault.partition("; ")
            yield Finding("problem", what, mend)


def _plugins(patient: Patient) -> Iterator[Finding]:
    from vivarium_kernel import breakers
    from vivarium_kernel.cli.choosing import surroundings
    from vivarium_kernel.standing import misnamed

    _, _, choice = surroundings(patient.folder)
    for notice in misnamed(choice):
        what, _, mend = notice.rpartition(": ")
        yield Finding("notice", what, mend)
    if patient.view is None:
        return  # loading them would make the database
    # What is left out whole is looked at anew below.
    off = [each for each in breakers.breakers(patient.view) if each.hook != LOADING]
    for each in off:
        yield Finding("problem", f"{each.plugin} is off on {each.hook}: {shortened(each.cause, 200)}", each.next_step)
    if patient.locked:
        yield Finding("unknown", "can't be loaded while the lock is kept")
        return
    village = patient.village
    for failed in village.failed:
        for error in failed.errors:
            yield Finding("problem", f"{failed.name}: {error.definition}: {error.fault}", error.cure)
    if not village.failed and not off:
        yield Finding("good", f"{several(len(village.plugins), 'plugin')}: {', '.join(sorted(village.plugins))}")


def _people(patient: Patient) -> Iterator[Finding]:
    from vivarium_kernel import budgets, people, village_time

    view = patient.view
    if view is None:
        return
    times = village_time.read_times(view)
    if times.halted:
        why = f": {times.halt_reason}" if times.halt_reason else ""
        yield Finding("notice", f"the village is halted{why}", "vivarium unhalt")
    if times.paused:
        yield Finding("notice", "the village is paused", "vivarium resume")
    if times.residents == 0:
        yield Finding("notice", "no resident is to be at work", "vivarium residents NUMBER")
    if not view.row("SELECT 1 FROM residents WHERE state = 'active'"):
        yield _idle(view)
    missed = (view.row("SELECT count(*) FROM missed") or (0,))[0]
    if missed:
        what = f"{several(missed, 'part')} of plugins failed and wait to be run"
        yield Finding("problem", what, "vivarium missed retry")
    if times.last_event_at > view.now + 60 * MICROS:
        ahead = lasting((times.last_event_at - view.now) / MICROS)
        yield Finding("problem", f"the clock is {ahead} behind the newest event", "set the machine's clock")
    budget = budgets.budget(view, "village")
    if budget is not None and budget.cap_micros > 0 and budget.left_micros * 10 <= budget.cap_micros:
        cap = budget.cap_micros if budget.wanted_micros is None else budget.wanted_micros
        used = money(budget.cap_micros - budget.left_micros, "usd")
        yield Finding("notice", f"the village has used {used} of {money(cap, 'usd')}", "raise budgets.village_usd")
    for name, step in people.nobodys(view, patient.settings.limits.keys() - {"default"}):
        yield Finding("notice", f"[limits.{name}] in vivarium.toml limits nobody: no resident is called so", step)
    if not (times.halted or times.paused or missed):
        yield Finding("good", "nothing holds it up")


def _idle(view: View) -> Finding:
    """Nobody is active: a run makes residents only where there is none who could be let back."""
    sql = "SELECT name, state FROM residents WHERE state IN ('paused', 'quarantined') ORDER BY name"
    stopped = view.rows(sql)
    if not stopped:
        return Finding("notice", "no resident is active; a run makes some", "vivarium resident add NAME")
    named = ", ".join(f"{name} is {state}" for name, state in stopped[:SHOWN])
    more = f", and {len(stopped) - SHOWN:,} more" if len(stopped) > SHOWN else ""
    return Finding(
        "notice", f"no resident is active, and a run makes none: {named}{more}",
        f"vivarium resident resume {stopped[0][0]}",
    )  # fmt: skip


def _python(patient: Patient) -> Iterator[Finding]:
    if not sys.platform.startswith("linux"):
        yield Finding("problem", f"{sys.platform} is not supported", "run it on Linux; see docs/systems.md")
    else:
        yield Finding("good", f"Python {sys.version.split()[0]} on Linux {os.uname().release}")


CHECKS: Mapping[str, Callable[[Patient], Iterator[Finding]]] = {
    "system": _python,
    "folder": _folder,
    "lock": _lock,
    "disk": _disk,
    "settings": _settings,
    "database": _database,
    "log": _log,
    "ledger": _ledger,
    "processes": _processes,
    "tasks": _tasks,
    "commands": _commands,
    "plugins": _plugins,
    "village": _people,
}
