"""The room of panels in a test: a page as a visitor would see it, or the error as the author has to see it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from vivarium_kernel.api.panels import Visit, text_of
from vivarium_kernel.api.panels_hosting import panels_of
from vivarium_kernel.api.panels_words import compiled
from vivarium_kernel.errors import NotFound
from vivarium_kernel.problems import near
from vivarium_kernel.terms import Actor
from vivarium_kernel.village import Village
from vivarium_kernel.village_time import read_times

OPERATOR = Actor("operator", "operator:test")


def draw_panel(village: Village, name: str, *, by: Actor = OPERATOR, query: Mapping[str, str] | None = None) -> str:
    """A plugin's panel as HTML, for this visitor and what stands behind the ``?`` of the address.

    Whatever its function or template raises is raised here, where the page would show a card that names the plugin.
    """
    found, _ = panels_of(village, set())
    if name not in found:
        close = near(name, found)
        cure = f"Did you mean {close}?" if close else f"There are: {', '.join(found) or 'none'}."
        raise NotFound("testing.panel", f"No enabled plugin has a panel {name!r}.", cure)
    panel = found[name]
    with village.store.view() as view:
        words = {
            "village": village.settings.name,
            "actor": by,
            "may": lambda route: True,
            "now": view.now,
            "times": read_times(view),
            "quoted": lambda text: quote(text, safe=""),
        }
        visit = Visit(view.plugin(panel.plugin), by, query or {})
        given = panel.context(visit)
        return compiled(text_of(panel.template)).render({**words, **given, "visit": visit, "panel": panel})
