"""The room of what a panel is: a page of the village for its people, as a plugin declares it.

Nothing of a server is imported here, so that a plugin that has a panel costs the command line nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from attrs import frozen

from vivarium_kernel.errors import Invalid
from vivarium_kernel.terms import Actor

if TYPE_CHECKING:
    from vivarium_kernel.grants import PluginView

PanelRole = Literal["operator", "human"]
Source = str | Path | Traversable
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}(\.[a-z][a-z0-9_]{0,39})?")


@frozen
class Visit:
    """Who looks at a panel, and at what: all that a panel's function is given.

    ``view`` is one read snapshot, ``query`` what stands behind the ``?`` of the address, ``now`` microseconds of Unix
    time.
    """

    view: PluginView
    actor: Actor
    query: Mapping[str, str]

    @property
    def now(self) -> int:
        return self.view.now


def nothing(visit: Visit) -> Mapping[str, Any]:
    """The names that a template without a function of its own is given."""
    return {}


@frozen(kw_only=True, eq=False)
class Panel:
    """A page of the village: a Jinja template, and a function that gives the template its names.

    ``name`` is the plugin's own, or begins with it: ``weather`` or ``weather.map``; the page is ``/panels/NAME``.
    ``context(visit)`` is a plain function; it runs in a thread of its own, reads its view and changes nothing: what a
    panel changes, it changes by the plugin's actions. ``template``, ``script`` (an ES module) and ``style`` are text,
    or a file that holds it, such as ``Path(__file__).with_name("weather.html")``. The template may
    ``{% import "parts.html" as ui %}`` for the parts that the kernel's own panels are made of.
    """

    name: str
    title: str
    template: Source
    context: Callable[[Visit], Mapping[str, Any]] = nothing
    order: int = 100
    roles: tuple[PanelRole, ...] = ("operator", "human")
    script: Source | None = None
    style: Source | None = None

    def __attrs_post_init__(self) -> None:
        sources = [("template", self.template), ("script", self.script or ""), ("style", self.style or "")]
        faults = [
            (
                not (isinstance(self.name, str) and _NAME.fullmatch(self.name)),
                "its name is not PLUGIN or PLUGIN.WORD in small letters, digits and _",
            ),
            (not (isinstance(self.title, str) and self.title.strip()), "it has no title"),
            (not callable(self.context), "its context is not a function"),
            (not isinstance(self.order, int), "its order is not a whole number"),
            (
                not self.roles or not set(self.roles) <= set(get_args(PanelRole)),
                f"its roles are not of {', '.join(get_args(PanelRole))}",
            ),
            *(
                (not isinstance(found, (str, Path, Traversable)), f"its {what} is neither text nor a file")
                for what, found in sources
            ),
        ]
        wrong = [fault for is_wrong, fault in faults if is_wrong]
        if wrong:
            raise Invalid("panel.declaration", f"Panel {self.name!r}: {'; '.join(wrong)}.", "Mend its declaration.")

    @property
    def plugin(self) -> str:
        """The plugin that the name says it is of."""
        return self.name.partition(".")[0]


def text_of(source: Source) -> str:
    """What a template, script or style says; a file is read anew each time, so that an author sees every change."""
    return source if isinstance(source, str) else source.read_text(encoding="utf-8")
