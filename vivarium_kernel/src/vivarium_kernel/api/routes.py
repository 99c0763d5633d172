"""The room of the list of routes: every room's routes, each with its row in the role table."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from vivarium_kernel import actions
from vivarium_kernel.api import (
    costs_routes,
    explain_routes,
    login,
    now,
    panels_files,
    panels_shell,
    people_routes,
    planning,
    plugin_routes,
    tasks,
    village_routes,
    wire,
)  # fmt: skip
from vivarium_kernel.api.openapi import document
from vivarium_kernel.api.operations import JSON, Call, Operation
from vivarium_kernel.api.roles import ROLES


def operations() -> list[Operation]:
    """Every route, in the order of the role table."""
    rooms = (
        *(village_routes, tasks, now, planning, people_routes, costs_routes, plugin_routes, explain_routes),
        *(login, panels_shell, panels_files, wire),
    )
    found = {op.route: op for room in rooms for op in room.operations()}
    found["GET /openapi.json"] = Operation("GET /openapi.json", "Read this page.", _page)
    if found.keys() != ROLES.keys():
        raise RuntimeError(f"routes and role table differ: {sorted(found.keys() ^ ROLES.keys())}")
    return [found[route] for route in ROLES]


async def _page(call: Call) -> Response:
    found, _ = actions.actions_of(call.village)
    return Response(msgspec.json.encode(document(operations(), found.values())), media_type=JSON)
