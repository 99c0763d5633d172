"""Promises about whose a table is, where one plugin's name begins another's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Migrations
from vivarium_kernel.transaction import owns
from vivarium_kernel.village import Village, With

from vivarium_kernel import Plugin


def keeper(name: str, *tables: str) -> type[Plugin]:
    """A plugin with tables of these names, each with one row."""
    migrations = Migrations(name)

    @migrations()
    def m001(db: Any) -> None:
        for table in tables:
            db[table].insert({"word": name})

    return type(name.title(), (Plugin,), {"name": name, "migrations": migrations})


HATS, SHOP = keeper("hats", "hats_worn"), keeper("hats_shop", "hats_shop_till")


@pytest.fixture
def open_with(tmp_path: Path) -> Iterator[Callable[..., Village]]:
    made: list[Village] = []

    def make(*plugins: type[Plugin]) -> Village:
        (tmp_path / "vivarium.toml").write_text("")
        made.append(Village(tmp_path, With(installed=False, plugins=plugins), environ={}))
        return made[-1]

    yield make
    for village in made:
        village.close()


def read(village: Village, plugin: str, table: str) -> list[Any]:
    with village.store.view() as view:
        return [row[0] for row in view.plugin(plugin).read(f"SELECT word FROM {table}")]


def write(village: Village, plugin: str, table: str) -> None:
    village.store.call(lambda tx, _: tx.plugin(plugin).execute(f"UPDATE {table} SET word = 'x'"), None)


@pytest.mark.promise("authorizer")
def test_a_plugin_reaches_no_table_of_one_whose_name_begins_with_its_own(open_with: Callable[..., Village]) -> None:
    village = open_with(HATS, SHOP)
    assert (read(village, "hats", "hats_worn"), read(village, "hats_shop", "hats_shop_till")) == (
        ["hats"],
        ["hats_shop"],
    )
    for reach in (read, write):
        for plugin, table in (("hats", "hats_shop_till"), ("hats_shop", "hats_worn")):
            with pytest.raises(sqlite3.DatabaseError, match=r"prohibited|not authorized"):
                reach(village, plugin, table)
    write(village, "hats", "hats_worn")
    assert read(village, "hats", "hats_worn") == ["x"]


@pytest.mark.promise("authorizer")
def test_nor_while_the_other_is_off_or_gone(open_with: Callable[..., Village]) -> None:
    open_with(HATS, SHOP).close()
    village = open_with(HATS)
    for reach in (read, write):
        with pytest.raises(sqlite3.DatabaseError, match=r"prohibited|not authorized"):
            reach(village, "hats", "hats_shop_till")


def test_one_statement_on_several_own_tables_is_let_through_at_once(open_with: Callable[..., Village]) -> None:
    village = open_with(keeper("hats", "hats_a", "hats_b", "hats_c"))
    with village.store.view() as view:
        query = "SELECT count(*) FROM hats_a, hats_b, (SELECT * FROM hats_c)"
        assert view.plugin("hats").read(query) == [(1,)]


def test_a_plugin_whose_name_a_table_of_another_bears_is_refused_with_both(open_with: Callable[..., Village]) -> None:
    open_with(keeper("hats", "hats_shop_windows")).close()
    village = open_with(keeper("hats", "hats_shop_windows"), SHOP)
    (failed,) = village.failed
    assert failed.name == "hats_shop"
    assert "the table hats_shop_windows of the plugin hats bears the name of hats_shop" in str(failed)
    assert read(village, "hats", "hats_shop_windows") == ["hats"]


def test_migrations_bear_their_plugins_name(open_with: Callable[..., Village]) -> None:
    village = open_with(type("Hats", (Plugin,), {"name": "hats", "migrations": Migrations("other")}))
    assert "Hats.migrations: are called 'other'; write Migrations('hats')" in str(village.failed[0])


@pytest.mark.parametrize(
    ("plugin", "table", "owned"),
    [("a", "a_x", True), ("a", "ab_x", False), ("a", "a_b_x", False), ("a_b", "a_b_x", True), ("a", "a_bx", True)],
)
def test_the_longest_name_has_the_table(plugin: str, table: str, owned: bool) -> None:
    assert owns(plugin, table, ["a", "a_b", "b"]) is owned
