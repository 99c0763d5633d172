"""The room of the residents' desk: asking people, telling them how work goes, giving a task back, resting.

All of it is free. What residents tell is kept for people: the panel and ``vivarium do desk.told`` show it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from attrs import frozen

from vivarium_kernel.actions import Action, Meta
from vivarium_kernel.errors import Conflict, Invalid
from vivarium_kernel.grants import PluginTx, PluginView
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.terms import MICROS, Actor

if TYPE_CHECKING:
    from vivarium_kernel.api.panels import Panel, Visit

UNANSWERED = "Nobody answered in time: go on without an answer."
LONGEST_WAIT_MINUTES = 60 * 24 * 366
LONGEST = 2_000  # characters of what a resident says
A_PAGE = 100
PER_MINUTE = 20
Kind = Literal["report", "flag"]


@frozen
class Ask:
    question: str
    minutes: int = 0


@frozen
class Report:
    text: str


@frozen
class Flag:
    text: str


@frozen
class Decline:
    reason: str


@frozen
class Rest:
    pass


@frozen
class Told:
    """What residents told, newest first; ``before`` is a number of it."""

    kind: Kind | None = None
    before: Annotated[int, Meta(ge=1)] | None = None


class Desk(Plugin):
    """What a resident at work may always do, and never has to pay for."""

    name = "desk"
    migrations = "vivarium_kernel.builtin.desk_tables:migrations"

    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        free: dict[str, Any] = {"rate_per_minute": PER_MINUTE}
        return [
            Action(name="desk.ask", doc="Ask a person and wait, at most so many minutes.", Input=Ask, run=_ask, **free),
            Action(name="desk.report", doc="Report progress.", Input=Report, run=_report, **free),
            Action(name="desk.decline", doc="Give the task back for good.", Input=Decline, run=_decline, **free),
            # Another resident who takes the task up has not rested: it begins afresh, so this is no once.
            Action(name="desk.rest", doc="Give the task back and rest an hour.", Input=Rest, effect="idempotent",
                   run=_rest, **free),
            Action(name="desk.flag", doc="Tell people a concern.", Input=Flag, run=_flag, **free),
            Action(name="desk.told", doc="List what residents reported and flagged, newest first.", Input=Told,
                   roles=("operator", "human"), effect="pure", run=_told),
        ]  # fmt: skip

    @hookimpl
    def register_panels(self) -> Sequence[Panel]:
        from vivarium_kernel import Panel  # only a server has pages

        return [
            Panel(name="desk", title="Desk", template=Path(__file__).with_name("desk.html"), context=_page, order=40)
        ]


def _page(visit: Visit) -> Mapping[str, Any]:
    kinds: tuple[Kind, ...] = ("flag", "report")
    return {"told": [entry for kind in kinds for entry in _entries(visit.view, Told(kind))]}


def _ask(tx: PluginTx, actor: Actor, asked: Ask) -> dict[str, Any]:
    """Park the attempt. A person's answer is written into what is returned here, and the next attempt reads it."""
    attempt, task = _at_work(tx, actor)
    question = _said(asked.question, "question")
    if not 0 <= asked.minutes <= LONGEST_WAIT_MINUTES:
        raise Invalid("desk.minutes", f"minutes is from 0 (no end) to {LONGEST_WAIT_MINUTES:,}.", field="minutes")
    tx.emit("asked", resident=actor.name, task=task, attempt=attempt, characters=len(question))
    wake_at = tx.now + asked.minutes * 60 * MICROS if asked.minutes else None
    tx.park(attempt, "answer", question, wake_at)
    return {"question": question, "answer": None, "note": UNANSWERED}


def _report(tx: PluginTx, actor: Actor, asked: Report) -> dict[str, Any]:
    return _tell(tx, actor, "report", "reported", asked.text)


def _flag(tx: PluginTx, actor: Actor, asked: Flag) -> dict[str, Any]:
    return _tell(tx, actor, "flag", "flagged", asked.text)


def _tell(tx: PluginTx, actor: Actor, kind: Kind, event: str, text: str) -> dict[str, Any]:
    """Keep what was said for people. The event names it and is silent about it: residents may read events."""
    attempt, task = _at_work(tx, actor)
    said = _said(text, "text")
    ((number,),) = tx.execute(
        "INSERT INTO desk_told (kind, resident, task, attempt, text, at) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
        (kind, actor.name, task, attempt, said, tx.now),
    )
    tx.emit(event, resident=actor.name, task=task, attempt=attempt, number=number, characters=len(said))
    return {"number": number}


def _decline(tx: PluginTx, actor: Actor, asked: Decline) -> dict[str, Any]:
    attempt, task = _at_work(tx, actor)
    reason = _said(asked.reason, "reason")
    tx.emit("declined", resident=actor.name, task=task, attempt=attempt, characters=len(reason))
    tx.give_up(attempt, reason, declined=True)
    return {"declined": task}


def _rest(tx: PluginTx, actor: Actor, _: Rest) -> dict[str, Any]:
    attempt, _task = _at_work(tx, actor)
    until = tx.rest(1)
    tx.give_up(attempt, f"{actor.name} rests until village hour {until}")
    return {"rested_until_hour": until}


def _told(tx: PluginTx, actor: Actor, asked: Told) -> list[dict[str, Any]]:
    return _entries(tx, asked)


def _entries(source: PluginTx | PluginView, asked: Told) -> list[dict[str, Any]]:
    names = ("number", "kind", "resident", "task", "attempt", "text", "at")
    rows = source.read(
        "SELECT id, kind, resident, task, attempt, text, at FROM desk_told "
        "WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3",
        (asked.kind, asked.before, A_PAGE),
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def _at_work(tx: PluginTx, actor: Actor) -> tuple[int, str]:
    """The attempt that the resident is at, and its task."""
    rows = tx.read("SELECT task FROM attempts WHERE id = ? AND state = 'running'", (actor.attempt,))
    if actor.attempt is None or not rows:
        raise Conflict("desk.attempt", "This is for a resident at a task.", "Use it within a running attempt.")
    return actor.attempt, rows[0][0]


def _said(text: str, name: str) -> str:
    said = text.strip()
    if not said:
        raise Invalid("desk.text", f"{name} is empty.", "Say something.", field=name)
    if len(said) > LONGEST:
        raise Invalid("desk.text", f"{name} has {len(said):,} characters, more than {LONGEST:,}.", "Shorten it.",
                      field=name)  # fmt: skip
    return said
