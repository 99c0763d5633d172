"""What runs in processes of their own on one village, in real time. Each function is a whole process."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from kernel.faults.scene import Deeds, mark
from vivarium_kernel.jobs import Job
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import NewTask, Outcome
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.settling import Settled
from vivarium_kernel.store import Tx
from vivarium_kernel.terms import MICROS
from vivarium_kernel.village import Village, With

from vivarium_kernel import board, control

SETTINGS = """
name = "processes"
residents = ["ada", "ben", "cyn", "dov", "eli", "fay"]
lease_seconds = {lease}
pace_seconds = 0.1
[commands]
sandbox = "none"
[commands.allow]
sh = "sh"
sleep = "sleep"
[retries]
backoff_seconds = 0.05
backoff_max_seconds = 0.2
"""
PAID_MICROS = 1_000


def settled(folder: Path, lease_seconds: float) -> Path:
    """A village's folder with its settings; nobody has opened it yet."""
    (folder / "files").mkdir(parents=True)
    (folder / "vivarium.toml").write_text(SETTINGS.format(lease=lease_seconds))
    return folder


def found(folder: Path, lease_seconds: float) -> Path:
    """A village that was opened before, so that many processes may open it at once."""
    opened(settled(folder, lease_seconds), threaded=False).close()
    return folder


def opened(folder: Path, *, threaded: bool = True, plugins: tuple[type[Plugin], ...] = (Deeds,)) -> Village:
    return Village(folder, With(threaded=threaded, installed=False, plugins=plugins), environ={})


# The acknowledgements: what somebody was told, outside the store and on the disk


def acknowledge(folder: str, what: str, name: str) -> None:
    """Note on the disk that somebody was told; whoever is killed later can't take it back."""
    end = os.open(Path(folder) / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(end, f"{what} {name}\n".encode())
    os.fsync(end)
    os.close(end)


def acknowledged(folder: Path, what: str) -> list[str]:
    path = folder / "acknowledged"
    lines = path.read_text().splitlines() if path.exists() else []
    return [name for kind, _, name in (line.partition(" ") for line in lines) if kind == what]


# Processes


def worker(folder: str, residents: int) -> int:
    """Drive residents until killed, and acknowledge each task that is done."""

    def told(settled: Settled) -> None:
        if settled.task_state == "done":
            acknowledge(folder, "done", settled.task)

    asyncio.run(_drive(opened(Path(folder)), residents, told))
    return 0


async def _drive(village: Village, residents: int, told: Any) -> None:
    runtime = Runtime(village, residents, kind="work", on_settled=told)

    def drain() -> None:
        runtime.drain()
        acknowledge(str(village.folder), "signal", str(runtime.process))

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, drain)
    async with runtime:
        await runtime.run()
    village.close()


def server(folder: str, name: str) -> int:
    """Post tasks and move money until killed, and acknowledge each once its commit is synced."""
    asyncio.run(_serve(folder, opened(Path(folder)), name))
    return 0


async def _serve(folder: str, village: Village, name: str) -> None:
    posted = {int(key.partition("-")[2]) for key in acknowledged(Path(folder), "posted") if key.startswith(f"{name}-")}
    number = max(0, max(posted, default=0) - 4)
    while True:
        # What was asked before the last kill is asked again, answered or not, with the same keys.
        batch = range(number + 1, number + 5)
        await asyncio.gather(*(_post_and_pay(folder, village, f"{name}-{each}", each) for each in batch))
        number = batch[-1]
        await asyncio.sleep(0.02)


async def _post_and_pay(folder: str, village: Village, key: str, number: int) -> None:
    effect: Any = ("once", "idempotent", "pure")[number % 3]
    task = NewTask(
        key=key, mode="deed", prompt="x", effect=effect, max_micros=1_000,
        data={"seconds": 0.002 * (number % 5), "order": key},
    )  # fmt: skip
    await village.store.write(board.post, village.posting([task], "operator:server"))
    acknowledge(folder, "posted", key)
    await village.store.write(pay, key)
    acknowledge(folder, "paid", key)


def pay(tx: Tx, key: str) -> bool:
    """Move a little money, once for each key."""
    return tx.books.transfer(
        f"gift:{key}",
        "operator",
        "resident:ada:free",
        "usd",
        PAID_MICROS,
        "gift",
        "test",
        "operator:test",
        f"gift:{key}",
    )


def finisher(folder: str, residents: int) -> int:
    """Drive residents until nothing is left to do."""
    return asyncio.run(_finish(opened(Path(folder)), residents))


async def _finish(village: Village, residents: int) -> int:
    async with asyncio.timeout(60), Runtime(village, residents, until_done=True) as runtime:
        await runtime.run()
    village.close()
    return 0


def claimant(folder: str, residents: int) -> int:
    """Drive residents on a board that may still be empty, until it holds a task and then none any more."""
    return asyncio.run(_claim(folder, opened(Path(folder)), residents))


async def _claim(folder: str, village: Village, residents: int) -> int:
    async with asyncio.timeout(120), Runtime(village, residents, kind="work") as runtime:
        acknowledge(folder, "ready", str(runtime.process))
        while True:
            await asyncio.sleep(0.1)
            with village.store.view() as view:
                counts = board.counts(view)
            if counts["done"] and not counts["open"] and not counts["claimed"] and not counts["parked"]:
                break
            if runtime.fault is not None:
                raise runtime.fault
    village.close()
    return 0


class Late(Plugin):
    """Does tasks of mode ``late``: tells that it began, waits until it may go on, then tries to have its say."""

    name = "late"

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        if job.task.mode != "late":
            return None
        folder = self.village.folder
        await job.begin("tool", "late", job.task.effect, {"task": job.task.id})
        mark(folder, job.task.id)
        acknowledge(str(folder), "began", str(os.getpid()))
        slow = (folder / "slow").exists() and (folder / "slow").read_text() == str(os.getpid())
        deadline = time.monotonic() + 30
        while slow and not (folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.005)  # noqa: ASYNC251 - it holds its loop, so that nothing tells it that its lease has lapsed
        job.end("done", {"by": os.getpid()})
        return Outcome(answer=str(os.getpid()))


def late_worker(folder: str, slow: bool) -> int:
    """Drive one resident; with ``slow`` its acts wait for the file ``go``."""
    if slow:
        (Path(folder) / "slow").write_text(str(os.getpid()))
    village = opened(Path(folder), plugins=(Deeds, Late))

    def told(settled: Settled) -> None:
        acknowledge(folder, "settled", f"{settled.task}:{settled.task_state}:{os.getpid()}")

    asyncio.run(_drive(village, 1, told))
    return 0


def halter(folder: str, on: bool) -> int:
    """Switch the halt, as another process would."""
    with opened(Path(folder), threaded=False) as village:
        village.store.call(control.switch, control.Switch("halted", on, "operator:test"))
    acknowledge(folder, "halted" if on else "unhalted", str(time.time()))
    return 0


def random_pause(chance: random.Random, most_seconds: float) -> None:
    time.sleep(chance.uniform(0.0, most_seconds))


def seconds(micros: int) -> float:
    return micros / MICROS
