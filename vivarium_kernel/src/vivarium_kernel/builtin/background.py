"""The room of what a task's words leave out: the results that it builds on, the files that it has to make, and why its
last attempt was not accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import field, frozen
from attrs.validators import ge, le

from vivarium_kernel.grants import PluginView
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Section, Task

REASON_CHARACTERS = 1_000
_AGAIN = "The last attempt at this was not accepted, for the reason that is given here. This attempt has to do better."


@frozen
class BackgroundConfig:
    """``[plugins.background]``."""

    result_characters: int = field(
        default=4_000,
        validator=[ge(0), le(100_000)],
        metadata={"doc": "How much of the result of each task that a task needs its prompt shows."},
    )


class Background(Plugin):
    """Tells who does a task by a model what belongs to it beside its prompt."""

    name = "background"
    Config = BackgroundConfig
    config: BackgroundConfig

    @hookimpl
    def enrich_prompt(self, task: Task, view: PluginView) -> Sequence[Section]:
        found = []
        if task.files:
            said = f"When it is done, these files of the village have to be there: {', '.join(task.files)}"
            found.append(Section("situation", said, 90))
        reason = _refusal(task, view) if task.failures else ""
        if reason:
            found += [
                Section("situation", _AGAIN, 85),
                Section("situation", reason[:REASON_CHARACTERS], 85, untrusted="why it was not accepted"),
            ]
        # Most boards have none, and this is asked at every claim.
        if view.read_once("SELECT 1 FROM dependencies LIMIT 1"):
            found += self._results(task, view)
        return found

    def _results(self, task: Task, view: PluginView) -> Iterator[Section]:
        """The accepted results of the tasks that this one needs, in the order in which they were posted."""
        most = self.config.result_characters
        for name, text in view.read(
            "SELECT t.id, (SELECT coalesce(nullif(a.answer, ''), a.stdout, '') FROM attempts a WHERE a.task = t.id "
            "AND a.ending = 'accepted' ORDER BY a.id DESC LIMIT 1) FROM dependencies d JOIN tasks t ON t.id = d.needs "
            "WHERE d.task = ? ORDER BY t.seq",
            (task.id,),
        ):
            if text and most:
                shown = text if len(text) <= most else f"{text[:most]}\n[cut]"
                yield Section("situation", shown, 60, untrusted=f"result of task {name}")


def _refusal(task: Task, view: PluginView) -> str:
    """Why the last attempt that counted was not accepted. (The task's own reason may be of a fault since then.)"""
    rows = view.read(
        "SELECT reason FROM attempts WHERE task = ? AND ending IN ('failed', 'rejected') ORDER BY id DESC LIMIT 1",
        (task.id,),
    )
    return str(rows[0][0] or "") if rows else ""
