"""Promises about services and the Protocols of those who ask: both sides are named when they do not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
from vivarium_kernel.services import lacking
from vivarium_kernel.switching import Switching
from vivarium_kernel.village import Village, With

from vivarium_kernel import Invalid, Plugin, PluginTx, PluginView, registry


class Counts(Protocol):
    def count(self, view: PluginView, resident: str) -> int: ...


class Signs(Counts, Protocol):
    @property
    def title(self) -> str: ...

    def sign(self, tx: PluginTx, name: str, /, *, twice: bool = False) -> None: ...


class Book:
    def __init__(self, plugin: Plugin) -> None:
        self.title = "guests"

    def count(self, view: PluginView, resident: str, since: int = 0) -> int:
        return 0

    def sign(self, tx: PluginTx, by: str, twice: bool = False) -> None: ...


class Guests(Plugin):
    """Keeps a book."""

    name = "guests"
    provides = Book


class Other(Plugin):
    """Keeps another book, under the same name."""

    name = "guests"
    provides: ClassVar[Any] = lambda plugin: object()


class Asker(Plugin):
    """Asks for the book."""

    name = "asker"
    asks: ClassVar = {"guests": Signs}


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


def test_a_service_that_fits_is_given_and_none_while_it_is_absent(open_with: Callable[..., Village]) -> None:
    village = open_with(Guests, Asker)
    book = village.service("guests", Signs)
    assert isinstance(book, Book) and village.failed == []
    alone = open_with(Asker)
    assert alone.service("guests", Signs) is None and alone.failed == []


def test_an_asker_that_wants_more_is_failed_with_both_sides_and_the_others_live(
    open_with: Callable[..., Village],
) -> None:
    village = open_with(Other, Asker)
    assert "guests" in village.plugins and "asker" not in village.plugins
    (failed,) = village.failed
    text = str(failed)
    assert failed.name == "asker"
    assert "asker asks guests by Signs (" in text and "test_protocols.py:" in text
    assert "for count(view, resident): the service of guests, builtins.object, has no method count; mend" in text
    assert "vivarium plugins disable guests" in text and "has no title" in text


def test_who_asks_without_having_said_so_gets_a_typed_error(open_with: Callable[..., Village]) -> None:
    village = open_with(Other)
    with pytest.raises(
        Invalid, match=r"Counts \(.*\) wants count\(view, resident\): the service of guests,"
    ) as refused:
        village.service("guests", Counts)
    assert refused.value.rule == "plugins.service" and "a version of guests that fits" in refused.value.next_step


def test_a_service_that_comes_later_is_looked_at_then(open_with: Callable[..., Village]) -> None:
    village = open_with(Other, Asker)

    async def live() -> list[bool]:
        switching = Switching(village)
        await switching.begin()
        seen = ["asker" in village.plugins]
        for off in (frozenset({"guests"}), frozenset[str]()):
            registry.write(village.folder, registry.Registry(disabled=off))
            await switching.look()
            seen.append("asker" in village.plugins)
        await switching.end()
        return seen

    assert asyncio.run(live()) == [False, True, False]


# What is compared


class Plain(Protocol):
    def ask(self, one: int, two: int) -> None: ...


class Slow(Protocol):
    async def ask(self, one: int, two: int) -> None: ...


class Many(Protocol):
    def ask(self, *all: int) -> None: ...


class Placed(Protocol):
    def ask(self, a: int, b: int, /) -> None: ...


def service(function: Callable[..., Any]) -> Any:
    return type("Service", (), {"ask": function})()


async def waits(self: Any, one: int, two: int) -> None: ...


@pytest.mark.parametrize(
    ("protocol", "function", "fault"),
    [
        (Plain, lambda self, one, two: 0, ""),
        (Plain, lambda self, one, two, three=3: 0, ""),
        (Plain, lambda self, *args, **kwargs: 0, ""),
        (Plain, lambda self, one: 0, "too many positional arguments"),
        (Plain, lambda self, one, two, three: 0, "missing a required argument: 'three'"),
        (Plain, lambda self, two, one: 0, "takes no one by name, in whose place it has two"),
        (Plain, lambda self, one, two, /: 0, "takes no one by name"),
        (Plain, waits, "has ask as a coroutine"),
        (Slow, waits, ""),
        (Slow, lambda self, one, two: 0, "has ask as a plain method"),
        (Placed, lambda self, one, two: 0, ""),
        (Placed, lambda self, one, *, two: 0, "too many positional arguments"),
        (Many, lambda self, one=1: 0, "takes no *all"),
        (Many, lambda self, *numbers: 0, ""),
        (Plain, 5, "has no method ask"),
    ],
)
def test_names_and_number_of_arguments_are_compared(protocol: Any, function: Any, fault: str) -> None:
    found = list(lacking(service(function), protocol))
    assert [lack for lack in found if fault not in lack.fault] == []
    assert bool(found) is bool(fault)


def test_what_is_computed_is_not_run() -> None:
    class Book:
        @property
        def title(self) -> str:
            raise SystemExit

        def count(self, view: Any, resident: str) -> int:
            return 0

        def sign(self, tx: Any, name: str, *, twice: bool = False) -> None: ...

    assert list(lacking(Book(), Signs)) == []


@pytest.mark.parametrize("asks", [{"guests": Book}, {3: Signs}, ["guests"], Signs])
def test_what_is_asked_by_no_protocol_is_refused(open_with: Callable[..., Village], asks: Any) -> None:
    village = open_with(Guests, type("Odd", (Plugin,), {"name": "odd", "asks": asks}))
    assert "is not a Protocol by plugin; write asks = {" in str(village.failed[0])
