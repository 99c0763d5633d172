"""Promises about the hook reference: it is what the code says, and every example in it was really called."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.api.scene import RESIDENT, found_village, served, with_tokens
from kernel.panels.scene import look, session
from vivarium_kernel.errors import Forbidden
from vivarium_kernel.health import STRICTEST
from vivarium_kernel.runs import TRANSACT
from vivarium_kernel.testing import (
    RunCycles,
    ScriptedModel,
    StagedVillage,
    VirtualClock,
    assert_event,
    assert_section,
    balance,
    events,
    rows,
)
from vivarium_kernel.village import Village

from . import hooks
from .plugins.almanac import Almanac
from .plugins.applause import Applause
from .plugins.bell import Bell
from .plugins.brevity import Brevity
from .plugins.courier import Courier
from .plugins.crier import Crier
from .plugins.desks import Desks
from .plugins.dice import Dice
from .plugins.door import Door
from .plugins.no_shouting import NoShouting
from .plugins.notices import Notices
from .plugins.quiet_hours import QuietHours
from .plugins.rain import Rain
from .plugins.short_first import ShortFirst
from .plugins.stopwatch import Stopwatch
from .plugins.strolls import Strolls
from .plugins.thrift import Thrift

SPECS = hooks.specs()


@pytest.fixture(autouse=True)
def called(request: pytest.FixtureRequest) -> Iterator[set[tuple[str, str]]]:
    """What a test named after a hook must have done: its example was called on that hook, and never failed."""
    lived: set[tuple[str, str]] = set()
    hook = request.node.name.removeprefix("test_")
    if hook in SPECS and "village" in request.fixturenames:
        village = request.getfixturevalue("village")
        yield lived
        lived |= calls_of(village)
    else:
        yield lived
    if hook in SPECS:
        assert (hooks.facts()[hook]["example"], hook) in lived, f"the example of {hook} was not called on it"


def calls_of(village: Village) -> set[tuple[str, str]]:
    """Which plugin was called on which hook without a failure."""
    return {(each["plugin"], each["hook"]) for each in village.health.view() if each["calls"] and not each["errors"]}


# The page


@pytest.mark.promise("the hook reference is what hookspecs.py and the examples say")
def test_the_page_is_what_the_code_says() -> None:
    assert hooks.PAGE.read_text(encoding="utf-8") == hooks.page(), f"write it with `{hooks.COMMAND}`"


@pytest.mark.promise("no hook is undocumented or untested")
def test_every_hook_is_documented_and_has_an_example_that_a_test_calls() -> None:
    said = hooks.facts()
    assert list(said) == list(SPECS)
    for name, spec in SPECS.items():
        assert inspect.getdoc(spec), f"{name} has no docstring"
        for part in ("when", "fails", "gives"):
            assert said[name][part].strip(), f"{name} does not say {part}"
        assert said[name]["kind"] in hooks.KINDS, name
        assert list(said[name]["arguments"]) == list(inspect.signature(spec).parameters), name
        assert callable(getattr(sys.modules[__name__], f"test_{name}", None)), (
            f"no test calls {name}: write test_{name}"
        )
        assert f"def {name}(" in hooks.example(said[name]["example"])[1], f"the example of {name} does not have it"


def test_the_kinds_that_the_page_tells_are_those_that_the_code_goes_by() -> None:
    said = hooks.facts()
    assert {name for name in said if said[name]["kind"] == "strictest"} == STRICTEST
    assert {name for name in said if said[name]["kind"] == "transact"} == TRANSACT
    for name, spec in SPECS.items():
        given = set(inspect.signature(spec).parameters) & {"tx", "view"}
        assert not (given and inspect.iscoroutinefunction(spec)), f"{name} may wait and is given {given}"


@pytest.mark.promise("harnesses-find-planted-bugs")
def test_a_hook_without_a_page_or_a_test_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_moonrise() -> None:
        """Howl."""

    monkeypatch.setitem(SPECS, "on_moonrise", on_moonrise)
    with pytest.raises(AssertionError):
        test_every_hook_is_documented_and_has_an_example_that_a_test_calls()
    said = hooks.facts() | {"on_moonrise": hooks.facts()["on_tick"] | {"arguments": {}}}
    monkeypatch.setattr(hooks, "facts", lambda: said)
    with pytest.raises(AssertionError, match="no test calls on_moonrise"):
        test_every_hook_is_documented_and_has_an_example_that_a_test_calls()


# The examples, one test a hook: `called` sees that the hook was


@pytest.mark.village(plugins=[Courier])
def test_startup(village: StagedVillage, virtual_clock: VirtualClock) -> None:
    virtual_clock.pass_time(seconds=1)
    courier = village.plugins["courier"]
    assert isinstance(courier, Courier)
    courier.letters.put_nowait("good morning")
    virtual_clock.pass_time(seconds=1)
    assert courier.delivered == ["good morning"]


@pytest.mark.village(plugins=[Courier])
def test_shutdown(village: StagedVillage, virtual_clock: VirtualClock) -> None:
    virtual_clock.pass_time(seconds=1)
    village.close()
    courier = village.plugins["courier"]
    assert isinstance(courier, Courier) and courier.work.cancelled()


@pytest.mark.village(plugins=[Bell])
def test_register_actions(village: StagedVillage) -> None:
    village.do("bell.ring", {"why": "dinner"}, by="ada")
    assert_event(village, "bell.rung", why="dinner", actor="resident:ada")


def test_register_routes(tmp_path: Path, called: set[tuple[str, str]]) -> None:
    with served(found_village(tmp_path / "village"), plugins=(Door,)) as found:
        scene = with_tokens(found)
        assert scene.get("/plugins/door/knock", RESIDENT).raw == b"Come in, resident:ada."
        called |= calls_of(scene.village)


def test_register_panels(tmp_path: Path, called: set[tuple[str, str]]) -> None:
    with served(found_village(tmp_path / "village"), plugins=(Notices,)) as found:
        scene = with_tokens(found)
        assert b"<li>ada</li><li>ben</li>" in look(scene, "/panels/notices", session(scene)).raw
        called |= calls_of(scene.village)


@pytest.mark.village(plugins=[Strolls])
def test_propose_activity(village: StagedVillage, run_cycles: RunCycles) -> None:
    (attempt,) = run_cycles(1)
    assert attempt.answer is not None and "Walk, and tell what you see" in attempt.answer


@pytest.mark.village(plugins=[Thrift], settings={"budgets": {"start_aid": "10"}})
def test_entitle(village: StagedVillage, run_cycles: RunCycles) -> None:
    dear, cheap = village.task("Think hard."), village.task("Think.", model="scripted:echo")
    run_cycles(1)
    assert (village.state(dear), village.state(cheap)) == ("open", "done")


@pytest.mark.village(plugins=[QuietHours])
def test_claim_filter(village: StagedVillage, virtual_clock: VirtualClock, run_cycles: RunCycles) -> None:
    loud, quiet = village.task("Hammer.", labels=("loud",), priority=5), village.task("Read.")
    assert [attempt.task for attempt in run_cycles(1)] == [quiet]
    virtual_clock.pass_time(hours=8)
    assert [attempt.task for attempt in run_cycles(1)] == [loud]


@pytest.mark.village(plugins=[ShortFirst])
def test_claim_score(village: StagedVillage, run_cycles: RunCycles) -> None:
    village.task("Write a book.", timeout_seconds=600)
    short = village.task("Write a line.", timeout_seconds=2)
    assert [attempt.task for attempt in run_cycles(1)] == [short]


@pytest.mark.village(plugins=[Desks])
def test_claim_reserve(village: StagedVillage, run_cycles: RunCycles) -> None:
    task = village.task("Write.", labels=("desk",))
    full = "INSERT INTO desks_taken VALUES (1001, 'eve'), (1002, 'fay'), (1003, 'gil')"
    village.store.call(lambda tx, _: tx.run(full), None)
    with pytest.raises(AssertionError, match="0 of 1 cycles"):
        run_cycles(1, within_seconds=5)
    village.store.call(lambda tx, _: tx.run("DELETE FROM desks_taken WHERE attempt = 1001"), None)
    run_cycles(1)
    assert village.state(task) == "done"
    assert rows(village, "SELECT attempt FROM desks_taken ORDER BY 1") == [(1002,), (1003,)]


@pytest.mark.village(plugins=[Almanac], residents=["ada"])
def test_enrich_prompt(village: StagedVillage, run_cycles: RunCycles) -> None:
    first = village.task("Say something.", id="first")
    second = village.task("Say more.")
    run_cycles(2)
    assert_section(village, first, plugin="almanac", slot="situation", containing="It is day 0")
    assert_section(village, second, plugin="almanac", slot="memory", containing="The last task that you did was first.")


@pytest.mark.village(plugins=[NoShouting, Bell])
def test_check_safety(village: StagedVillage) -> None:
    with pytest.raises(Forbidden, match="it is all in capitals"):
        village.do("bell.ring", {"why": "COME HERE AT ONCE"}, by="ada")
    village.do("bell.ring", {"why": "come here"}, by="ada")
    assert len(events(village, "bell.rung")) == 1


@pytest.mark.village(plugins=[Stopwatch])
def test_around_execution(village: StagedVillage, run_cycles: RunCycles) -> None:
    task = village.task("Wait.", model="scripted:wait-2")
    run_cycles(1)
    stopwatch = village.plugins["stopwatch"]
    assert isinstance(stopwatch, Stopwatch) and stopwatch.seconds[task] == pytest.approx(2.0)


@pytest.mark.village(plugins=[Dice])
def test_execute_task(village: StagedVillage, run_cycles: RunCycles) -> None:
    village.task("Roll.", mode="dice", data={"count": 5}, effect="pure")
    village.task("Roll none.", mode="dice", data={"count": 0}, effect="pure")
    good, bad = run_cycles(2)
    assert good.answer is not None and len(good.answer.split()) == 5 and set(good.answer) <= set("123456 ")
    assert bad.ending == "failed" and "whole number from 1 to 100" in bad.reason


@pytest.mark.village(plugins=[Brevity])
def test_review_outcome(village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles) -> None:
    scripted_model.says("Yes.", "Yes. " * 500)
    short, long = village.task("One word?"), village.task("In short?")
    run_cycles(2)
    assert (village.state(short), village.state(long)) == ("done", "review")


@pytest.mark.village(plugins=[Applause], residents=["ada"])
def test_end_attempt(village: StagedVillage, run_cycles: RunCycles) -> None:
    before = balance(village, "resident:ada:free")
    for number in range(11):
        village.task(f"Task {number}.")
    run_cycles(11)
    assert rows(village, "SELECT times FROM applause_counts") == [(11,)]
    assert_event(village, "money.moved", reason="applause", micros=1_000_000, times=1)
    assert balance(village, "resident:ada:free") > before


@pytest.mark.village(plugins=[Crier], residents=["ada"])
def test_on_event(village: StagedVillage, run_cycles: RunCycles) -> None:
    village.task("Greet.", id="greet")
    run_cycles(1)
    crier = village.plugins["crier"]
    assert isinstance(crier, Crier) and list(crier.cried.values()) == ["ada has done greet!"]


@pytest.mark.village(plugins=[Rain])
def test_on_tick(village: StagedVillage, virtual_clock: VirtualClock) -> None:
    virtual_clock.pass_time(days=2, seconds=5)
    assert [event.data["rained_on"] for event in events(village, "rain.fell")] == [0, 1, 2]
