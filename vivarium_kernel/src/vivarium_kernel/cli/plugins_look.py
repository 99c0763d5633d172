"""The room of ``vivarium plugins profile``, ``bisect`` and ``retry``: what plugins cost, which breaks, a new try."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.cli.choosing import installed_on, surroundings
from vivarium_kernel.cli.named import named_table
from vivarium_kernel.cli.opening import acting, as_option, folder_of, json_option, looking, village_option
from vivarium_kernel.cli.showing import print_json, safe, several, shortened
from vivarium_kernel.errors import Invalid, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vivarium_kernel.breakers import Breaker
    from vivarium_kernel.cli.bisecting import Found, Ran
    from vivarium_kernel.records import Ending, Task
    from vivarium_kernel.store import Tx
    from vivarium_kernel.village import Village


@click.command()
@click.option("--all", "everything", is_flag=True, help="Of all processes that are kept, not only those that live.")
@village_option
@json_option
def profile(everything: bool, village: Path | None, as_json: bool) -> None:
    """Show what each plugin's hooks cost.

    Of the processes that live now (as of some seconds ago), or else of the last that did. The share is of the time
    that cycles took, from looking at the board to their end; waiting for a model counts.
    """
    from attrs import asdict

    from vivarium_kernel import timings

    with looking(folder_of(village)) as view:
        found = timings.profile(view, everything=everything)
    if as_json:
        print_json(asdict(found))
        return
    if not found.timings:
        click.echo("Nothing is known yet: `vivarium run` or `vivarium up` measures while residents work.")
        return
    click.echo(
        f"{several(len(found.processes), 'process', 'processes')}, {several(found.cycles, 'cycle')}"
        + (f" of {found.cycle_seconds / found.cycles * 1000:,.1f} ms" if found.cycles else "")
    )
    named_table(
        ("plugin", "hook", ">calls", ">errors", ">total s", ">mean ms", ">slowest ms", ">over 50 ms", ">share"),
        (
            (
                each.plugin, each.hook, f"{each.calls:,}", each.errors or "", f"{each.seconds:.3f}",
                f"{each.mean_seconds * 1000:.3f}", f"{each.slowest_seconds * 1000:.1f}", each.slow or "",
                _percent(each.share),
            )
            for each in found.timings
        ),
    )  # fmt: skip


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option("--match", metavar="TEXT", help="Only a run whose output has this text counts as broken.")
@click.option(
    "--timeout", type=click.FloatRange(min=0.0, min_open=True), metavar="S", help="A run that takes longer is broken."
)
@village_option
@json_option
def bisect(
    command: tuple[str, ...], match: str | None, timeout: float | None, village: Path | None, as_json: bool
) -> int:
    """Find the plugin that breaks a command.

    COMMAND runs again and again with some of the installed plugins on, those that they require with them. It breaks
    when its exit status is not 0. What it changes, it changes each time: use a copy of a village that matters. The
    kernel's own plugins stay on. Exit status 1 where no plugin is to blame.
    """
    from vivarium_kernel.cli import bisecting
    from vivarium_kernel.inspecting import look

    _, settings, choice = surroundings(village)
    names = list(installed_on(choice))
    if not as_json:
        click.echo(f"{several(len(names), 'plugin')}: {safe(', '.join(names)) or 'none'}", err=True)
    looked = look(names, settings.plugins if settings is not None else {})
    requires = {name: what.requires for name, what in looked.items()}
    count = 0

    def say(ran: Ran) -> None:
        nonlocal count
        count += 1
        how = "ended, it took too long" if ran.status is None else f"exit status {ran.status}"
        which = "all of them" if len(ran.plugins) == len(names) else ", ".join(sorted(ran.plugins)) or "none"
        word = "breaks" if ran.broke else "works"
        click.echo(f"run {count}: {word} ({how}, {ran.seconds:.1f} s) with {shortened(which, 120)}", err=True)

    try:
        found = bisecting.find(names, requires, bisecting.runner(command, Path.cwd(), timeout, match, say))
    except OSError as error:
        raise Invalid(
            "plugins.bisect", f"{command[0]} can't be run: {error.strerror}.",
            "Write the command as in a shell, after --: vivarium plugins bisect -- vivarium doctor.", field="COMMAND",
        ) from error  # fmt: skip
    if as_json:
        print_json(_document(found))
    else:
        _print_found(found)
    return 0 if found.culprits else 1


def _document(found: Found) -> dict[str, Any]:
    return {
        "culprits": [list(each) for each in found.culprits],
        "beside": {name: list(others) for name, others in found.beside.items()},
        "breaks_with_all": found.everything.broke,
        "breaks_with_none": found.without is not None and found.without.broke,
        "runs": found.runs,
        "said": found.everything.last,
    }


def _print_found(found: Found) -> None:
    if not found.everything.broke:
        click.echo("The command works with all plugins on: there is nothing to find.")
        return
    if not found.culprits:
        click.echo("The command breaks with no plugin on, too: none of them is to blame.")
    for culprits in found.culprits:
        named = " and ".join(safe(name) for name in culprits)
        with_them = sorted({other for name in culprits for other in found.beside.get(name, ())})
        beside = f" (with {safe(', '.join(with_them))}, which it requires)" if with_them else ""
        if len(culprits) == 1:
            click.echo(f"{click.style(named, bold=True)} breaks it{beside}")
            click.echo(f"  → vivarium plugins disable {named}")
        else:
            click.echo(f"{click.style(named, bold=True)} break it together, none of them alone{beside}")
            click.echo(f"  → vivarium plugins disable {safe(culprits[0])}, or another of them")
    said = (found.without if found.without is not None and found.without.broke else found.everything).last
    if said:
        click.echo("The command's last words:")
        click.echo("\n".join(f"  │ {line}" for line in safe(said, lines=True).splitlines()))


@click.command()
@click.argument("name", required=False, metavar="[NAME]")
@village_option
@as_option
@json_option
def retry(name: str | None, village: Path | None, token: str | None, as_json: bool) -> int:
    """Try a plugin again that was switched off, and make up for what it missed.

    For when it was mended. NAME is a plugin; by default every one with something to retry. Its hooks are switched on
    in every process, and its parts of endings that failed are run once each. Exit status 1 if something failed again.
    """
    from vivarium_kernel import breakers, enabling

    with acting(village, token, "POST /missed", plugins=True) as (opened, actor):
        with opened.store.view() as view:
            missed: dict[int, str] = dict(
                view.rows("SELECT id, plugin FROM missed WHERE ?1 IS NULL OR plugin = ?1 ORDER BY id", (name,))
            )
            living: int = view.rows(
                "SELECT count(*) FROM processes WHERE ended_at IS NULL AND lease_until_at >= ?", (view.now,)
            )[0][0]
            known = {*opened.plugins, *(each.plugin for each in breakers.breakers(view)), *missed.values()}
        if name is not None and name not in known | {failed.name for failed in opened.failed}:
            raise enabling.unknown(name, known)
        closing = breakers.Closing(name, actor=actor, cause="retried")
        closed: list[Breaker] = opened.store.call(breakers.close, closing)
        for each in closed:
            opened.health.on(each.plugin, each.hook, tell=False)
        done, failed = _make_up(opened, missed)
    if as_json:
        print_json(
            {
                "switched_on": [{"plugin": each.plugin, "hook": each.hook, "cause": each.cause} for each in closed],
                "made_up": done,
                "failed": [
                    {"number": number, "plugin": missed[number], "error": why} for number, why in failed.items()
                ],
                "processes": living,
            }
        )
    else:
        _print_retried(closed, done, failed, missed, living)
    return 1 if failed else 0


def _make_up(opened: Village, missed: Mapping[int, str]) -> tuple[list[int], dict[int, str]]:
    """Run missed parts, once each; returns which are done, and why the others failed again."""
    from vivarium_kernel import settling

    hooks = opened.hooks

    def again(plugin: str, task: Task, ending: Ending, tx: Tx) -> BaseException | None:
        call = hooks.end_attempt_of(plugin, task, ending, tx)
        return NotFound("missed.plugin", f"{plugin} is off or has no such part.") if call is None else call.error

    done = [
        number for number in missed if opened.store.call(lambda tx, item: settling.run_missed(tx, item, again), number)
    ]
    with opened.store.view() as view:
        left = {number: error for number, error in view.rows("SELECT id, error FROM missed") if number in missed}
    return done, left  # what is in neither was made up for by somebody else meanwhile


def _print_retried(
    closed: Sequence[Breaker], done: Sequence[int], failed: Mapping[int, str], missed: Mapping[int, str], living: int
) -> None:
    if not closed and not missed:
        click.echo("Nothing is switched off, and nothing is missed.")
        return
    for each in closed:
        click.echo(f"{safe(each.plugin)} is on again on {each.hook}; it was off: {safe(each.cause)}")
    if closed and living:
        click.echo(
            f"{several(living, 'process', 'processes')} at work will follow within a second. Each has the code that it "
            "began with: if that was mended, end it and begin again."
        )
    if missed:
        again = f"; {len(failed)} failed again (vivarium missed list)" if failed else ""
        click.echo(f"{several(len(done), 'part')} made up for{again}")
    for number, why in list(failed.items())[:5]:
        click.echo(f"  {number} of {safe(missed[number])}: {shortened(why, 160)}", err=True)
