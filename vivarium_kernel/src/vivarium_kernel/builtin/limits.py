"""The room of the limits that the settings name: what each resident may use, until a plugin says it better."""

from __future__ import annotations

from attrs import asdict

from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Entitlement, Resident


class Limits(Plugin):
    """Entitles residents by the table ``[limits]``: by their own line, and where that is silent by the default."""

    name = "limits"

    @hookimpl
    def entitle(self, resident: Resident) -> Entitlement | None:
        table = self.village.settings.limits
        said = [asdict(table[name]) for name in ("default", resident.name) if name in table]
        if not said:
            return None
        both = {key: value for each in said for key, value in each.items() if value is not None}
        return Entitlement(**both)
