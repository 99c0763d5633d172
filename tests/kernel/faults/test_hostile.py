"""Hostile plugins: whatever one does on a hook, the village finishes what safety lets through, and names it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from sqlite_utils import Migrations
from vivarium_kernel.health import FAILURES_IN_A_ROW
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import (
    Claim,
    Ending,
    Entitlement,
    NewTask,
    Outcome,
    Resident,
    Review,
    Subject,
    Task,
    Verdict,
)
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.store import Tx
from vivarium_kernel.village import Village

from vivarium_kernel import audit, board, ledger, settling

from . import quick, scene


def too_deep() -> int:
    return too_deep() + 1


def raises(error: type[BaseException]) -> Callable[[], Any]:
    def rise() -> None:
        raise error("boom")

    return rise


FAULTS: dict[str, Callable[[], Any]] = {
    "raises": raises(ValueError),
    "exits": lambda: sys.exit(3),
    "interrupts": raises(KeyboardInterrupt),
    "recurses": too_deep,
    "talks nonsense": object,
}
SYNC = (
    "propose_activity", "claim_filter", "claim_score", "claim_reserve", "enrich_prompt", "end_attempt", "on_tick",
)  # fmt: skip
ASYNC = ("startup", "shutdown", "on_event")
ARGUMENTS = {
    "startup": "village", "shutdown": "village", "propose_activity": "resident", "claim_filter": "resident",
    "claim_score": "resident", "claim_reserve": "claim", "enrich_prompt": "resident", "end_attempt": "task",
    "on_tick": "now", "on_event": "event", "entitle": "resident", "check_safety": "subject",
    "execute_task": "job", "review_outcome": "task", "around_execution": "job",
}  # fmt: skip


def hostile(hook: str, does: Callable[[], Any], *, waits: bool = False) -> type[Plugin]:
    """A plugin that does this on one hook; with ``waits`` as a coroutine."""
    argument = ARGUMENTS[hook]
    scope: dict[str, Any] = {"does": does}
    # A hook's arguments are found by their names.
    exec(f"{'async ' if waits else ''}def hook(self, {argument}): return does()", scope)  # noqa: S102
    return type(f"Bad{hook}", (Plugin,), {"name": f"bad_{hook}", hook: hookimpl(scope["hook"])})


TASKS = [
    NewTask(id="pure", command=("wc", "-l", "facts.txt"), max_micros=5_000),
    NewTask(id="deed1", mode="deed", prompt="x", effect="idempotent", max_micros=5_000),
    NewTask(id="deed2", mode="deed", prompt="x", effect="once", needs=("deed1",)),
    NewTask(id="llm", prompt="Say something.", max_micros=50_000),
    NewTask(id="bad", command=("cat", "no-such-file"), max_attempts=1),
]
ENDS = {"pure": "done", "deed1": "done", "deed2": "done", "llm": "done", "bad": "failed"}


def all_in(ends: Mapping[str, str]) -> Callable[[Village], bool]:
    def reached(village: Village) -> bool:
        with village.store.view() as view:
            found = scene.states(view)
        return {name: found[name] for name in ends} == ends

    return reached


async def lived_until(runtime: Runtime, reached: Callable[[Village], bool]) -> None:
    """Live with free hours until something is reached; real seconds."""
    async with quick.timeout(25), runtime:
        await scene.asynchronously_until(lambda: reached(runtime.village), "the village to get there", 20)
        assert runtime.fault is None


def village_with(tmp_path: Path, *plugins: type[Plugin], tasks: list[NewTask] | None = None) -> Village:
    folder = scene.found(tmp_path / "village")
    village = scene.opened(folder, plugins=(scene.Deeds, *plugins))
    assert not village.failed, village.failed
    village.post(TASKS if tasks is None else tasks)
    return village


def blamed(village: Village) -> dict[str, str]:
    """Who went wrong on which hook, as people see it."""
    return {tally["plugin"]: tally["last_error"] for tally in village.health.view() if tally["errors"]}


@pytest.mark.promise("faults-stay-with-their-plugin", "breaker", "missed-parts")
@pytest.mark.parametrize("fault", FAULTS)
def test_hooks_that_fail_stop_nothing_and_are_named(tmp_path: Path, fault: str) -> None:
    """On every hook whose failure is no judgement, all at once, each by a plugin of its own."""
    bad = [hostile(hook, FAULTS[fault]) for hook in SYNC] + [hostile(hook, FAULTS[fault], waits=True) for hook in ASYNC]
    expected = {plugin.name for plugin in bad}
    if fault == "talks nonsense":
        # The answers of these are not looked at.
        expected -= {
            "bad_startup",
            "bad_shutdown",
            "bad_on_event",
            "bad_on_tick",
            "bad_claim_reserve",
            "bad_end_attempt",
        }

    def reached(village: Village) -> bool:
        return all_in(ENDS)(village) and expected - {"bad_shutdown"} <= set(blamed(village))

    with village_with(tmp_path, *bad) as village:
        quick.run(lived_until(Runtime(village, 2), reached))
        assert set(blamed(village)) == expected
        with village.store.view() as view:
            found = scene.faults_of(view)
            missed = {row[0] for row in view.rows("SELECT DISTINCT plugin FROM missed")}
            noted = {e.actor for e in audit.tail(view, 0, 10_000, audit.Filter(kind="plugin.missed"))}
        assert found == []
        ended = "bad_end_attempt" in expected
        assert missed == ({"bad_end_attempt"} if ended else set())
        assert noted == ({"plugin:bad_end_attempt"} if ended else set())


@pytest.mark.promise("faults-stay-with-their-plugin", "async-hooks-end")
def test_coroutines_that_never_end_are_cancelled_and_named(tmp_path: Path) -> None:
    async def for_ever(*_: Any) -> None:
        await asyncio.sleep(10**6)

    bad = [
        type("Slow", (Plugin,), {"name": "slow", "startup": hookimpl(_method(for_ever, "village"))}),
        type("Slower", (Plugin,), {"name": "slower", "on_event": hookimpl(_method(for_ever, "event"))}),
        type("Deaf", (Plugin,), {"name": "deaf", "shutdown": hookimpl(_method(for_ever, "village"))}),
    ]

    def reached(village: Village) -> bool:
        return all_in(ENDS)(village) and {"slow", "slower"} <= set(blamed(village))

    with village_with(tmp_path, *bad) as village:
        quick.run(lived_until(Runtime(village, 2), reached))
        assert {name: error[:12] for name, error in blamed(village).items()} == {
            "slow": "TimeoutError", "slower": "TimeoutError", "deaf": "TimeoutError",
        }  # fmt: skip


def _method(function: Callable[..., Any], argument: str) -> Any:
    scope: dict[str, Any] = {"function": function}
    exec(f"async def method(self, {argument}): return await function()", scope)  # noqa: S102
    return scope["method"]


@pytest.mark.promise("faults-stay-with-their-plugin")
@pytest.mark.parametrize("score", [math.nan, math.inf, -7.0, "high", None], ids=str)
def test_scores_that_are_no_scores_decide_nothing(tmp_path: Path, score: Any) -> None:
    class Scorer(Plugin):
        name = "scorer"

        @hookimpl
        def claim_score(self, resident: Resident, tasks: Any) -> Any:
            return [score] * len(tasks)

    with village_with(tmp_path, Scorer) as village:
        quick.run(lived_until(Runtime(village, 2), all_in(ENDS)))
        assert "scorer" in blamed(village)


# Where a failure is a judgement


@pytest.mark.promise("faults-stay-with-their-plugin")
@pytest.mark.parametrize("fault", FAULTS)
def test_an_entitlement_that_fails_leaves_what_costs_nothing(tmp_path: Path, fault: str) -> None:
    ends = {name: state for name, state in ENDS.items() if name != "llm"}
    with village_with(tmp_path, hostile("entitle", FAULTS[fault])) as village:
        quick.run(lived_until(Runtime(village, 2), all_in(ends)))
        with village.store.view() as view:
            assert scene.states(view)["llm"] == "open"
        assert "bad_entitle" in blamed(village)
    assert not scene.marks(village.folder)["call:llm"]


@pytest.mark.promise("failed-check-is-no-allow", "faults-stay-with-their-plugin")
@pytest.mark.parametrize("fault", [*FAULTS, "hangs"])
def test_a_safety_check_that_fails_lets_nothing_through_until_it_is_well(tmp_path: Path, fault: str) -> None:
    well = False

    class Guard(Plugin):
        name = "bad_guard"

        @hookimpl
        async def check_safety(self, subject: Subject) -> Any:
            if well:
                return Verdict("allow", "guard")
            if fault == "hangs":
                await asyncio.sleep(10**6)
            return FAULTS[fault]()

    async def main(runtime: Runtime) -> None:
        nonlocal well
        village = runtime.village
        async with quick.timeout(25), runtime:
            await scene.asynchronously_until(lambda: "bad_guard" in blamed(village), "the check to fail")
            await asyncio.sleep(20)
            with village.store.view() as view:
                assert set(scene.states(view).values()) <= {"open", "claimed", "waiting"}
                told = audit.tail(view, 0, 1000, audit.Filter(kind="safety.cannot_judge"))
                assert {event.data["plugin"] for event in told} == {"bad_guard"}
            assert not scene.marks(village.folder)
            well = True
            await scene.asynchronously_until(lambda: all_in(ENDS)(village), "the village to go on", 20)

    with village_with(tmp_path, Guard) as village:
        quick.run(main(Runtime(village, 2)))
        with village.store.view() as view:
            assert scene.faults_of(view) == []
            assert all(task.failures == 0 for task in board.tasks(view) if task.id != "bad")


@pytest.mark.promise("faults-stay-with-their-plugin")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_reviewer_that_fails_asks_a_human(tmp_path: Path, fault: str) -> None:
    ends = {"pure": "review", "deed1": "review", "deed2": "waiting", "llm": "review"}
    with village_with(tmp_path, hostile("review_outcome", FAULTS[fault], waits=True)) as village:
        quick.run(lived_until(Runtime(village, 2), all_in(ends)))
        with village.store.view() as view:
            assert "bad_review_outcome" in board.attempts(view, "deed1")[-1].reason
        assert "bad_review_outcome" in blamed(village)


@pytest.mark.promise("faults-stay-with-their-plugin", "breaker")
@pytest.mark.parametrize("hook", ["execute_task", "around_execution"])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_executor_that_fails_fails_attempts_until_it_is_switched_off(tmp_path: Path, hook: str, fault: str) -> None:
    """The failures are its own: none counts against a task."""
    bad = hostile(hook, FAULTS[fault], waits=hook == "execute_task")
    with village_with(tmp_path, bad) as village:
        quick.run(lived_until(Runtime(village, 2), all_in(ENDS)))
        assert hook in village.health.switched_off[f"bad_{hook}"]
        with village.store.view() as view:
            assert scene.faults_of(view) == []
            assert all(task.failures == 0 for task in board.tasks(view) if task.id != "bad")
            faults = [a for t in board.tasks(view) for a in board.attempts(view, t.id) if a.ending == "released"]
            assert len(faults) >= FAILURES_IN_A_ROW
            assert all(f"bad_{hook}" in attempt.reason for attempt in faults)


# What a plugin may touch


class Prober(Plugin):
    """Tries, on every hook that hands it something, to take more than it was given."""

    name = "prober"
    migrations = Migrations("prober")
    TRIES = (
        "UPDATE tasks SET state = 'done'",
        "DELETE FROM events",
        "INSERT INTO accounts (name, currency, balance) VALUES ('resident:ada:free', 'aid', 1)",
        "SELECT digest FROM tokens",
        "SELECT private_text FROM steps",
        "DROP TABLE missed",
        "CREATE TABLE prober_more (x)",
        "ATTACH DATABASE 'other.db' AS other",
        "PRAGMA user_version = 99",
        "INSERT INTO deeds_other VALUES (1)",
        "/* deeds */ UPDATE village SET halted = 1",
    )

    def __init__(self, village: Any, config: Any) -> None:
        super().__init__(village, config)
        self.let_in: list[str] = []
        self.changed: list[str] = []
        self.asked = 0

    def probe(self, run: Callable[[str], Any]) -> None:
        for sql in self.TRIES:
            self.asked += 1
            try:
                run(sql)
            except sqlite3.Error:
                continue
            self.let_in.append(sql)

    def mutate(self, *records: Any) -> None:
        for record in records:
            names = [field.name for field in attrs.fields(type(record))] if attrs.has(type(record)) else [
                field.name for field in msgspec.structs.fields(record)
            ]  # fmt: skip
            for name in names:
                try:
                    setattr(record, name, None)
                except AttributeError:
                    continue
                self.changed.append(f"{type(record).__name__}.{name}")

    @hookimpl
    def claim_filter(self, resident: Resident, tasks: Any, view: Any) -> list[Any]:
        self.probe(view.read)
        self.mutate(resident, *tasks)
        return []

    @hookimpl
    def entitle(self, resident: Resident, view: Any) -> Entitlement:
        self.probe(view.read)
        return Entitlement()

    @hookimpl
    def claim_reserve(self, claim: Claim, tx: Any) -> None:
        self.probe(tx.execute)
        self.probe(tx.read)
        self.mutate(claim)
        with contextlib.suppress(Exception):
            tx.transfer("resident:ada:free", "plugin:prober:loot", 1, key="theft", reason="theft", ref="x")
            self.let_in.append("a transfer from a resident")
        with contextlib.suppress(Exception):
            tx.mint("task", "plugin:prober:loot", 1, key="forged", reason="forged", ref="x")
            self.let_in.append("minting under another's policy")

    @hookimpl
    def end_attempt(self, task: Task, ending: Ending, tx: Any) -> None:
        self.probe(tx.execute)
        self.mutate(task, ending)
        tx.execute("INSERT INTO prober_notes VALUES (?)", (task.id,))

    @hookimpl
    async def review_outcome(self, task: Task, outcome: Outcome) -> Review | None:
        self.mutate(task, outcome)
        return None


@Prober.migrations()
def m001_notes(db: Any) -> None:
    db["prober_notes"].create({"task": str})


@pytest.mark.promise("authorizer", "faults-stay-with-their-plugin")
def test_a_plugin_touches_its_own_tables_and_accounts_and_no_others(tmp_path: Path) -> None:
    with village_with(tmp_path, Prober) as village:
        quick.run(lived_until(Runtime(village, 2), all_in(ENDS)))
        prober = village.plugins["prober"]
        assert isinstance(prober, Prober)
        assert prober.asked > 10 * len(Prober.TRIES)
        assert prober.let_in == []
        assert prober.changed == []
        with village.store.view() as view:
            assert sorted(row[0] for row in view.rows("SELECT task FROM prober_notes")) == sorted(ENDS)
            assert scene.faults_of(view) == []
            assert ledger.balance(view, "plugin:prober:loot") == 0
            assert village.times().halted is False


# Parts that fail


class Wages(Plugin):
    """Writes its table, moves money and emits an event for each ending; fails afterwards while it is ``ill``."""

    name = "wages"
    migrations = Migrations("wages")
    how = "raises"

    def __init__(self, village: Any, config: Any) -> None:
        super().__init__(village, config)
        self.ill = True

    @hookimpl
    def end_attempt(self, task: Task, ending: Ending, tx: Any) -> None:
        tx.execute("INSERT INTO wages_paid VALUES (?, ?)", (task.id, ending.kind))
        tx.emit("paid", task=task.id)
        tx.declare_policy("wage", 10**9)
        tx.mint(
            "wage", f"resident:{ending.resident}:free", 7, key=f"wage:{task.id}", reason="wage", ref=f"task:{task.id}"
        )
        if self.ill and self.how == "raises":
            raise ValueError("no wages today")
        if self.ill:
            tx.execute("INSERT INTO wages_paid VALUES (?, ?, ?)", (1, 2, 3))


@Wages.migrations()
def m001_paid(db: Any) -> None:
    db["wages_paid"].create({"task": str, "kind": str})


def traces(village: Village) -> tuple[int, int, int]:
    """What the part left: rows, transfers and events."""
    with village.store.view() as view:
        return (
            view.rows("SELECT count(*) FROM wages_paid")[0][0],
            view.rows("SELECT count(*) FROM transfers WHERE reason = 'wage'")[0][0],
            view.rows("SELECT count(*) FROM events WHERE kind = 'wages.paid'")[0][0],
        )


@pytest.mark.promise("missed-parts", "kernel-and-parts-commit-together")
@pytest.mark.parametrize("how", ["raises", "bad sql"])
def test_a_part_that_fails_is_left_out_whole_and_runs_later_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(Wages, "how", how)
    with village_with(tmp_path, Wages) as village:
        quick.run(lived_until(Runtime(village, 2), all_in(ENDS)))
        wages = village.plugins["wages"]
        assert isinstance(wages, Wages)
        assert traces(village) == (0, 0, 0)
        with village.store.view() as view:
            missed = view.rows("SELECT id, plugin, hook, task, tries FROM missed ORDER BY id")
            assert scene.faults_of(view) == []
        assert [row[1:3] for row in missed] == [("wages", "end_attempt")] * len(ENDS)
        number = missed[0][0]
        assert run_missed(village, number) is False
        assert traces(village) == (0, 0, 0)
        wages.ill = False
        assert [run_missed(village, row[0]) for row in missed] == [True] * len(ENDS)
        assert [run_missed(village, row[0]) for row in missed] == [False] * len(ENDS)
        assert traces(village) == (5, 5, 5)
        with village.store.view() as view:
            assert view.rows("SELECT count(*) FROM missed") == [(0,)]
            assert len(audit.tail(view, 0, 1000, audit.Filter(kind="plugin.caught_up"))) == len(ENDS)
            assert scene.faults_of(view) == []


def run_missed(village: Village, number: int) -> bool:
    """Run one missed part again, as an operator's command does."""

    def again(plugin: str, task: Task, ending: Ending, tx: Tx) -> BaseException | None:
        call = village.hooks.end_attempt_of(plugin, task, ending, tx)
        return None if call is None else call.error

    def run(tx: Tx, number: int) -> bool:
        return settling.run_missed(tx, number, again)

    found: bool = village.store.call(run, number)
    return found
