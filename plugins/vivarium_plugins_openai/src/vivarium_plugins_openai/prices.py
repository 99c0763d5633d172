"""The room of the prices: what a model costs by the tables of genai-prices, which are imported when first asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from vivarium_kernel import Price

FREE = Price(0, 0)


def price_of(source: str, model: str) -> Price | None:
    """The price of a model by ``source``, ``free`` or a provider's id at genai-prices; None where it is not known."""
    if source == "free":
        return FREE
    if not source:
        return None
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, found = get_snapshot().find_provider_model(model, None, source, None)
    except LookupError:
        return None
    prices = found.get_prices(datetime.now(UTC))
    into, out = _micros(prices.input_mtok), _micros(prices.output_mtok)
    if into is None or out is None:
        return None
    return Price(into, out, _micros(prices.cache_read_mtok))


def _micros(price: Any) -> int | None:
    """Millionths of a dollar for a million tokens. Of a price in tiers the dearest: a cap must hold in each."""
    if price is None:
        return None
    tiers = [price.base, *(tier.price for tier in price.tiers)] if hasattr(price, "tiers") else [price]
    return max(int(-(-each * 1_000_000 // 1)) for each in tiers)
