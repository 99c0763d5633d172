"""Promises about whole lives of journals: money and votes are as a small model says, whatever the order of things."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from vivarium_plugins_social.journals import Journals

from vivarium_kernel import PluginTx, VivariumError
from vivarium_plugins_social import journals

from . import journal_machine

Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.promise("journals keep money and votes as a model of them says")
def test_journals_agree_with_their_model() -> None:
    journal_machine.run(25, 20)


@pytest.mark.long
@pytest.mark.promise("journals keep money and votes as a model of them says")
def test_journals_agree_with_their_model_for_long() -> None:
    journal_machine.run(3_000, 60)


def rounded_the_other_way(patch: pytest.MonkeyPatch) -> None:
    right = journals.decide

    def wrong(*asked: Any) -> Any:
        found = right(*asked)
        return evolve(found, bonus=found.bonus + (0 < found.bonus < asked[1]))

    patch.setattr(journals, "decide", wrong)


def penalty_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Journals, "_is_penalised", lambda *_: False)


def nothing_given_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journals, "_give_back", lambda *_: None)


def paid_at_every_tick(patch: pytest.MonkeyPatch) -> None:
    """No idempotency key, and no row that says it was paid."""
    mint, execute, tick = PluginTx.mint, PluginTx.execute, [0]

    def again(tx: PluginTx, policy: str, payee: str, micros: int, *, key: str, **more: Any) -> bool:
        tick[0] += 1
        return mint(tx, policy, payee, micros, key=f"{key}:{tick[0]}", **more)

    def forgets(tx: PluginTx, sql: str, params: Any = ()) -> Any:
        return [] if sql.startswith("UPDATE journals_entries SET bonus_due_day") else execute(tx, sql, params)

    patch.setattr(PluginTx, "mint", again)
    patch.setattr(PluginTx, "execute", forgets)


def votes_without_end(patch: pytest.MonkeyPatch) -> None:
    execute = PluginTx.execute

    def forgets(tx: PluginTx, sql: str, params: Any = ()) -> Any:
        return [] if sql.startswith("UPDATE journals_entries SET votes_until_hour") else execute(tx, sql, params)

    patch.setattr(PluginTx, "execute", forgets)


@pytest.mark.promise("harnesses-find-planted-bugs")
@pytest.mark.parametrize(
    "plant",
    [rounded_the_other_way, penalty_forgotten, nothing_given_back, paid_at_every_tick, votes_without_end],
)
def test_the_journal_machine_finds(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, VivariumError, sqlite3.Error)):
        journal_machine.run(150, 25, shrink=False)
