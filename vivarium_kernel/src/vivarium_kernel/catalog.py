"""The room of the catalog: which models there are now, who serves them, what they cost, and whether they may be used.

Every provider is asked at once, each for itself: one that is down, slow or broken is a row that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import evolve, frozen

from vivarium_kernel import routing
from vivarium_kernel.builtin.scripted import Scripted
from vivarium_kernel.checks import CLASSES
from vivarium_kernel.errors import Forbidden, Invalid, NotFound, VivariumError
from vivarium_kernel.installed import MODELS, claims
from vivarium_kernel.models import Catalog, ModelInfo, Price, Provider, ProviderFault, split_name
from vivarium_kernel.records import Entitlement
from vivarium_kernel.settings_record import Models

if TYPE_CHECKING:
    from vivarium_kernel.village import Village

ASK_SECONDS = 10.0
PriceFrom = Literal["settings", "provider", "unknown"]


@frozen
class Listed:
    """A model as it stands now; None is not known. Without a ``model`` the row is of the provider alone.

    ``classes`` are those that it is the model of, ``is_default`` says that who names none gets it. ``cached`` is the
    part of prompt tokens that came from the server's cache. ``problem`` says what keeps it from being served.
    """

    provider: str
    model: str = ""
    context_tokens: int | None = None
    running: int | None = None
    waiting: int | None = None
    cached: float | None = None
    classes: tuple[str, ...] = ()
    is_default: bool = False
    allowed: bool = True
    price: Price | None = None
    price_from: PriceFrom = "unknown"
    note: str = ""
    problem: str = ""


def providers() -> list[str]:
    """The names of the model providers that are installed."""
    return sorted({Scripted.name, *claims(MODELS)})


async def listing(village: Village, names: Sequence[str] = (), seconds: float = ASK_SECONDS) -> list[Listed]:
    """Every model of these providers (by default all), each provider given so many seconds to tell its own."""
    asked = await asyncio.gather(*(_of(village, name, seconds) for name in names or providers()))
    return [row for rows in asked for row in rows]


async def _of(village: Village, name: str, seconds: float) -> list[Listed]:
    named = _named(village, name)
    provider = None
    try:
        provider = village.provider(name)
        async with asyncio.timeout(seconds):
            served = await provider.models() if isinstance(provider, Catalog) else None
    except TimeoutError:
        problem = f"{name} did not say within {seconds:g} s which models it has"
    except Exception as error:  # whatever a provider does wrong, the others are listed
        problem = _words(village, name, error)
    else:
        return _rows(village, provider, served, named)
    down = [row_of(village, model, provider) for model in named] or [Listed(name)]
    return [evolve(row, problem=problem) for row in down]


def _rows(village: Village, provider: Provider, served: Iterable[ModelInfo] | None, named: list[str]) -> list[Listed]:
    if served is None:
        found = [row_of(village, model, provider) for model in named]
        return found or [Listed(provider.name, note="it does not tell which models it has")]
    there = {f"{provider.name}:{info.name}": info for info in served}
    rows = [
        evolve(
            row_of(village, model, provider), context_tokens=info.context_tokens, running=info.running,
            waiting=info.waiting, cached=info.cached, note=info.note,
        )
        for model, info in there.items()
    ]  # fmt: skip
    for model in named:
        if model not in there:
            row = row_of(village, model, provider)
            # The scripted model has names without end (wait-SECONDS); for one that it has not, it says so itself.
            lost = row.problem if isinstance(provider, Scripted) else "the settings name it, and it is not served"
            rows.append(evolve(row, problem=lost))
    return rows or [Listed(provider.name, note="it serves no model")]


def row_of(village: Village, model: str, provider: Provider | None) -> Listed:
    """What settings and provider say of one model, without asking a server."""
    settings = village.settings
    price, price_from, problem = _price(village, model, provider)
    return Listed(
        split_name(model)[0], model, classes=tuple(name for name in CLASSES if getattr(settings.models, name) == model),
        is_default=model in _models_of(settings.model, settings.models), allowed=_is_allowed(model, settings.models),
        price=price, price_from=price_from, problem=problem,
    )  # fmt: skip


def _price(village: Village, model: str, provider: Provider | None) -> tuple[Price | None, PriceFrom, str]:
    settings = village.settings.models
    if model in settings.prices:
        return routing.price_of(model, None, settings), "settings", ""
    try:
        price = None if provider is None else provider.price(split_name(model)[1])
    except Exception as error:
        return None, "unknown", _words(village, split_name(model)[0], error)
    return price, "unknown" if price is None else "provider", ""


def _named(village: Village, provider: str) -> list[str]:
    """The provider's models that the settings name, in the order in which people read them."""
    settings = village.settings
    asked = [*_models_of(settings.model, settings.models), *(getattr(settings.models, name) for name in CLASSES)]
    asked += settings.models.prices
    return [name for name in dict.fromkeys(asked) if name.partition(":")[0] == provider]


def _models_of(asked: str, settings: Models) -> list[str]:
    """The models that the village's default may stand for: itself, or that of its class."""
    found = []
    for name in (part.strip() for part in asked.split(",")):
        if ":" in name:
            found.append(name)
        elif name in CLASSES or name == "auto":
            grade = next((each for each in CLASSES if getattr(settings, each)), "") if name == "auto" else name
            found.append(getattr(settings, grade, ""))
    return [name for name in found if name]


def _is_allowed(model: str, settings: Models) -> bool:
    try:
        routing.check(model, Entitlement(), settings)
    except (Forbidden, Invalid, NotFound):
        return False
    return True


def _words(village: Village, provider: str, error: Exception) -> str:
    """What went wrong, without the provider's key, whoever may have put it there."""
    if isinstance(error, ProviderFault):
        said = error.reason  # that a task would be tried again is not the matter here
    else:
        said = str(error) if isinstance(error, VivariumError) else f"{type(error).__name__}: {error}"
    try:
        key = village.key(provider)
    except VivariumError:
        key = None  # it could not be read, so that nobody can have repeated it
    return said.replace(key, "[the key]") if key else said
