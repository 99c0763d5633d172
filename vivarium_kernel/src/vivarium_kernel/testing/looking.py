"""The room of looking: what a test asserts about a village's events, ledger and prompts, with messages that say why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from attrs import frozen

from vivarium_kernel import audit, ledger
from vivarium_kernel.problems import near
from vivarium_kernel.records import Event, Transfer
from vivarium_kernel.testing.soundness import problems
from vivarium_kernel.village import Village

_MANY = 1_000_000


@frozen
class PromptSection:
    """One section of the prompt of an attempt, as the record keeps it: ``text`` of private ones is not kept."""

    plugin: str
    slot: str
    tokens: int
    text: str | None
    private: bool = False
    dropped: bool = False


def events(village: Village, kind: str = "*", **fields: Any) -> list[Event]:
    """The events of a kind, oldest first; ``kind`` may hold ``*``. ``fields`` are resident, task, attempt, actor and
    whatever else the event's data holds."""
    with village.store.view() as view:
        found = audit.tail(view, 0, _MANY)
    return [event for event in found if fnmatchcase(event.kind, kind) and _fits(event, fields)]


def assert_event(village: Village, kind: str, *, times: int | None = None, **fields: Any) -> Event:
    """There is such an event, ``times`` of them if that is given; returns the last."""
    found = events(village, kind, **fields)
    if not found or (times is not None and len(found) != times):
        wanted = "an event" if times is None else f"{times} events"
        raise AssertionError(f"{wanted} {_asked(kind, fields)}: there are {len(found)}; {_instead(village, kind)}")
    return found[-1]


def assert_no_event(village: Village, kind: str, **fields: Any) -> None:
    """There is no such event."""
    found = events(village, kind, **fields)
    if found:
        raise AssertionError(f"no event {_asked(kind, fields)}: there are {len(found)}, the last: {_told(found[-1])}")


def transfers(village: Village, account: str | None = None) -> list[Transfer]:
    """The transfers of an account or of all, oldest first."""
    with village.store.view() as view:
        return ledger.history(view, account, _MANY)[::-1]


def balance(village: Village, account: str, currency: str = "aid") -> int:
    """An account's balance in millionths."""
    with village.store.view() as view:
        return ledger.balance(view, account, currency)


def assert_transfer(village: Village, *, times: int = 1, **fields: Any) -> Transfer | None:
    """There are exactly ``times`` transfers with these fields (payer, payee, micros, reason, ref, source, currency …);
    returns the last."""
    every = transfers(village)
    found = [each for each in every if all(getattr(each, name) == value for name, value in fields.items())]
    if len(found) != times:
        told = "\n".join(
            f"  {each.payer} → {each.payee}: {each.micros} {each.currency} ({each.reason})" for each in every
        )
        raise AssertionError(
            f"{times} transfers {_words(fields)}: there are {len(found)} of\n{told or '  none at all'}"
        )
    return found[-1] if found else None


def missed(village: Village, plugin: str | None = None) -> list[tuple[str, str, str]]:
    """The parts of endings that failed and are still to be run: (plugin, task, error)."""
    return [
        (row[0], row[1], row[2])
        for row in rows(village, "SELECT plugin, task, error FROM missed ORDER BY id")
        if plugin in (None, row[0])
    ]


def rows(village: Village, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """What a SELECT finds in the village's database."""
    with village.store.view() as view:
        return view.rows(sql, params)


def prompt(village: Village, task: str) -> list[PromptSection]:
    """The prompt of the task's last attempt that called a model, section by section."""
    found = rows(village, "SELECT prompt FROM attempts WHERE task = ? AND prompt IS NOT NULL ORDER BY id DESC", (task,))
    if not found:
        raise AssertionError(f"no attempt at task {task!r} called a model")
    return [
        PromptSection(
            each["plugin"], each["slot"], each["tokens"], each.get("text"), each.get("private", False),
            each.get("dropped", False),
        )
        for each in json.loads(found[0][0])
    ]  # fmt: skip


def assert_section(
    village: Village, task: str, *, plugin: str | None = None, slot: str | None = None, containing: str = ""
) -> PromptSection:
    """The prompt of the task's last attempt had such a section, which was not dropped; returns the first."""
    every = prompt(village, task)
    for section in every:
        fits = plugin in (None, section.plugin) and slot in (None, section.slot) and not section.dropped
        if fits and containing in (section.text or ""):
            return section
    told = "\n".join(f"  {each.plugin}/{each.slot}: {each.text!r}{_marks(each)}" for each in every)
    asked = {"plugin": plugin, "slot": slot, "containing": containing or None}
    raise AssertionError(
        f"a section {_words({k: v for k, v in asked.items() if v is not None})}: the prompt is\n{told}"
    )


def assert_sound(village: Village) -> None:
    """Nothing is wrong with the village: its books agree, its log is whole, nothing runs, is reserved or paid twice."""
    found = list(problems(village.store))
    if found:
        raise AssertionError("\n".join(found))


def _marks(section: PromptSection) -> str:
    return (" (private)" if section.private else "") + (" (dropped)" if section.dropped else "")


def _fits(event: Event, fields: dict[str, Any]) -> bool:
    for name, value in fields.items():
        if name in ("resident", "task", "attempt", "actor", "day", "hour", "model", "cycle"):
            if getattr(event, name) != value:
                return False
        elif not isinstance(event.data, dict) or name not in event.data or event.data[name] != value:
            return False
    return True


def _instead(village: Village, kind: str) -> str:
    every = events(village)
    same = [event for event in every if fnmatchcase(event.kind, kind)]
    if same:
        return "of this kind there are\n" + "\n".join(f"  {_told(event)}" for event in same[-10:])
    kinds = sorted({event.kind for event in every})
    meant = near(kind, kinds)
    return f"did you mean {meant}?" if meant else f"the kinds are {', '.join(kinds)}"


def _told(event: Event) -> str:
    known = {name: getattr(event, name) for name in ("resident", "task", "attempt") if getattr(event, name) is not None}
    return f"{event.kind} by {event.actor} {_words(known)} {json.dumps(event.data)}"


def _asked(kind: str, fields: dict[str, Any]) -> str:
    return f"{kind} {_words(fields)}".strip()


def _words(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={value!r}" for name, value in fields.items())
