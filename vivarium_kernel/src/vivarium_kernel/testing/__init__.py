"""The room of the test kit: what plugin authors test with. Its names are loaded when they are used.

The fixtures (``village``, ``run_cycles``, ``virtual_clock``, ``scripted_model``, ``failing``) come by themselves with
pytest; here is what tests import: the types to annotate with, and the functions that look at a village.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivarium_kernel.testing.conformance import Conformance as Conformance
    from vivarium_kernel.testing.looking import PromptSection as PromptSection
    from vivarium_kernel.testing.looking import assert_event as assert_event
    from vivarium_kernel.testing.looking import assert_no_event as assert_no_event
    from vivarium_kernel.testing.looking import assert_section as assert_section
    from vivarium_kernel.testing.looking import assert_sound as assert_sound
    from vivarium_kernel.testing.looking import assert_transfer as assert_transfer
    from vivarium_kernel.testing.looking import balance as balance
    from vivarium_kernel.testing.looking import events as events
    from vivarium_kernel.testing.looking import missed as missed
    from vivarium_kernel.testing.looking import prompt as prompt
    from vivarium_kernel.testing.looking import rows as rows
    from vivarium_kernel.testing.looking import transfers as transfers
    from vivarium_kernel.testing.panels import draw_panel as draw_panel
    from vivarium_kernel.testing.planting import Failing as Failing
    from vivarium_kernel.testing.planting import PlantedFault as PlantedFault
    from vivarium_kernel.testing.script import ScriptedModel as ScriptedModel
    from vivarium_kernel.testing.stage import RunCycles as RunCycles
    from vivarium_kernel.testing.stage import Stage as Stage
    from vivarium_kernel.testing.stage import StagedVillage as StagedVillage
    from vivarium_kernel.testing.stage import VirtualClock as VirtualClock

_HOMES = {
    "conformance": ("Conformance",),
    "looking": (
        "PromptSection", "assert_event", "assert_no_event", "assert_section", "assert_sound", "assert_transfer",
        "balance", "events", "missed", "prompt", "rows", "transfers",
    ),
    "panels": ("draw_panel",),
    "planting": ("Failing", "PlantedFault"),
    "script": ("ScriptedModel",),
    "stage": ("RunCycles", "Stage", "StagedVillage", "VirtualClock"),
}  # fmt: skip
__all__ = sorted(name for names in _HOMES.values() for name in names)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"vivarium_kernel.testing.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
