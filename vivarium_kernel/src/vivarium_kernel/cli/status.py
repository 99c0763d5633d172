"""The room of ``vivarium status``: how a village is, at one glance and in a fraction of a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.cli.opening import folder_of, is_founded, json_option, looking, refuse_lost, village_option

if TYPE_CHECKING:
    from vivarium_kernel.store import View

SHOWN_QUESTIONS = 10


@click.command()
@village_option
@json_option
def status(village: Path | None, as_json: bool) -> None:
    """Show how the village is."""
    from vivarium_kernel.cli.showing import print_json
    from vivarium_kernel.settings import SettingsError, load

    folder = folder_of(village)
    lived = is_founded(folder)
    wrong: SettingsError | None = None
    try:
        load(folder)
    except SettingsError as error:  # what a run would refuse; how a village is can be told all the same
        wrong = error
    if lived:
        with looking(folder) as view:
            found = status_of(view, folder)
        if as_json:
            print_json(found)
        else:
            _print(found)
    elif wrong is None:
        refuse_lost(folder)
        _say_unlived(folder, as_json)
    if wrong is not None:
        raise wrong


def _say_unlived(folder: Path, as_json: bool) -> None:
    """The status of a village without a database: looking at it makes none."""
    from vivarium_kernel.cli.showing import fields, print_json

    if as_json:
        print_json({"folder": str(folder), "state": "not lived yet"})
    else:
        fields([("village", folder), ("state", "it has not lived yet: `vivarium run` or `vivarium up` begins it")])


def status_of(view: View, folder: Path) -> dict[str, Any]:
    """The figures of a status: amounts in millionths, times in microseconds of Unix time."""
    from attrs import asdict

    from vivarium_kernel import board, breakers, budgets, deciding, village_time
    from vivarium_kernel.cli import reading
    from vivarium_kernel.processes import present

    times = village_time.read_times(view)
    hour = times.hour(view.now)
    held = reading.claimed(view, 20)
    residents: dict[str, int] = dict(view.rows("SELECT state, count(*) FROM residents GROUP BY state"))
    processes = [asdict(one) for one in present(view)]
    missed = (view.row("SELECT count(*) FROM missed") or (0,))[0]
    budget = budgets.budget(view, "village")
    asking = deciding.questions(view, SHOWN_QUESTIONS)
    return {
        "folder": str(folder),
        "state": (
            "halted" if times.halted else "paused" if times.paused else "living" if _lives(processes) else "at rest"
        ),
        "halt_reason": times.halt_reason,
        "pace_seconds": times.pace_seconds,
        "day": hour // village_time.HOURS_A_DAY,
        "hour": hour % village_time.HOURS_A_DAY,
        "tasks": board.counts(view),
        "residents": residents,
        "at_work": len(held) if len(held) < 20 else _running(view),
        "claimed": [
            {"task": one.task, "resident": one.resident, "started_at": one.started_at, "number": one.number}
            for one in held
        ],
        "asking": [{"task": one.task, "question": one.text, "until_at": until} for one, until in asking],
        "processes": processes,
        "missed": missed,
        "breakers": [asdict(each) for each in breakers.breakers(view)],
        "village_usd": None if budget is None else asdict(budget),
        "events": reading.last_event(view),
        "last_event_at": times.last_event_at or None,
        "now": view.now,
    }


def _lives(processes: list[dict[str, Any]]) -> bool:
    """Whether residents can be at work in one of them."""
    return any(one["kind"] != "serve" and not one["gone"] for one in processes)


def _running(view: View) -> int:
    row = view.row("SELECT count(*) FROM attempts WHERE state = 'running'")
    return int(row[0]) if row else 0


_WORDS = {
    "halted": "halted: nothing runs until `vivarium unhalt`",
    "paused": "paused: what runs is finished, nothing new begins until `vivarium resume`",
    "living": "living",
    "at rest": "at rest: no process lets it live now; `vivarium run` or `vivarium up` does",
}


def _print(found: dict[str, Any]) -> None:
    from vivarium_kernel.cli.showing import ago, fields, several
    from vivarium_kernel.wording import lasting

    now = found["now"]
    counts = found["tasks"]
    tasks = ", ".join(f"{number:,} {state}" for state, number in counts.items() if number) or "none yet"
    states = ", ".join(f"{number:,} {state}" for state, number in found["residents"].items()) or "none yet"
    awaited = [f"{counts['review']:,} in review"] if counts["review"] else []
    at_work, at, since = f"{found['at_work']:,} at work", "working on", "for {}"
    if found["at_work"] and not _lives(found["processes"]):
        at_work, at, since = f"{at_work} when the process was killed", "was at", "begun {} ago"
    budget = found["village_usd"]
    fields(
        [
            ("village", found["folder"]),
            ("state", _WORDS[found["state"]] + (f" ({found['halt_reason']})" if found["halt_reason"] else "")),
            ("time", f"day {found['day']}, hour {found['hour']}; pace {found['pace_seconds']:g} s"),
            ("residents", f"{states}; {at_work}"),
            ("tasks", tasks),
            ("for you", "; ".join(awaited) + " (vivarium task list --state review)" if awaited else ""),
            ("asked of you", "\n".join(_asked(one, now) for one in found["asking"])),
            (
                "processes",
                "\n".join(f"{_process(one)} {_since(one, now)}" for one in found["processes"]),
            ),
            (
                at,
                "\n".join(
                    f"{one['resident']}: {one['task']}, "
                    + since.format(lasting(max(0, now - one["started_at"]) / 1_000_000))
                    for one in found["claimed"][:10]
                ),
            ),
            (
                "missed",
                f"{several(found['missed'], 'part')} of plugins (vivarium missed list)" if found["missed"] else "",
            ),
            ("plugins", "\n".join(_off(found["breakers"], now))),
            ("spent", _spent(budget) if budget else ""),
            ("events", f"{found['events']:,}; the last {ago(found['last_event_at'], now) or 'never'}"),
        ]
    )


def _asked(one: dict[str, Any], now: int) -> str:
    from vivarium_kernel.cli.showing import shortened
    from vivarium_kernel.wording import when

    until = f" (until {when(one['until_at'], now)})" if one["until_at"] else ""
    return f"{one['task']}: {shortened(one['question'], 200)}{until}\n→ vivarium task answer {one['task']} TEXT"


def _spent(budget: dict[str, Any]) -> str:
    from vivarium_kernel.cli.showing import money

    said = f"{money(budget['spent_micros'], 'usd')} of {money(budget['cap_micros'], 'usd')}"
    if budget["wanted_micros"] is None:
        return said
    wanted = money(budget["wanted_micros"], "usd")
    return f"{said}; the cap is to be {wanted}: it goes down as what is set aside comes back, till then nothing is"


def _process(one: dict[str, Any]) -> str:
    """Which process: one of another machine by its token's name, for it has no number here."""
    if one["kind"] == "remote":
        return f"remote worker {one['machine'].partition(':')[2]}"
    return f"{one['kind']} (pid {one['pid']}{', host' if one['host'] else ''})"


def _since(one: dict[str, Any], now: int) -> str:
    from vivarium_kernel.cli.showing import ago

    if one["gone"]:
        return "was killed; the next process that lives takes up what it held"
    since = ago(one["started_at"], now).removesuffix(" ago")
    at = f", at {one['address']}" if one["address"] else ""
    return f"since {since}{at}" + (
        "; it serves the API alone, no resident works in it" if one["kind"] == "serve" else ""
    )


def _off(breakers: list[dict[str, Any]], now: int) -> Iterator[str]:
    from vivarium_kernel.cli.showing import ago, shortened

    for each in breakers:
        since = ago(each["at"], now).removesuffix(" ago")
        yield f"{each['plugin']} is off on {each['hook']} for {since}: {shortened(each['cause'], 120)}"
    for plugin in dict.fromkeys(each["plugin"] for each in breakers):
        yield f"→ once it is mended: vivarium plugins retry {plugin}"
