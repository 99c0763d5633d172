"""A village with panels of its own and of plugins, good and bad, and a browser's session to look at them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

from attrs import field, frozen
from kernel.api.scene import Reply, Served
from vivarium_kernel.api.login import login_link
from vivarium_kernel.records import NewTask
from vivarium_kernel.terms import Role

from vivarium_kernel import Action, Actor, Panel, Plugin, Visit, hookimpl

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}\u202egnp.exe"
BOARD = """
{% import "parts.html" as ui with context %}
<section class="card" aria-labelledby="sky"><h2 id="sky">Sky</h2>
<div id="sky-now" data-live>
<p>{{ sky }} over {{ count }} tasks, said {{ visit.actor.name }}, asked {{ visit.query.get("day", "-") }}</p>
</div>
{{ ui.act("sky.rain", "Let it rain", {"drops": 3}, done="It rains.") }}</section>
"""


@frozen
class Rain:
    """How much."""

    drops: int = 1


def rain(tx: Any, actor: Actor, asked: Rain) -> int:
    tx.emit("rained", drops=asked.drops)
    return asked.drops


class Sky(Plugin):
    """A plugin with a panel as they should be, and one for operators alone."""

    name = "sky"

    @hookimpl
    def register_panels(self) -> Sequence[Panel]:
        return [
            Panel(name="sky", title="Sky & <weather>", template=BOARD, context=self.show, order=50,
                  script="document.documentElement.dataset.sky = 'read';", style=".sky { color: inherit; }"),
            Panel(name="sky.keys", title="Keys", template="<p>for operators</p>", roles=("operator",)),
        ]  # fmt: skip

    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        return [Action(name="sky.rain", doc="Let it rain.", Input=Rain, roles=("operator", "human"), run=rain)]

    def show(self, visit: Visit) -> Mapping[str, Any]:
        count = visit.view.read("SELECT count(*) FROM tasks")[0][0]
        return {"sky": HOSTILE, "count": count}


class Storm(Plugin):
    """A plugin whose panels do everything that a panel must not."""

    name = "storm"

    @hookimpl
    def register_panels(self) -> Sequence[Any]:
        return [
            Panel(name="storm", title="Raises", template="x", context=raises),
            Panel(name="storm.exits", title="Exits", template="x", context=exits),
            Panel(name="storm.cancels", title="Cancels", template="x", context=cancels),
            Panel(name="storm.sleeps", title="Sleeps", template="x", context=sleeps),
            Panel(name="storm.deep", title="Deep", template="x", context=deep),
            Panel(name="storm.wrong", title="Wrong", template="x", context=lambda visit: 5),  # type: ignore[arg-type,return-value]
            Panel(name="storm.later", title="Later", template="x", context=later),  # type: ignore[arg-type]
            Panel(name="storm.thief", title="Thief", template="x", context=steals),
            Panel(name="storm.writer", title="Writer", template="x", context=writes),
            Panel(name="storm.unknown", title="Unknown", template="{{ nobody_said_this }}"),
            Panel(name="storm.syntax", title="Syntax", template="line one\n{% if %}"),
            "not a panel",
            Panel(name="status", title="In the kernel's name", template="x"),
        ]


FAULTS: Mapping[str, str] = {
    "storm": "ZeroDivisionError",
    "storm.exits": "SystemExit",
    "storm.cancels": "CancelledError",
    "storm.deep": "RecursionError",
    "storm.wrong": "its context answered int",
    "storm.later": "its context answered coroutine",
    "storm.thief": "DatabaseError",
    "storm.writer": "Error",
    "storm.unknown": "nobody_said_this",
    "storm.syntax": "TemplateSyntaxError",
}


def raises(visit: Visit) -> Mapping[str, Any]:
    return {"x": 1 // 0}


def exits(visit: Visit) -> Mapping[str, Any]:
    raise SystemExit(3)


def cancels(visit: Visit) -> Mapping[str, Any]:
    import asyncio

    raise asyncio.CancelledError


def sleeps(visit: Visit) -> Mapping[str, Any]:
    time.sleep(3)
    return {}


def deep(visit: Visit) -> Mapping[str, Any]:
    return deep(visit)


async def later(visit: Visit) -> Mapping[str, Any]:
    return {}


def steals(visit: Visit) -> Mapping[str, Any]:
    return {"x": visit.view.read("SELECT * FROM tokens")}


def writes(visit: Visit) -> Mapping[str, Any]:
    return {"x": visit.view.read("DELETE FROM tasks")}


def session(scene: Served, role: Role = "operator") -> dict[str, str]:
    """The headers of a browser that has signed in."""
    link = scene.do(login_link(scene.village, f"http://127.0.0.1:{scene.port}", "ann", role))
    own = f"http://127.0.0.1:{scene.port}"
    sent = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html", "Origin": own}
    answer = scene.ask("POST", "/login", urlencode({"token": link.partition("token=")[2]}).encode(), None, sent)
    assert answer.status == 200, answer.raw
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0], "Origin": own, "Accept": "text/html"}


def look(scene: Served, path: str, headers: Mapping[str, str]) -> Reply:
    """A page as a browser with a session asks for it."""
    return scene.ask("GET", path, token=None, headers=headers)


def hostile_tasks(scene: Served) -> None:
    """Tasks whose every text is out to harm the reader's page."""
    scene.add(
        NewTask(id="evil/<b>?&#", title=HOSTILE, prompt=HOSTILE, labels=(HOSTILE,)),
        NewTask(id="shell", title="", command=("echo", HOSTILE, "</pre></main>")),
        NewTask(id="plain", title="A plain task", prompt="Say hello.", needs=("shell",)),
    )


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, its text, and whether it is well formed."""

    VOID = frozenset(("meta", "link", "input", "img", "br", "option"))

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag]


@frozen
class Loaded:
    """What a page makes a browser load, and where it leads."""

    page: Page
    addresses: list[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        found = [
            value
            for _, attributes in self.page.tags
            for name, value in attributes.items()
            if name in ("href", "src", "action", "srcset", "poster", "data", "formaction", "background") and value
        ]
        object.__setattr__(self, "addresses", found)
