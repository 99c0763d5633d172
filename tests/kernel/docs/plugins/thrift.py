"""Whoever has less than 50 aiDollar uses one model, and not much of it."""

from vivarium_kernel import Entitlement, Plugin, PluginView, Resident, hookimpl


class Thrift(Plugin):
    name = "thrift"

    @hookimpl
    def entitle(self, resident: Resident, view: PluginView) -> Entitlement | None:
        if view.balance(f"resident:{resident.name}:free") >= 50_000_000:
            return None
        return Entitlement(models=("scripted:echo",), requests_per_minute=10, tokens_per_day=20_000)
