"""Answers at /plugins/door/knock, and knows who knocks."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from vivarium_kernel import Plugin, hookimpl


class Door(Plugin):
    name = "door"

    @hookimpl
    def register_routes(self) -> Sequence[Any]:
        return [Route("/knock", self._knock)]

    async def _knock(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"Come in, {request.scope['state']['caller']}.")
