"""The room of ``vivarium plugins new`` and ``check``: what an author begins with, and what every plugin must hold."""

from __future__ import annotations

from pathlib import Path

import click

from vivarium_kernel.cli.opening import json_option
from vivarium_kernel.cli.showing import print_json_list, safe, several, table
from vivarium_kernel.errors import Invalid
from vivarium_kernel.wording import lasting

KINDS = ("blank", "tools", "model", "mechanism", "panel")


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), default="blank", show_default=True, help="What the plugin is to be.")
@click.option(
    "--in", "where", type=click.Path(path_type=Path, file_okay=False), default=Path(), metavar="DIR",
    help="Where its folder is made; by default here.",
)  # fmt: skip
@click.option("--author", default="", help="Who holds the copyright, for pyproject.toml.")
def new(name: str, kind: str, where: Path, author: str) -> None:
    """Write a new plugin: a complete distribution whose tests pass.

    NAME is the plugin's, such as weather: the distribution is vivarium-plugins-weather, in a folder of that name.

    \b
    blank      a prompt section, a setting and a table
    tools      actions: tools of residents, routes and commands at once
    model      a model provider
    mechanism  money: a reward with a cap, paid once
    panel      a page of the village for its people
    """
    from vivarium_kernel.scaffold.writing import name_of, write

    names = name_of(name)
    written = write(names, kind, where, author)
    click.echo(f"A new plugin lies in {written.folder}:")
    width = max(len(file) for file, _ in written.files)
    for file, what in written.files:
        click.echo(f"  {file:<{width}}  {what}")
    click.echo("Begin with:")
    click.echo(f"  cd {written.folder}")
    click.echo('  pip install --editable ".[test]"')
    click.echo("  pytest")
    click.echo(f"  vivarium plugins check {names.distribution}")


@click.command()
@click.argument("distribution")
@click.option(
    "--xfail", "excuses", multiple=True, metavar="CHECK=REASON",
    help="A check that it can't hold, and why; it runs, and must fail.",
)  # fmt: skip
@click.option("--real-time", is_flag=True, help="For plugins that wait for processes, threads or sockets.")
@click.option("--timeout", "limit", type=float, default=300.0, show_default=True, help="Seconds for all of it.")
@json_option
def check(distribution: str, excuses: tuple[str, ...], real_time: bool, limit: float, as_json: bool) -> int:
    """Check that an installed distribution's plugins hold what every plugin must.

    The same tests as vivarium_kernel.testing.Conformance, in a process of their own. Exit status 1 if one failed.
    """
    from vivarium_kernel.testing.checking import check as run

    results = run(distribution, _excused(excuses), real_time=real_time, limit_seconds=limit)
    bad = [each for each in results if each.result not in ("passed", "excused")]
    if as_json:
        print_json_list(
            {"plugin": e.plugin, "check": e.check, "result": e.result, "seconds": e.seconds, "why": e.why}
            for e in results
        )
        return 1 if bad else 0
    table(
        ("plugin", "check", "result", ">took"),
        ((each.plugin, each.check.replace("_", " "), each.result, lasting(each.seconds)) for each in results),
    )
    for each in results:
        if each.why:
            click.echo(f"\n{each.plugin}: {each.check.replace('_', ' ')} ({each.result})")
            for line in safe(each.why, lines=True).splitlines():
                click.echo(f"  {line}")
    click.echo(
        f"\n{several(len(results), 'check')}, "
        + (f"{len(bad)} not held" if bad else "all held")
        + (f", {sum(each.result == 'excused' for each in results)} excused" if excuses else "")
    )
    return 1 if bad else 0


def _excused(excuses: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for excuse in excuses:
        check, _, reason = excuse.partition("=")
        if not reason.strip():
            raise Invalid(
                "plugins.check", f"--xfail {excuse!r} gives no reason.", 'Write --xfail "CHECK=why it can\'t hold".'
            )
        word = check.strip().replace(" ", "_").replace("-", "_")
        found[word if word.startswith("test_") else f"test_{word}"] = reason.strip()
    return found
