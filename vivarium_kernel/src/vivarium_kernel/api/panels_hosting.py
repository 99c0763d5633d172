"""The room of the plugins' panels: which there are, and how one is drawn without harm from what it does wrong.

A panel's function and template run in a thread that belongs to its plugin, under a time limit. Whatever they raise, or
that they do not come back, becomes a card on the page which names the plugin, and a fault in the plugin's figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import threading
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import jinja2
from attrs import frozen

from vivarium_kernel.api.panels import Panel, Visit, text_of
from vivarium_kernel.api.panels_words import compiled
from vivarium_kernel.health import describe, where
from vivarium_kernel.plugins import switch_off
from vivarium_kernel.terms import Actor

if TYPE_CHECKING:
    from vivarium_kernel.village import Village

HOOK = "register_panels"  # under which a panel's figures are kept
LIMIT_SECONDS = 5.0
STUCK = 3  # threads of one plugin that may be waited for in vain before no more are begun
_Done = tuple[str, BaseException | None]


@frozen
class Card:
    """What stands in place of a panel that failed."""

    plugin: str
    panel: str
    what: str
    where: str
    next_step: str


@frozen
class Drawn:
    """A panel as it is shown: its HTML, or the card of its failure."""

    html: str
    card: Card | None = None


class PanelFault(Exception):
    """A panel does what it must not."""


def panels_of(village: Village, taken: set[str]) -> tuple[dict[str, Panel], list[str]]:
    """The panels of the enabled plugins by name, and what is wrong with those that are left out.

    ``taken`` are names of the kernel's own.
    """
    found: dict[str, Panel] = {}
    refused = []
    for plugin, panel in village.hooks.register_panels():
        if not isinstance(panel, Panel):
            refused.append(f"{plugin} registers a {type(panel).__name__}, which is no Panel")
        elif panel.plugin != plugin:
            refused.append(f"{plugin} registers the panel {panel.name!r}: its name must be {plugin} or begin with it")
        elif panel.name in found or panel.name in taken:
            whose = "the kernel has one" if panel.name in taken else "it has one"
            refused.append(f"{plugin} registers the panel {panel.name!r}, and {whose} of that name")
        else:
            found[panel.name] = panel
    return found, refused


class Hosting:
    """Draws the plugins' panels of one village, each plugin's in a thread of its own, until ``closing`` is set."""

    def __init__(self, village: Village, closing: asyncio.Event, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._village = village
        self._closing = closing
        self._limit = limit_seconds
        self._benches: dict[str, _Bench] = {}
        self._end: asyncio.Task[None] | None = None

    async def draw(self, panel: Panel, actor: Actor, query: Mapping[str, str], words: Mapping[str, Any]) -> Drawn:
        """One panel as HTML; never raises for what the plugin does."""

        def work() -> str:
            with self._village.store.view() as view:
                visit = Visit(view.plugin(panel.plugin), actor, query)
                given = panel.context(visit)
                if not isinstance(given, Mapping):
                    if inspect.iscoroutine(given):
                        given.close()
                    raise PanelFault(f"its context answered {type(given).__name__}, not the template's names (a dict)")
                return compiled(text_of(panel.template)).render({**words, **given, "visit": visit, "panel": panel})

        return await self._contained(panel, work)

    async def text(self, panel: Panel, word: str) -> str | Card:
        """A panel's script or style."""
        source = panel.script if word == "script" else panel.style
        drawn = await self._contained(panel, lambda: text_of(source or ""))
        return drawn.card or drawn.html

    async def _dismiss(self) -> None:
        """Let the threads go when the server closes: each holds a connection to the database."""
        await self._closing.wait()
        for bench in self._benches.values():
            bench.leave()

    async def _contained(self, panel: Panel, work: Callable[[], str]) -> Drawn:
        self._end = self._end or asyncio.create_task(self._dismiss())
        bench = self._benches.setdefault(panel.plugin, _Bench(panel.plugin))
        began = perf_counter()
        html, error = await bench.run(work, self._limit)
        seconds = perf_counter() - began
        health = self._village.health
        tally = health.tally(panel.plugin, HOOK)
        tally.took(seconds)
        if error is None and not isinstance(html, str):
            error = PanelFault(f"its file holds {type(html).__name__}, not text")
        if error is None:
            return Drawn(html)
        # A reader's click is no measure of a plugin's soundness: a fault is noted, the breaker is not fed.
        place = _where(error)
        health.note(tally, seconds, f"panel {panel.name}: {describe(error)}", place)
        cure = f"Mend it, or switch the plugin off: {switch_off(panel.plugin)}."
        return Drawn("", Card(panel.plugin, panel.title, describe(error), place, cure))


def _where(error: BaseException) -> str:
    """The line that raised; a template's own line where it can't be compiled."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"line {error.lineno} of its template"
    return where(error)


class _Bench:
    """One plugin's thread. One that does not come back in time is left behind, and another takes its place."""

    def __init__(self, plugin: str) -> None:
        self._name = f"panels-{plugin}"
        self._work: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._thread: threading.Thread | None = None
        self._left: list[threading.Thread] = []

    async def run(self, work: Callable[[], str], seconds: float) -> _Done:
        """What the work answered, or what it raised."""
        self._left = [thread for thread in self._left if thread.is_alive()]
        if len(self._left) >= STUCK:
            return "", PanelFault(f"{STUCK} of its threads have not come back, and no more are begun")
        if self._work is None:
            self._work = queue.SimpleQueue()
            self._thread = threading.Thread(target=_serve, args=(self._work,), name=self._name, daemon=True)
            self._thread.start()
        begun, loop = self._work, asyncio.get_running_loop()
        future: asyncio.Future[_Done] = loop.create_future()
        begun.put(lambda: _answer(loop, future, work))
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            if self._work is begun:
                self.leave()
            return "", PanelFault(f"it did not come back within {seconds:g} s")

    def leave(self) -> None:
        """Let the thread end once it has done what it does, if it ever does."""
        if self._work is not None and self._thread is not None:
            self._work.put(None)
            self._left.append(self._thread)
            self._work = self._thread = None


def _serve(work: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (each := work.get()) is not None:
        each()


def _answer(loop: asyncio.AbstractEventLoop, future: asyncio.Future[_Done], work: Callable[[], str]) -> None:
    if future.cancelled():
        return  # nobody waits for it any more
    try:
        done: _Done = (work(), None)
    except BaseException as error:  # SystemExit and KeyboardInterrupt of a plugin too are its faults
        done = ("", error)

    def tell() -> None:
        if not future.done():
            future.set_result(done)

    with contextlib.suppress(RuntimeError):  # the server closed meanwhile
        loop.call_soon_threadsafe(tell)
