"""The room of the routes about plugins: how each stands and what it costs, and switching it on and off."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from vivarium_kernel import enabling
from vivarium_kernel.api.operations import Call, Operation
from vivarium_kernel.standing import Standing, standings
from vivarium_kernel.village import Village


@frozen
class HookRow:
    """What one hook of a plugin cost in this process, and why it is switched off if it is."""

    hook: str
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    last_error: str = ""
    off: str | None = None


@frozen
class PluginRow:
    """How a plugin stands in this process."""

    name: str
    distribution: str
    version: str
    state: Literal["on", "off", "failed"]
    reason: str = ""
    next_step: str = ""
    hooks: tuple[HookRow, ...] = ()


@frozen
class Plugins:
    """Every plugin that is installed, recorded or the kernel's own, by name."""

    plugins: tuple[PluginRow, ...]


@frozen
class SwitchPlugin:
    """Whether a plugin is to be on; ``drain`` gives back what it holds before it is switched off."""

    enabled: bool
    drain: bool = False


@frozen
class Switched:
    """A plugin as it is switched now. Every process of the village takes that up within a second."""

    name: str
    enabled: bool
    given_back: Mapping[str, Any] = field(factory=dict)


def operations() -> list[Operation]:
    return [
        Operation("GET /plugins", "List the plugins: how each stands and what it costs.", _list, reply=Plugins),
        Operation(
            "PUT /plugins/{name}",
            "Switch a plugin on or off in the running village.",
            _switch,
            body=SwitchPlugin,
            reply=Switched,
        ),
    ]


async def _list(call: Call) -> Plugins:
    # Reading what is installed opens many small files.
    return Plugins(tuple(await asyncio.to_thread(_rows, call.village)))


def _rows(village: Village) -> list[PluginRow]:
    hooks: dict[str, list[HookRow]] = {}
    for one in village.health.view():
        row = HookRow(one["hook"], one["calls"], one["errors"], one["seconds"], one["slowest_seconds"],
                      one["last_error"], one["off"])  # fmt: skip
        hooks.setdefault(one["plugin"], []).append(row)
    failed = {each.name: each for each in village.failed}
    found = {one.name: one for one in standings(village.choice())}
    for name in village.plugins:
        found.setdefault(name, Standing(name, "", "", "on"))  # given by a program, not installed
    rows = []
    for name, standing in sorted(found.items()):
        state, reason = standing.state, standing.cause
        if name in failed:
            state, reason = "failed", str(failed[name])
        rows.append(
            PluginRow(name, standing.distribution, standing.version, state, reason, standing.next_step,
                      tuple(hooks.get(name, ())))
        )  # fmt: skip
    return rows


async def _switch(call: Call) -> Switched:
    name, asked = call.path["name"], call.body
    village = call.village
    choice = village.choice()
    if asked.enabled:
        # It is looked at in a process of its own, which takes a while.
        records = await asyncio.to_thread(enabling.records_of, (name,), choice, village.settings.plugins)
        with enabling.whole(village.folder):
            await village.store.write(enabling.enable, enabling.On(village.folder, records, call.caller.actor))
        return Switched(name, True)
    enabling.refuse_unknown((name,), choice.registry)
    own = {each: plugin.drain for each, plugin in village.plugins.items() if hasattr(plugin, "drain")}
    requires = {each.name: type(each).requires for each in village.plugins.values() if each.name != name}
    off = enabling.Off(
        village.folder, (name,), call.caller.actor, village.settings, requires, asked.drain, village.hooks.end_attempt,
        own,
    )  # fmt: skip
    with enabling.whole(village.folder):
        held = await village.store.write(enabling.disable, off)
    what = held[name]
    back = {"holds": len(what.holds), "accounts": len(what.accounts), "tasks": len(what.posted)} if what else {}
    return Switched(name, False, back)
