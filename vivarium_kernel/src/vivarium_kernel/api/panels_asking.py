"""The room of what panels ask: the API's own routes, asked within the process by whoever looks at the panel."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from vivarium_kernel.api.auth import Caller
from vivarium_kernel.api.operations import Call, Operation
from vivarium_kernel.api.roles import ROLES, scope_of


async def ask(call: Call, route: str, query: Any = None, **path: Any) -> Any:
    """What the API answers the caller; raises what it would refuse with."""
    operation: Operation = call.request.app.state.operations[route]
    if query is None and operation.query is not None:
        query = operation.query()
    return await operation.handler(evolve(call, path=path, query=query, body=None))


def may(caller: Caller, route: str) -> bool:
    """Whether the caller would be let in there: a panel shows nobody a button that would be refused."""
    scope, scopes = scope_of(route), caller.actor.scope
    return caller.kind in ROLES[route] and (scopes is None or scope == "actions" or scope in scopes)
