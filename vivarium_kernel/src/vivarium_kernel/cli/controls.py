"""The room of the switches on the command line: pace, number of residents, pause and halt."""

from __future__ import annotations

from pathlib import Path

import click

from vivarium_kernel.cli.opening import acting, as_option, folder_of, looking, switching, village_option

_reason = click.option("--reason", default="", help="Why; it is kept in the log.")


@click.command()
@click.argument("seconds", type=float, required=False)
@village_option
@as_option
def pace(seconds: float | None, village: Path | None, token: str | None) -> None:
    """Set how many seconds pass between two looks at an empty board.

    From 0 to 300. The village's hours become longer or shorter with it; a running village takes it at once. Without
    SECONDS the present pace is shown.
    """
    from vivarium_kernel import control, village_time

    if seconds is not None:
        with acting(village, token, "POST /control/pace") as (opened, actor):
            opened.store.call(control.set_pace, (seconds, actor))
    with looking(folder_of(village)) as view:
        times = village_time.read_times(view)
    hour = village_time.hour_length_seconds(times.hour_seconds, times.pace_seconds)
    click.echo(f"The pace is {times.pace_seconds:g} s; a village hour lasts {hour:g} s")


@click.command()
@click.argument("count", type=int, metavar="[N]", required=False)
@village_option
@as_option
def residents(count: int | None, village: Path | None, token: str | None) -> None:
    """Set how many residents are at work.

    A village that is running takes it at once; new residents are made where there are too few. Without N the present
    number is shown.
    """
    from vivarium_kernel import control, village_time

    if count is None:
        with looking(folder_of(village)) as view:
            asked = village_time.read_times(view).residents
        click.echo("All that are active are to be at work" if asked is None else _asked(asked))
        return
    with acting(village, token, "POST /control/residents") as (opened, actor):
        opened.store.call(control.set_residents, (count, actor))
    click.echo(_asked(count))


def _asked(count: int) -> str:
    return f"{count:,} {'resident is' if count == 1 else 'residents are'} to be at work"


def _switch(word: str, reason: str, village: Path | None, token: str | None, said: str, already: str) -> None:
    from vivarium_kernel import control

    what, on = {
        "pause": ("paused", True), "resume": ("paused", False), "halt": ("halted", True), "unhalt": ("halted", False)
    }[word]  # fmt: skip
    with switching(village, token, f"POST /control/{word}") as (store, actor):
        changed = store.call(control.switch, control.Switch(what, on, actor, reason))
    click.echo(said if changed else already)


@click.command()
@_reason
@village_option
@as_option
def pause(reason: str, village: Path | None, token: str | None) -> None:
    """Let running tasks finish and start no more."""
    said = "The village is paused: what runs is finished, nothing new begins. `vivarium resume` ends it."
    _switch("pause", reason, village, token, said, "It was paused already.")


@click.command()
@_reason
@village_option
@as_option
def resume(reason: str, village: Path | None, token: str | None) -> None:
    """End a pause."""
    _switch("resume", reason, village, token, "The pause is over.", "It was not paused.")


@click.command()
@_reason
@village_option
@as_option
def halt(reason: str, village: Path | None, token: str | None) -> None:
    """End everything that runs, at once.

    Running commands are killed within a second and their tasks put back; one that must not run twice goes to review.
    A halt outlives restarts: nothing runs until `vivarium unhalt`.
    """
    said = "The village is halted: what ran is ended, nothing runs until `vivarium unhalt`."
    _switch("halt", reason, village, token, said, "It was halted already.")


@click.command()
@_reason
@village_option
@as_option
def unhalt(reason: str, village: Path | None, token: str | None) -> None:
    """End a halt."""
    _switch("unhalt", reason, village, token, "The halt is over.", "It was not halted.")
