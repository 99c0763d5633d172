"""Residents prefer what can't take long."""

from collections.abc import Sequence

from vivarium_kernel import Plugin, Resident, Task, hookimpl


class ShortFirst(Plugin):
    name = "short_first"

    @hookimpl
    def claim_score(self, resident: Resident, tasks: Sequence[Task]) -> Sequence[float]:
        return [1.0 if task.timeout_seconds <= 5 else 0.0 for task in tasks]
