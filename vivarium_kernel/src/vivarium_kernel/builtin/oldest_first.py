"""The room of the default order: higher priority first, then the oldest."""

from __future__ import annotations

from collections.abc import Sequence

from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Resident, Task


class OldestFirst(Plugin):
    """Scores a batch by its order on the board, which is by priority and then by age."""

    name = "oldest_first"

    @hookimpl
    def claim_score(self, resident: Resident, tasks: Sequence[Task]) -> list[float]:
        # A batch comes in the board's order, so a task's place in it is its score.
        step = 1.0 / len(tasks)
        return [1.0 - step * place for place in range(len(tasks))]
