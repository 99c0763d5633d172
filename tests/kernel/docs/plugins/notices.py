"""A page that lists who lives here."""

from collections.abc import Mapping, Sequence
from typing import Any

from vivarium_kernel import Panel, Plugin, Visit, hookimpl

PAGE = "<h2>Who lives here</h2><ul>{% for name in names %}<li>{{ name }}</li>{% endfor %}</ul>"


class Notices(Plugin):
    name = "notices"

    @hookimpl
    def register_panels(self) -> Sequence[Panel]:
        return [Panel(name="notices", title="Notices", template=PAGE, context=self._notices)]

    def _notices(self, visit: Visit) -> Mapping[str, Any]:
        return {"names": [row[0] for row in visit.view.read("SELECT name FROM residents ORDER BY name")]}
