"""Promises about workers on other machines: processes killed at the worst moment lose nothing and do nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from vivarium_kernel.actions import Action
from vivarium_kernel.errors import Invalid, Unauthorized
from vivarium_kernel.models import Price, Reply, Request, ToolCall
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import NewTask, Usage
from vivarium_kernel.remote import Worker
from vivarium_kernel.remote_http import Server, Unreachable
from vivarium_kernel.remote_link import RemoteLink
from vivarium_kernel.village import Village, With

from vivarium_kernel import audit, board, control, ledger, people

from .processes import Process, processes
from .scene import OPERATOR, WORKER, Served, found_village, free_port, served

LEASE = 1.5


class Far:
    """A village's folder, looked at from beside its server process."""

    def __init__(self, tmp_path: Path, lease: float = LEASE) -> None:
        self.folder = found_village(tmp_path / "village", lease=lease)
        self.village = Village(self.folder, With(installed=False), environ={})
        self.village.store.call(people.make_token, people.NewToken("worker", "far", WORKER, "test"))
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, *tasks: NewTask) -> None:
        self.village.store.call(board.post, self.village.posting(tasks, "test"))

    def states(self) -> dict[str, str]:
        with self.village.store.view() as view:
            return {task.id: task.state for task in board.tasks(view, limit=10_000)}

    def wait(self, reached: Callable[[], Any], seconds: float = 30.0) -> Any:
        until = time.monotonic() + seconds
        while not (found := reached()):
            assert time.monotonic() < until, self.states()
            time.sleep(0.02)
        return found

    def running(self) -> list[tuple[Any, ...]]:
        with self.village.store.view() as view:
            return view.rows("SELECT task, resident FROM attempts WHERE state = 'running' ORDER BY id")

    def endings(self, task: str) -> list[str | None]:
        with self.village.store.view() as view:
            return [row[0] for row in view.rows("SELECT ending FROM attempts WHERE task = ? ORDER BY id", (task,))]

    def check(self) -> None:
        """The books balance, the chain holds, each task was accepted and paid once, nothing is left running."""
        with self.village.store.view() as view:
            assert ledger.verify(view).problems == ()
            assert audit.verify(view)[2] is None
            accepted = Counter(r[0] for r in view.rows("SELECT task FROM attempts WHERE ending = 'accepted'"))
            paid = Counter(r[0] for r in view.rows("SELECT ref FROM transfers WHERE reason = 'task_reward'"))
            assert view.rows("SELECT id FROM attempts WHERE state = 'running'") == []
        assert set(self.states().values()) == {"done"}, self.states()
        assert accepted == dict.fromkeys(self.states(), 1)
        assert paid == {f"task:{name}": 1 for name in self.states()}


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    found = Far(tmp_path)
    yield found
    found.village.close()


def mark(name: str, before: str = "") -> NewTask:
    """A task that leaves a mark in its worker's folder, outside the store."""
    script = f"{before}echo {name} >> files/marks"
    return NewTask(id=name, command=("sh", "-c", script), effect="idempotent", max_micros=1_000)


def marks(*folders: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for folder in folders:
        path = folder / "files" / "marks"
        found.update(path.read_text().split() if path.exists() else [])
    return found


@pytest.mark.promise("kill-workers", "recorded-results-stand")
def test_a_worker_that_is_killed_in_the_middle_loses_nothing_and_nothing_is_done_twice(
    far: Far, tmp_path: Path
) -> None:
    one, two = found_village(tmp_path / "one"), found_village(tmp_path / "two")
    names = [f"t{number}" for number in range(30)]
    with processes() as started:
        started.append(Process("serve", far.folder, far.port))
        assert started[0].said == far.url
        far.add(mark("slow", "sleep 1.2; "))
        victim = Process("work", far.url, WORKER, 1, one)
        started.append(victim)
        far.wait(lambda: far.running() == [("slow", victim.said)])
        far.add(*(mark(name, "sleep 0.05; ") for name in names))
        started.append(Process("work", far.url, WORKER, 3, two))
        far.wait(lambda: marks(two))
        victim.kill()
        killed = time.monotonic()
        far.wait(lambda: far.endings("slow") != [None])
        assert time.monotonic() - killed < LEASE + 3.0  # within the lease and a second, and what a busy machine adds
        far.wait(lambda: set(far.states().values()) == {"done"})
    far.check()
    assert marks(one, two) == dict.fromkeys(["slow", *names], 1)
    assert far.endings("slow") == ["lapsed", "accepted"]


@pytest.mark.promise("kill-workers")
def test_a_server_that_is_killed_and_comes_back_takes_what_was_done_meanwhile(tmp_path: Path) -> None:
    far, folder = Far(tmp_path, lease=20.0), found_village(tmp_path / "one")
    with processes() as started:
        server = Process("serve", far.folder, far.port)
        started.append(server)
        started.append(Process("work", far.url, WORKER, 2, folder))
        begin = "echo begun >> files/marks; sleep 0.5; "
        far.add(mark("a", begin), mark("b", begin))
        far.wait(lambda: marks(folder)["begun"] == 2)
        server.kill()
        far.wait(lambda: len(marks(folder)) == 3)  # done, while nobody listened
        started.append(Process("serve", far.folder, far.port))
        far.wait(lambda: set(far.states().values()) == {"done"})
        far.add(mark("c"))
        far.wait(lambda: far.states()["c"] == "done")
    far.check()
    assert marks(folder) == {"begun": 2, "a": 1, "b": 1, "c": 1}
    far.village.close()


@pytest.mark.promise("halt", "orphans-die")
@pytest.mark.parametrize("how", ["halt", "quarantine"])
def test_an_act_elsewhere_is_ended_within_a_second(far: Far, tmp_path: Path, how: str) -> None:
    folder = found_village(tmp_path / "one")
    with processes() as started:
        started.append(Process("serve", far.folder, far.port))
        started.append(Process("work", far.url, WORKER, 1, folder))
        far.add(mark("a", "echo $$ > files/pid; sleep 30; "))
        pid = int(far.wait(lambda: (folder / "files/pid").exists() and (folder / "files/pid").read_text()))
        began = time.monotonic()
        if how == "halt":
            far.village.store.call(control.switch, control.Switch("halted", True, "test", "enough"))
        else:
            ((_, name),) = far.running()
            asked = people.Change(name, "quarantined", "test", "odd", far.village.hooks.end_attempt)
            far.village.store.call(people.change, asked)
        far.wait(lambda: not _lives(pid), 5.0)
        assert time.monotonic() - began < 1.0
        far.wait(lambda: far.states() == {"a": "open"}, 2.0)
    assert marks(folder) == {}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.promise("drain")
def test_a_worker_finishes_what_it_runs_at_the_first_signal_and_gives_it_back_at_the_second(
    far: Far, tmp_path: Path
) -> None:
    folder = found_village(tmp_path / "one")
    with processes() as started:
        started.append(Process("serve", far.folder, far.port))
        worker = Process("work", far.url, WORKER, 1, folder)
        started.append(worker)
        far.add(mark("a", "echo begun >> files/marks; sleep 1.5; "), mark("b"))
        far.wait(lambda: marks(folder))
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        assert far.states() == {"a": "done", "b": "open"}
        worker = Process("work", far.url, WORKER, 1, folder)
        started.append(worker)
        far.wait(lambda: far.states()["b"] == "done")
        far.add(mark("c", "echo begun >> files/marks; sleep 30; "))
        far.wait(lambda: marks(folder)["begun"] == 2)
        worker.send(signal.SIGTERM)
        time.sleep(0.3)  # two at once might count as one
        worker.send(signal.SIGTERM)
        began = time.monotonic()
        assert worker.wait() == 0
        assert time.monotonic() - began < 3.0
        assert far.states()["c"] == "open"
        with far.village.store.view() as view:
            assert view.rows("SELECT name FROM residents WHERE process IS NOT NULL") == []


# In one process: what a worker does with what it is given


async def _until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not reached():
            await asyncio.sleep(0.02)


def work(
    scene: Served, folder: Path, done: Callable[[], bool], prepare: Callable[[Worker], None] | None = None
) -> None:
    """Work for the served village until ``done``."""

    async def life() -> None:
        async with Worker(f"http://127.0.0.1:{scene.port}", WORKER, 2, folder) as worker:
            if prepare is not None:
                prepare(worker)
            running = asyncio.create_task(worker.run())
            await _until(done)
            worker.drain()
            await running

    asyncio.run(life())


class Distant:
    """A model that only the worker has."""

    name = "distant"

    def price(self, model: str) -> Price:
        return Price(1_000_000, 1_000_000)

    async def complete(self, request: Request) -> Reply:
        return Reply(f"from afar: {request.messages[-1].text}", Usage(10, 10))


@pytest.mark.promise("caps-hold")
def test_models_are_called_with_the_workers_own_providers_under_the_villages_caps(
    scene: Served, tmp_path: Path
) -> None:
    scene.add(
        NewTask(id="llm", prompt="say it", model="distant:one", max_micros=50_000),
        NewTask(id="poor", prompt="say it", model="distant:one", max_micros=100),
        NewTask(id="other", prompt="say it", model="elsewhere:one"),
    )
    work(
        scene,
        found_village(tmp_path / "one"),
        lambda: {scene.task("llm").state, scene.task("poor").state} == {"done", "failed"},
        lambda worker: worker.place.add_provider(Distant()),
    )
    found = scene.get("/tasks/llm").ok()["attempts"][0]
    assert (found["answer"], found["model"], found["spent_micros"]) == ("from afar: say it", "distant:one", 20)
    assert "left of its budget" in scene.task("poor").reason
    assert scene.task("other").state == "open"  # no worker of this one has that provider


def test_a_resident_that_may_use_a_class_of_models_calls_what_the_village_means_by_it(tmp_path: Path) -> None:
    more = '\n[models]\nsmall = "distant:one"\n[limits.default]\nmodels = ["small"]\n'
    with served(found_village(tmp_path / "village", more=more)) as scene:
        scene.token("worker", "far", WORKER)
        scene.add(NewTask(id="llm", prompt="say it", model="small", max_micros=50_000))
        work(
            scene,
            found_village(tmp_path / "one"),
            lambda: scene.task("llm").state in ("done", "failed"),
            lambda worker: worker.place.add_provider(Distant()),
        )
        assert (scene.task("llm").state, scene.task("llm").reason) == ("done", "")


class Lying(Distant):
    """Reports fewer tokens than none."""

    name = "liar"

    async def complete(self, request: Request) -> Reply:
        return Reply("Cheap.", Usage(-1, 1))


@pytest.mark.promise("caps-hold")
def test_a_worker_asks_a_provider_no_more_whose_report_cannot_be_true_and_the_village_is_told(
    scene: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A call costs what was reserved. What else wants that provider waits for somebody who has a sound one."""
    for number in range(3):
        scene.add(NewTask(id=f"t{number}", prompt="say it", model="liar:one", max_micros=500_000))
    scene.add(NewTask(id="last", prompt="say it", model="scripted:echo", priority=-9))
    work(
        scene,
        found_village(tmp_path / "one"),
        lambda: scene.task("last").state == "done",
        lambda worker: worker.place.add_provider(Lying()),
    )
    told = scene.events("model.distrusted")
    assert len(told) == 1
    assert {one["provider"] for one in told} == {"liar"}
    assert "which can't be true" in told[0]["reason"]
    assert len([line for line in caplog.messages if line.startswith("liar is asked no more")]) == 1
    tasks = [scene.task(f"t{number}") for number in range(3)]
    done = [task.state for task in tasks].count("done")
    assert 1 <= done <= 2  # two residents may have asked at once
    assert {(task.state, task.failures) for task in tasks} <= {("done", 0), ("open", 0), ("parked", 0)}
    ((tries,),) = scene.rows("SELECT count(*) FROM attempts WHERE task GLOB 't?'")
    assert tries <= done + 2, "who waited with the old list of providers finds out once"
    assert scene.village.distrusted("liar") == ""  # one of the village's own of that name is another


class Patient(Distant):
    """Uses a slow tool, then says what it was told."""

    async def complete(self, request: Request) -> Reply:
        told = [message.text for message in request.messages if message.role == "tool"]
        if told:
            return Reply(told[-1], Usage(1, 1))
        return Reply("", Usage(1, 1), [ToolCall("a", "post__send", "{}")], "tool_calls")

    def price(self, model: str) -> Price:
        return Price(0, 0)


class Post(Plugin):
    """A tool that takes longer than its worker waits for one answer."""

    name = "post"

    @hookimpl
    def register_actions(self) -> list[Action[Any]]:
        async def send(job: Any, asked: Empty) -> str:
            await asyncio.sleep(1.5)
            return "sent"

        return [Action(name="post.send", doc="Send.", Input=Empty, act=send, cost_micros=5)]


@frozen
class Empty:
    """Nothing is needed."""


def test_a_tool_that_takes_longer_than_one_answer_is_waited_for_and_used_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RemoteLink._post

    async def hasty(link: RemoteLink, verb: str, body: object, kind: Any, seconds: float) -> Any:
        return await real(link, verb, body, kind, 0.4 if verb == "act" else seconds)

    monkeypatch.setattr(RemoteLink, "_post", hasty)
    with served(found_village(tmp_path / "village"), plugins=(Post,)) as scene:
        scene.token("worker", "far", WORKER)
        scene.token("operator", "op", OPERATOR)
        scene.add(NewTask(id="llm", prompt="send it", model="distant:one"))
        work(
            scene,
            found_village(tmp_path / "one"),
            lambda: scene.task("llm").state in ("done", "failed"),
            lambda worker: worker.place.add_provider(Patient()),
        )
        assert "sent" in scene.get("/tasks/llm").ok()["attempts"][0]["answer"]
        assert scene.rows("SELECT name, state FROM steps WHERE kind = 'tool'") == [("post.send", "done")]
        assert scene.rows("SELECT state FROM holds") == [("settled",)]


@pytest.mark.promise("confined-commands")
def test_a_worker_runs_only_what_its_own_machine_allows(scene: Served, tmp_path: Path) -> None:
    folder = tmp_path / "strict"
    folder.mkdir()
    scene.add(NewTask(id="no", command=("sh", "-c", "echo hi")), NewTask(id="yes", command=("echo", "hi")))

    def tried() -> list[Any]:
        return scene.rows("SELECT id FROM attempts WHERE task = 'no'")

    work(scene, folder, lambda: scene.task("yes").state == "done" and tried())
    scene.add(NewTask(id="later", command=("echo", "hi")))
    work(scene, folder, lambda: scene.task("later").state == "done")
    assert 1 <= len(tried()) <= 4, "each resident of a worker finds out once at most"
    assert (scene.task("no").state, scene.task("no").declined) == ("open", ())  # at home it may be done by anybody
    assert scene.rows("SELECT DISTINCT ending FROM attempts WHERE task = 'no'") == [("released",)]
    assert "not on this worker: command.unknown" in scene.get("/tasks/no").ok()["attempts"][0]["reason"]


def test_a_wrong_token_or_address_is_told_at_once(scene: Served, tmp_path: Path) -> None:
    async def join(url: str, token: str) -> None:
        async with Worker(url, token, 1, tmp_path):
            pass

    with pytest.raises(Unauthorized, match="not valid"):
        asyncio.run(join(f"http://127.0.0.1:{scene.port}", "wrong"))
    with pytest.raises(Unreachable, match="can't be reached"):
        asyncio.run(join(f"http://127.0.0.1:{free_port()}", WORKER))
    with pytest.raises(Invalid, match="is no village's address"):
        asyncio.run(join("village.example", WORKER))


def test_an_outage_is_told_once_whoever_meets_it(
    scene: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def go() -> None:
        async with Worker(f"http://127.0.0.1:{scene.port}", WORKER, 4, tmp_path / "elsewhere") as worker:
            worker._server.close()
            worker._server = Server(f"http://127.0.0.1:{free_port()}", WORKER)
            working = asyncio.create_task(worker.run())
            await asyncio.sleep(1.0)
            worker.drain()
            await working

    with caplog.at_level("WARNING", "vivarium.remote"):
        asyncio.run(go())
    assert len([line for line in caplog.messages if "can't be reached" in line]) == 1, caplog.messages


def test_a_worker_whose_token_is_revoked_ends_and_says_why(scene: Served, tmp_path: Path) -> None:
    number = scene.token("worker", "short", "short-lived")

    async def life() -> None:
        async with Worker(f"http://127.0.0.1:{scene.port}", "short-lived", 1, tmp_path) as worker:
            running = asyncio.create_task(worker.run())
            await asyncio.sleep(0.2)
            await asyncio.to_thread(scene.write, people.revoke_token, (number, "test"))
            async with asyncio.timeout(10):
                await running

    with pytest.raises(Unauthorized):
        asyncio.run(life())
