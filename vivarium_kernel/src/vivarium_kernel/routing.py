"""The room of routing: which model a task is done with, and whether it may be used. All of it is pure.

A model is named ``PROVIDER:NAME``, by its class (``small``, ``medium``, ``large``), or as ``auto``. Several names with
commas between them are a wish and what may stand in for it: nothing else ever replaces a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from attrs import frozen

from vivarium_kernel.checks import CLASSES
from vivarium_kernel.errors import Forbidden, Invalid, VivariumError
from vivarium_kernel.models import Price
from vivarium_kernel.records import Entitlement, Task
from vivarium_kernel.settings_record import Models


@frozen
class Route:
    """The model to use; ``instead_of`` is the one that was wished for first, if it could not be had, and ``why``."""

    model: str
    instead_of: str = ""
    why: str = ""


def wishes(asked: str, task: Task, settings: Models) -> list[str]:
    """The models that ``asked`` names, best first, each as ``PROVIDER:NAME``. Raises Invalid."""
    names = [name.strip() for name in asked.split(",")]
    found: list[str] = []
    for name in names:
        place = grade(task, settings) if name == "auto" else name
        model = class_model(place, settings) if place in CLASSES else place
        if ":" not in model:
            raise Invalid(
                "model.name",
                f"A model is named PROVIDER:NAME, {', '.join(CLASSES)} or auto, not {name!r}.",
                'For example "scripted:echo".',
                field="model",
            )
        if model not in found:
            found.append(model)
    return found


def grade(task: Task, settings: Models) -> str:
    """The class that ``auto`` means: small at first, one more for each attempt that failed by its own fault.

    A class that has no model is passed over upwards, or else downwards.
    """
    there = [name for name in CLASSES if getattr(settings, name)]
    if not there:
        raise Invalid(
            "model.auto",
            "No class of models is set, so there is none for auto.",
            f"Set models.{CLASSES[0]} in vivarium.toml, or name a model.",
            field="model",
        )
    wanted = min(task.failures, len(CLASSES) - 1)
    return next((name for name in CLASSES[wanted:] if name in there), there[-1])


def providers_named(model: str, settings: Models) -> set[str]:
    """The providers of the models that the settings name: the default one, and those of the classes."""
    names = [*(name.strip() for name in model.split(",")), *(getattr(settings, name) for name in CLASSES)]
    return {name.partition(":")[0] for name in names if ":" in name}


def class_model(name: str, settings: Models) -> str:
    """The model of a class; raises Invalid where none is set."""
    model: str = getattr(settings, name)
    if not model:
        raise Invalid("model.class", f"The class {name} has no model.", f"Set models.{name} in vivarium.toml.",
                      field="model")  # fmt: skip
    return model


def choose(asked: str, task: Task, entitlement: Entitlement, settings: Models) -> Route:
    """The first of the wishes that the village allows and the resident may use. Raises what refuses the first."""
    found = wishes(asked, task, settings)
    refusal: VivariumError | None = None
    for model in found:
        try:
            check(model, entitlement, settings)
        except VivariumError as error:
            refusal = refusal or error
            continue
        return Route(model) if refusal is None else Route(model, found[0], refusal.message)
    if refusal is None:
        raise Invalid("model.name", "No model is named.", 'For example "scripted:echo".', field="model")
    raise refusal


def check(model: str, entitlement: Entitlement, settings: Models) -> None:
    """Refuse a model that the village or the resident's entitlement does not allow, naming those that are."""
    if not _fits(model, settings.allow):
        raise Forbidden(
            "model.allow", f"The village does not allow {model}.", f"models.allow names: {_listed(settings.allow)}."
        )
    if entitlement.models is None:
        return
    named = [getattr(settings, name) if name in CLASSES else name for name in entitlement.models]
    if not any(name and fnmatchcase(model, name) for name in named):
        raise Forbidden(
            "model.entitlement",
            f"The resident may not use {model}.",
            f"It may use: {_listed(entitlement.models)}.",
        )


def price_of(model: str, known: Price | None, settings: Models) -> Price | None:
    """What a model costs: by the settings, else as its provider knows it."""
    set_to = settings.prices.get(model)
    if set_to is None:
        return known
    return Price(set_to.in_micros, set_to.out_micros, set_to.cached_micros, set_to.second_micros)


@lru_cache(maxsize=1024)
def _fits(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
