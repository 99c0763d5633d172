"""The room of what Groq's models cost. Prices move: the village's own ([models.prices]) are stronger than these."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

from vivarium_kernel import Price

_BY_TOKENS = ("input_mtok", "output_mtok", "cache_read_mtok")
# US dollars for a million tokens read, written, and read from the cache: for models that genai-prices may not know yet.
_KNOWN = {
    "openai/gpt-oss-120b": ("0.15", "0.60", None),
    "openai/gpt-oss-20b": ("0.075", "0.30", None),
}


def price_of(model: str) -> Price | None:
    """What a model costs, by ``genai-prices`` as it is installed, else by the table above; None is unknown."""
    from genai_prices.data import providers  # costs half a second, and not every village asks

    found = next((each for each in providers if each.id == "groq"), None)
    info = None if found is None else found.find_model(model)
    if info is not None:
        rates = info.get_prices(datetime.now(UTC))
        told = {name for name, rate in vars(rates).items() if rate is not None and not name.startswith("_")}
        if told.difference(_BY_TOKENS):
            return None  # it costs by something else too, such as by the request: a cap would not hold
        read, written = _most(rates.input_mtok), _most(rates.output_mtok)
        if read is not None and written is not None:
            return _price(read, written, _most(rates.cache_read_mtok))
    if model not in _KNOWN:
        return None
    read_text, written_text, cached_text = _KNOWN[model]
    return _price(Decimal(read_text), Decimal(written_text), None if cached_text is None else Decimal(cached_text))


def _most(rate: Any) -> Decimal | None:
    """A price; where it depends on the length of the prompt, the highest of them: a cap must hold."""
    if rate is None or isinstance(rate, Decimal):
        return rate
    return max([rate.base, *(tier.price for tier in rate.tiers)], default=None)


def _price(read: Decimal, written: Decimal, cached: Decimal | None) -> Price:
    return Price(_micros(read), _micros(written), None if cached is None else _micros(cached))


def _micros(usd: Decimal) -> int:
    return int((usd * 1_000_000).to_integral_value(ROUND_CEILING))
