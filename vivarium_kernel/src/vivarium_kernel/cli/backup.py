"""The room of ``vivarium backup``: a copy of the database, taken while the village lives, and proved to be good."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vivarium_kernel.cli.opening import DATABASE, folder_of, looking, spare, village_option
from vivarium_kernel.cli.showing import several
from vivarium_kernel.errors import Conflict, Invalid, StoreCorrupt

if TYPE_CHECKING:
    from vivarium_kernel.store import View


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Replace a backup that is there already.")
@village_option
def backup(file: Path, replace: bool, village: Path | None) -> None:
    """Copy the database while it is in use, and verify the copy.

    FILE is a plain SQLite database with everything in it; keep it as safe as the village's folder. To restore it, stop
    the village, put FILE in the place of vivarium.db, and remove vivarium.db-wal and vivarium.db-shm.
    """
    folder = folder_of(village)
    file = file.resolve()  # where a link leads to, so that the link stays
    _refuse(file, folder, replace)
    beside = file.with_name(f".{file.name}.part")
    try:
        # Whoever reads a backup reads everything, so nobody else may from the first byte on.
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        with looking(folder) as view:
            _copy(view, beside)
        events = _proved(beside)
        beside.replace(file)
    except FileExistsError as error:
        raise Conflict("backup.running", f"{beside} is there: another backup runs, or was cut short.",
                       "If none runs, remove it and try again.") from error  # fmt: skip
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    click.echo(
        f"{file}: {file.stat().st_size:,} bytes, {several(events, 'event')}; the copy is whole and its books agree"
    )


def _refuse(file: Path, folder: Path, replace: bool) -> None:
    from vivarium_kernel.commands.places import is_protected

    # A copy in the place of a living village's database would undo what it writes: this one's, or another's.
    for home in (folder, file.parent):
        if home == folder or (home / "vivarium.lock").exists():
            spare(file, home, "backup.own")
    if file.exists() and not file.is_file():
        raise Invalid("backup.file", f"{file} is no file.", "Name a file for the backup.", field="file")
    if file.exists() and not replace:
        raise Conflict(
            "backup.exists", f"{file} is there already.", "Choose another name, or add --replace.", field="file"
        )
    if not file.parent.is_dir():
        raise Invalid("backup.folder", f"There is no folder {file.parent}.", "Make it first.", field="file")
    beside = is_protected(file, folder) and file.name.startswith(DATABASE)  # a name for keys is for keys
    if file.is_relative_to(folder) and not beside:
        raise Invalid(
            "backup.place", f"{file} lies in the village, where commands of residents could read it.",
            "Choose a place outside of the village, or a name like vivarium.db.backup directly in its folder.",
            field="file",
        )  # fmt: skip


def _copy(view: View, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(target)) as copy:
        view.connection.backup(copy)  # in one go, from one snapshot: nobody waits, and no writer makes it begin again
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it


def _proved(path: Path) -> int:
    """The number of its events; raises StoreCorrupt when the copy is not whole."""
    from vivarium_kernel import audit, ledger
    from vivarium_kernel.clock import SystemClock
    from vivarium_kernel.transaction import Guard, View

    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as copy:
        view = View(copy, Guard(), SystemClock(), lambda view, name: view)
        whole = _integrity(view)
        if whole != ["ok"]:
            raise _not_kept(whole[0])
        faults = []
        events, _, broken = audit.verify(view)
        faults += [f"event {broken.id}: {broken.why}"] if broken else []
        faults += ledger.verify(view).problems
    if faults:
        raise _not_kept(faults[0])
    return events


def _not_kept(fault: str) -> StoreCorrupt:
    return StoreCorrupt(
        "backup.proof", f"The copy is damaged, as the original is, and was not kept: {fault}.", "Run `vivarium doctor`."
    )


def _integrity(view: View) -> list[str]:
    try:
        return [row[0] for row in view.rows("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as error:
        return [str(error)]  # too damaged even to be looked through
