"""Promises about rounds: what a resident is refused hides nothing else, and what opens meanwhile is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.clock import MICROS, SystemClock
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With

from vivarium_kernel import NewTask, Plugin, Refuse, board, hookimpl

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


class Jumping(SystemClock):
    """A real clock that a test may set forward."""

    ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead


def test_a_clock_that_jumps_past_the_lease_ends_no_run(tmp_path: Path) -> None:
    clock = Jumping()

    async def life(village: Village) -> None:
        village.post([NewTask(id=f"t{n}", prompt="x", model="scripted:wait-0.05") for n in range(8)])
        async with Runtime(village, 1, until_done=True) as runtime:
            running = asyncio.ensure_future(runtime.run())
            await until(lambda: "done" in states(village).values())
            clock.ahead = 3600 * MICROS
            async with asyncio.timeout(20):
                await running
        assert set(states(village).values()) == {"done"}

    lived(tmp_path, life, clock=clock)
