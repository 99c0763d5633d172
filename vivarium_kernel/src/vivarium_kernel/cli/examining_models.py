"""The room of the doctor's look at the models: whether those that are named can be had here, without calling one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vivarium_kernel.checks import CLASSES
from vivarium_kernel.cli.examining import Finding, Patient
from vivarium_kernel.cli.showing import several
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.models import PUBLISHED

if TYPE_CHECKING:
    from vivarium_kernel.settings import Settings
    from vivarium_kernel.store import View
    from vivarium_kernel.village import Village

MOST_NAMES = 50


def models(patient: Patient) -> Iterator[Finding]:
    """Each model that the settings, a resident or a task names: is its provider here, and does it know the name?"""
    view = patient.view
    if view is None or patient.locked:
        return
    village, well = patient.village, True
    for model, who in _named(view, village.settings).items():
        wrong = _wrong(village, model)
        if wrong is not None:
            well = False
            yield Finding("problem", f"{who} names {model}: {wrong[0]}", wrong[1])
    waiting = (view.row("SELECT count(*) FROM tasks WHERE state = 'parked' AND parked_for = 'key'") or (0,))[0]
    if waiting:
        wait = "waits" if waiting == 1 else "wait"
        mend = "vivarium key status, then vivarium key set PROVIDER"
        yield Finding("problem", f"{several(waiting, 'task')} {wait} for a key", mend)
    elif well:
        yield Finding("good", f"the village's own is {village.settings.model}")


def _named(view: View, settings: Settings) -> dict[str, str]:
    """Models by their names, each with who names it first."""
    asked = [(settings.model, "the setting model")]
    asked += [(getattr(settings.models, name), f"the setting models.{name}") for name in CLASSES]
    asked += [
        (model, f"resident {name}")
        for name, model in view.rows("SELECT name, model FROM residents WHERE model IS NOT NULL AND state = 'active'")
    ]
    asked += [
        (model, f"task {name}")
        for name, model in view.rows(
            "SELECT id, json_extract(spec, '$.model') FROM tasks WHERE state IN ('open', 'waiting', 'parked') "
            "AND mode = 'llm' AND json_extract(spec, '$.model') IS NOT NULL ORDER BY seq LIMIT 1000"
        )
    ]
    found: dict[str, str] = {}
    for names, who in asked:
        for model in map(str.strip, names.split(",")):
            if ":" in model and len(found) < MOST_NAMES:
                found.setdefault(model, who)
    return found


def _wrong(village: Village, model: str) -> tuple[str, str] | None:
    """What keeps a model from being called, and the next step; None if nothing does that can be seen from here."""
    provider, _, name = model.partition(":")
    why = village.why_absent(provider)
    if why:
        install = f"; vivarium plugins install vivarium-plugins-{provider}" if provider in PUBLISHED else ""
        return why, f"vivarium plugins list{install}"
    try:
        village.provider(provider).price(name)
    except VivariumError as error:
        return error.message, error.next_step or "vivarium models list"
    return None
