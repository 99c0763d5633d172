"""Promises about plugins' own routes: they stand behind the gate, and are told whose request it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from vivarium_kernel import Plugin, hookimpl

from .scene import OPERATOR, RESIDENT, WORKER, Served, found_village, served, with_tokens


async def who(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(request.scope["state"]["caller"]))


class Door(Plugin):
    """Says who knocks."""

    name = "door"

    @hookimpl
    def register_routes(self) -> Sequence[Any]:
        return [Route("/who", who), Route("/do", who, methods=["POST"]), "nonsense"]


@pytest.fixture
def scene(tmp_path: Path, closing: ExitStack) -> Iterator[Served]:
    with served(found_village(tmp_path / "village"), plugins=(Door,), closing=closing) as found:
        yield with_tokens(found)


def test_a_plugins_route_is_told_who_asks(scene: Served) -> None:
    assert scene.get("/plugins/door/who", RESIDENT).raw == b"resident:ada"
    assert scene.post("/plugins/door/do", {}, OPERATOR).raw == b"operator:op"


@pytest.mark.promise("role-on-every-route")
def test_a_plugins_route_takes_nobody_without_a_credential_and_no_worker(scene: Served) -> None:
    scene.get("/plugins/door/who", None).problem(401, "auth.none")
    scene.get("/plugins/door/who", "wrong").problem(401, "auth.token")
    scene.get("/plugins/door/who", WORKER).problem(403, "auth.role")
    scene.token("operator", "reader", "reads", scope=("read",))
    scene.get("/plugins/door/who", "reads").problem(403, "auth.role")
    scene.ask("GET", "/plugins/door/who", headers={"Host": "evil.example"}).problem(421, "request.host")
    scene.ask("POST", "/plugins/door/do", {}, headers={"Origin": "http://evil.example"}).problem(403, "request.origin")
