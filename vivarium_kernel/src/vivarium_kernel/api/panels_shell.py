"""The room of the panel shell: the page at ``/``, its navigation, the panels in it, and the files that it is made of.

Pages load nothing but what this server gives (see ``POLICY``), and hold no script and no style of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from attrs import frozen
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from vivarium_kernel.api import panels_status, panels_tasks, problem
from vivarium_kernel.api.auth import Caller
from vivarium_kernel.api.operations import FILE, HTML, Api, Call, Operation
from vivarium_kernel.api.panels import Panel, PanelRole, Source
from vivarium_kernel.api.panels_asking import may
from vivarium_kernel.api.panels_files import MEDIA, base
from vivarium_kernel.api.panels_hosting import Card, Hosting, panels_of
from vivarium_kernel.api.panels_words import environment
from vivarium_kernel.errors import NotFound, StoreError, VivariumError
from vivarium_kernel.terms import Actor
from vivarium_kernel.village_time import read_times

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def operations() -> list[Operation]:
    """The routes of this room."""
    return [
        Operation("GET /", "Show the first panel.", _home, query=dict, gives=HTML, refused=refused),
        Operation("GET /panels/{panel}", "Show a panel.", _panel, query=dict, gives=HTML, refused=refused),
        Operation("GET /panels/{panel}/{file}", "Read a panel's script.js or style.css.", _panel_file, gives=FILE),
    ]


@frozen
class Own:
    """A panel of the kernel: what it shows is asked of the API, as the person who looks at it."""

    name: str
    title: str
    order: int
    context: Callable[[Call], Awaitable[Mapping[str, Any]]]
    script: Source | None = None
    style: Source | None = None
    roles: tuple[PanelRole, ...] = ("operator", "human")


def own_panels() -> dict[str, Own]:
    """The kernel's panels."""
    found = (
        Own("status", "Status", 0, panels_status.status),
        Own("tasks", "Tasks", 10, panels_tasks.tasks),
        Own("events", "Events", 20, panels_tasks.events),
        Own("plugins", "Plugins", 30, panels_status.plugins),
    )
    return {panel.name: panel for panel in found}


def _found(call: Call) -> tuple[dict[str, Own | Panel], list[str]]:
    """Every panel that the caller may see, in the order of the navigation; and what is wrong with others."""
    own = own_panels()
    theirs, refused = panels_of(call.village, set(own))
    both: list[Own | Panel] = [*own.values(), *theirs.values()]
    both.sort(key=lambda panel: (panel.order, panel.title, panel.name))
    return {panel.name: panel for panel in both if call.caller.kind in panel.roles}, refused


async def _home(call: Call) -> Response:
    found, faults = _found(call)
    return await _show(call, next(iter(found.values())), found, faults)


async def _panel(call: Call) -> Response:
    found, faults = _found(call)
    return await _show(call, _named(call, found), found, faults)


def _named(call: Call, found: Mapping[str, Own | Panel]) -> Own | Panel:
    name = call.path["panel"]
    if name not in found:
        raise NotFound(
            "panel.unknown",
            f"There is no panel {name!r} for you.",
            "It is there while its plugin is on: see the panel Plugins.",
        )
    return found[name]


async def _show(call: Call, panel: Own | Panel, found: Mapping[str, Own | Panel], faults: list[str]) -> Response:
    words = _words(call.api, call.caller.actor, call.caller)
    words |= {"panels": found.values(), "current": panel, "faults": faults}
    if isinstance(panel, Own):
        template = environment().get_template(f"{panel.name}.html")
        return _page(template.render(words | dict(await panel.context(call))))
    hosting: Hosting = call.request.app.state.hosting
    drawn = await hosting.draw(panel, call.caller.actor, call.query, words)
    page = environment().get_template("hosted.html").render(words, body=Markup(drawn.html), card=drawn.card)  # noqa: S704
    return _page(page, 200 if drawn.card is None else 500)


def _words(api: Api, actor: Actor | None, caller: Caller | None) -> dict[str, Any]:
    """What every template may say."""
    village = api.village
    with village.store.view() as view:
        now, times = view.now, read_times(view)
    return {
        "village": village.settings.name,
        "version": version("vivarium-kernel"),
        "base": base(),
        "actor": actor,
        "may": (lambda route: False) if caller is None else functools.partial(may, caller),
        "now": now,
        "times": times,
        "quoted": functools.partial(quote, safe=""),
    }


def _page(html: str, status: int = 200) -> Response:
    headers = {"Content-Security-Policy": POLICY, "Cross-Origin-Opener-Policy": "same-origin"}
    return Response(html, status, headers, HTML)


def refused(api: Api, request: Request, error: Exception) -> Response:
    """A refusal as a page, for whoever reads it in a browser; programs get the problem page."""
    plain = problem.answer(error)
    if "text/html" not in request.headers.get("accept", "") or isinstance(error, StoreError):
        return plain
    if not isinstance(error, VivariumError):
        error = VivariumError("kernel.fault", "The village met a fault of its own.", "The server's log has it.")
    page = environment().get_template("refused.html").render(_words(api, None, None), error=error)
    answer = _page(page, plain.status_code)
    for name in ("www-authenticate", "retry-after"):
        if name in plain.headers:
            answer.headers[name] = plain.headers[name]
    return answer


async def _panel_file(call: Call) -> Response:
    found, _ = _found(call)
    panel = _named(call, found)
    word, _, kind = call.path["file"].partition(".")
    has = {("script", "js"): panel.script, ("style", "css"): panel.style}.get((word, kind))
    if has is None or isinstance(panel, Own):
        raise NotFound("panel.file", f"The panel {panel.name} has no file {call.path['file']!r:.80}.")
    hosting: Hosting = call.request.app.state.hosting
    text = await hosting.text(panel, word)
    if isinstance(text, Card):
        raise VivariumError("panel.failed", f"{word} of panel {panel.name}: {text.what}", text.next_step)
    return Response(text, 200, {"Cache-Control": "no-cache"}, MEDIA[kind])
