"""The room of switching: a running village takes up what was switched on and off, without ending what is in flight.

Every process looks at ``plugins.json`` at each beat. When it has changed, the plugins are composed anew: those that
stay are the same objects, what is new is started. A cycle ends with the set that it began with; a plugin that is in no
set any more is shut down when the last such cycle has ended. A set that can't be composed is refused as a whole.
"""

from __future__ import annotations

import logging

from vivarium_kernel import registry
from vivarium_kernel.calls import Hooks
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.plugins import Plugin
from vivarium_kernel.village import Village

LOOKS = 2
log = logging.getLogger("vivarium")


class Switching:
    """The plugin sets of a village in this process: the one that is on, and those that cycles still end with."""

    def __init__(self, village: Village) -> None:
        self._village = village
        self._stamp = registry.stamp(village.folder)
        self._started: dict[str, tuple[Plugin, Hooks]] = {}  # each with the set that it was started in
        self._leaving: dict[Hooks, int] = {}  # sets that are on no more, and for how many looks nobody used them

    async def begin(self) -> None:
        """Start the plugins that are on."""
        await self._start()

    async def look(self) -> None:
        """Take up what has changed since the last look; shut down what nobody uses any more."""
        stamp = registry.stamp(self._village.folder)
        if stamp != self._stamp:
            self._stamp = stamp
            before = self._village.hooks
            try:
                self._village.recompose({name: plugin for name, (plugin, _) in self._started.items()})
            except VivariumError as error:
                log.error("the plugins are left as they were: %s", error)
            else:
                self._leaving[before] = 0
                await self._start()
        if self._leaving:
            # A cycle that was just won has not begun to count yet, so one look without users is not enough.
            idle = {hooks: 0 if hooks.users else looks + 1 for hooks, looks in self._leaving.items()}
            self._leaving = {hooks: looks for hooks, looks in idle.items() if looks < LOOKS}
            await self._shut_down(keep={id(p) for h in (self._village.hooks, *self._leaving) for p in h.plugins})

    async def end(self) -> None:
        """Shut everything down: nothing is in flight any more."""
        self._leaving.clear()
        await self._shut_down(keep=set())

    async def _start(self) -> None:
        hooks = self._village.hooks
        new = {plugin.name: (plugin, hooks) for plugin in hooks.plugins if plugin.name not in self._started}
        self._started |= new
        await hooks.startup(self._village, new)

    async def _shut_down(self, keep: set[int]) -> None:
        gone: dict[Hooks, set[str]] = {}
        for name, (plugin, hooks) in list(self._started.items()):
            if id(plugin) not in keep:
                del self._started[name]
                gone.setdefault(hooks, set()).add(name)
        for hooks, names in gone.items():
            await hooks.shutdown(self._village, names)
