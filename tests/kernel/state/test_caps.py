"""Promises about caps on real money that are set, lowered and lifted while attempts run, by real openings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from vivarium_kernel.claiming import Claimed
from vivarium_kernel.records import NewTask
from vivarium_kernel.settling import Settlement
from vivarium_kernel.stepping import Intent, Result
from vivarium_kernel.village import Village, With

from vivarium_kernel import ledger, settling, stepping

from .scene import Scene, Unsynced
from .test_cases import claimed, joined, post

USD = 1_000_000
RESIDENTS = 'residents = ["ada", "ben", "cyn", "dov"]\n'


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene(RESIDENTS)
    yield made
    made.check_books()
    made.close()


def opened_with(scene: Scene, *caps: str) -> None:
    """Somebody else opens the village with other settings, while it is open here."""
    lines = [RESIDENTS + "[budgets]", *caps]
    (scene.village.folder / "vivarium.toml").write_text("\n".join(lines) + "\n")
    how = With(threaded=False, load_plugins=False, connection=Unsynced)
    Village(scene.village.folder, how, clock=scene.clock, environ={}).close()
    scene.check_books()


def budget(scene: Scene, kind: str = "village") -> tuple[Any, ...]:
    """(cap, reserved, spent, the cap that is wanted) in dollars."""
    where = "scope = ?1 AND ?1 = 'village' OR scope GLOB ?1 || ':*'"
    (row,) = scene.rows(f"SELECT cap, reserved, spent, wanted FROM budgets WHERE {where}", (kind,))
    return tuple(None if value is None else value / USD for value in row)


def paid(scene: Scene) -> float:
    rows = scene.rows("SELECT coalesce(sum(micros), 0) FROM transfers WHERE reason = 'model_call'")
    return float(rows[0][0]) / USD


def end(scene: Scene, won: Claimed, spent: int = 0) -> None:
    """The attempt makes a call that costs ``spent`` dollars, if any, and ends: accepted if it made one."""
    if spent:
        who = (won.resident.name, won.task.id)
        intent = Intent(won.attempt, 1, won.holder, "model", "p:m", "once", "{}", *who, spent * USD)
        assert scene.together([(stepping.intend, intent)]) == [None]
        result = Result(won.attempt, 1, won.holder, *who, "done", "{}", spent * USD, provider="p")
        assert scene.together([(stepping.record, result)]) == [None]
    kind: Literal["accepted", "released"] = "accepted" if spent else "released"
    scene.call(settling.settle, Settlement(won.attempt, won.holder, kind))
    scene.check_books()


def dollars(*names: str, each: int = 1) -> list[NewTask]:
    return [NewTask(id=name, mode="llm", max_micros=each * USD) for name in names]


def refusal(scene: Scene, process: int, name: str) -> str:
    """Why a resident gets none of the tasks: those that it was refused are parked, so there is a new one to want."""
    post(scene, NewTask(mode="llm", max_micros=1 * USD))
    (refused,) = claimed(scene, process, name)
    return str(refused.rule)


@pytest.mark.promise("caps-hold", "budget-returns")
@pytest.mark.parametrize("kind", ["village", "village-day"])
def test_a_cap_that_is_set_while_an_attempt_runs_counts_what_that_one_holds_and_nobody_elses(
    scene: Scene, kind: str
) -> None:
    post(scene, *dollars("a", "b", "c"))
    process = joined(scene)
    (ada,) = claimed(scene, process, "ada")
    opened_with(scene, f"{kind.replace('-', '_')}_usd = 2")
    (ben,) = claimed(scene, process, "ben")
    assert budget(scene, kind) == (2, 2, 0, None)
    assert refusal(scene, process, "cyn") == "budget.cap"
    end(scene, ada)
    assert budget(scene, kind) == (2, 1, 0, None)
    (cyn,) = claimed(scene, process, "cyn")
    assert refusal(scene, process, "dov") == "budget.cap"
    end(scene, ben, 1)
    end(scene, cyn, 1)
    assert (budget(scene, kind), paid(scene)) == ((2, 0, 2, None), 2)


@pytest.mark.promise("caps-hold")
def test_the_cap_of_a_residents_day_that_is_set_while_it_works_counts_what_it_holds(scene: Scene) -> None:
    post(scene, *dollars("a", "b", each=2))
    process = joined(scene)
    (ada,) = claimed(scene, process, "ada")
    opened_with(scene, "resident_day_usd = 1")
    end(scene, ada, 2)
    assert budget(scene, "resident-day") == (2, 0, 2, 1)
    (refused,) = claimed(scene, process, "ada")
    assert refused.rule == "budget.cap"


@pytest.mark.promise("caps-hold", "budget-returns")
@pytest.mark.parametrize("kind", ["village", "village-day"])
def test_what_others_have_set_aside_makes_a_task_wait_for_them_and_what_was_spent_for_more_of_the_cap(
    scene: Scene, kind: str
) -> None:
    line = f"{kind.replace('-', '_')}_usd = "
    opened_with(scene, line + "2")
    post(scene, *dollars("a", "b", "c"))
    process = joined(scene)
    ada, ben = claimed(scene, process, "ada", "ben")
    (cyn,) = claimed(scene, process, "cyn")
    assert (cyn.rule, state(scene, "c")) == ("budget.cap", ("open", None))
    assert "Wait for what is set aside to come back" in cyn.reason
    end(scene, ada)  # it spent nothing
    (cyn,) = claimed(scene, process, "cyn")
    end(scene, ben, 1)
    end(scene, cyn, 1)

    (dov,) = claimed(scene, process, "dov")
    assert (dov.rule, state(scene, "c")) == ("budget.cap", ("parked", "quota"))
    opened_with(scene, line + "2")
    assert state(scene, "c") == ("parked", "quota")
    opened_with(scene, line + "3")
    assert state(scene, "c") == ("open", None)
    (dov,) = claimed(scene, process, "dov")
    end(scene, dov, 1)
    assert (budget(scene, kind), paid(scene)) == ((3, 0, 3, None), 3)


def state(scene: Scene, name: str) -> tuple[str, str | None]:
    ((now, parked_for),) = scene.rows("SELECT state, parked_for FROM tasks WHERE id = ?", (name,))
    return now, parked_for


@pytest.mark.promise("caps-hold")
def test_a_cap_that_is_lifted_lets_go_on_what_waited_for_it(scene: Scene) -> None:
    opened_with(scene, "village_usd = 1")
    post(scene, *dollars("a", each=2))
    process = joined(scene)
    (ada,) = claimed(scene, process, "ada")
    assert ada.rule == "budget.cap"
    assert state(scene, "a") == ("parked", "quota")
    opened_with(scene)
    assert state(scene, "a") == ("open", None)


@pytest.mark.promise("caps-hold")
def test_what_was_set_aside_before_its_cap_may_be_spent_is_counted_and_stops_all_else(scene: Scene) -> None:
    post(scene, *dollars("a", "b", "c"))
    process = joined(scene)
    ada, ben, cyn = claimed(scene, process, "ada", "ben", "cyn")
    opened_with(scene, "village_usd = 2")
    assert budget(scene) == (3, 3, 0, 2)
    for won in (ada, ben, cyn):
        assert refusal(scene, process, "dov") == "budget.cap"
        end(scene, won, 1)
    assert (budget(scene), paid(scene)) == ((3, 0, 3, 2), 3)


@pytest.mark.promise("caps-hold", "budget-returns")
def test_a_cap_that_is_lowered_below_what_is_reserved_sinks_as_that_comes_back(scene: Scene) -> None:
    opened_with(scene, "village_usd = 5")
    post(scene, *dollars("a", each=5))
    process = joined(scene)
    (ada,) = claimed(scene, process, "ada")
    opened_with(scene, "village_usd = 1")
    assert budget(scene) == (5, 5, 0, 1)
    end(scene, ada)
    assert budget(scene) == (1, 0, 0, None)
    (refused,) = claimed(scene, process, "ben")
    assert refused.rule == "budget.cap"
    post(scene, *dollars("b"))
    (ben,) = claimed(scene, process, "ben")
    end(scene, ben, 1)
    assert (budget(scene), paid(scene)) == ((1, 0, 1, None), 1)


@pytest.mark.promise("caps-hold", "budget-returns")
def test_a_lowered_cap_sinks_no_further_than_what_was_spent_and_rises_with_the_settings(scene: Scene) -> None:
    opened_with(scene, "village_usd = 5")
    post(scene, *dollars("a", "b", each=2))
    process = joined(scene)
    ada, ben = claimed(scene, process, "ada", "ben")
    opened_with(scene, "village_usd = 1")
    assert budget(scene) == (4, 4, 0, 1)
    end(scene, ada, 2)
    assert budget(scene) == (4, 2, 2, 1)
    opened_with(scene, "village_usd = 1")
    assert budget(scene) == (4, 2, 2, 1)
    end(scene, ben)
    assert budget(scene) == (2, 0, 2, 1)
    opened_with(scene, "village_usd = 3")
    assert budget(scene) == (3, 0, 2, None)
    opened_with(scene)
    assert budget(scene) == (ledger.LARGEST_MICROS / USD, 0, 2, None)


@pytest.mark.promise("double-entry")
@pytest.mark.parametrize("kind", ["task", "village", "village-day", "resident-day"])
def test_verify_names_a_budget_whose_reservation_is_nobodys(scene: Scene, kind: str) -> None:
    opened_with(scene, "village_usd = 5", "village_day_usd = 5", "resident_day_usd = 5")
    post(scene, *dollars("a"))
    claimed(scene, joined(scene), "ada")
    scene.check_books()
    (scope,) = scene.rows("SELECT scope FROM budgets WHERE reserved > 0 AND scope || ':' GLOB ? || ':*'", (kind,))[0]
    with scene.store.exclusive() as connection:
        connection.execute("UPDATE budgets SET reserved = reserved - 1 WHERE scope = ?", (scope,))
    with scene.store.view() as view:
        (problem,) = ledger.verify(view).problems
    assert problem == f"budget {scope}: 999999 millionths are reserved, its running attempts say 1000000"
    with scene.store.exclusive() as connection:
        connection.execute("UPDATE budgets SET reserved = reserved + 1 WHERE scope = ?", (scope,))
