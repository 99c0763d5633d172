"""Bugs that are planted on purpose, in a process of their own, so that the harnesses can show that they find them."""

from __future__ import annotations

import importlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve
from kernel.faults.scene import Deeds
from vivarium_kernel.board import Posting
from vivarium_kernel.jobs import Job
from vivarium_kernel.store import Tx
from vivarium_kernel.village import Village, With

from vivarium_kernel import board

from . import village_processes


def with_bug(bug: str, function: str, *arguments: Any) -> int:
    """Plant a bug in this process, then be that process."""
    BUGS[bug]()
    module, _, name = function.partition(":")
    return int(getattr(importlib.import_module(module), name)(*arguments) or 0)


class Hasty(sqlite3.Connection):
    """Says that it has committed, and commits a moment later, when the answer has long been given."""

    _owed: threading.Timer | None = None

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:  # type: ignore[override]
        if self._owed is not None:
            self._owed.join()
            self._owed = None
        if sql != "COMMIT":
            return super().execute(sql, parameters)
        done = super().execute("SELECT 1")
        self._owed = threading.Timer(0.05, super().execute, ("COMMIT",))
        self._owed.start()
        return done


def answers_before_the_commit() -> None:
    def opened(folder: Path, *, threaded: bool = True, plugins: Any = (Deeds,)) -> Village:
        how = With(threaded=threaded, installed=False, plugins=plugins, connection=Hasty)
        return Village(folder, how, environ={})

    village_processes.opened = opened


def no_idempotency_key() -> None:
    post = board.post
    numbers = iter(range(1_000_000))

    def posted(tx: Tx, posting: Posting) -> Any:
        return post(tx, evolve(posting, tasks=[evolve(task, key=None) for task in posting.tasks]))

    def paid(tx: Tx, key: str) -> bool:
        return tx.books.transfer(
            f"gift:{key}:{tx.now}:{next(numbers)}", "operator", "resident:ada:free", "usd",
            village_processes.PAID_MICROS, "gift", "test", "operator:test", f"gift:{key}",
        )  # fmt: skip

    board.post = posted
    village_processes.pay = paid


def no_intents() -> None:
    begin = Job.begin

    async def begun(self: Job, kind: Any, name: str, effect: Any, arguments: Any, **options: Any) -> Any:
        return await begin(self, kind, name, "pure", arguments, **options)

    Job.begin = begun  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "answers before the commit": answers_before_the_commit,
    "no idempotency key": no_idempotency_key,
    "no intents": no_intents,
}
