"""Promises about the state machines themselves: a bug that is planted in the kernel is found by its machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.ledger import Books

from vivarium_kernel import board, claiming, holds, ledger, processes, settling, stepping

from . import test_board_machine, test_ledger_machine

Plant = Callable[[pytest.MonkeyPatch], None]


# How a bug shows: the model disagrees, the kernel refuses what it should do, or SQLite's own checks hold.
FOUND = (AssertionError, VivariumError, sqlite3.Error)


def nothing(*_: Any, **__: Any) -> None:
    return None


def keys_unchecked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Books, "_made", nothing)


def floors_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger, "_FLOORLESS", ("",))


def minting_without_asking(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Books, "refuse_over_cap", nothing)


def holds_settled_twice(patch: pytest.MonkeyPatch) -> None:
    hold = holds._hold
    patch.setattr(holds, "_hold", lambda *asked: (*hold(*asked)[:4], "held"))


def budgets_not_reserved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Books, "reserve", nothing)


def running_attempts_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger, "_NEW_BUDGET", ledger._NEW_BUDGET.replace("'running'", "'nothing'"))


def caps_frozen_at_their_use(patch: pytest.MonkeyPatch) -> None:
    make = Books.make_budget

    def frozen(self: Books, scope: str, currency: str, cap: int) -> None:
        budget = self.budget(scope, currency)
        make(self, scope, currency, cap if budget is None else max(cap, budget.reserved + budget.spent))

    patch.setattr(Books, "make_budget", frozen)


def parts_not_undone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Books, "rollback", nothing)


def no_fencing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stepping, "fenced", lambda *_: True)
    patch.setattr(settling, "fenced", lambda *_: True)


def ended_twice(patch: pytest.MonkeyPatch) -> None:
    read = settling._read
    kept: dict[int, Any] = {}

    def remember(tx: Any, items: Any) -> Any:
        kept.update(read(tx, items))
        return {item.attempt: kept[item.attempt] for item in items if item.attempt in kept}

    patch.setattr(settling, "_read", remember)


def failed_is_done(patch: pytest.MonkeyPatch) -> None:
    def open_them(tx: Any, lost: Any) -> None:
        for name, _, _ in lost:
            board.open_or_park(tx, name, None)

    patch.setattr(board, "fail_dependents", open_them)


def budgets_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(settling, "_return_budgets", nothing)


def busy_residents_claim(patch: pytest.MonkeyPatch) -> None:
    free = claiming._free_residents

    class Blind:
        def __init__(self, tx: Any) -> None:
            self._tx = tx

        def rows(self, sql: str, params: Any) -> Any:
            return self._tx.rows(sql.replace("'running'", "'nothing'"), params)

        peek = rows

    patch.setattr(claiming, "_free_residents", lambda tx, names: free(Blind(tx), names))  # type: ignore[arg-type]


def silent_openings(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(board, "emit", nothing)


def leases_that_never_lapse(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(processes, "_lapse", nothing)


@pytest.mark.promise("harnesses-find-planted-bugs")
@pytest.mark.parametrize(
    "plant",
    [keys_unchecked, floors_off, minting_without_asking, holds_settled_twice, budgets_not_reserved, parts_not_undone,
     running_attempts_not_counted, caps_frozen_at_their_use],
)  # fmt: skip
def test_the_ledger_machine_finds(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(FOUND):
        test_ledger_machine.run(600, 60, shrink=False)


@pytest.mark.promise("harnesses-find-planted-bugs")
@pytest.mark.parametrize(
    "plant",
    [no_fencing, ended_twice, failed_is_done, budgets_not_reserved, budgets_kept, busy_residents_claim, silent_openings,
     leases_that_never_lapse],
)  # fmt: skip
def test_the_board_machine_finds(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(FOUND):
        test_board_machine.run(600, 30, shrink=False)
