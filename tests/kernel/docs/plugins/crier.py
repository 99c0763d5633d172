"""Cries out what was done."""

from typing import Any

from vivarium_kernel import Event, Plugin, hookimpl


class Crier(Plugin):
    name = "crier"

    def __init__(self, village: Any, config: Any) -> None:
        super().__init__(village, config)
        self.cried: dict[int, str] = {}

    @hookimpl
    async def on_event(self, event: Event) -> None:
        if event.kind == "attempt.ended" and event.data["task_state"] == "done":
            self.cried[event.id] = f"{event.resident} has done {event.task}!"  # by its id: it may come twice
