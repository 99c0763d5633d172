"""A thought that is killed between any two statements goes on: nothing that is recorded is done again, what is unknown
is charged, and what must not happen twice is for people to judge."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from kernel.faults import faulty, quick, scene
from kernel.faults.crashes import SURVIVED, lived
from kernel.faults.faulty import Plan
from kernel.processes.nursery import Nursery
from vivarium_kernel.jobs import Job
from vivarium_kernel.records import NewTask
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With

from vivarium_kernel import Action, Actor, Plugin, PluginTx, Price, Reply, Request, ToolCall, Usage, hookimpl
from vivarium_kernel import jobs as kernel_jobs

SCRIPT = ("errands__note", "errands__send", "errands__fetch", "errands__look")
MOST_STATEMENTS = 400


@frozen
class Nothing:
    """No input."""


class _Migrations:
    name = "errands"

    def apply(self, db: Any) -> None:
        db.execute("CREATE TABLE IF NOT EXISTS errands_notes (id INTEGER PRIMARY KEY, task TEXT)")


class Errands(Plugin):
    """A tool of each kind: in a transaction, slow and once, slow and repeatable, and one that changes nothing."""

    name = "errands"
    api = 1
    migrations = _Migrations()

    @hookimpl
    def register_actions(self) -> list[Action[Any]]:
        def note(tx: PluginTx, actor: Actor, asked: Nothing) -> Any:
            tx.execute("INSERT INTO errands_notes (task) VALUES ('thought')")
            return {"noted": tx.read("SELECT count(*) FROM errands_notes")[0][0]}

        def look(tx: PluginTx, actor: Actor, asked: Nothing) -> Any:
            return "nothing to see"

        async def send(job: Job, asked: Nothing) -> Any:
            scene.mark(self.village.folder, "send")
            return {"sent": True}

        async def fetch(job: Job, asked: Nothing) -> Any:
            scene.mark(self.village.folder, "fetch")
            return {"fetched": True}

        return [
            Action(name="errands.note", doc="Note.", Input=Nothing, run=note),
            Action(name="errands.look", doc="Look.", Input=Nothing, effect="pure", run=look),
            Action(name="errands.send", doc="Send.", Input=Nothing, effect="once", act=send),
            Action(name="errands.fetch", doc="Fetch.", Input=Nothing, effect="idempotent", act=fetch),
        ]


class Thinker:
    """No LLM: it uses the tools of its script in turn, notes each call, and costs real money."""

    name = "priced"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def price(self, model: str) -> Price | None:
        return Price(1_000_000, 2_000_000)

    async def complete(self, request: Request) -> Reply:
        used = sum(message.role == "tool" for message in request.messages)
        scene.mark(self._folder, f"turn{used}")
        if used < len(SCRIPT):
            return Reply("", Usage(20, 3), [ToolCall(f"c{used}", SCRIPT[used])], "tool_calls")
        return Reply("all done", Usage(20, 3))


def opened(folder: Path, *, how: With | None = None, ahead_seconds: float = 0.0) -> Village:
    how = how or With(threaded=True, installed=False, plugins=(Errands,))
    village = Village(folder, how, clock=quick.QuickClock(ahead_seconds), environ={})
    village.add_provider(Thinker(folder))
    return village


def one_thought(folder: str, at: int, after: bool) -> int:
    """A whole process: think, and crash at the n-th statement or right after the n-th commit."""
    plan = Plan(at, faulty.crash, after=after)
    how = With(threaded=True, installed=False, plugins=(Errands,), connection=faulty.faulty(plan))
    village = opened(Path(folder), how=how)
    quick.run(lived(Runtime(village, 1, until_done=True), plan))
    village.close()
    return SURVIVED


def finished(folder: Path) -> tuple[str, list[str]]:
    """Live on until nothing is left to do; the task's state, and everything that is wrong."""
    with opened(folder, ahead_seconds=10_000.0) as village:
        quick.run(scene.live(Runtime(village, 1, until_done=True)))
        with village.store.view() as view:
            wrong = scene.faults_of(view)
            ((state,),) = view.rows("SELECT state FROM tasks WHERE id = 'thought'")
            ((notes,),) = view.rows("SELECT count(*) FROM errands_notes")
            done = dict(view.rows("SELECT name, count(DISTINCT number) FROM steps WHERE state = 'done' GROUP BY name"))
            unknown = view.rows("SELECT name, effect, worst_micros, spent_micros FROM steps WHERE state = 'unknown'")
    marks = scene.marks(folder)
    wrong += [f"{name} was charged {spent} of {worst}" for name, _, worst, spent in unknown if worst != spent]
    lost = {name for name, *_ in unknown}
    wrong += [f"{notes} notes were made"] if notes > 1 else []
    wrong += ["what is sent once was sent twice"] if marks["send"] > 1 else []
    models = sum(name.startswith("priced") for name, *_ in unknown)
    repeated = sum(times - 1 for mark, times in marks.items() if mark.startswith("turn"))
    wrong += [f"{repeated} calls were made again, {models} were unknown"] if repeated > models else []
    wrong += ["fetched again though its result was recorded"] if marks["fetch"] > 1 + ("errands.fetch" in lost) else []
    if state == "done":
        wrong += [f"done, but {done}"] if {name: done.get(name) for name in _NAMES} != dict.fromkeys(_NAMES, 1) else []
    elif state != "review" or "errands.send" not in lost:
        wrong.append(f"the task is {state}; unknown were {sorted(lost)}")
    return state, wrong


_NAMES = ("errands.note", "errands.send", "errands.fetch", "errands.look")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = scene.found(tmp_path_factory.mktemp("thought") / "village")
    with opened(folder) as village:
        village.post([NewTask(id="thought", prompt="Run the errands.", max_micros=500_000)])
    return folder


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


def killed(template: Path, folder: Path, nursery: Nursery, at: int, after: bool) -> tuple[int, str, list[str]]:
    shutil.copytree(template, folder)
    status = nursery.run("kernel.thought.test_kills:one_thought", str(folder), at, after)
    return status, *finished(folder)


@pytest.mark.promise("fault-at-every-step", "effects-unknown", "recorded-results-stand")
@pytest.mark.parametrize("after", [False, True], ids=["at a statement", "after a commit"])
def test_a_thought_that_is_killed_anywhere_goes_on_and_repeats_nothing_that_is_recorded(
    template: Path, tmp_path: Path, nursery: Nursery, thorough: bool, after: bool
) -> None:
    states: Mapping[str, int] = {"done": 0, "review": 0}
    for at in range(1, MOST_STATEMENTS, 1 if thorough else 5 if after else 17):
        status, state, wrong = killed(template, tmp_path / str(at), nursery, at, after)
        assert not wrong, f"killed at {at}: {'; '.join(wrong)}"
        states = {**states, state: states.get(state, 0) + 1}
        if status == SURVIVED:
            assert at > (10 if after else 60), f"a thought has more than {at} statements"
            assert states["done"] > 1
            assert states["review"] or not thorough
            return
        assert status == 9
    raise AssertionError(f"a thought of more than {MOST_STATEMENTS} statements")


def test_the_harness_finds_results_that_are_not_used_again(
    template: Path, tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted bug: whoever goes on does everything anew."""
    monkeypatch.setattr(kernel_jobs.Job, "_replay", lambda *_: None)
    monkeypatch.setattr("vivarium_kernel.rounds.steps_to_replay", lambda view, claimed: [])
    found: list[str] = []
    for at in range(1, 40):
        found += killed(template, tmp_path / str(at), nursery, at, True)[2]
        if found:
            break
    assert any("again" in each or "notes" in each or "twice" in each for each in found)
