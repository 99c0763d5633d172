"""The room of the kernel's first panels: how the village is, and how its plugins are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from vivarium_kernel import audit
from vivarium_kernel.api.panels_asking import ask
from vivarium_kernel.terms import FOR_PEOPLE

if TYPE_CHECKING:
    from vivarium_kernel.api.operations import Call
    from vivarium_kernel.village import Village

RECENT_EVENTS = 12


async def status(call: Call) -> Mapping[str, Any]:
    """The village in figures, with its switches and what waits for people."""
    found = await ask(call, "GET /status")
    awaited, recent = await asyncio.to_thread(_awaited, call.village)
    village = call.village
    return {
        "status": found,
        "awaited": awaited,
        "recent": recent,
        "troubled": sorted({*(failed.name for failed in village.failed), *village.health.switched_off}),
    }


def _awaited(village: Village) -> tuple[dict[str, int], list[Any]]:
    """How many tasks wait for a person, by what for; and the newest events, newest first."""
    with village.store.view() as view:
        rows = view.rows(
            "SELECT CASE state WHEN 'review' THEN 'review' ELSE parked_for END, count(*) FROM tasks "
            "WHERE state IN ('claimed', 'parked', 'review', 'waiting') AND (state = 'review' OR "
            f"(state = 'parked' AND parked_for IN {FOR_PEOPLE})) GROUP BY 1"
        )
        return dict(rows), audit.last(view, RECENT_EVENTS)[::-1]


async def plugins(call: Call) -> Mapping[str, Any]:
    """Every plugin: whether it is on and why not, what it costs, and what is switched off for it."""
    found: dict[str, Any] = msgspec.to_builtins(await ask(call, "GET /plugins"))
    rank = {"failed": 0, "on": 1, "off": 2}
    rows = [{**plugin, "troubled": _off(plugin), **_sums(plugin["hooks"])} for plugin in found["plugins"]]
    rows.sort(key=lambda plugin: (rank[plugin["state"]], not plugin["troubled"], plugin["name"]))
    return {
        "plugins": rows,
        "whole_seconds": sum(plugin["seconds"] for plugin in rows),
        "counts": {state: sum(plugin["state"] == state for plugin in rows) for state in rank},
    }


def _off(plugin: Mapping[str, Any]) -> list[str]:
    return [hook["hook"] for hook in plugin["hooks"] if hook["off"]]


def _sums(hooks: list[dict[str, Any]]) -> dict[str, Any]:
    return {what: sum(hook[what] for hook in hooks) for what in ("calls", "errors", "seconds")}
