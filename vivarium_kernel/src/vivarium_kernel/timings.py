"""The room of the timings: what each plugin's calls cost on each hook, by process, and what share of a cycle that is.

A process adds what its call records have grown by every few seconds and at its end, so that the figures outlive it.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from vivarium_kernel.store import Tx, View, json_list
from vivarium_kernel.terms import MICROS

KEPT_PROCESSES = 16
# Hooks that run before a cycle's claim: their time is no part of what lies between claim and settle.
BEFORE_CLAIM = ("propose_activity", "entitle", "claim_filter", "claim_score")


@frozen
class Timing:
    """The calls of one plugin on one hook. ``slow`` are those that held their thread for over 50 ms at one go.

    A :class:`Profile` also has their mean, and what ``share`` of its cycles' time they took if any cycle has ended.
    """

    plugin: str
    hook: str
    calls: int
    errors: int
    slow: int
    seconds: float
    slowest_seconds: float
    last_error: str = ""
    mean_seconds: float = 0.0
    share: float | None = None


@frozen
class Growth:
    """What one process's figures have grown by since it last said so."""

    process: int
    timings: Sequence[Timing]


@frozen
class Profile:
    """Timings of some processes, the costliest first, and the cycles that they were a part of.

    ``cycle_seconds`` is what those cycles took together, from looking at the board to their end.
    """

    processes: tuple[int, ...]
    cycles: int
    cycle_seconds: float
    timings: tuple[Timing, ...]


def add(tx: Tx, growth: Growth) -> None:
    """Add what a process has grown by."""
    for each in growth.timings:
        tx.run(
            "INSERT INTO timings (process, plugin, hook, calls, errors, slow, micros, slowest_micros, last_error) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (process, plugin, hook) DO UPDATE SET "
            "calls = calls + excluded.calls, errors = errors + excluded.errors, slow = slow + excluded.slow, "
            "micros = micros + excluded.micros, slowest_micros = max(slowest_micros, excluded.slowest_micros), "
            "last_error = excluded.last_error",
            (growth.process, each.plugin, each.hook, each.calls, each.errors, each.slow, round(each.seconds * MICROS),
             round(each.slowest_seconds * MICROS), each.last_error),
        )  # fmt: skip


def forget_old(tx: Tx, _: None = None) -> None:
    """Let go of the figures of processes of long ago."""
    tx.run(
        "DELETE FROM timings WHERE process NOT IN (SELECT DISTINCT process FROM timings ORDER BY process DESC LIMIT ?)",
        (KEPT_PROCESSES,),
    )


def profile(view: View, *, everything: bool = False) -> Profile:
    """The figures of the processes that live now; if none lives, of the last one that did; or of all that are kept."""
    kept: list[int] = [row[0] for row in view.rows("SELECT DISTINCT process FROM timings ORDER BY process")]
    living = {
        row[0]
        for row in view.rows("SELECT id FROM processes WHERE ended_at IS NULL AND lease_until_at >= ?", (view.now,))
    }
    processes = kept if everything else [number for number in kept if number in living] or kept[-1:]
    rows = view.rows(
        "SELECT plugin, hook, sum(calls), sum(errors), sum(slow), sum(micros), max(slowest_micros), max(last_error) "
        "FROM timings WHERE process IN (SELECT value FROM json_each(?)) GROUP BY plugin, hook "
        "ORDER BY sum(micros) DESC, plugin, hook",
        (json_list(processes),),
    )
    found = tuple(
        Timing(
            plugin,
            hook,
            calls,
            errors,
            slow,
            micros / MICROS,
            slowest / MICROS,
            error,
            micros / MICROS / calls if calls else 0.0,
        )
        for plugin, hook, calls, errors, slow, micros, slowest, error in rows
    )
    cycles, micros = view.rows(
        "SELECT count(*), coalesce(sum(ended_at - started_at), 0) FROM attempts WHERE ended_at IS NOT NULL "
        "AND process IN (SELECT value FROM json_each(?))",
        (json_list(processes),),
    )[0]
    before = sum(each.seconds for each in found if each.hook in BEFORE_CLAIM)
    whole = micros / MICROS + before if cycles else 0.0
    shares = tuple(evolve(each, share=each.seconds / whole) if whole else each for each in found)
    return Profile(tuple(processes), cycles, whole, shares)
