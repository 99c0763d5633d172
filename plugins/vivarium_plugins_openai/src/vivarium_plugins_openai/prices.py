"""The room of the prices: what a model costs by the tables of genai-prices, which are imported when first asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from vivarium_kernel import Price

FREE = Price(0, 0)
# What a call costs that sends text and its own tools. Unasked, a token may be put into a cache, which some sell dearer
# than reading it.
READ, WRITTEN, CACHED = ("input_mtok", "cache_write_mtok"), "output_mtok", "cache_read_mtok"
# These cost where they are asked for, which no call is by itself: other media, the server's tools, a longer cache.
ASKED = ("audio", "image", "video", "document", "storage_searches", "web_searches", "cache_write_1h")
SEARCHING = ("perplexity",)  # their models search unasked


def price_of(source: str, model: str) -> Price | None:
    """The price of a model by ``source``, ``free`` or a provider's id at genai-prices; None where it is not known.

    A model that costs by something else too, such as by the request, has no price here: a cap would not hold.
    """
    if source == "free":
        return FREE
    if not source:
        return None
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, found = get_snapshot().find_provider_model(model, None, source, None)
    except LookupError:
        return None
    rates = vars(found.get_prices(datetime.now(UTC))).items()
    prices = {name: each for name, each in rates if each is not None and not name.startswith("_")}
    if READ[0] not in prices or WRITTEN not in prices or any(_is_unasked(source, name) for name in prices):
        return None
    into = max(_micros(prices[name]) for name in READ if name in prices)
    return Price(into, _micros(prices[WRITTEN]), _micros(prices[CACHED]) if CACHED in prices else None)


def _is_unasked(source: str, name: str) -> bool:
    """Whether a price is one that a call may have to pay, and that a :class:`Price` can't hold."""
    if name in (*READ, WRITTEN, CACHED):
        return False
    return source in SEARCHING or not any(each in name for each in ASKED)


def _micros(price: Any) -> int:
    """Millionths of a dollar for a million tokens. Of a price in tiers the dearest: a cap must hold in each."""
    tiers = [price.base, *(tier.price for tier in price.tiers)] if hasattr(price, "tiers") else [price]
    return max(int(-(-each * 1_000_000 // 1)) for each in tiers)
