"""Tells each resident the day, and reminds it of its own last task."""

from collections.abc import Sequence

from vivarium_kernel import Plugin, PluginView, Resident, Section, Task, hookimpl


class Almanac(Plugin):
    name = "almanac"

    @hookimpl
    def enrich_prompt(self, resident: Resident, task: Task, view: PluginView) -> Sequence[Section]:
        sections = [Section("situation", f"It is day {view.day}, hour {view.hour % 24}.", priority=5)]
        last = view.read(
            "SELECT task FROM attempts WHERE resident = ? AND ending = 'accepted' ORDER BY id DESC LIMIT 1",
            (resident.name,),
        )
        if last:
            sections.append(Section("memory", f"The last task that you did was {last[0][0]}."))
        return sections
