"""Promises about faults: whatever fails while a bounty is posted, cancelled or judged, all of it is done or nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kernel.faults import faulty
from kernel.faults.faulty import Plan
from vivarium_kernel.ledger import Books

import vivarium_plugins_economy
from vivarium_kernel import VivariumError

from .crashes import JUDGED, PLUGINS, copies
from .scene import OPERATOR, Scene

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A village with a bounty of 60 and 30 for which a guild and a resident have submitted, and one that is open."""
    folder = tmp_path_factory.mktemp("template") / "village"
    with Scene(folder, PLUGINS) as scene:
        bounty = scene.post("hal", 60, 30, slots=2)
        scene.submit(bounty, "gus")
        scene.submit(bounty, "eli", as_guild=True)
        scene.post("gus", 10)
    return folder


ACTS: dict[str, Callable[[Scene], Any]] = {
    "complete": lambda scene: scene.do("complete", OPERATOR, **JUDGED),
    "cancel": lambda scene: scene.do("cancel", "gus", bounty=2),
    "post": lambda scene: scene.post("fay", 5),
}


def result(scene: Scene) -> tuple[Any, ...]:
    """What the acts change, in one value."""
    scene.check()
    return (
        scene.rows("SELECT id, state FROM bounties_posted ORDER BY id"),
        scene.rows("SELECT resident, micros FROM bounties_payouts ORDER BY resident"),
        scene.rows("SELECT id, state FROM holds ORDER BY id"),
        [scene.free(who) for who in ("eli", "dov", "fay", "gus", "hal")],
        scene.rows("SELECT kind, count(*) FROM events WHERE kind GLOB 'bounties.*' GROUP BY kind ORDER BY kind"),
    )


def before_and_after(template: Path, to: Path, act: str) -> tuple[Any, Any]:
    shutil.copytree(template, to)
    with Scene(to, PLUGINS) as scene:
        before = result(scene)
        ACTS[act](scene)
        return before, result(scene)


@pytest.mark.promise("double-entry", "fault-at-every-step")
@pytest.mark.parametrize(
    ("act", "fail"), [("complete", "full"), ("complete", "broken"), ("cancel", "broken"), ("post", "full")]
)
def test_a_statement_that_fails_leaves_all_or_nothing(template: Path, tmp_path: Path, act: str, fail: str) -> None:
    before, after = before_and_after(template, tmp_path / "well", act)
    for number, folder in copies(template, tmp_path):
        # Three in a row, so that the kernel's careful second try does not heal the first.
        plan = Plan(number, faulty.FAILS[fail], times=3)
        done = False
        with Scene(folder, PLUGINS, connection=faulty.faulty(plan)) as scene:
            plan.armed = True
            with suppress(VivariumError, RuntimeError):
                ACTS[act](scene)
                done = True
            plan.armed = False
        with Scene(folder, PLUGINS) as scene:
            assert result(scene) == (after if done else before), plan.met
        if not plan.met:
            assert number > 5
            return


@pytest.mark.promise("double-entry", "kill-workers")
@pytest.mark.parametrize("replied", [False, True])
def test_a_process_that_dies_while_it_pays_has_paid_all_or_nothing(
    template: Path, tmp_path: Path, replied: bool
) -> None:
    """At each statement, or right after the commit, before anybody hears of it; asked again, it is paid once."""
    dead = died_at_each_statement(template, tmp_path, replied)
    assert dead > (0 if replied else 20)


def died_at_each_statement(template: Path, tmp_path: Path, replied: bool, planted: bool = False) -> int:
    """How many died. Each has left all or nothing."""
    before, after = before_and_after(template, tmp_path / "well", "complete")
    shutil.copytree(template, tmp_path / "village")
    paths = [str(Path(__file__).parents[1]), str(Path(vivarium_plugins_economy.__file__).parents[1])]
    told = subprocess.run(
        [sys.executable, "-m", "economy.crashes", str(tmp_path), str(replied), str(planted)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, check=True,
        timeout=120,
    )  # fmt: skip
    *dead, last = map(int, told.stdout.split())
    assert last == 0, told.stderr
    for number in range(1, len(dead) + 2):
        with Scene(tmp_path / str(number), PLUGINS) as scene:
            assert result(scene) in (before, after)
            ACTS["complete"](scene)
            assert result(scene) == after
    return len(dead)


class Falls(Exception):
    """A fault between two payouts."""


@pytest.mark.promise("double-entry", "faults-stay-with-their-plugin")
@pytest.mark.parametrize("at", range(1, 5))
def test_a_fault_between_payouts_pays_nobody(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A guild of three and a runner-up are paid: four transfers, each of which may be the one that fails."""
    before, after = before_and_after(template, tmp_path / "well", "complete")
    shutil.copytree(template, tmp_path / "village")
    with Scene(tmp_path / "village", PLUGINS) as scene:
        with monkeypatch.context() as patch:
            patch.setattr(Books, "transfer", falling(at))
            with pytest.raises(VivariumError, match="Falls"):
                ACTS["complete"](scene)
        assert result(scene) == before
        ACTS["complete"](scene)
        assert result(scene) == after


def falling(at: int) -> Callable[..., bool]:
    transfer, made = Books.transfer, [0]

    def falls(self: Books, *arguments: Any) -> bool:
        made[0] += 1
        if made[0] == at:
            raise Falls
        return transfer(self, *arguments)

    return falls


@pytest.mark.promise("harnesses-find-planted-bugs")
def test_payouts_that_are_noted_in_another_transaction_are_found(template: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="holds disagree"):
        died_at_each_statement(template, tmp_path, True, planted=True)
