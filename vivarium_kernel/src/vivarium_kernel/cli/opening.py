"""The room of the command line's door: which village is meant, who acts, and opening it to look or to act."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vivarium_kernel.errors import Forbidden, Invalid, NotFound, StoreError, Unauthorized
from vivarium_kernel.terms import Actor

if TYPE_CHECKING:
    import sqlite3

    from vivarium_kernel.store import Store
    from vivarium_kernel.transaction import View
    from vivarium_kernel.village import Village

Command = TypeVar("Command", bound=Callable[..., Any])
FILE_NAME = "vivarium.toml"
DATABASE = "vivarium.db"


def village_option(command: Command) -> Command:
    """``--village DIR``: the parameter ``village``."""
    return click.option(
        "--village", "-v", type=click.Path(path_type=Path), metavar="DIR", envvar="VIVARIUM_VILLAGE",
        help="The village's folder; by default the one that holds this folder.",
    )(command)  # fmt: skip


def village_argument(command: Command) -> Command:
    """``VILLAGE`` as an argument: the parameter ``village``."""
    return click.argument(
        "village", type=click.Path(path_type=Path), required=False, envvar="VIVARIUM_VILLAGE", metavar="[VILLAGE]"
    )(command)


def as_option(command: Command) -> Command:
    """``--as TOKEN``: the parameter ``token``."""
    return click.option(
        "--as", "token", metavar="TOKEN",
        help="Act with this token's role instead of as operator.",
    )(command)  # fmt: skip


def json_option(command: Command) -> Command:
    """``--json``: the parameter ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def folder_of(given: Path | None) -> Path:
    """The village's folder: the one that was named, else this one or the nearest above it that is a village."""
    if given is not None:
        return given.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder
    raise Invalid(
        "village.none",
        f"There is no village here: neither {here} nor a folder above it has a {FILE_NAME}.",
        "Name one with --village DIR, or make one: vivarium init DIR.",
        field="village",
    )


def operator() -> Actor:
    """Whoever may write in the folder is its operator, recorded under the name that the system knows."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return Actor("operator", f"cli:{name}")


@contextlib.contextmanager
def acting(
    village: Path | None, token: str | None, route: str, *, plugins: bool = False
) -> Iterator[tuple[Village, Actor]]:
    """The open village and who acts in it. A token may do here what it may do over HTTP by ``route``.

    ``plugins`` loads them: for what may end an attempt, in whose ending they have their part.
    """
    from vivarium_kernel.village import Village, With

    folder = folder_of(village)
    actor = _actor(folder, token, route)
    tell_if_lost(folder)
    with Village(folder, With(load_plugins=plugins)) as opened:
        yield opened, actor


@contextlib.contextmanager
def switching(village: Path | None, token: str | None, route: str) -> Iterator[tuple[Store, Actor]]:
    """The store of a village that has lived, whatever is wrong with its settings, and who acts in it.

    What stops a village must work at all times; that the settings are wrong is said afterwards.
    """
    from vivarium_kernel.cli.showing import several
    from vivarium_kernel.clock import SystemClock
    from vivarium_kernel.settings import SettingsError, load
    from vivarium_kernel.store import Share, Store
    from vivarium_kernel.village import join

    folder = folder_of(village)
    if not is_founded(folder):
        with acting(folder, token, route) as (opened, actor):
            yield opened.store, actor
        return
    actor = _actor(folder, token, route)
    store = Store(folder, SystemClock(), share=Share(join))
    try:
        yield store, actor
    finally:
        store.close()
    try:
        load(folder)
    except SettingsError as error:
        click.echo(f"{several(len(error.problems), 'problem')} in the settings: vivarium doctor", err=True)


def is_founded(folder: Path) -> bool:
    """Whether a village has lived here. Raises StoreError for a database that can't be read."""
    return _version(folder / DATABASE) > 0


def _version(path: Path) -> int:
    """The version of a village's database; 0 where there is none, or no village was founded in it yet."""
    import sqlite3

    from vivarium_kernel import schema
    from vivarium_kernel.committing import told

    if not path.exists():
        return 0
    try:
        with contextlib.closing(read_only(path)) as connection:
            known: int = connection.execute("PRAGMA user_version").fetchone()[0]
            if 0 < known <= schema.VERSION and connection.execute("SELECT 1 FROM village").fetchone() is None:
                return 0
    except sqlite3.Error as error:
        raise told(error, path) from error
    return known


def is_lost(folder: Path) -> bool:
    """Whether a village has lived here and its database is gone: an opening leaves the lock, a founding ``files``."""
    return (folder / "vivarium.lock").exists() and (folder / "files").is_dir() and not is_founded(folder)


def refuse_lost(folder: Path) -> None:
    """Refuse to look at a village whose database is gone, which would found it anew; raises NotFound."""
    if is_lost(folder):
        raise NotFound(
            "village.lost", f"This village has lived, and its database is gone: {folder / DATABASE}.",
            "Put the newest backup there, and remove vivarium.db-wal and -shm; or `vivarium run` begins it anew.",
            field="village",
        )  # fmt: skip


def tell_if_lost(folder: Path) -> None:
    """Say that a village whose database is gone begins anew: its tasks are done, and paid for, once more."""
    if is_lost(folder):
        click.echo(
            f"This village has lived, and its database is gone: {folder / DATABASE}. It begins anew, with nothing on "
            "record. If that is not meant: stop it, and put the newest backup there.", err=True,
        )  # fmt: skip


def spare(file: Path, folder: Path, rule: str) -> None:
    """Refuse to write over what a village lives in, under whatever name or by whatever link; raises Invalid."""
    database = folder / DATABASE
    parts = [
        Path(f"{base}{end}") for base in (database, database.resolve()) for end in ("", "-wal", "-shm", "-journal")
    ]
    place = file.resolve()
    for own in (folder / "vivarium.lock", *parts):
        if place == own or (place.exists() and own.exists() and place.samefile(own)):
            raise Invalid(
                rule, f"{file} belongs to a village's own database, which writing there would destroy.",
                "Choose another name.", field="file",
            )  # fmt: skip


def _actor(folder: Path, token: str | None, route: str) -> Actor:
    """Who acts: whoever may write in the folder, or whose token it is. Whoever is refused has opened nothing."""
    if token is None:
        return operator()
    with looking(folder) as view:
        actor = bearer(view, token)
    allow(actor, route)
    return actor


def bearer(view: View, token: str) -> Actor:
    """Who a token belongs to; raises Unauthorized."""
    from vivarium_kernel import people

    actor = people.actor_of(view, token, ("bearer",))
    if actor is None:
        raise Unauthorized(
            "token.invalid", "This token is not valid: it is unknown, revoked or too old.",
            "See `vivarium token list`; `vivarium token create` makes one.", field="--as",
        )  # fmt: skip
    return actor


def allow(actor: Actor, route: str) -> None:
    """Refuse an actor whose role may not do this, or whose token is for something else; raises Forbidden.

    What has no route is for operators.
    """
    from vivarium_kernel.api.roles import ROLES, scope_of

    roles, scope = ROLES.get(route, ("operator",)), scope_of(route)
    kind = "attempt" if actor.attempt is not None else actor.role
    if kind not in roles:
        raise Forbidden(
            "role", f"The token of {actor} is of the kind {kind!r} and may not do this; it takes {' or '.join(roles)}.",
            "Use another token, or none where you own the village's folder.", field="--as",
        )  # fmt: skip
    narrowed = actor.scope is not None and scope != "actions"  # an action's own name is a scope, too: it looks itself
    if narrowed and scope not in (actor.scope or ()):
        raise Forbidden(
            "scope",
            f"The token of {actor} is for {', '.join(actor.scope or ()) or 'nothing'} alone, and this is {scope}.",
            f"Use one with the scope {scope}, or without any.", field="--as",
        )  # fmt: skip


@contextlib.contextmanager
def looking(folder: Path) -> Iterator[View]:
    """A read-only snapshot of the village: takes no lock, so that it also shows a village whose writer is stuck.

    Raises NotFound where no village has lived yet.
    """
    import sqlite3

    from vivarium_kernel.clock import SystemClock
    from vivarium_kernel.committing import check_room, told
    from vivarium_kernel.transaction import Guard, View

    path = folder / DATABASE
    make_ready(folder)
    check_room(path)
    connection = None
    try:
        connection = read_only(path)
        connection.execute("BEGIN")
        yield View(connection, Guard(), SystemClock(), lambda view, name: view)
    except sqlite3.DatabaseError as error:
        raise told(error, path) from error
    finally:
        if connection is not None:
            connection.close()


def make_ready(folder: Path) -> None:
    """Bring an older database up to date, to be looked at. A newer one is refused, and so is a village that has none:
    nothing that is found in a database made just now would be true of what it has lived."""
    from vivarium_kernel import schema

    path = folder / DATABASE
    known = _version(path)
    if not known:
        from vivarium_kernel.settings import load

        load(folder)  # what a run would refuse
        refuse_lost(folder)
        raise NotFound(
            "village.unlived", f"The village in {folder} has not lived yet: nothing is on record.",
            "`vivarium run` or `vivarium up` begins it.", field="village",
        )  # fmt: skip
    if known > schema.VERSION:
        raise StoreError(
            "store.newer", f"{path} was written by a newer Vivarium (schema {known}; this one knows {schema.VERSION}).",
            "Upgrade: pip install --upgrade vivarium-kernel.",
        )  # fmt: skip
    if known < schema.VERSION:
        from vivarium_kernel.village import Village, With

        Village(folder, With(load_plugins=False)).close()


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that can't write."""
    import sqlite3

    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0, isolation_level=None)
