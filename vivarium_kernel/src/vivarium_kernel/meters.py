"""The room of the meters: limits of requests and tokens, summed over the steps when an intent is written.

That is one transaction, so a limit holds across processes. Requests are counted by the real minute, tokens by the
village day. A call whose usage is not known yet counts with the most that it may use.
"""

from __future__ import annotations

from attrs import frozen

from vivarium_kernel.errors import RateLimited
from vivarium_kernel.store import Tx
from vivarium_kernel.terms import MICROS


@frozen
class Meter:
    """What limits a call, and the most tokens that it may use. ``None`` is no limit."""

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None
    worst_tokens: int = 0


def check(tx: Tx, resident: str, meter: Meter) -> None:
    """Raise RateLimited if one more call of this resident would pass a limit."""
    if meter.concurrency is not None:
        row = tx.row("SELECT count(*) FROM steps WHERE meter = ? AND state = 'intended'", (resident,))
        if row is not None and row[0] >= meter.concurrency:
            raise RateLimited(
                "meter.concurrency",
                f"{resident} has {row[0]} calls under way and may have {meter.concurrency}.",
                "It is tried again after a pause.",
                requested=1,
                remaining=0,
            )
    if meter.requests_per_minute is not None:
        row = tx.row(
            "SELECT count(*) FROM steps WHERE meter = ? AND meter_day >= ? AND started_at > ? AND state <> 'void'",
            (resident, tx.day - 1, tx.now - 60 * MICROS),
        )
        if row is not None and row[0] >= meter.requests_per_minute:
            raise RateLimited(
                "meter.requests",
                f"{resident} has made {row[0]} calls in the last minute and may make {meter.requests_per_minute}.",
                "It is tried again after a pause.",
                requested=1,
                remaining=0,
            )
    if meter.tokens_per_day is not None:
        row = tx.row(
            "SELECT coalesce(sum(CASE WHEN state IN ('intended', 'unknown') THEN worst_tokens "
            "ELSE tokens_in + tokens_out END), 0) FROM steps WHERE meter = ? AND meter_day = ? AND state <> 'void'",
            (resident, tx.day),
        )
        used = row[0] if row is not None else 0
        if used + meter.worst_tokens > meter.tokens_per_day:
            raise RateLimited(
                "meter.tokens",
                f"{resident} has used {used} tokens today; {meter.worst_tokens} more would pass its "
                f"{meter.tokens_per_day}.",
                "It is tried again after a pause; a new village day begins with none used.",
                requested=meter.worst_tokens,
                remaining=max(0, meter.tokens_per_day - used),
            )
