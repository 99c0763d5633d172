"""The room of the metrics: what a server's ``/metrics`` page says of its queue and its cache. All of it is pure."""

from __future__ import annotations

import re

from attrs import frozen

_LINE = re.compile(r"^(vllm:[a-z0-9_]+)(?:\{[^}\n]*\})?[ \t]+([0-9.eE+-]+)[ \t\r]*$", re.MULTILINE)


@frozen
class Metrics:
    """A server's queue, and how many prompt tokens its prefix cache was asked for and had, since it started.

    None where the page does not say: the names change from version to version.
    """

    running: int | None = None
    waiting: int | None = None
    queries: int | None = None
    hits: int | None = None

    @property
    def cached(self) -> float | None:
        """The part of prompt tokens that came from the cache; None where nothing was asked of it yet."""
        return None if not self.queries or self.hits is None else self.hits / self.queries


def read(page: str) -> Metrics:
    """The metrics of a page in Prometheus' text format; several engines of one server are added up."""
    sums: dict[str, float] = {}
    for name, value in _LINE.findall(page):
        try:
            sums[name] = sums.get(name, 0.0) + float(value)
        except ValueError:
            continue

    def count(name: str) -> int | None:
        return round(sums[name]) if name in sums else None

    return Metrics(
        count("vllm:num_requests_running"),
        count("vllm:num_requests_waiting"),
        count("vllm:prefix_cache_queries_total"),
        count("vllm:prefix_cache_hits_total"),
    )
