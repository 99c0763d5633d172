"""What the hook tests share: plugins made on the spot, a tasks' table of records, and a real database's parts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vivarium_kernel.calls import Health, Hooks
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Claim, Ending, Outcome, Resident, Subject, Task

RESIDENT = Resident("ada")
TASKS = (Task(1, "one", "command"), Task(2, "two", "command"), Task(3, "three", "command"))
OUTCOME = Outcome(answer="42")
ENDING = Ending(1, "accepted", "ada")
COMMAND = Subject("command", argv=("ls",))


class Unwell(BaseException):
    """Not even an ``Exception``."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text for you")


def too_deep() -> int:
    return too_deep() + 1


def raiser(error: type[BaseException]) -> Callable[[], None]:
    def rise() -> None:
        raise error("boom")

    return rise


# Whatever a plugin's code may raise.
FAULTS: dict[str, Callable[[], Any]] = {
    "an exception": raiser(ValueError),
    "exit": raiser(SystemExit),
    "interrupt": raiser(KeyboardInterrupt),
    "no exception at all": raiser(Unwell),
    "an error without a text": raiser(Unspeakable),
    "generator exit": raiser(GeneratorExit),
    "stop iteration": raiser(StopIteration),
    "endless recursion": too_deep,
    "no memory": raiser(MemoryError),
}


def plugin(name: str, needs: tuple[str, ...] = (), after: tuple[str, ...] = (), **hooks: Callable[..., Any]) -> Plugin:
    """A plugin whose methods are these functions, marked."""
    marked = {hook: hookimpl(function) for hook, function in hooks.items()}
    cls = type(name.title(), (Plugin,), {"name": name, "requires": needs, "after": after, **marked})
    return cls(None, None)  # type: ignore[no-any-return]


def hooks(*plugins: Plugin, health: Health | None = None, **options: Any) -> Hooks:
    return Hooks(plugins, health or Health(), **options)


def job(task: Task = TASKS[0]) -> Any:
    return SimpleNamespace(task=task)


def claim(task: Task = TASKS[0]) -> Claim:
    return Claim(1, task, RESIDENT, 1)


class View:
    """Gives each plugin a view that knows its name."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def plugin(self, name: str) -> Any:
        self.given.append(name)
        return SimpleNamespace(plugin=name)


class Tx:
    """A transaction on a real database file whose parts are savepoints."""

    def __init__(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "village.db", isolation_level=None)
        self.connection.execute("CREATE TABLE IF NOT EXISTS notes (plugin TEXT)")
        self.connection.execute("BEGIN")

    @contextmanager
    def part(self, plugin: str) -> Iterator[Any]:
        self.connection.execute("SAVEPOINT part")
        try:
            yield SimpleNamespace(note=lambda: self.connection.execute("INSERT INTO notes VALUES (?)", [plugin]))
        except BaseException:
            self.connection.execute("ROLLBACK TO part")
            self.connection.execute("RELEASE part")
            raise
        self.connection.execute("RELEASE part")

    def notes(self) -> list[str]:
        return [name for (name,) in self.connection.execute("SELECT plugin FROM notes ORDER BY rowid")]
