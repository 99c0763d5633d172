"""A running village takes up what is switched on and off; what is in flight ends with what it began with."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from vivarium_kernel.runtime import BEAT_SECONDS, Runtime
from vivarium_kernel.village import Village, With

from vivarium_kernel import NewTask, Plugin, board, hookimpl

TASKS = 40


class Noted(Plugin):
    """A plugin that notes when it is started and shut down, and in which cycles it had a part."""

    name = "noted"
    said: ClassVar[list[str]] = []

    @hookimpl
    async def startup(self, village: Any) -> None:
        self.said.append("startup")

    @hookimpl
    async def shutdown(self, village: Any) -> None:
        self.said.append("shutdown")

    @hookimpl
    def enrich_prompt(self, resident: Any, task: Any, view: Any) -> list[Any]:
        self.said.append(f"begun {task.id}")
        return []

    @hookimpl
    def end_attempt(self, task: Any, ending: Any, tx: Any) -> None:
        self.said.append(f"ended {task.id}")


@pytest.fixture
def village(tmp_path: Path) -> Any:
    (tmp_path / "vivarium.toml").write_text('residents = ["ada", "ben"]\n', encoding="utf-8")
    Noted.said = []
    with Village(tmp_path, With(threaded=True, plugins=[Noted], installed=False), environ={}) as opened:
        yield opened


def switch(folder: Path, *disabled: str) -> None:
    new = folder / "plugins.new"
    new.write_text(json.dumps({"disabled": list(disabled)}), encoding="utf-8")
    new.replace(folder / "plugins.json")


async def until(condition: Any, what: str) -> None:
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"waited 8 s for {what}")


def post(village: Village, *tasks: NewTask) -> None:
    village.post(tasks)


def test_a_running_village_takes_up_what_is_switched_off_and_on(village: Village) -> None:
    async def live() -> None:
        async with Runtime(village, 2, kind="work"):
            assert Noted.said == ["startup"]
            switch(village.folder, "noted")
            await until(lambda: "noted" not in village.plugins, "the plugin to go")
            await until(lambda: Noted.said == ["startup", "shutdown"], "its shutdown")
            switch(village.folder)
            await until(lambda: "noted" in village.plugins, "the plugin to come back")
            assert Noted.said == ["startup", "shutdown", "startup"]
            await asyncio.sleep(2 * BEAT_SECONDS)
            assert Noted.said == ["startup", "shutdown", "startup"]

    asyncio.run(live())
    assert Noted.said == ["startup", "shutdown", "startup", "shutdown"]


def test_a_cycle_ends_with_the_plugins_that_it_began_with(village: Village) -> None:
    async def live() -> None:
        async with Runtime(village, 2, kind="work"):
            post(village, NewTask(id="slow", prompt="Wait.", model="scripted:wait-1.5"))
            await until(lambda: "begun slow" in Noted.said, "the cycle to begin")
            switch(village.folder, "noted")
            await until(lambda: "noted" not in village.plugins, "the plugin to go")
            post(village, NewTask(id="next", prompt="Say so.", model="scripted:echo"))
            await until(lambda: "ended slow" in Noted.said, "the cycle to end")
            assert "shutdown" not in Noted.said[: Noted.said.index("ended slow")]
            await until(lambda: "shutdown" in Noted.said, "the shutdown that follows")

    asyncio.run(live())
    assert Noted.said == ["startup", "begun slow", "ended slow", "shutdown"]  # it had no part in the next


def test_a_file_that_cannot_be_read_changes_nothing(village: Village, caplog: pytest.LogCaptureFixture) -> None:
    async def live() -> None:
        async with Runtime(village, 2, kind="work"):
            (village.folder / "plugins.json").write_text("{", encoding="utf-8")
            await until(lambda: "left as they were" in caplog.text, "the refusal")
            assert "noted" in village.plugins

    asyncio.run(live())


def test_a_required_safety_check_cannot_be_switched_off_under_way(
    village: Village, caplog: pytest.LogCaptureFixture
) -> None:
    async def live() -> None:
        async with Runtime(village, 2, kind="work"):
            switch(village.folder, "text_policy")
            await until(lambda: "safety.required" in caplog.text, "the refusal")
            assert "text_policy" in village.plugins
            post(village, NewTask(id="still", prompt="Say so.", model="scripted:echo"))
            await until(lambda: "ended still" in Noted.said, "work to go on")

    asyncio.run(live())


def test_switching_under_load_loses_nothing(village: Village) -> None:
    """Switched as fast as a file can be written, while every task is done once and paid once."""

    async def live() -> None:
        async with Runtime(village, 2, kind="work", until_done=True) as runtime:
            running = asyncio.create_task(runtime.run())
            switched = 0
            while not running.done():
                switch(village.folder, *(["noted"] if switched % 2 else []))
                switched += 1
                await asyncio.sleep(0.02)
            await running
            assert switched > 4

    post(village, *(NewTask(id=f"t{n}", prompt="Say so.", model="scripted:wait-0.05") for n in range(TASKS)))
    asyncio.run(live())
    with village.store.view() as view:
        assert board.counts(view)["done"] == TASKS
        paid = view.rows("SELECT count(*) FROM transfers WHERE reason = 'task_reward'")
        ended = view.rows("SELECT count(*), count(DISTINCT task) FROM attempts WHERE ending = 'accepted'")
    assert paid == [(TASKS,)] or paid[0][0] == TASKS
    assert ended == [(TASKS, TASKS)]
    begun = {said.partition(" ")[2] for said in Noted.said if said.startswith("begun")}
    assert {said.partition(" ")[2] for said in Noted.said if said.startswith("ended")} == begun
    assert Noted.said.count("startup") == Noted.said.count("shutdown")


@pytest.mark.promise("switching-under-load")
def test_two_hundred_switches_under_load_in_two_processes_lose_nothing(tmp_path: Path) -> None:
    folder, tasks, switches = tmp_path / "village", 300, 200
    folder.mkdir()
    names = ", ".join(f'"r{number}"' for number in range(8))
    (folder / "vivarium.toml").write_text(f"residents = [{names}]\n", encoding="utf-8")
    with Village(folder, With(installed=False), environ={}) as village:
        village.post([NewTask(id=f"t{n}", prompt="Say so.", model="scripted:wait-0.03") for n in range(tasks)])
        workers = [worker(folder, tmp_path / f"notes-{n}") for n in range(2)]
        try:
            for each in workers:
                assert each.stdout is not None and each.stdout.readline() == "ready\n"
            for n in range(switches):
                switch(folder, *(["noted"] if n % 2 else []))
                time.sleep(0.03)
            deadline = time.monotonic() + 60
            while counts(village).get("done", 0) < tasks:
                assert time.monotonic() < deadline, counts(village)
                time.sleep(0.05)
        finally:
            said = [each.communicate(timeout=30) for each in workers]
        assert [each.returncode for each in workers] == [0, 0], said
        with village.store.view() as view:
            ended = view.rows("SELECT count(*), count(DISTINCT task) FROM attempts WHERE ending = 'accepted'")
            paid = view.rows("SELECT count(*), count(DISTINCT ref) FROM transfers WHERE key LIKE 'task_reward:%'")
        assert ended == paid == [(tasks, tasks)]
    for n in range(2):
        notes = (tmp_path / f"notes-{n}").read_text(encoding="utf-8").split("\n")
        switched = [line for line in notes if line in ("startup", "shutdown")]
        assert switched == ["startup", "shutdown"] * (len(switched) // 2)  # in turns, each once
        assert len(switched) >= 4  # a loaded machine takes up few of them
        begun = sorted(line.partition(" ")[2] for line in notes if line.startswith("begun"))
        assert begun == sorted(line.partition(" ")[2] for line in notes if line.startswith("ended"))
        assert begun


def counts(village: Village) -> dict[str, int]:
    with village.store.view() as view:
        return board.counts(view)


def worker(folder: Path, notes: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("switched.py")), str(folder), str(notes)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
