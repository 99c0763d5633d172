"""A fault at every statement of claim, act and settle: whatever fails, the village goes on to a legal end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.processes.nursery import Nursery
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import With

from . import faulty, quick, scene
from .crashes import SURVIVED, lived
from .faulty import Plan

MOST_STATEMENTS = 200


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One village for each kind of task, founded and with the task on its board."""
    made = {}
    for kind, task in scene.KINDS.items():
        folder = scene.found(tmp_path_factory.mktemp(kind) / "village")
        with scene.opened(folder) as village:
            village.post([task])
        made[kind] = folder
    return made


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


def with_fault(folder: Path, plan: Plan) -> None:
    how = With(threaded=True, installed=False, plugins=(scene.Deeds,), connection=faulty.faulty(plan))
    with scene.opened(folder, how=how) as village:
        quick.run(lived(Runtime(village, 1, until_done=True), plan))


def copied(template: Path, to: Path) -> Path:
    shutil.copytree(template, to)
    return to


@pytest.mark.promise("fault-at-every-step", "double-entry", "budget-returns", "reward-once")
@pytest.mark.parametrize(
    ("kind", "fail", "times", "step"),
    [
        ("pure", "full", 1, 3),
        ("once", "full", 1, 1),
        ("llm", "full", 1, 2),
        ("llm", "unreadable", 1, 3),
        ("once", "broken", 1, 3),
        ("llm", "full", 12, 6),
    ],
)
def test_a_statement_that_fails_leaves_a_legal_end(
    templates: dict[str, Path], tmp_path: Path, thorough: bool, kind: str, fail: str, times: int, step: int
) -> None:
    """A disk that is full (for one statement, or for a while), a bad sector, and a fault that is not the database's.

    Statements that other cases fail at too are met in steps, one by one only when the run is thorough.
    """
    for n in range(1, MOST_STATEMENTS, 1 if thorough else step):
        folder = copied(templates[kind], tmp_path / str(n))
        plan = Plan(n, faulty.FAILS[fail], times=times)
        with_fault(folder, plan)
        ends = meeting(f"{fail} at statement {n}: {plan.met}", folder)
        if not plan.met:
            assert n > 20, f"a cycle has more than {n} statements"
            assert ends == {kind: "done"}
            return
    raise AssertionError(f"a cycle of more than {MOST_STATEMENTS} statements")


@pytest.mark.promise("fault-at-every-step")
def test_a_snapshot_that_fails_leaves_a_legal_end(templates: dict[str, Path], tmp_path: Path) -> None:
    for n in range(1, MOST_STATEMENTS):
        folder = copied(templates["once"], tmp_path / str(n))
        plan = Plan(n, faulty.unreadable, readers=True)
        with_fault(folder, plan)
        ends = meeting(f"a reader's statement {n}: {plan.met}", folder)
        if not plan.met:
            assert n > 5, f"a cycle reads with more than {n} statements"
            assert ends == {"once": "done"}
            return
    raise AssertionError(f"a cycle of more than {MOST_STATEMENTS} statements")


@pytest.mark.promise("fault-at-every-step", "effects-unknown", "kill-workers")
@pytest.mark.parametrize(
    ("kind", "after", "step"), [("once", False, 1), ("llm", False, 3), ("once", True, 1), ("llm", True, 1)]
)
def test_a_process_that_dies_at_a_statement_or_right_after_a_commit_leaves_a_legal_end(
    templates: dict[str, Path], tmp_path: Path, nursery: Nursery, thorough: bool, kind: str, after: bool, step: int
) -> None:
    """Between the effect and its record: a ``once`` effect goes to review, a model's call is charged and made again."""
    reviewed = charged = 0
    for n in range(1, MOST_STATEMENTS, 1 if thorough else step):
        folder = copied(templates[kind], tmp_path / str(n))
        status = nursery.run("kernel.faults.crashes:one_cycle", str(folder), n, after)
        effects = sum(scene.marks(folder).values())
        ends = meeting(f"a crash at {'commit' if after else 'statement'} {n}", folder)
        with scene.looking(folder) as view:
            unknown = view.rows("SELECT effect, worst_micros, spent_micros FROM steps WHERE state = 'unknown'")
        assert all(worst == spent for _, worst, spent in unknown), "what is unknown is charged at its worst case"
        assert (ends[kind] == "review") == (("once", 0, 0) in unknown)
        reviewed += ends[kind] == "review" and (effects > 0 or after)
        charged += sum(1 for effect, worst, _ in unknown if effect == "idempotent" and worst > 0)
        if status == SURVIVED:
            assert n > (2 if after else 20)
            assert ends == {kind: "done"}
            assert (reviewed > 0) == (kind == "once")
            assert (charged > 0) == (kind == "llm")
            return
        assert status == 9
    raise AssertionError(f"a cycle of more than {MOST_STATEMENTS} statements")


def meeting(fault: str, folder: Path) -> dict[str, str]:
    try:
        return scene.finish(folder)
    except AssertionError as error:
        raise AssertionError(f"{fault}: {error}") from error
