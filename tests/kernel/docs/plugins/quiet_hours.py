"""Nobody takes a task with the label "loud" before the seventh hour of the day."""

from collections.abc import Sequence

from vivarium_kernel import Plugin, PluginView, Reject, Resident, Task, hookimpl


class QuietHours(Plugin):
    name = "quiet_hours"

    @hookimpl
    def claim_filter(self, resident: Resident, tasks: Sequence[Task], view: PluginView) -> Sequence[Reject]:
        if view.hour % 24 >= 7:
            return []
        return [Reject(task.id, "it is too early for noise") for task in tasks if "loud" in task.labels]
