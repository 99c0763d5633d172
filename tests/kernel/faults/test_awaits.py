"""A fault at every await of a cycle: an exception, a lost reply, a halt, a stop, a lapsed lease."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.claiming import Claimed
from vivarium_kernel.errors import StoreFull
from vivarium_kernel.records import NewTask
from vivarium_kernel.runtime import Runtime

from vivarium_kernel import control, people, processes

from . import quick, scene
from .meddling import Meddle, Meddled

KINDS = {**scene.KINDS, "deed": NewTask(id="deed", mode="deed", effect="once", prompt="x", data={"seconds": 0.2})}
MOST = 60


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for kind, task in KINDS.items():
        folder = scene.found(tmp_path_factory.mktemp(kind) / "village")
        with scene.opened(folder) as village:
            village.post([task])
        made[kind] = folder
    return made


def full() -> BaseException:
    return StoreFull("store.full", "The disk is full.", "Free some space.")


def switch(runtime: Runtime, what: str, on: bool) -> None:
    asyncio.ensure_future(runtime.village.store.write(control.switch, control.Switch(what, on, "operator:test")))


def halt(runtime: Runtime, claimed: Claimed) -> None:
    switch(runtime, "halted", True)


def stop(runtime: Runtime, claimed: Claimed) -> None:
    runtime.drain()
    runtime.drain()


def quarantine(runtime: Runtime, claimed: Claimed) -> None:
    asked = people.Change(
        claimed.resident.name, "quarantined", "operator:test", "it misbehaved", runtime.village.hooks.end_attempt
    )
    asyncio.ensure_future(runtime.village.store.write(people.change, asked))


def lapse(runtime: Runtime, claimed: Claimed) -> None:
    """Somebody reaps this process, as if its lease had lapsed."""

    def reap(tx: Any, _: None) -> None:
        tx.run("UPDATE processes SET lease_until_at = 0 WHERE id = ?", (runtime.process,))
        processes.reap(tx, processes.Reap(None, runtime.village.hooks.end_attempt))

    asyncio.ensure_future(runtime.village.store.write(reap, None))


MEDDLES: dict[str, Callable[[int], Meddle]] = {
    "exception": lambda n: Meddle(n, lambda: RuntimeError("a fault of the kernel")),
    "full": lambda n: Meddle(n, full),
    "lost reply": lambda n: Meddle(n, full, lost=True),
    "lost reply, exception": lambda n: Meddle(n, lambda: RuntimeError("a fault"), lost=True),
    "halt": lambda n: Meddle(n, do=halt),
    "stop": lambda n: Meddle(n, do=stop),
    "quarantine": lambda n: Meddle(n, do=quarantine),
    "lapsed": lambda n: Meddle(n, do=lapse),
}
CASES = [
    *(("once", name) for name in MEDDLES),
    *(("llm", name) for name in ("lost reply", "exception", "stop")),
    ("pure", "lost reply"),
    ("deed", "halt"),
    ("deed", "lapsed"),
]


async def one_cycle(runtime: Runtime) -> None:
    with contextlib.suppress(Exception):
        async with quick.timeout(20), runtime:
            await runtime.run()


def cases(template: Path, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    for n in range(1, MOST):
        folder = tmp_path / str(n)
        shutil.copytree(template, folder)
        yield n, folder


@pytest.mark.promise("fault-at-every-step", "budget-returns")
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_fault_at_an_await_leaves_a_legal_end(
    templates: dict[str, Path], tmp_path: Path, kind: str, name: str
) -> None:
    for n, folder in cases(templates[kind], tmp_path):
        meddle = MEDDLES[name](n)
        with scene.opened(folder) as village:
            quick.run(one_cycle(Meddled(village, 1, until_done=True, meddle=meddle)))
            village.store.call(control.switch, control.Switch("halted", False, "operator:test"))
        try:
            ends = scene.finish(folder)
        except AssertionError as error:
            raise AssertionError(f"{name} at await {n}: {error}") from error
        if not meddle.met:
            assert n > 2, f"a cycle of {n} awaits"
            assert ends == {kind: "done"}
            return
    raise AssertionError(f"a cycle of more than {MOST} awaits")
