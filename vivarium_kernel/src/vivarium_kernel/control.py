"""The room of the switches: pause, halt, pace and the number of residents, kept in the store for every process."""

from __future__ import annotations

import math

from attrs import frozen

from vivarium_kernel import village_time
from vivarium_kernel.audit import emit
from vivarium_kernel.errors import Invalid
from vivarium_kernel.processes import fold_time
from vivarium_kernel.store import Tx
from vivarium_kernel.terms import Actor

MOST_RESIDENTS = 10_000  # whom one process can drive: each is a task of its loop and a seat at every look at the board


@frozen
class Switch:
    """Pause or halt, on or off, by whom and why. Pausing lets running acts finish, halting ends them."""

    what: str
    on: bool
    actor: Actor | str
    reason: str = ""


def switch(tx: Tx, asked: Switch) -> bool:
    """Set a switch; False when it stood so already."""
    if asked.what not in ("paused", "halted"):
        raise Invalid("control.switch", f"There is no switch {asked.what!r}.", "Use 'paused' or 'halted'.")
    if getattr(tx.times, asked.what) == asked.on:
        return False
    fold_time(tx)
    tx.run(f"UPDATE village SET {asked.what} = ?", (int(asked.on),))
    if asked.what == "halted":
        tx.run("UPDATE village SET halt_reason = ?", (asked.reason if asked.on else "",))
    tx.times = village_time.read_times(tx)
    kind = {"paused": ("village.resumed", "village.paused"), "halted": ("village.unhalted", "village.halted")}
    emit(tx, kind[asked.what][asked.on], asked.actor, reason=asked.reason)
    return True


def set_pace(tx: Tx, asked: tuple[float, Actor | str]) -> None:
    """Set the seconds between two looks at an empty board, which the village hour's length follows."""
    seconds, actor = asked
    if not math.isfinite(seconds) or not 0 <= seconds <= 300:
        raise Invalid(
            "control.pace", f"The pace is from 0 to 300 seconds, not {seconds:g}.",
            "Choose one in between: 2 looks often, 300 seldom; `vivarium pause` stops looking altogether.",
            field="seconds",
        )  # fmt: skip
    fold_time(tx)
    tx.run("UPDATE village SET pace_seconds = ?", (seconds,))
    tx.times = village_time.read_times(tx)
    emit(tx, "village.pace", actor, seconds=seconds)


def set_residents(tx: Tx, asked: tuple[int, Actor | str]) -> None:
    """Set how many residents the village's main process keeps at work."""
    count, actor = asked
    if not 0 <= count <= MOST_RESIDENTS:
        raise Invalid(
            "control.residents", f"The number of residents is from 0 to {MOST_RESIDENTS:,}, not {count:,}.",
            "Choose fewer; for more work at a time use further villages.", field="count",
        )  # fmt: skip
    tx.run("UPDATE village SET residents = ?", (count,))
    emit(tx, "village.residents", actor, count=count)
