"""Promises about the fixtures that plugin authors test with: a real village, time, a model and faults by word."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from vivarium_kernel.errors import NotFound
from vivarium_kernel.terms import MICROS
from vivarium_kernel.testing import (
    Failing,
    RunCycles,
    ScriptedModel,
    StagedVillage,
    VirtualClock,
    assert_event,
    assert_no_event,
    assert_section,
    assert_sound,
    assert_transfer,
    balance,
    events,
    missed,
    prompt,
    rows,
)
from vivarium_kernel.testing.stage import Unsound
from vivarium_kernel.testing.stepping import Shortage

from vivarium_kernel import Price, Reply, Usage

from .scene import Garden, Idler, garden

pytestmark = pytest.mark.village(plugins=[Garden])
Make = Callable[..., StagedVillage]


def test_a_village_is_real_and_has_the_plugins_of_its_mark(village: StagedVillage) -> None:
    assert (village.folder / "vivarium.db").exists()
    assert garden(village).config.flower == "rose"
    assert village.times().residents is None


@pytest.mark.village(config={"garden": {"flower": "tulip"}}, residents=["zoe"])
def test_the_nearest_mark_says_what_the_others_leave_open(village: StagedVillage, run_cycles: RunCycles) -> None:
    task = village.task("Say something.")
    (attempt,) = run_cycles()
    assert (attempt.resident, attempt.ending) == ("zoe", "accepted")
    assert_section(village, task, plugin="garden", slot="situation", containing="tulip")


def test_exactly_so_many_cycles_are_lived_and_nothing_is_left_in_flight(
    village: StagedVillage, run_cycles: RunCycles
) -> None:
    tasks = [village.task(f"Task {number}.") for number in range(5)]
    first = run_cycles(2)
    assert [attempt.task for attempt in first] == tasks[:2]
    assert [attempt.resident for attempt in first] == ["ada", "ben"]
    assert [village.state(task) for task in tasks] == ["done", "done", "open", "open", "open"]
    assert len(run_cycles()) == 3
    assert [village.state(task) for task in tasks] == ["done"] * 5
    assert_sound(village)


def test_cycles_that_can_not_be_lived_are_told_with_the_reason(village: StagedVillage, run_cycles: RunCycles) -> None:
    village.task("One.")
    village.task("Two.", plugins=("tractor",))
    with pytest.raises(Shortage, match=r"1 of 2 cycles.*1 open, 1 done.*tractor"):
        run_cycles(2)


def test_a_task_for_one_resident_is_not_missed_because_it_is_the_turn_of_another(
    village: StagedVillage, run_cycles: RunCycles
) -> None:
    village.task("For ben alone.", wanted="ben")
    assert [attempt.resident for attempt in run_cycles(1)] == ["ben"]


@pytest.mark.village(plugins=[Idler])
def test_free_hours_are_cycles_too(village: StagedVillage, run_cycles: RunCycles) -> None:
    assert len(run_cycles(3)) == 3
    assert {row[0] for row in rows(village, "SELECT spec ->> 'prompt' FROM tasks")} == {"a walk"}


def test_startup_runs_once_before_the_first_cycle_and_shutdown_once_at_the_end(
    village: StagedVillage, run_cycles: RunCycles
) -> None:
    plugin = garden(village)
    assert plugin.life == []
    for _ in range(2):
        village.task("Anything.")
        run_cycles(1)
    assert plugin.life == ["startup"]
    village.close()
    assert plugin.life == ["startup", "shutdown"]


def test_a_village_can_be_opened_again_as_after_a_restart(village: StagedVillage, run_cycles: RunCycles) -> None:
    task = village.task("Before.")
    run_cycles(1)
    again = village.reopened()
    assert again.state(task) == "done"
    assert garden(again) is not garden(village)
    again.task("After.")
    assert len(run_cycles(village=again)) == 1


def test_two_villages_live_beside_each_other(make_village: Make, run_cycles: RunCycles) -> None:
    one, two = make_village(), make_village(plugins=[])
    one.task("Here.")
    assert len(run_cycles(village=one)) == 1
    assert "garden" not in two.plugins
    assert rows(two, "SELECT count(*) FROM tasks") == [(0,)]


def test_an_unsound_plugin_is_told_with_all_that_is_wrong(make_village: Make) -> None:
    with pytest.raises(Unsound, match=r"plugins\.garden\.flwer.*flower"):
        make_village(config={"garden": {"flwer": "tulip"}})
    left_out = make_village(config={"garden": {"flower": 3}}, sound=False)
    assert [failed.name for failed in left_out.failed] == ["garden"]


def test_an_installed_plugin_that_is_not_there_is_named(make_village: Make) -> None:
    with pytest.raises(NotFound, match="no_such_plugin"):
        make_village(plugins=["no_such_plugin"])


def test_the_scripted_model_says_its_lines_and_remembers_what_it_was_asked(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(
        "Forty-two.", Reply("Indeed.", Usage(1, 1)), lambda request: f"{len(request.messages)} messages"
    )
    tasks = [village.task(f"Question {number}?") for number in range(4)]
    answers = [attempt.answer for attempt in run_cycles(4)]
    assert answers[:3] == ["Forty-two.", "Indeed.", "2 messages"]
    assert answers[3] is not None and "Question 3?" in answers[3]
    assert scripted_model.unsaid == 0
    assert [text.splitlines()[-1] for text in scripted_model.prompts] == [f"Question {number}?" for number in range(4)]
    assert [village.state(task) for task in tasks] == ["done"] * 4


def test_a_model_that_fails_is_tried_again_after_a_pause(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.price_of_all = Price(MICROS, MICROS)
    scripted_model.fails("429")
    task = village.task("Try.", max_micros=100_000)
    assert [attempt.ending for attempt in run_cycles(2)] == ["released", "accepted"]
    assert village.state(task) == "done"


def test_village_hours_pass_in_milliseconds(village: StagedVillage, virtual_clock: VirtualClock) -> None:
    virtual_clock.pass_time(seconds=1)
    hour = village.times().hour(virtual_clock.now())
    began = time.perf_counter()
    virtual_clock.pass_time(hours=30)
    assert time.perf_counter() - began < 10.0
    assert village.times().hour(virtual_clock.now()) == hour + 30
    # On the host each village day had its tick.
    assert assert_transfer(village, payee="commons", reason="rain", times=2) is not None
    assert balance(village, "commons") == 2


def test_the_same_seed_gives_the_same_events(make_village: Make, run_cycles: RunCycles) -> None:
    heads = []
    for _ in range(2):
        village = make_village()
        for number in range(4):
            village.task(f"Task {number}.")
        run_cycles(village=village)
        heads.append([(event.kind, event.resident, event.task) for event in events(village)])
        village.close()
    assert heads[0] == heads[1]


@pytest.mark.village(real_time=True)
def test_in_real_time_commands_run(village: StagedVillage, run_cycles: RunCycles) -> None:
    task = village.task(command=("echo", "hello"))
    (attempt,) = run_cycles(1)
    assert attempt.stdout is not None and attempt.stdout.strip() == "hello"
    assert village.state(task) == "done"


def test_a_fault_while_settling_is_left_out_whole_and_made_up_for_once(
    village: StagedVillage, run_cycles: RunCycles, failing: Failing
) -> None:
    village.task("Grow.")
    with failing("end_attempt", after=True) as planted:
        run_cycles(1)
    assert planted.failures == 1
    assert rows(village, "SELECT count(*) FROM garden_beds") == [(0,)]
    assert [(plugin, "made to fail" in error) for plugin, _, error in missed(village)] == [("garden", True)]
    assert village.catch_up() == 0
    assert rows(village, "SELECT count(*) FROM garden_beds") == [(1,)]
    assert_sound(village)


def test_a_fault_is_planted_so_many_times_and_then_gone(
    village: StagedVillage, run_cycles: RunCycles, failing: Failing
) -> None:
    tasks = [village.task(f"Task {number}.") for number in range(3)]
    with failing("enrich_prompt", "garden", times=1, error=ValueError("no flower")) as planted:
        run_cycles(2)
    run_cycles(1)
    assert planted.failures == 1
    assert [len(prompt(village, task)) for task in tasks] == [2, 4, 4]
    assert any("no flower" in fault.what for fault in village.health.recent)


@pytest.mark.parametrize("after", [True, False])
def test_a_planted_fault_survives_a_transaction_that_runs_again(
    after: bool, village: StagedVillage, run_cycles: RunCycles, failing: Failing
) -> None:
    first, second = village.task("One."), village.task("Two.")
    with failing("end_attempt", times=1, after=after) as planted:
        run_cycles()
        assert [task for _, task, _ in missed(village)] == [first]
        assert village.catch_up() == 0  # the one time is over
    assert planted.failures == 1
    assert sorted(rows(village, "SELECT task FROM garden_beds")) == sorted([(first,), (second,)])


def test_an_async_hook_can_be_made_to_fail(village: StagedVillage, run_cycles: RunCycles, failing: Failing) -> None:
    with failing("on_event"):
        village.task("Anything.")
        run_cycles(1)
    assert village.health.cause("garden", "on_event") is not None  # five events, five failures


def test_a_hook_that_nobody_implements_can_not_be_made_to_fail(village: StagedVillage, failing: Failing) -> None:
    with pytest.raises(Exception, match=r"no hook end_atempt.*Did you mean end_attempt"), failing("end_atempt"):
        pass
    with pytest.raises(Exception, match="None of garden implements entitle"), failing("entitle"):
        pass


def test_an_action_is_done_as_the_api_would_and_listeners_hear_of_it(
    village: StagedVillage, virtual_clock: VirtualClock
) -> None:
    assert village.do("garden.dig", {"place": "corner"}, by="ada") == {"place": "corner"}
    event = assert_event(village, "garden.dug", resident="ada", place="corner", times=1)
    assert event.actor == "resident:ada"
    virtual_clock.pass_time(seconds=2)
    assert garden(village).life == ["startup", "heard of corner"]
    assert_no_event(village, "garden.dug", place="middle")


def test_what_is_not_there_is_told_with_what_is(village: StagedVillage, run_cycles: RunCycles) -> None:
    task = village.task("Anything.")
    run_cycles(1)
    with pytest.raises(AssertionError, match=r"garden\.dug: there are 0; "):
        assert_event(village, "garden.dug")
    with pytest.raises(AssertionError, match=r"did you mean task\.posted"):
        assert_event(village, "task.poste")
    with pytest.raises(AssertionError, match=r"garden/memory: None \(private\)"):
        assert_section(village, task, plugin="garden", containing="tulip")
    with pytest.raises(AssertionError, match="1 transfers reason='rent'"):
        assert_transfer(village, reason="rent")


def test_unsound_books_are_told(village: StagedVillage) -> None:
    village.store.call(lambda tx, _: tx.run("UPDATE accounts SET balance = 7 WHERE name = 'operator'"), None)
    with pytest.raises(AssertionError, match="operator"):
        assert_sound(village)


def test_a_mark_with_an_unknown_word_is_refused(pytester_like: Callable[[str], str]) -> None:
    said = pytester_like("import pytest\n@pytest.mark.village(plugin=[])\ndef test_it(village): ...\n")
    assert "the mark village has plugin; its words are plugins, config" in said


def test_loading_the_fixtures_costs_nothing_until_one_is_used(pytester_like: Callable[[str], str]) -> None:
    code = (
        "import sys\n"
        "def test_it():\n"
        "    ours = sorted(name for name in sys.modules if name.startswith('vivarium_kernel'))\n"
        "    heavy = {'sqlite_utils', 'msgspec', 'cattrs', 'starlette', 'asyncio'} & set(sys.modules)\n"
        "    assert (ours, heavy) == (['vivarium_kernel', 'vivarium_kernel.testing', "
        "'vivarium_kernel.testing.fixtures'], set())\n"
    )
    assert "1 passed" in pytester_like(code)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import pytest, vivarium_kernel.testing.fixtures"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (line,) = [line for line in done.stderr.splitlines() if line.endswith("vivarium_kernel.testing.fixtures")]
    assert int(line.split("|")[1]) < 50_000  # microseconds, with the two packages above it


@pytest.mark.village(plugins=[])
@pytest.mark.parametrize("again", range(3))
def test_a_command_takes_the_time_it_takes_on_the_villages_own_clock(
    village: StagedVillage, run_cycles: RunCycles, virtual_clock: VirtualClock, again: int
) -> None:
    """Though a night passes in no time: a thread or a process that is at work is waited for."""
    began = virtual_clock.monotonic()
    task = village.task(command=("ls",))
    run_cycles()
    assert village.state(task) == "done"
    assert virtual_clock.monotonic() - began < 20
    virtual_clock.pass_time(hours=24)
    assert virtual_clock.monotonic() - began > 24
