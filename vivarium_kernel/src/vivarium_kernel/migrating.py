"""The room of the plugins' tables: whose they are, and how they are brought up to date when a village is opened."""

from __future__ import annotations

from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivarium_kernel.errors import Invalid
from vivarium_kernel.transaction import Tx, migrated, owns

if TYPE_CHECKING:
    from vivarium_kernel.plugins import Plugin
    from vivarium_kernel.village import Village


def _refuse_others_tables(village: Village, name: str) -> None:
    """A plugin that never made a table here can't be the owner of those that bear its name: another one's are."""
    with village.store.view() as view:
        known = migrated(view.connection)
        tables = [row[0] for row in view.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    taken = {} if name in known else {table: other for table in tables for other in known if owns(name, table, known)
                                      and table.startswith(f"{other}_")}  # fmt: skip
    for table, other in sorted(taken.items()):
        raise Invalid(
            "plugins.tables",
            f"the table {table} of the plugin {other} bears the name of {name}, which would have it from now on",
            f"give one of the two plugins another name, or found a village without {other}",
        )


def migrate(village: Village, name: str, plugin: type[Plugin]) -> None:
    """Bring a plugin's tables up to date. Where it names the module of its migrations, that is imported only when its
    file is another one than when they last ran here: sqlite-utils costs 0.1 s."""
    _refuse_others_tables(village, name)
    if plugin.migrations is None:
        return
    digest = _file_digest(plugin.migrations) if isinstance(plugin.migrations, str) else None
    if digest is not None:
        with village.store.view() as view:
            if view.row("SELECT 1 FROM plugins WHERE name = ? AND migrated = ?", (name, digest)) is not None:
                return
    from sqlite_utils import Database

    with village.store.exclusive() as connection:
        migrations_of(plugin).apply(Database(connection))
    if digest is not None:
        village.store.call(_keep_migrated, (name, digest))


def _keep_migrated(tx: Tx, asked: tuple[str, str]) -> None:
    tx.run("INSERT INTO plugins (name, migrated) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET migrated = ?2", asked)


def migrations_of(cls: type[Plugin]) -> Any:
    """A plugin's migrations; those that it names by ``module:attribute`` are imported. Raises Invalid for others'."""
    found = cls.migrations
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(import_module(module), attribute)
        if found.name != cls.name:
            raise Invalid(
                "plugins.migrations",
                f"the migrations of {cls.name} are called {found.name!r}",
                f"write Migrations({cls.name!r}): by it the village knows whose tables are whose",
            )
    return found


def _file_digest(named: str) -> str:
    """The digest of the file of ``module:attribute``; the module is found and not imported."""
    spec = find_spec(named.partition(":")[0])
    if spec is None or spec.origin is None:
        raise Invalid("plugins.migrations", f"there is no module {named.partition(':')[0]}", "mend the plugin")
    return sha256(Path(spec.origin).read_bytes()).hexdigest()
