"""The room of ``vivarium doctor``: what is wrong with a village, and the command that mends it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from attrs import asdict, evolve

from vivarium_kernel.cli.examining import CHECKS, RESTORE, Finding, Patient
from vivarium_kernel.cli.examining_models import models
from vivarium_kernel.cli.opening import folder_of, json_option, village_option
from vivarium_kernel.cli.showing import print_json, safe, several
from vivarium_kernel.committing import told
from vivarium_kernel.errors import StoreCorrupt, StoreError, VivariumError
from vivarium_kernel.problems import InputError
from vivarium_kernel.settings import SettingsError

_MARKS = {
    "good": ("ok  ", "green"),
    "notice": ("note", "yellow"),
    "problem": ("BAD ", "red"),
    "unknown": ("?   ", "yellow"),
}


@click.command()
@village_option
@json_option
def doctor(village: Path | None, as_json: bool) -> int:
    """Find out what is wrong, and how to mend it.

    Changes nothing. Exit status 1 if there is a problem.
    """
    folder = folder_of(village)
    found: list[Finding] = []
    for finding in examined(folder):
        found.append(finding)
        if not as_json:
            _print(finding)
    problems = [finding for finding in found if finding.state in ("problem", "unknown")]
    if as_json:
        print_json({"folder": str(folder), "sound": not problems, "findings": [asdict(finding) for finding in found]})
    else:
        click.echo(f"\n{several(len(problems), 'problem')}" if problems else "\nNothing is wrong.")
    return 1 if problems else 0


def examined(folder: Path) -> Iterator[Finding]:
    """Every finding of every check, in an order in which the causes come before what follows from them."""
    patient = Patient(folder)
    try:
        for name, check in {**CHECKS, "models": models}.items():
            yield from _one(name, check, patient)
    finally:
        patient.close()


def _one(name: str, check: Callable[[Patient], Iterator[Finding]], patient: Patient) -> Iterator[Finding]:
    """A check that can't be made is a finding, too: a doctor who says nothing must not look like good news."""
    try:
        found = [evolve(finding, check=name) for finding in check(patient)]
    except InputError as error:
        if isinstance(error, SettingsError) and name != "settings":
            found = [Finding("notice", "not examined before the settings are right", check=name)]
        else:
            found = [
                Finding("problem", str(evolve(problem, next_step="")), problem.next_step, name)
                for problem in error.problems
            ]
    except StoreError as error:
        found = [Finding("problem", error.message, _mend(error), name)]
    except VivariumError as error:
        found = [Finding("unknown", error.message, error.next_step, name)]
    except sqlite3.DatabaseError as error:
        worded = told(error, patient.database)
        mend = _mend(worded) if isinstance(worded, VivariumError) else ""
        found = [Finding("problem", worded.message if isinstance(worded, VivariumError) else str(error), mend, name)]
    except Exception as error:
        found = [Finding("unknown", f"could not be examined: {type(error).__name__}: {error}", "", name)]
    yield from found


def _mend(error: VivariumError) -> str:
    """What mends it. A damaged database's own advice is this command, which has been given already."""
    return RESTORE if isinstance(error, StoreCorrupt) else error.next_step


def _print(finding: Finding) -> None:
    mark, colour = _MARKS[finding.state]
    click.echo(f"{click.style(mark, fg=colour)}  {finding.check.ljust(12)} {safe(finding.what)}")
    if finding.mend:
        click.echo(f"{'':19}→ {safe(finding.mend)}")
