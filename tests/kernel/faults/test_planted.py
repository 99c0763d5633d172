"""Each harness of this folder finds the bug that is planted for it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.jobs import Job
from vivarium_kernel.store import Tx

from vivarium_kernel import rounds, schema, settling

from . import scene, test_awaits, test_hostile, test_recorded, test_statements

pytestmark = pytest.mark.promise("harnesses-find-planted-bugs")


def template(folder: Path, kind: str) -> dict[str, Path]:
    made = scene.found(folder / "template")
    with scene.opened(made) as village:
        village.post([test_awaits.KINDS[kind]])
    return {kind: made}


def test_the_awaits_harness_finds_effects_that_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An intent without a result is left as it is, and nobody is told."""
    monkeypatch.setattr(settling, "charge_unknown", lambda *_: (0, []))
    with pytest.raises(AssertionError, match=r"has no result, and its attempt has ended|was done 2 times"):
        test_awaits.test_a_fault_at_an_await_leaves_a_legal_end(
            template(tmp_path, "once"), tmp_path, "once", "exception"
        )


def test_the_recorded_harness_finds_results_that_are_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "_write", lambda self, result: None)
    with pytest.raises(AssertionError, match="the steps to be recorded"):
        test_recorded.test_an_effect_whose_result_is_recorded_is_not_repeated(tmp_path, "lapsed", True)


@pytest.mark.thorough
def test_the_statements_harness_finds_a_transaction_that_goes_on_after_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tx, "still_open", lambda self, error: None)
    with pytest.raises((AssertionError, sqlite3.IntegrityError)):  # its budget returns twice: the table refuses that
        test_statements.test_a_statement_that_fails_leaves_a_legal_end(
            template(tmp_path, "pure"), tmp_path, False, "pure", "full", 1, 1
        )


def test_the_awaits_harness_finds_budgets_that_do_not_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "_return_budgets", lambda tx, ended: None)
    with pytest.raises(AssertionError, match=r"still reserved|are reserved"):
        test_awaits.test_a_fault_at_an_await_leaves_a_legal_end(template(tmp_path, "llm"), tmp_path, "llm", "stop")


def test_the_recorded_harness_finds_an_attempt_that_begins_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "steps_to_replay", lambda view, claimed: [])
    with pytest.raises(AssertionError, match="deed was done 2 times"):
        test_recorded.test_an_effect_whose_result_is_recorded_is_not_repeated(tmp_path, "lapsed", True)


def test_the_hostile_harness_finds_an_authorizer_that_lets_tokens_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "PRIVATE_TABLES", frozenset())
    with pytest.raises(AssertionError, match="SELECT digest FROM tokens"):
        test_hostile.test_a_plugin_touches_its_own_tables_and_accounts_and_no_others(tmp_path)


def test_the_hostile_harness_finds_a_part_that_is_left_in_by_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def part(self: Tx, plugin: str) -> Iterator[Any]:
        yield self.plugin(plugin)

    monkeypatch.setattr(Tx, "part", part)
    with pytest.raises(AssertionError):
        test_hostile.test_a_part_that_fails_is_left_out_whole_and_runs_later_once(tmp_path, monkeypatch, "raises")


def test_the_hostile_harness_finds_a_missed_part_that_runs_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settling.run_missed

    def kept(tx: Tx, number: int, again: Any) -> bool:
        row = tx.row("SELECT * FROM missed WHERE id = ?", (number,))
        done = run(tx, number, again)
        if done and row is not None:
            tx.run(f"INSERT INTO missed VALUES ({','.join('?' * len(row))})", row)
        return done

    monkeypatch.setattr(settling, "run_missed", kept)
    with pytest.raises(AssertionError):
        test_hostile.test_a_part_that_fails_is_left_out_whole_and_runs_later_once(tmp_path, monkeypatch, "raises")
