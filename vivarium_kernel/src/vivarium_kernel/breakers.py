"""The room of the breakers: which hooks of which plugins are switched off, why, and switching them on again.

A breaker is one row for the whole village: the process that trips it writes the row, every other follows it, and so
does whoever opens the village later. The row goes when a probe passes or a person says so
(``vivarium plugins retry``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from vivarium_kernel.audit import emit
from vivarium_kernel.store import Tx, View
from vivarium_kernel.terms import LOADING, Actor

if TYPE_CHECKING:
    from vivarium_kernel.health import Health


@frozen
class Breaker:
    """A plugin that is off on a hook. ``probed``: a run tries now and then whether it works again by itself.

    ``process`` is the number of the process that tripped it, ``at`` when that was.
    """

    plugin: str
    hook: str
    cause: str
    probed: bool
    process: int | None
    at: int

    @property
    def next_step(self) -> str:
        """How it is switched on again."""
        return f"vivarium plugins retry {self.plugin}"


@frozen
class Tripped:
    """An implementation that a process has switched off."""

    plugin: str
    hook: str
    cause: str
    probed: bool
    process: int | None


@frozen
class Closing:
    """Which breakers are to be closed: one plugin's or all, on one hook or all. ``cause`` says why."""

    plugin: str | None = None
    hook: str | None = None
    actor: Actor | str = "system:kernel"
    cause: str = "switched on"


def breakers(source: Tx | View, plugin: str | None = None, hook: str | None = None) -> list[Breaker]:
    """What is switched off now, by plugin and hook: the one view of it, whichever process it happened in."""
    rows = source.rows(
        "SELECT plugin, hook, cause, probed, process, at FROM breakers WHERE (?1 IS NULL OR plugin = ?1) "
        "AND (?2 IS NULL OR hook = ?2) ORDER BY plugin, hook",
        (plugin, hook),
    )
    return [Breaker(name, on, cause, bool(probed), process, at) for name, on, cause, probed, process, at in rows]


def trip(tx: Tx, tripped: Tripped) -> bool:
    """Note what is switched off, with its event. False if it was known."""
    new = tx.run(
        "INSERT INTO breakers (plugin, hook, cause, probed, process, at) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (plugin, hook) DO NOTHING",
        (tripped.plugin, tripped.hook, tripped.cause[:500], tripped.probed, tripped.process, tx.now),
    )
    if new:
        emit(tx, "plugin.off", "system:kernel", plugin=tripped.plugin, hook=tripped.hook, cause=tripped.cause[:500])
    return bool(new)


@frozen
class LeftOut:
    """The plugins that a process leaves out whole, each with its cause."""

    causes: Mapping[str, str]
    process: int


def note_left_out(tx: Tx, asked: LeftOut) -> None:
    """Note which plugins are left out now, for those who only look; others that were are so no more."""
    for each in breakers(tx, hook=LOADING):
        if each.cause != asked.causes.get(each.plugin, "")[:500]:
            close(tx, Closing(each.plugin, LOADING, cause="taken up, or left out for another reason"))
    for plugin, cause in asked.causes.items():
        trip(tx, Tripped(plugin, LOADING, cause, False, asked.process))


def close(tx: Tx, asked: Closing) -> list[Breaker]:
    """Switch on again what is off, each with its event; every process follows. Returns what was off."""
    found = breakers(tx, asked.plugin, asked.hook)
    for each in found:
        tx.run("DELETE FROM breakers WHERE plugin = ? AND hook = ?", (each.plugin, each.hook))
        emit(tx, "plugin.on", asked.actor, plugin=each.plugin, hook=each.hook, cause=asked.cause[:500])
    return found


def follow(view: View, health: Health) -> bool:
    """Switch this process's implementations as the store has them. Whether one was switched on.

    What this process itself has switched off and not yet written stays off. What another process leaves out whole is
    not followed: this one tries to load it, too.
    """
    found = {(each.plugin, each.hook): each for each in breakers(view) if each.hook != LOADING}
    for key in found.keys() - health.kept:
        if health.cause(*key) is None:
            health.off(*key, found[key].cause, probed=found[key].probed, tell=False)
    closed = health.kept - found.keys()
    for key in closed:
        health.on(*key, tell=False)
    health.kept = set(found)
    return bool(closed)
