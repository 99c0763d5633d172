"""Who finds nothing to do may take a walk."""

from collections.abc import Sequence

from vivarium_kernel import NewTask, Plugin, PluginView, Resident, hookimpl


class Strolls(Plugin):
    name = "strolls"

    @hookimpl
    def propose_activity(self, resident: Resident, view: PluginView) -> Sequence[NewTask]:
        return [NewTask(prompt=f"Walk, and tell what you see at hour {view.hour % 24}.", effect="pure")]
