"""What was recorded stands: an attempt that goes on repeats no step with a result, whoever goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from vivarium_kernel.claiming import Claimed
from vivarium_kernel.jobs import Job
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import NewTask, Outcome, Review, Task
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.terms import Effect
from vivarium_kernel.village import Village

from vivarium_kernel import board, control, people

from . import quick, scene
from .test_awaits import halt, lapse, quarantine, stop


class Pondering(Plugin):
    """A reviewer who takes its time: between the record of what was done and the settlement lies a while."""

    name = "pondering"

    @hookimpl
    async def review_outcome(self, task: Task, outcome: Outcome) -> Review | None:
        if (self.village.folder / "ponder").exists():
            await asyncio.sleep(3600)
        return None


class Errands(Plugin):
    """Does tasks of mode ``errands``: three steps, one of each effect class, each noted."""

    name = "errands"

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        if job.task.mode != "errands":
            return None
        effects: tuple[Effect, ...] = ("pure", "once", "idempotent")
        did = []
        for effect in effects:
            recorded = await job.begin("tool", effect, effect, {})
            if recorded is None:
                word = job.task.id if effect == "once" else f"{job.task.id}:{effect}"
                scene.mark(self.village.folder, word)
                recorded = {"number": scene.marks(self.village.folder)[word]}
                job.end("done", recorded)
            did.append(f"{effect}{recorded['number']}")
        return Outcome(answer=" ".join(did))


PLUGINS = (scene.Deeds, Pondering, Errands)


async def until_recorded(runtime: Runtime, steps: int, then: Callable[[Runtime, Claimed], object]) -> None:
    """Live until this many steps have a result and nothing is settled, then do something to the runtime."""
    async with quick.timeout(20), runtime:

        def recorded() -> bool:
            with runtime.village.store.view() as view:
                rows = view.rows(
                    "SELECT count(*) FROM steps s JOIN attempts a ON a.id = s.attempt "
                    "WHERE s.state = 'done' AND a.state = 'running'"
                )
            return bool(rows[0][0] >= steps)

        await scene.asynchronously_until(recorded, "the steps to be recorded", 4)
        with runtime.village.store.view() as view:
            ((attempt, name),) = view.rows("SELECT id, resident FROM attempts WHERE state = 'running'")
            claimed = Claimed(attempt, None, people.resident(view, name), 1, 1, None, 0, 0, 0)  # type: ignore[arg-type]
        then(runtime, claimed)

        def ended() -> bool:
            with runtime.village.store.view() as view:
                return bool(view.rows("SELECT state FROM attempts WHERE id = ?", (attempt,)) != [("running",)])

        if then is not stop:
            await scene.asynchronously_until(ended, "the attempt to end")
        runtime.drain()
        runtime.drain()


def pondered(folder: Path, task: NewTask, steps: int, then: Callable[[Runtime, Claimed], object]) -> None:
    (folder / "ponder").touch()
    with scene.opened(folder, plugins=PLUGINS) as village:
        village.post([task])
        quick.run(until_recorded(Runtime(village, 1), steps, then))
        village.store.call(control.switch, control.Switch("halted", False, "operator:test"))
    (folder / "ponder").unlink()


def pause(folder: Path, name: str) -> None:
    with scene.opened(folder, ahead_seconds=10_000.0) as village:
        village.store.call(people.change, people.Change(name, "paused", "operator:test", "gone fishing"))


def worked_on(village: Village, task: str) -> list[str]:
    with village.store.view() as view:
        return [attempt.resident for attempt in board.attempts(view, task)]


DEED = NewTask(id="deed", mode="deed", prompt="x", effect="once", max_micros=1_000)
ERRANDS = NewTask(id="errands", mode="errands", prompt="x", max_micros=1_000)
ENDINGS = {"halt": halt, "stop": stop, "lapsed": lapse, "quarantine": quarantine}


@pytest.mark.promise("recorded-results-stand", "effects-unknown")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("another", [False, True], ids=["anybody", "another resident"])
def test_an_effect_whose_result_is_recorded_is_not_repeated(tmp_path: Path, ending: str, another: bool) -> None:
    """Its attempt was halted, stopped, quarantined or lapsed before it was settled."""
    folder = scene.found(tmp_path / "village")
    pondered(folder, DEED, 1, ENDINGS[ending])
    if another and ending != "quarantine":
        pause(folder, "ada")
    assert scene.finish(folder, plugins=PLUGINS) == {"deed": "done"}
    assert scene.marks(folder) == {"deed": 1}
    if another:
        with scene.opened(folder) as village:
            assert worked_on(village, "deed") == ["ada", "ben"]


@pytest.mark.promise("recorded-results-stand")
def test_an_attempt_that_continues_repeats_no_recorded_step_even_after_several_interruptions(tmp_path: Path) -> None:
    folder = scene.found(tmp_path / "village")
    pondered(folder, ERRANDS, 3, stop)
    (folder / "ponder").touch()
    with scene.opened(folder, ahead_seconds=1_000.0, plugins=PLUGINS) as village:
        quick.run(until_recorded(Runtime(village, 1), 3, lapse))
    (folder / "ponder").unlink()
    # This one ends before it has copied anything of what it continues.
    with scene.opened(folder, ahead_seconds=2_000.0, plugins=PLUGINS) as village:
        quick.run(stopped_at_once(Runtime(village, 1)))
    assert scene.finish(folder, plugins=PLUGINS) == {"errands": "done"}
    assert scene.marks(folder) == {"errands:pure": 1, "errands": 1, "errands:idempotent": 1}
    with scene.opened(folder) as village, village.store.view() as view:
        last = board.attempts(view, "errands")[-1]
        assert last.answer == "pure1 once1 idempotent1"
        assert [step.effect for step in board.steps(view, last.id)] == ["pure", "once", "idempotent"]


async def stopped_at_once(runtime: Runtime) -> None:
    async with quick.timeout(20), runtime:
        # The claim is made and its resident told; nothing of the cycle has run.
        won = await runtime.rounds.claim("ben")
        assert won.claimed.task.continues is not None


@pytest.mark.promise("recorded-results-stand")
def test_a_new_resident_begins_afresh_where_nothing_must_happen_only_once(tmp_path: Path) -> None:
    """Another resident's thoughts are its own: only what may not be repeated is taken over."""
    folder = scene.found(tmp_path / "village")
    task = NewTask(id="deed", mode="deed", prompt="x", effect="idempotent", max_micros=1_000)
    pondered(folder, task, 1, quarantine)
    assert scene.finish(folder, plugins=PLUGINS) == {"deed": "done"}
    assert scene.marks(folder) == {"deed": 2}


@pytest.mark.promise("recorded-results-stand", "counted-failures")
def test_a_counted_failure_is_tried_again_from_the_beginning(tmp_path: Path) -> None:
    """A command that failed by itself is done again, by the rule: its result is known, and it was no success."""
    folder = scene.found(tmp_path / "village")
    with scene.opened(folder) as village:
        script = "echo once >> files/effects; [ $(wc -l < files/effects) = 2 ]"
        village.post([NewTask(id="twice", command=("sh", "-c", script), effect="once", max_attempts=3)])
        quick.run(scene.live(Runtime(village, 1, until_done=True)))
        with village.store.view() as view:
            assert scene.states(view) == {"twice": "done"}
            assert [a.ending for a in board.attempts(view, "twice")] == ["rejected", "accepted"]
    assert scene.marks(folder) == {"once": 2}
