"""A village under the supervisor, with a plugin that holds the process on one hook. A whole process for the nursery."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from kernel.faults.scene import Deeds
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Ending, Resident, Subject, Task, Verdict
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With
from vivarium_kernel.watchdog import Heart, Mark, supervise

LIMIT_SECONDS, BEAT_SECONDS = 1.0, 0.25


def held(folder: str, hook: str) -> int:
    """Live until the board is empty, under the supervisor; what the supervisor says goes to the file ``said``."""
    mark = Mark()

    def child(restarts: int, switched_off: dict[tuple[str, str], str]) -> int:
        return asyncio.run(_live(Path(folder), hook, mark, switched_off))

    def say(line: str) -> None:
        with (Path(folder) / "said").open("a") as file:
            file.write(f"{line}\n")

    return supervise(child, mark, say=say)


async def _live(folder: Path, hook: str, mark: Mark, switched_off: dict[tuple[str, str], str]) -> int:
    how = With(
        threaded=True, installed=False, plugins=(Deeds, HOLDERS[hook]), mark=mark, switched_off=switched_off
    )  # fmt: skip
    village = Village(folder, how, environ={})

    def stuck_seconds() -> float:
        since = village.store.busy_since
        return 0.0 if since is None else village.clock.monotonic() - since

    heart = Heart(mark, stuck_seconds, limit_seconds=LIMIT_SECONDS, beat_seconds=BEAT_SECONDS)
    heart.start()
    async with asyncio.timeout(30), Runtime(village, 2, until_done=True) as runtime:
        await runtime.run()
    await heart.stop()
    village.close()
    return 0


class _Holder(Plugin):
    """Holds its thread for longer than any patience, at its second call."""

    name = "holder"

    def __init__(self, village: Any, config: Any) -> None:
        super().__init__(village, config)
        self._calls = 0

    def hold(self) -> None:
        self._calls += 1
        if self._calls == 2:
            time.sleep(60)


class ClaimFilter(_Holder):
    @hookimpl
    def claim_filter(self, resident: Resident) -> None:
        self.hold()


class EnrichPrompt(_Holder):
    @hookimpl
    def enrich_prompt(self, resident: Resident) -> None:
        self.hold()


class EndAttempt(_Holder):
    @hookimpl
    def end_attempt(self, task: Task, ending: Ending) -> None:
        self.hold()


class CheckSafety(_Holder):
    @hookimpl
    async def check_safety(self, subject: Subject) -> Verdict | None:
        self.hold()
        return None


HOLDERS: dict[str, type[Plugin]] = {
    "claim_filter": ClaimFilter,
    "enrich_prompt": EnrichPrompt,
    "end_attempt": EndAttempt,
    "check_safety": CheckSafety,
}
