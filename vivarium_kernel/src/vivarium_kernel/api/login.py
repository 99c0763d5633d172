"""The room of the browser's door: a one-time link becomes a session in a cookie that scripts can't read.

Opening the link only asks: previews and scanners that follow links use nothing up. Confirming it does.
"""

from __future__ import annotations

import functools
from typing import Any

import jinja2
from attrs import frozen
from starlette.requests import Request
from starlette.responses import Response

from vivarium_kernel import people
from vivarium_kernel.api.auth import SESSION_SECONDS, cookie_name, need_origin
from vivarium_kernel.api.operations import FORM, HTML, Call, Operation
from vivarium_kernel.api.panels_files import base
from vivarium_kernel.api.shapes import Login, Nothing
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.people import NewToken
from vivarium_kernel.terms import Actor, Role
from vivarium_kernel.village import Village

LINK_SECONDS = 600.0
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def operations() -> list[Operation]:
    """The routes of this room."""
    return [
        Operation("GET /login", "Show the page that a login link leads to.", _ask, query=Login, gives=HTML),
        Operation("POST /login", "Begin a browser's session.", _begin, body=Login, takes=FORM, gives=HTML),
        Operation("POST /logout", "End the session or token that this request came with.", _end, reply=Nothing),
    ]


@frozen
class Link:
    """A one-time login link, and the token to be made for it."""

    url: str
    token: NewToken


def link_for(village: Village, url: str, name: str, role: Role = "operator") -> Link:
    """A login link for a person at ``url``; make its token with ``people.make_token`` in a transaction."""
    secret = village.clock.secret()
    token = NewToken(role, name, secret, f"{role}:{name}", "login", note="login link", seconds=LINK_SECONDS)
    return Link(f"{url}/login?token={secret}", token)


async def login_link(village: Village, url: str, name: str, role: Role = "operator") -> str:
    """Make a login link; it works once, for ten minutes."""
    link = link_for(village, url, name, role)
    await village.store.write(people.make_token, link.token)
    return link.url


async def _ask(call: Call) -> Response:
    return _page(call, "ask", token=call.query.token)


async def _begin(call: Call) -> Response:
    need_origin(call.request)
    secret = call.village.clock.secret()
    try:
        actor: Actor = await call.village.store.write(people.use_login, (call.body.token, secret))
    except VivariumError as error:
        if "text/html" not in call.request.headers.get("accept", ""):
            raise
        return _page(call, "refused", error.status, problem=error)
    answer = _page(call, "done", actor=actor)
    _set_cookie(answer, call.request, secret, SESSION_SECONDS)
    return answer


async def _end(call: Call) -> Response:
    actor = call.caller.actor
    if actor.token is not None:
        await call.village.store.write(people.revoke_token, (actor.token, actor))
    answer = Response(b"{}", media_type="application/json")
    _set_cookie(answer, call.request, "", 0)
    return answer


def _set_cookie(answer: Response, request: Request, secret: str, seconds: int) -> None:
    answer.set_cookie(
        cookie_name(request),
        secret,
        max_age=seconds,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("vivarium_kernel.api"), autoescape=True, undefined=jinja2.StrictUndefined
    )


def _page(call: Call, state: str, status: int = 200, **more: Any) -> Response:
    words = {"state": state, "village": call.village.settings.name, "base": base(), **more}
    html = _templates().get_template("login.html").render(words)
    return Response(html, status, {"Content-Security-Policy": _POLICY}, HTML)
