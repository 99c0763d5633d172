"""The room of the application: the routes behind the gate, and what plugins add to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from vivarium_kernel.api import problem
from vivarium_kernel.api.auth import Allowances, Caller, caller_of
from vivarium_kernel.api.guards import Gate, Hosts
from vivarium_kernel.api.operations import NUMBERS, STREAM, Api, Operation, respond
from vivarium_kernel.api.panels_hosting import Hosting
from vivarium_kernel.api.routes import operations
from vivarium_kernel.calls import Hooks
from vivarium_kernel.errors import Forbidden, VivariumError
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village

WIRE_BYTES = 2_000_000  # what an outcome may hold beside the outputs that it carries


def api_of(village: Village, runtime: Runtime) -> Api:
    """What the routes are handed."""
    return Api(village, runtime, Allowances(village.settings.api.requests_per_minute))


def app_of(api: Api, *, host: str, hosts: Iterable[str] = ()) -> Starlette:
    """The application for one village. ``hosts`` are names beside those that the settings allow."""
    settings = api.village.settings
    outputs = WIRE_BYTES + 4 * settings.commands.output_bytes

    def body_bytes(path: str) -> int:
        return max(settings.api.body_bytes, outputs) if path.startswith("/wire/") else settings.api.body_bytes

    found = operations()
    app = Starlette(
        # Routes are tried in their order, and the wire is asked most.
        routes=[
            *(_route(api, op) for op in sorted(found, key=lambda op: not op.path.startswith("/wire/"))),
            Mount("/plugins", app=_Guests(api)),
        ],
        middleware=[
            Middleware(Gate, hosts=Hosts(host, [*settings.api.hosts, *hosts]), body_bytes=body_bytes),
        ],
        exception_handlers={HTTPException: problem.no_route},
    )
    app.router.redirect_slashes = False
    app.state.api = api
    app.state.operations = {op.route: op for op in found}  # what panels ask
    app.state.hosting = Hosting(api.village, api.closing)
    return app


def _route(api: Api, operation: Operation) -> Route:
    async def endpoint(request: Request) -> Response:
        return await respond(api, operation, request)

    path = re.sub(r"{([a-z]+)}", lambda m: f"{{{m[1]}:int}}" if m[1] in NUMBERS else m[0], operation.path)
    route = Route(path, endpoint, methods=[operation.method], name=operation.route)
    if operation.gives == STREAM:
        route.methods = {"GET"}  # Starlette adds HEAD, and a stream has no end to wait for
    return route


class _Guests:
    """ASGI: what plugins register, below ``/plugins/NAME``, for whoever has a credential; the rest is theirs to check.

    The routes are those of the plugins that are on when a request comes.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._made: tuple[Hooks, Router] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hooks = self._api.village.hooks
        if self._made is None or self._made[0] is not hooks:
            self._made = hooks, self._router(hooks)
        await self._made[1](scope, receive, send)

    def _router(self, hooks: Hooks) -> Router:
        found: dict[str, list[Any]] = {}
        for plugin, route in hooks.register_routes():
            found.setdefault(plugin, []).append(route)
        mounts = [
            Mount(f"/{plugin}", app=_Known(self._api, Starlette(routes=_sound(routes))))
            for plugin, routes in sorted(found.items())
        ]
        return Router(mounts, redirect_slashes=False)


def _sound(routes: Sequence[Any]) -> Sequence[Any]:
    return [route for route in routes if hasattr(route, "matches")]


class _Known:
    """ASGI: lets in whom a token names, and tells the plugin who it is (``scope["state"]["caller"]``)."""

    def __init__(self, api: Api, app: ASGIApp) -> None:
        self._api = api
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            caller = self._caller(HTTPConnection(scope))
        except VivariumError as error:
            if scope["type"] == "http":
                await problem.answer(error)(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": error.rule})
            return
        scope.setdefault("state", {})["caller"] = caller.actor
        await self._app(scope, receive, send)

    def _caller(self, connection: HTTPConnection) -> Caller:
        with self._api.village.store.view() as view:
            caller = caller_of(view, connection)
        self._api.allowances.spend(caller.id, self._api.village.clock.monotonic())
        scope = caller.actor.scope
        if caller.kind == "worker" or (scope is not None and "plugins" not in scope):
            raise Forbidden("auth.role", "This token may not use plugins' routes.", "Use another token.")
        if caller.by_cookie and connection.scope.get("method", "GET") != "GET" and "origin" not in connection.headers:
            raise Forbidden("request.origin", "A browser's request that changes something must say its Origin.")
        return caller
