"""Promises about models that nobody provides here: no task is lost to them, and they hide no other task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.explaining import explain
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.settling import wake_for_keys
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage, VirtualClock, rows
from vivarium_kernel.village import Village, With

from vivarium_kernel import (
    NewTask,
    Plugin,
    Price,
    ProviderFault,
    Reply,
    Request,
    Resident,
    Usage,
    board,
    breakers,
    hookimpl,
)


class Mine:
    """A provider that a program adds itself."""

    name = "mine"

    def price(self, model: str) -> Price:
        return Price(0, 0)

    async def complete(self, request: Request) -> Reply:
        return Reply("Mine.", Usage(1, 1))


class Idle(Plugin):
    """Proposes a thought as what to do in a free hour."""

    name = "idle"

    @hookimpl
    def propose_activity(self, resident: Resident) -> Sequence[NewTask]:
        return [NewTask(prompt="Think of something.")]


@pytest.mark.village(plugins=[], settings={"models": {"allow": ["scripted:*"]}})
def test_a_stand_in_is_used_where_the_first_wish_is_not_allowed_anyway(
    village: StagedVillage, run_cycles: RunCycles
) -> None:
    task = village.task("Say.", model="nowhere:x,scripted:echo")
    run_cycles()
    assert village.state(task) == "done"


def test_tasks_that_wait_for_a_provider_hide_none_of_those_that_name_the_same_resident(
    village: StagedVillage, run_cycles: RunCycles
) -> None:
    (name,) = [row[0] for row in rows(village, "SELECT name FROM residents ORDER BY name LIMIT 1")]
    for _ in range(70):
        village.task("Say.", model="nowhere:x", wanted=name)
    near = village.task("Say.", model="scripted:echo", wanted=name)
    run_cycles()
    assert village.state(near) == "done"
    assert rows(village, "SELECT count(*) FROM tasks WHERE state = 'open' AND attempts = 0") == [(70,)]
    assert explain(village, near, name).state == "done"


def test_what_nobody_provides_stands_before_nothing_when_a_claim_is_explained(village: StagedVillage) -> None:
    (name,) = [row[0] for row in rows(village, "SELECT name FROM residents ORDER BY name LIMIT 1")]
    far, near = village.task("Say.", model="nowhere:x"), village.task("Say.", model="scripted:echo")
    told = explain(village, near, name)
    assert (told.may, told.place, told.wishes, told.first) == (True, 1, 1, near)
    assert [reason.kind for reason in explain(village, far, name).reasons] == ["model"]


@contextlib.contextmanager
def plain(folder: Path, names: Sequence[str], settings: str = "", *plugins: type[Plugin]) -> Any:
    folder.mkdir(exist_ok=True)
    listed = ", ".join(f'"{name}"' for name in names)
    (folder / "vivarium.toml").write_text(f"residents = [{listed}]\n{settings}")
    with Village(folder, With(threaded=True, plugins=plugins), environ={}) as village:
        yield village


@pytest.mark.parametrize(("model", "lived"), [("scripted:echo", True), ("nowhere:x", False)])
def test_free_hours_bring_no_task_that_nobody_can_do(tmp_path: Path, model: str, lived: bool) -> None:
    async def main(village: Village) -> int:
        async with asyncio.timeout(30), Runtime(village, 1) as runtime:
            for _ in range(3):
                runtime.rounds.kick()
                while not (runtime.rounds.waiting and runtime.rounds.idle):
                    await asyncio.sleep(0.01)
            with village.store.view() as view:
                return sum(board.counts(view).values())

    with plain(tmp_path / "v", ["ada"], f'model = "{model}"\n', Idle) as village:
        assert (asyncio.run(main(village)) > 0) is lived


def test_a_provider_that_is_added_later_is_used(tmp_path: Path) -> None:
    async def main(village: Village) -> str:
        async with asyncio.timeout(30), Runtime(village, 1) as runtime:
            while "far" not in runtime.rounds.refusals:
                await asyncio.sleep(0.01)
            village.add_provider(Mine())
            runtime.rounds.kick()
            while True:
                with village.store.view() as view:
                    state = board.task(view, "far").state
                if state == "done":
                    return state
                await asyncio.sleep(0.01)

    with plain(tmp_path / "v", ["ada"]) as village:
        village.post([NewTask(id="far", prompt="Say.", model="mine:x")])
        assert asyncio.run(main(village)) == "done"


class Keyless(Mine):
    """Wants a key until it is told that there is one."""

    name = "lock"
    has_key = False

    async def complete(self, request: Request) -> Reply:
        if not self.has_key:
            raise ProviderFault("no key", started=False, kind="unauthorized")
        return await super().complete(request)


def test_fewer_residents_go_on_with_what_waited_for_a_key(tmp_path: Path) -> None:
    """What is held for a resident who is not at work this time is anybody's."""

    async def lived(village: Village, residents: int, kind: str = "run") -> None:
        async with asyncio.timeout(30), Runtime(village, residents, kind=kind, until_done=True) as runtime:
            await runtime.run()

    def counts(village: Village) -> dict[str, int]:
        with village.store.view() as view:
            return {state: number for state, number in board.counts(view).items() if number}

    lock = Keyless()
    with plain(tmp_path / "v", ["ada", "ben", "cyn", "dov"]) as village:
        village.add_provider(lock)
        village.post([NewTask(id=f"t{number}", prompt="Say.", model="lock:x") for number in range(8)])
        asyncio.run(lived(village, 4))
        assert counts(village) == {"parked": 8}
        lock.has_key = True
        asyncio.run(lived(village, 0, kind="serve"))
        assert counts(village) == {"parked": 8}  # nobody came who may have a key
        asyncio.run(lived(village, 1))
        assert counts(village) == {"done": 8}


def test_what_waits_for_a_key_is_opened_in_portions(village: StagedVillage, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each once: what is parked again meanwhile waits for the next key or start."""

    def park(tx: Any, _: None) -> None:
        tx.run("UPDATE tasks SET state = 'parked', parked_for = 'key'")

    monkeypatch.setattr("vivarium_kernel.settling.WOKEN_AT_ONCE", 2)
    names = [village.task("Say.") for _ in range(3)]
    village.store.call(park, None)
    first, after = village.store.call(wake_for_keys, ("operator:test", 0))
    assert (first, [village.state(name) for name in names]) == (2, ["open", "open", "parked"])
    village.store.call(park, None)
    assert village.store.call(wake_for_keys, ("operator:test", after)) == (1, None)
    assert [village.state(name) for name in names] == ["parked", "parked", "open"]


def test_a_wrong_key_opens_no_breaker_and_ends_no_probe_for_good(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles, virtual_clock: VirtualClock
) -> None:
    down = ProviderFault("it is down", started=False, kind="connection")
    locked = ProviderFault("no key", started=False, kind="unauthorized")
    scripted_model.says(*[down] * 5, locked, "Yes.", *["Yes."] * 10)
    for _ in range(7):
        village.task("Say.")
    run_cycles()
    for _ in range(20):
        virtual_clock.pass_time(seconds=60)
        run_cycles()
    assert rows(village, "SELECT count(*) FROM tasks WHERE parked_for = 'key'") == [(1,)]
    assert rows(village, "SELECT count(*) FROM tasks WHERE state = 'done'") == [(6,)]


class Odd(Mine):
    """Fails in the way that it is told to."""

    name = "odd"

    def __init__(self, where: str) -> None:
        self.where = where

    def price(self, model: str) -> Price:
        if self.where == "price":
            raise RuntimeError("boom")
        return super().price(model)

    async def complete(self, request: Request) -> Any:
        if self.where == "call":
            raise RuntimeError("boom")
        return "a text" if self.where == "answer" else Reply("Odd.", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "said", "step"),
    [("price", "RuntimeError: boom (", None), ("call", "RuntimeError: boom (", "unknown"),
     ("answer", "answered no sound Reply", "unknown"), ("usage", "answered no sound Reply", "unknown")],
)  # fmt: skip
@pytest.mark.promise("faults-stay-with-their-plugin", "uncounted-faults")
def test_a_provider_that_fails_switches_off_nobody_else(
    village: StagedVillage, run_cycles: RunCycles, where: str, said: str, step: str | None
) -> None:
    village.add_provider(Odd(where))
    for _ in range(8):
        village.task("Say.", model="odd:x")
    run_cycles(6)
    well = village.task("Say.", model="scripted:echo", priority=1)
    run_cycles(1)
    assert village.state(well) == "done"
    assert rows(village, "SELECT plugin FROM breakers") == []
    found = rows(village, "SELECT DISTINCT state, failures, reason FROM tasks WHERE faults > 0")
    assert found and all(state in ("open", "parked") and failures == 0 for state, failures, _ in found)
    assert all("the provider of odd:x" in reason and said in reason for _, _, reason in found)
    assert {state for (state,) in rows(village, "SELECT state FROM steps WHERE name = 'odd:x'")} <= {step, "void"}


class Lying(Mine):
    """Reports fewer tokens than none."""

    name = "liar"

    async def complete(self, request: Request) -> Reply:
        return Reply("Cheap.", Usage(-1, 1))


@pytest.mark.promise("caps-hold")
def test_a_provider_whose_report_cannot_be_true_is_refused_until_a_person_has_looked(tmp_path: Path) -> None:
    """By every process that comes after, too."""

    async def lived(village: Village) -> None:
        async with asyncio.timeout(30), Runtime(village, 1, until_done=True) as runtime:
            for _ in range(200):
                await asyncio.sleep(0.02)
                if not runtime.running and runtime.figures.cycles:
                    break

    for opening in ("it lies", "it is refused"):
        with plain(tmp_path / "v", ["ada"]) as village:
            village.add_provider(Lying())
            village.post([NewTask(id=opening.replace(" ", "-"), prompt="Say.", model="liar:x")])
            asyncio.run(lived(village))
            assert "which can't be true" in village.distrusted("liar")
            with village.store.view() as view:
                assert len(view.rows("SELECT 1 FROM steps WHERE state = 'done'")) == 1
                (refused,) = breakers.breakers(view)
                assert (refused.plugin, refused.next_step) == ("liar", "vivarium plugins retry liar")
    with plain(tmp_path / "v", ["ada"]) as village:
        village.store.call(breakers.close, breakers.Closing("liar"))
    with plain(tmp_path / "v", ["ada"]) as village:
        assert village.distrusted("liar") == ""
        village.add_provider(Mine())
