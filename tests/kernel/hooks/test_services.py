"""Promises about services: a plugin works for another in the asker's transaction, and on its own tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol

import pytest
from sqlite_utils import Migrations
from vivarium_kernel.village import Village, With

from vivarium_kernel import Actor, Forbidden, Plugin, PluginTx

tables = Migrations("guests")


@tables()
def m001_guests(db: Any) -> None:
    db["guests_book"].create({"name": str}, pk="name")


class Book:
    """What is provided. It is handed whatever the asker has."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def sign(self, tx: PluginTx, name: str) -> None:
        own = tx.of(self._plugin)
        own.execute("INSERT INTO guests_book VALUES (?)", (name,))
        own.emit("signed", name=name)

    def names(self, source: Any) -> list[str]:
        return [row[0] for row in source.of(self._plugin).read("SELECT name FROM guests_book ORDER BY name")]

    def careless(self, tx: PluginTx) -> Any:
        return tx.read("SELECT name FROM guests_book")

    def pays(self, tx: PluginTx, payer: str) -> bool:
        return tx.of(self._plugin).transfer(payer, "commons", 1, key="k", reason="toll", ref="door")


class Guests(Plugin):
    """Keeps a book."""

    name = "guests"
    migrations = tables
    provides = Book


class Signs(Protocol):
    """What the asker needs of the book."""

    def sign(self, tx: PluginTx, name: str, /) -> None: ...

    def names(self, source: Any) -> list[str]: ...

    def careless(self, tx: PluginTx) -> Any: ...

    def pays(self, tx: PluginTx, payer: str) -> bool: ...


class Asker(Plugin):
    """Asks for the book; has no tables."""

    name = "asker"
    asks: ClassVar = {"guests": Signs}


@pytest.fixture
def village(tmp_path: Path) -> Iterator[Village]:
    (tmp_path / "vivarium.toml").write_text('residents = ["ada"]\n')
    with Village(tmp_path, With(installed=False, plugins=(Guests, Asker)), environ={}) as found:
        yield found


def test_a_service_reads_and_writes_its_own_tables_in_the_askers_transaction(village: Village) -> None:
    book = village.service("guests", Signs)
    assert book is not None

    def ask(tx: Any, fails: bool) -> list[str]:
        with tx.part("asker") as part:
            book.sign(part, "eve" if fails else "ada")
            if fails:
                raise RuntimeError("after it was signed")
            return book.names(part)

    assert village.store.call(ask, False) == ["ada"]
    with pytest.raises(RuntimeError):
        village.store.call(ask, True)
    with village.store.view() as view:
        assert book.names(view.plugin("asker")) == ["ada"]
        assert view.rows("SELECT kind, data FROM events WHERE kind = 'guests.signed'") == [
            ("guests.signed", '{"name":"ada"}')
        ]


@pytest.mark.promise("authorizer")
def test_a_service_that_uses_the_askers_grant_is_stopped_at_its_own_tables(village: Village) -> None:
    book = village.service("guests", Signs)
    assert book is not None
    with pytest.raises(sqlite3.DatabaseError, match="prohibited"):
        village.store.call(lambda tx, _: book.careless(PluginTx(tx, "asker")), None)


def test_a_service_moves_the_actors_money_and_nobody_elses(village: Village) -> None:
    book = village.service("guests", Signs)
    assert book is not None

    def ask(tx: Any, payer: str) -> bool:
        return book.pays(PluginTx(tx, "asker", Actor("resident", "ada")), payer)

    assert village.store.call(ask, "resident:ada:free")
    for payer in ("resident:ben:free", "plugin:asker:pot"):
        with pytest.raises(Forbidden):
            village.store.call(ask, payer)


def test_a_service_that_is_off_is_none(tmp_path: Path) -> None:
    (tmp_path / "vivarium.toml").write_text("")
    with Village(tmp_path, With(installed=False, plugins=(Asker,)), environ={}) as village:
        assert village.service("guests", Signs) is None


@pytest.mark.promise("authorizer")
@pytest.mark.parametrize("how", ["named", "subclass", "equal", "renamed"])
def test_nobody_is_another_plugin_by_calling_itself_so(village: Village, how: str) -> None:
    genuine, asker = village.plugins["guests"], village.plugins["asker"]

    class Equal(Asker):
        name = "guests"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return hash(genuine)

    if how == "renamed":
        vars(asker)["name"] = "guests"
    forged: Any = {
        "named": SimpleNamespace(name="guests"),
        "subclass": Guests(village, None),
        "equal": Equal(village, None),
        "renamed": asker,
    }[how]
    with pytest.raises((Forbidden, sqlite3.DatabaseError)):
        village.store.call(
            lambda tx, _: PluginTx(tx, "asker").of(forged).execute("INSERT INTO guests_book VALUES ('eve')"), None
        )
    with village.store.view() as view, pytest.raises((Forbidden, sqlite3.DatabaseError)):
        view.plugin("asker").of(forged).read("SELECT name FROM guests_book")
