"""What runs in processes of their own that crash at a chosen place. Each function is a whole process."""

from __future__ import annotations

import contextlib
from pathlib import Path

from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import With

from . import faulty, quick, scene
from .faulty import Plan

SURVIVED = 7


def one_cycle(folder: str, at: int, after: bool) -> int:
    """Live one cycle and crash at its n-th statement, or right after its n-th commit; ``SURVIVED`` if it had fewer."""
    plan = Plan(at, faulty.crash, after=after)
    how = With(threaded=True, installed=False, plugins=(scene.Deeds,), connection=faulty.faulty(plan))
    village = scene.opened(Path(folder), how=how)
    quick.run(lived(Runtime(village, 1, until_done=True), plan))
    village.close()
    return SURVIVED


async def lived(runtime: Runtime, plan: Plan) -> None:
    """Meet the plan's fault within a cycle. A runtime that a fault ends is left; what it had is given back."""
    with contextlib.suppress(Exception):
        async with quick.timeout(20), runtime:
            plan.armed = True
            await runtime.run()
            plan.armed = False
