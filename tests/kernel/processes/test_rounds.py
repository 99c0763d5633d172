"""Promises about rounds: what a resident is refused hides nothing else, and what opens meanwhile is seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.clock import MICROS
from vivarium_kernel.errors import StoreFull
from vivarium_kernel.records import Outcome, Task
from vivarium_kernel.rounds import Won, _starts
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With

from vivarium_kernel import (
    NewTask,
    Plugin,
    Refuse,
    Reject,
    Verdict,
    board,
    circuit,
    claiming,
    control,
    hookimpl,
    people,
    runtime,
    settling,
)

from .jumping import JumpingClock

SETTINGS = 'residents = ["ada"]\npace_seconds = 60\n'


def states(village: Village) -> dict[str, str]:
    with village.store.view() as view:
        return dict(view.rows("SELECT id, state FROM tasks"))


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def lived(
    folder: Path, life: Callable[[Village], Coroutine[Any, Any, None]], settings: str = SETTINGS, **how: Any
) -> None:
    (folder / "vivarium.toml").write_text(settings, encoding="utf-8")
    clock = how.pop("clock", None)
    with Village(folder, With(threaded=True, installed=False, **how), clock=clock, environ={}) as village:
        asyncio.run(life(village))


@pytest.mark.promise("nothing-hides-a-task")
def test_a_task_that_a_budget_refuses_hides_no_other(tmp_path: Path) -> None:
    """Its best wish is too dear for the resident's day; the cheaper ones behind it are done all the same."""

    async def life(village: Village) -> None:
        village.post(
            [
                NewTask(id="dear", prompt="x", max_micros=MICROS),
                NewTask(id="cheap", prompt="x", max_micros=10_000),
                NewTask(id="free", prompt="x", max_micros=0),
            ]
        )
        async with Runtime(village, 1):
            await until(lambda: states(village) == {"dear": "open", "cheap": "done", "free": "done"})

    lived(tmp_path, life, SETTINGS + '[budgets]\nresident_day_usd = "0.05"\n')


class Picky(Plugin):
    """Refuses, in the transaction, all tasks but one."""

    name = "picky"

    @hookimpl
    def claim_reserve(self, claim: Any, tx: Any) -> None:
        if claim.task.id != "mine":
            raise Refuse("not mine")


@pytest.mark.promise("nothing-hides-a-task")
def test_a_hundred_tasks_that_are_refused_in_the_transaction_hide_no_other(tmp_path: Path) -> None:
    async def life(village: Village) -> None:
        village.post([*(NewTask(id=f"t{n}", prompt="x") for n in range(100)), NewTask(id="mine", prompt="x")])
        async with Runtime(village, 1, until_done=True) as runtime:
            async with asyncio.timeout(20):
                await runtime.run()
        assert states(village)["mine"] == "done"
        assert {state for name, state in states(village).items() if name != "mine"} == {"open"}

    lived(tmp_path, life, plugins=(Picky,))


@pytest.mark.promise("nothing-hides-a-task")
def test_a_run_ends_however_long_a_look_at_the_board_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look takes many beats: the resident is refused every task in the transaction."""

    async def life(village: Village) -> None:
        village.post([NewTask(id=f"t{n}", prompt="x") for n in range(600)])
        async with Runtime(village, 3, until_done=True) as runtime, asyncio.timeout(20):
            await runtime.run()
        assert set(states(village).values()) == {"open"}

    monkeypatch.setattr(runtime, "BEAT_SECONDS", 0.001)
    lived(tmp_path, life, plugins=(Picky,))


@pytest.mark.promise("nothing-hides-a-task")
@pytest.mark.parametrize("tried", [False, True])
def test_tasks_that_wait_for_what_others_set_aside_hide_none_that_needs_nothing(tmp_path: Path, tried: bool) -> None:
    """Forty stand in line for a cap that one long call has set aside; what is behind them is done meanwhile."""
    settings = SETTINGS.replace('["ada"]', '["ada", "ben"]') + '[budgets]\nvillage_usd = "1"\n'

    async def life(village: Village) -> None:
        waiting = [NewTask(id=f"dear{n}", prompt="x", max_micros=MICROS) for n in range(40)]
        village.post(
            [NewTask(id="long", prompt="x", model="scripted:wait-60", max_micros=MICROS, priority=9), *waiting]
        )
        village.post([NewTask(id=f"free{n}", prompt="x", max_micros=0) for n in range(3)])
        if tried:
            village.store.call(_tried, None)
        async with Runtime(village, 2):
            await until(lambda: states(village)["free2"] == "done")
            found = states(village)
            assert {found.pop("long"), *(found.pop(f"free{n}") for n in range(3))} == {"claimed", "done"}
            assert set(found.values()) == {"open"}

    lived(tmp_path, life, settings)


@pytest.mark.promise("nothing-hides-a-task")
@pytest.mark.parametrize("wanted", [None, "ada"])
def test_many_small_tasks_keep_no_urgent_one_from_the_room_under_a_cap_that_it_needs(
    tmp_path: Path, wanted: str | None
) -> None:
    async def life(village: Village) -> None:
        small = [NewTask(id=f"s{n}", prompt="x", model="scripted:wait-0.2", max_micros=100_000) for n in range(60)]
        village.post(small)
        async with Runtime(village, 8, until_done=True) as runtime:
            await until(lambda: "done" in states(village).values())
            urgent = NewTask(
                id="urgent", prompt="x", model="scripted:echo", max_micros=600_000, priority=9, wanted=wanted
            )
            await village.store.write(board.post, village.posting([urgent], "operator:test"))
            await runtime.run()
        with village.store.view() as view:
            order = [row[0] for row in view.rows("SELECT task FROM attempts ORDER BY id")]
        assert order.index("urgent") < 32

    lived(tmp_path, life, SETTINGS + '[budgets]\nvillage_usd = "1"\n')


@pytest.mark.promise("nothing-hides-a-task")
def test_an_urgent_task_that_nobody_may_take_holds_up_none_that_fits_under_the_cap(tmp_path: Path) -> None:
    async def life(village: Village) -> None:
        long = NewTask(id="long", prompt="x", model="scripted:wait-60", max_micros=100_000, priority=99)
        village.post([long])
        async with Runtime(village, 4) as runtime:
            await until(lambda: states(village) == {"long": "claimed"})
            big = NewTask(id="big", prompt="x", model="scripted:echo", max_micros=950_000, priority=9)
            small = [NewTask(id=f"mine{n}", prompt="x", model="scripted:echo", max_micros=100_000) for n in range(9)]
            await village.store.write(board.post, village.posting([big, *small], "operator:test"))
            await until(lambda: list(states(village).values()).count("done") == 9)
            assert states(village)["big"] == "open"
            assert runtime.rounds.refusals["big"]

    lived(tmp_path, life, SETTINGS + '[budgets]\nvillage_usd = "1"\n', plugins=(Bigless,))


class Bigless(Plugin):
    """Nobody may take the big one."""

    name = "bigless"

    @hookimpl
    def claim_filter(self, resident: Any, tasks: Any) -> list[Reject]:
        return [Reject(task.id, "too big") for task in tasks if task.id == "big"]


def _tried(tx: Any, _: None) -> None:
    """Each was tried once, and has half of its budget left."""
    tx.run("UPDATE tasks SET attempts = 1 WHERE id LIKE 'dear%'")
    tx.run("UPDATE budgets SET spent = cap / 2 WHERE scope LIKE 'task:dear%'")


@pytest.mark.promise("nothing-hides-a-task")
def test_a_task_that_was_tried_needs_only_what_is_left_of_its_budget(tmp_path: Path) -> None:
    settings = SETTINGS.replace('["ada"]', '["ada", "ben"]') + '[budgets]\nvillage_usd = "1.5"\n'

    async def life(village: Village) -> None:
        long = NewTask(id="long", prompt="x", model="scripted:wait-60", max_micros=MICROS, priority=9)
        village.post([long])
        async with Runtime(village, 2) as runtime:
            await until(lambda: states(village) == {"long": "claimed"})
            dear = village.posting([NewTask(id="dear", prompt="x", max_micros=MICROS)], "operator:test")
            await village.store.write(control.switch, control.Switch("paused", True, "operator:test"))
            await village.store.write(board.post, dear)
            await village.store.write(_tried, None)
            await village.store.write(control.switch, control.Switch("paused", False, "operator:test"))
            runtime.rounds.kick()
            await until(lambda: states(village) == {"long": "claimed", "dear": "done"})

    lived(tmp_path, life, settings)


@pytest.mark.parametrize("residents", [3, 70])
def test_a_run_that_waited_for_a_model_ends_though_one_task_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, residents: int
) -> None:
    """A model that is left alone is waited for; a task of somebody who is paused is not, however many are at work."""

    async def life(village: Village) -> None:
        village.store.call(people.add, people.NewResident("zoe", "operator:test"))
        village.store.call(people.change, people.Change("zoe", "paused", "operator:test", "a test"))
        model = "scripted:echo"
        village.post([NewTask(id="soon", prompt="x", model=model), NewTask(id="hers", prompt="x", wanted="zoe")])
        breaker = village.circuit(model)
        while not breaker.failed(village.clock.monotonic(), "planted"):
            pass
        async with Runtime(village, residents, until_done=True) as runtime, asyncio.timeout(40):
            await runtime.run()
        assert states(village) == {"soon": "done", "hers": "open"}

    monkeypatch.setattr(circuit, "PAUSE_SECONDS", 1.0)
    lived(tmp_path, life, SETTINGS.replace("60", "0.5"))


class Blind(Plugin):
    """Can't judge the first texts that it is asked about."""

    name = "blind"
    guards = ("prompt",)
    faults = 1
    asked = 0

    @hookimpl
    async def check_safety(self, subject: Any) -> Verdict:
        if subject.kind == "prompt":
            Blind.asked += 1
            if Blind.asked <= Blind.faults:
                raise ValueError("planted")
        return Verdict("allow", "blind.fine")


@pytest.mark.parametrize(("faults", "residents", "state"), [(1, 1, "done"), (4, 4, "done"), (1_000, 1, "open")])
def test_a_run_waits_for_a_check_that_could_not_judge_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: int, residents: int, state: str
) -> None:
    async def life(village: Village) -> None:
        village.post([NewTask(id=f"t{n}", prompt="x", model="scripted:echo") for n in range(9)])
        async with Runtime(village, residents, until_done=True) as runtime, asyncio.timeout(20):
            await runtime.run()
        assert set(states(village).values()) == {state}

    monkeypatch.setattr(runtime, "GUARD_SECONDS", 3.5 * runtime.BEAT_SECONDS)  # it has to see the same at two beats
    monkeypatch.setattr(Blind, "faults", faults)
    monkeypatch.setattr(Blind, "asked", 0)
    lived(tmp_path, life, plugins=(Blind,))


def test_a_run_that_began_under_a_pause_waits_for_the_end_of_the_next_one(tmp_path: Path) -> None:
    """It stays at the first, for somebody is still at work elsewhere."""

    async def paused(village: Village, on: bool) -> None:
        await village.store.write(control.switch, control.Switch("paused", on, "operator:test"))

    async def life(village: Village) -> None:
        village.post([NewTask(id="long", prompt="x", model="scripted:wait-3", priority=9)])
        async with Runtime(village, 1, kind="work"):
            await until(lambda: states(village)["long"] == "claimed")
            await paused(village, True)
            more = [NewTask(id=f"t{n}", prompt="x", model="scripted:wait-0.3") for n in range(9)]
            await village.store.write(board.post, village.posting(more, "operator:test"))
            async with Runtime(village, 1, until_done=True) as runtime:
                running = asyncio.ensure_future(runtime.run())
                await asyncio.sleep(0.5)
                await paused(village, False)
                await until(lambda: "done" in states(village).values())
                await paused(village, True)
                await until(lambda: "claimed" not in states(village).values())
                await asyncio.sleep(1.0)
                assert not running.done() and "open" in states(village).values()
                await paused(village, False)
                async with asyncio.timeout(15):
                    await running
        assert set(states(village).values()) == {"done"}

    lived(tmp_path, life, SETTINGS.replace('["ada"]', '["ada", "ben"]'))


class Refusing(Plugin):
    """Refuses all but one, before any transaction, and takes its time for it."""

    name = "refusing"

    @hookimpl
    def claim_filter(self, resident: Any, tasks: Any) -> list[Reject]:
        time.sleep(0.04)
        return [Reject(task.id, "never") for task in tasks if task.id != "mine"]


@pytest.mark.promise("nothing-hides-a-task")
def test_what_opens_while_a_long_board_is_looked_through_is_seen_at_once_and_the_loop_goes_on(tmp_path: Path) -> None:
    async def life(village: Village) -> None:
        village.post([NewTask(id=f"t{n}", prompt="x") for n in range(20_000)])
        async with Runtime(village, 1) as runtime:
            await until(lambda: bool(runtime.rounds.waiting and runtime.rounds.idle))
            runtime.rounds.kick()
            (waiting,) = runtime.rounds._waiting.values()
            await until(lambda: waiting.cursor is not None)  # in the midst of it: somebody else has a turn
            mine = village.posting([NewTask(id="mine", prompt="x", priority=9)], "operator:test")
            await village.store.write(board.post, mine)
            assert waiting.cursor is not None, "the look was over before the task was there"
            await until(lambda: states(village)["mine"] == "done", 20.0)

    lived(tmp_path, life, plugins=(Refusing,))


class Hatless(Plugin):
    """Only one resident may take what is urgent, and it is not the first who asks."""

    name = "hatless"

    @hookimpl
    def claim_filter(self, resident: Any, tasks: Any) -> list[Reject]:
        return [Reject(task.id, "it needs a hat") for task in tasks if task.priority and resident.name != "cyn"]


def test_who_may_not_take_what_is_urgent_keeps_nobody_from_it(tmp_path: Path) -> None:
    """The first of a round begins to weigh at the most urgent task; so does everybody, where that one may not."""

    async def life(village: Village) -> None:
        village.post([NewTask(id=f"t{n}", prompt="x", model="scripted:echo") for n in range(30)])
        village.post([NewTask(id=f"urgent{n}", prompt="x", model="scripted:echo", priority=9) for n in range(2)])
        async with Runtime(village, 3, until_done=True) as runtime:
            await runtime.run()
        with village.store.view() as view:
            begun = [
                row[0] for row in view.rows("SELECT task FROM attempts WHERE resident = 'cyn' ORDER BY id LIMIT 2")
            ]
        assert begun == ["urgent0", "urgent1"]

    lived(tmp_path, life, SETTINGS.replace('["ada"]', '["ada", "ben", "cyn"]'), plugins=(Hatless,))


class Posting(Plugin):
    """Posts a task in the very commit in which it refuses another, once."""

    name = "posting"
    posted = False

    @hookimpl
    def claim_reserve(self, claim: Any, tx: Any) -> None:
        if claim.task.id == "never":
            raise Refuse("never")


def test_what_opens_while_a_round_is_committed_is_seen_at_once(tmp_path: Path) -> None:
    """The resident passes the board for a refusal; a task that was posted meanwhile does not wait for the pace."""

    async def life(village: Village) -> None:
        village.post([NewTask(id="never", prompt="x")])
        async with Runtime(village, 1):
            write, told = village.store.write, asyncio.Event()

            def and_post(fn: Any, item: Any, **more: Any) -> Any:
                answer = write(fn, item, **more)
                if fn.__name__ == "claim" and not told.is_set():
                    told.set()
                    answer = asyncio.ensure_future(_then(answer))
                return answer

            async def _then(answer: Any) -> Any:
                found = await answer
                await write(board.post, village.posting([NewTask(id="new", prompt="x")], "operator:test"))
                return found

            village.store.write = and_post  # type: ignore[method-assign]
            await write(board.post, village.posting([NewTask(id="other", prompt="x")], "operator:test"))
            await until(lambda: states(village).get("new") == "done")

    lived(tmp_path, life, plugins=(Posting,))


@pytest.mark.promise("nothing-hides-a-task")
def test_a_run_does_not_end_over_what_another_process_has_just_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has seen a board that nobody wants anything of; the moment it decides to end, there is more."""
    left, told = board.left, []

    async def life(village: Village) -> None:
        village.post([NewTask(id="never", prompt="x")])

        def and_post(view: Any) -> tuple[bool, bool]:
            found = left(view)
            if found == (True, False) and not told:
                told.append(True)
                with Village(tmp_path, With(threaded=False, installed=False), environ={}) as other:
                    other.post([NewTask(id="late", prompt="x")])
            return found

        monkeypatch.setattr(board, "left", and_post)
        async with Runtime(village, 1, until_done=True) as runtime, asyncio.timeout(20):
            await runtime.run()
        assert states(village) == {"never": "open", "late": "done"}

    lived(tmp_path, life, plugins=(Posting,))
    assert told


def test_a_claim_that_the_disk_refused_is_asked_again_in_a_moment(tmp_path: Path) -> None:
    """And not only after the pace, nor when somebody posts something."""

    async def life(village: Village) -> None:
        village.post([NewTask(id=f"t{n}", prompt="x", model="scripted:wait-0.4") for n in range(4)])
        async with Runtime(village, 1):
            write, claims = village.store.write, 0

            def and_refuse(fn: Any, item: Any, **more: Any) -> Any:
                nonlocal claims
                claims += fn.__name__ == "claim"
                if fn.__name__ == "claim" and claims in (2, 3):
                    refused = asyncio.get_running_loop().create_future()
                    refused.set_exception(StoreFull("store.full", "the disk is full"))
                    return refused
                return write(fn, item, **more)

            village.store.write = and_refuse  # type: ignore[method-assign]
            await until(lambda: set(states(village).values()) == {"done"})
            assert claims > 4

    lived(tmp_path, life)


def test_a_clock_that_jumps_past_the_lease_ends_no_run(tmp_path: Path) -> None:
    clock = JumpingClock()

    async def life(village: Village) -> None:
        village.post([NewTask(id=f"t{n}", prompt="x", model="scripted:wait-0.05") for n in range(8)])
        async with Runtime(village, 1, until_done=True) as runtime:
            running = asyncio.ensure_future(runtime.run())
            await until(lambda: "done" in states(village).values())
            clock.off_seconds = 3600
            async with asyncio.timeout(20):
                await running
        assert set(states(village).values()) == {"done"}

    lived(tmp_path, life, clock=clock)


@pytest.mark.parametrize("residents", [1, 3, 7])
def test_many_who_look_at_once_take_what_is_most_urgent(tmp_path: Path, residents: int) -> None:
    """Whoever begins a round with others begins none that is less urgent than one that nobody has."""
    names = [f"r{number}" for number in range(residents)]
    urgency = [0] * 40 + [900] * 4 + [5] * 3

    async def life(village: Village) -> None:
        village.post(
            [NewTask(id=f"t{n}", prompt="x", model="scripted:echo", priority=how) for n, how in enumerate(urgency)]
        )
        async with Runtime(village, residents, until_done=True) as runtime:
            await runtime.run()
        with village.store.view() as view:
            begun = [row[0] for row in view.rows(
                "SELECT t.priority FROM attempts a JOIN tasks t ON t.id = a.task ORDER BY a.started_at, t.priority DESC"
            )]  # fmt: skip
        assert begun == sorted(urgency, reverse=True)

    lived(tmp_path, life, f"residents = {names}\npace_seconds = 60\n".replace("'", '"'))


@pytest.mark.parametrize(
    ("priorities", "count", "starts"),
    [
        ([], 2, [0, 0]),
        ([0] * 12, 3, [0, 4, 8]),
        ([0] * 2, 3, [0, 1, 0]),
        ([9, 9, 9, 9, 0, 0, 0, 0], 2, [0, 2]),
        ([9, 0, 0, 0, 0, 0, 0, 0], 3, [0, 1, 4]),
        ([9, 5, 0], 5, [0, 1, 2, 0, 1]),
    ],
)
def test_where_residents_begin_to_weigh(priorities: list[int], count: int, starts: list[int]) -> None:
    window = [Task(number, f"t{number}", "llm", priority=each) for number, each in enumerate(priorities)]
    assert _starts(window, count) == starts


@pytest.mark.promise("nothing-hides-a-task")
def test_of_many_wishes_a_transaction_tries_a_few_and_the_next_ones_go_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    match = claiming._match

    def watched(*given: Any) -> Any:
        tried.append(max([len(each) for each in given[-1].values()], default=0))
        return match(*given)

    async def life(village: Village) -> None:
        village.post(
            [NewTask(id=f"ghost{n}", prompt="x", plugins=("ghost",)) for n in range(1_500)]
        )  # the looks grow wide
        village.post([NewTask(id=f"t{n}", prompt="x") for n in range(700)])
        village.post([NewTask(id="mine", prompt="x")])
        async with Runtime(village, 1) as runtime, asyncio.timeout(20):
            while states(village)["mine"] != "done":
                await asyncio.sleep(0.01)
                runtime.rounds.kick()  # something opens all the time: what was tried is not tried again for that

    monkeypatch.setattr(claiming, "_match", watched)
    lived(tmp_path, life, plugins=(Picky,))
    assert max(tried) == claiming.MOST_TRIES - 1


@pytest.mark.promise("nothing-hides-a-task")
def test_what_a_residents_day_has_no_room_for_is_asked_for_once_and_hides_nothing(tmp_path: Path) -> None:
    async def life(village: Village) -> None:
        village.post([NewTask(id=f"dear{n}", prompt="x", max_micros=MICROS) for n in range(300)])
        village.post([NewTask(id="cheap", prompt="x", max_micros=10_000)])
        async with Runtime(village, 1) as runtime:
            await until(lambda: states(village)["cheap"] == "done")
            looked = runtime.rounds._look
            runtime.rounds.kick()
            await until(lambda: runtime.rounds.idle and runtime.rounds._look > looked)
            assert "more than is left" in runtime.rounds.refusals["dear299"]
        with village.store.view() as view:
            events = view.rows("SELECT task FROM events WHERE kind = 'BUDGET_EXCEEDED'")
        assert 1 <= len(events) <= 2  # what is left of the day has changed once

    lived(tmp_path, life, SETTINGS + '[budgets]\nresident_day_usd = "0.05"\n')


@pytest.mark.promise("nothing-hides-a-task")
def test_tasks_of_a_mode_that_nobody_here_executes_stay_open(tmp_path: Path) -> None:
    async def life(village: Village) -> None:
        village.post([NewTask(id="ls", command=("ls",)), NewTask(id="talk", prompt="x", model="scripted:echo")])
        async with Runtime(village, 1, until_done=True) as runtime, asyncio.timeout(20):
            await runtime.run()
            assert "no enabled plugin executes tasks of mode 'command'" in runtime.rounds.refusals["ls"]
        assert states(village) == {"ls": "open", "talk": "done"}

    lived(tmp_path, life, without=("command_execution",))


def test_a_drain_ends_with_the_last_act_whoever_lives_it(tmp_path: Path) -> None:
    """Of a task that was asked for over HTTP nobody who is driven here lives the cycle."""

    async def life(village: Village) -> None:
        async with Runtime(village, 1) as runtime, asyncio.timeout(10):
            (other,) = {"ada", "ben"} - set(runtime.residents)
            village.post([NewTask(id="asked", prompt="x", model="scripted:wait-1", wanted=other)])
            with village.store.view() as view:
                task = board.task(view, "asked")
            won = await runtime.rounds.claim_now(other, task)
            assert isinstance(won, Won)
            acting = asyncio.ensure_future(runtime.live(won))
            await asyncio.sleep(0.1)
            runtime.drain()
            await runtime.run()
            await acting
        assert states(village) == {"asked": "done"}

    lived(tmp_path, life, SETTINGS.replace('["ada"]', '["ada", "ben"]'))


@pytest.mark.promise("halt")
def test_a_halt_leaves_in_review_what_went_there_before_its_holder_knew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def life(village: Village) -> None:
        village.post([NewTask(id="judged", prompt="x", model="scripted:echo", human=True)])
        async with Runtime(village, 1) as runtime:
            write = runtime._link._write

            async def slowly(fn: Any, item: Any) -> Any:
                answer = await write(fn, item)
                if fn is settling.settle and item.actor != "system:halt":
                    await runtime._halt()
                    await asyncio.sleep(1.0)
                return answer

            monkeypatch.setattr(runtime._link, "_write", slowly)
            await until(lambda: states(village) == {"judged": "review"})
            await asyncio.sleep(1.5)
        with village.store.view() as view:
            assert view.rows("SELECT state FROM attempts") == [("review",)]

    lived(tmp_path, life)


class Dreamer(Plugin):
    """Executes a mode of its own, and one of the kernel's."""

    name = "dreamer"
    modes = ("dream",)

    @hookimpl
    async def execute_task(self, job: Any) -> Outcome | None:
        return Outcome(answer="I dreamt")


@pytest.mark.promise("nothing-hides-a-task")
def test_a_plugin_may_execute_the_kernels_modes_beside_its_own(tmp_path: Path) -> None:
    async def life(village: Village) -> None:
        village.post([NewTask(id="a", prompt="x", mode="dream"), NewTask(id="b", prompt="x", model="scripted:echo")])
        async with Runtime(village, 1, until_done=True) as runtime, asyncio.timeout(20):
            await runtime.run()
        assert states(village) == {"a": "done", "b": "done"}

    lived(tmp_path, life, plugins=(Dreamer,), without=("model_execution",))
