"""Running commands in a scene, and watching what becomes of their processes."""

import asyncio
import sys
import textwrap
import time
from pathlib import Path

from vivarium_kernel.commands import Allowed, Finished, Limits, Runner, resolve_allowed

from .scene import Scene

PYTHON = Allowed("python", Path(sys.executable), shipped=False)
ALLOWED = resolve_allowed({"sh": "sh", "sleep": "sleep", "env": "env", "sort": "sort"}) | {"python": PYTHON}


async def run(runner: Runner, scene: Scene, *argv: str, cwd: str = ".", limits: Limits | None = None) -> Finished:
    return await runner.run(argv, allowed=ALLOWED[argv[0]], cwd=scene.village / cwd, limits=limits)


def once(runner: Runner, scene: Scene, *argv: str, cwd: str = ".", limits: Limits | None = None) -> Finished:
    return asyncio.run(run(runner, scene, *argv, cwd=cwd, limits=limits))


def python(runner: Runner, scene: Scene, script: str, limits: Limits | None = None) -> Finished:
    return once(runner, scene, "python", "-c", textwrap.dedent(script), limits=limits)


def lives(pid: int) -> bool:
    """Whether the process runs; a zombie that init has not reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until_dead(*pids: int, within_seconds: float = 1.0) -> None:
    deadline = time.monotonic() + within_seconds
    while any(map(lives, pids)):
        assert time.monotonic() < deadline, f"still alive: {[pid for pid in pids if lives(pid)]}"
        time.sleep(0.01)


def wait_for_numbers(path: Path, count: int, within_seconds: float = 5.0) -> list[int]:
    deadline = time.monotonic() + within_seconds
    while True:
        words = path.read_text().split() if path.exists() else []
        if len(words) >= count:
            return [int(word) for word in words]
        assert time.monotonic() < deadline, f"{path} has only {words}"
        time.sleep(0.01)
