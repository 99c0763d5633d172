"""The room of ``vivarium plugins install``, ``uninstall`` and ``sync``: distributions, and the record of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import evolve

from vivarium_kernel.cli.choosing import surroundings
from vivarium_kernel.cli.opening import acting, as_option, village_option
from vivarium_kernel.cli.plugins_switch import ROUTE, may_switch, switch_off
from vivarium_kernel.errors import Conflict

if TYPE_CHECKING:
    from vivarium_kernel.installed import Found
    from vivarium_kernel.registry import Choice
    from vivarium_kernel.settings import Settings


@click.command()
@click.argument("requirements", nargs=-1, metavar="[REQUIREMENT]...")
@click.option(
    "--editable", "-e", multiple=True, metavar="PATH", type=click.Path(exists=True, path_type=Path),
    help="A folder of sources that is used where it is; may be given several times.",
)  # fmt: skip
@click.option("--upgrade", "-U", is_flag=True, help="Take the newest versions, also of what is there.")
@village_option
@as_option
def install(
    requirements: tuple[str, ...], editable: tuple[Path, ...], upgrade: bool, village: Path | None, token: str | None
) -> int:
    """Install distributions and record what they bring.

    A REQUIREMENT is what pip takes: NAME, NAME==VERSION, a wheel, a folder or an address. The installer is the one
    that made this environment, pip or uv. In plugins.json of the village stand then the requirements and the plugins,
    for `vivarium plugins sync`; without a village around nothing is recorded.

    Exit status 1 if something that was installed can't be on.
    """
    from vivarium_kernel import installed, installing

    if not requirements and not editable:
        raise click.UsageError("Name what is to be installed.")
    folder, settings, choice = surroundings(village)
    may_switch(folder, token)
    wanted = [installing.absolute(one) for one in requirements]
    sources = [str(path.resolve()) for path in editable]
    before = {name: str(claim) for name, claim in installed.claims().items()}
    _install(wanted, sources, upgrade=upgrade)
    asked = installing.owners([*wanted, *sources])
    mine = {installed.normal(one.name) for one in asked}
    brought = {
        name: claim for name, claim in installed.claims().items()
        if str(claim) != before.get(name) or any(installed.normal(one.distribution) in mine for one in claim)
    }  # fmt: skip
    lines = [line for line in map(installed.requirement_of, asked) if line]
    if not brought:
        click.echo("What was installed brings no plugins; models and commands that it brings are there.")
    return _record(folder, settings, choice, brought, lines, token)


def _install(requirements: Sequence[str], editable: Sequence[str], *, upgrade: bool = False) -> None:
    """Install with the environment's own installer."""
    import site

    from vivarium_kernel import installing

    installing.installer().install(requirements, editable, upgrade=upgrade)
    # A folder of sources comes on the path by a .pth file, which a process reads when it begins: this one began before.
    for folder in site.getsitepackages():
        site.addsitedir(folder)


def _record(
    folder: Path | None, settings: Settings | None, choice: Choice, brought: dict[str, list[Found]],
    lines: Sequence[str], token: str | None,
) -> int:  # fmt: skip
    """Record what an installer brought and tell how it stands; 1 if something of it can't be on."""
    from vivarium_kernel import enabling, registry
    from vivarium_kernel.builtin import builtin_places
    from vivarium_kernel.inspecting import look
    from vivarium_kernel.standing import standings

    single = {name: claim[0] for name, claim in brought.items() if len(claim) == 1 and name not in builtin_places()}
    looked = look(single, settings.plugins if settings is not None else {})
    if folder is not None:
        records: dict[str, registry.Recorded | None] = {
            name: enabling.record_of(found, looked[name]) for name, found in single.items()
        }
        with acting(folder, token, ROUTE) as (opened, actor), enabling.whole(folder):
            opened.store.call(enabling.enable, enabling.On(folder, records, actor, tuple(lines)))
        choice = evolve(choice, registry=registry.read(folder))
    else:
        click.echo("There is no village here, so that nothing is recorded.")
    bad = 0
    for one in standings(choice, looked=looked):
        if one.name in brought and one.distribution != "vivarium-kernel":
            why = f": {one.cause}" + (f" → {one.next_step}" if one.next_step else "") if one.cause else ""
            click.echo(f"{one.name} {one.version} of {one.distribution} is {one.state}{why}")
            bad |= one.state == "failed"
    return int(bad)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--drain", is_flag=True, help="Give back first what they hold: money, and open tasks.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask when a distribution has further plugins.")
@village_option
@as_option
def uninstall(names: tuple[str, ...], drain: bool, yes: bool, village: Path | None, token: str | None) -> None:
    """Switch plugins off and uninstall their distributions.

    A NAME is a plugin's or a distribution's. All plugins of a distribution go with it, and each is refused as
    `vivarium plugins disable` would. What they keep in the village's database stays there. Other villages that use this
    environment lose the plugins, too.
    """
    from vivarium_kernel import enabling, installing

    folder, settings, choice = surroundings(village)
    may_switch(folder, token)
    going = _going(names)
    plugins = [name for members in going.values() for name in members]
    extra = [name for name in plugins if name not in names and not set(names) & set(going)]
    if extra and not yes:
        click.confirm(f"{', '.join(going)} has further plugins: {', '.join(extra)}. Uninstall them all?", abort=True)
    if settings is not None:
        _refuse_model(settings, going)
    if folder is not None and plugins:
        switch_off(folder, settings, choice, plugins, drain=drain, token=token)
    installing.installer().uninstall(list(going))
    if folder is not None:
        with acting(folder, token, ROUTE) as (opened, _), enabling.whole(folder):
            for distribution, members in going.items():
                opened.store.call(enabling.forget, (folder, members, distribution))
    click.echo(f"{', '.join(going)} is uninstalled")


def _going(names: Iterable[str]) -> dict[str, list[str]]:
    """The distributions that are meant, each with its plugins; raises NotFound or Conflict."""
    from vivarium_kernel import installed
    from vivarium_kernel.builtin import builtin_places
    from vivarium_kernel.enabling import unknown

    claimed = installed.claims()
    there = {installed.normal(one.distribution): one.distribution for claim in claimed.values() for one in claim}
    found: dict[str, list[str]] = {}
    for name in names:
        if name in builtin_places() and name not in claimed:
            raise Conflict(
                "plugins.own", f"{name} is the kernel's own and can't be uninstalled.",
                f"Switch it off: vivarium plugins disable {name}.", field="name",
            )  # fmt: skip
        if name in claimed and len(claimed[name]) > 1:
            both = ", ".join(sorted(one.distribution for one in claimed[name]))
            raise Conflict(
                "plugins.clash", f"{name} is claimed by several distributions: {both}.",
                "Name the distribution that is to go.", field="name",
            )  # fmt: skip
        owner = claimed[name][0].distribution if name in claimed else there.get(installed.normal(name))
        if owner is None and installed.normal(name) in installed.versions([name]):
            owner = name  # a distribution without plugins: of models, or of commands
        if owner is None:
            raise unknown(name, {*claimed, *there})
        found[owner] = [one for one, claim in claimed.items() if len(claim) == 1 and claim[0].distribution == owner]
    return found


def _refuse_model(settings: Settings, going: Iterable[str]) -> None:
    from vivarium_kernel.installed import MODELS, claims
    from vivarium_kernel.routing import providers_named

    for provider in sorted(providers_named(settings.model, settings.models)):
        owners = {one.distribution for one in claims(MODELS).get(provider, ())} & set(going)
        if owners:
            raise Conflict(
                "plugins.model",
                f"Models of {provider}, which the settings name, come from {', '.join(sorted(owners))}.",
                "Set other models in vivarium.toml first (model, models.small, .medium, .large).", field="name",
            )  # fmt: skip


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be installed, and install nothing.")
@village_option
@as_option
def sync(dry_run: bool, village: Path | None, token: str | None) -> int:
    """Install again what is recorded and missing.

    After Python, the environment or another program has changed what is installed: every distribution comes back in the
    version that plugins.json has, with pip or uv. Exit status 1 if something is not as it was recorded after that.
    """
    from vivarium_kernel import installing
    from vivarium_kernel.cli.opening import folder_of
    from vivarium_kernel.standing import notices

    folder = folder_of(village)
    may_switch(folder, token)
    _, _, choice = surroundings(folder)
    recorded = choice.registry.plugins
    on = [one.requirement for name, one in recorded.items() if name not in choice.registry.disabled]
    missing = installing.lacking([*choice.registry.installed, *on])
    if not missing:
        click.echo("Everything that is recorded is installed.")
    elif dry_run:
        click.echo("\n".join(f"would install {line}" for line in missing))
    else:
        plain = [line for line in missing if not line.startswith("-e ")]
        _install(plain, [line.removeprefix("-e ") for line in missing if line.startswith("-e ")])
        click.echo(f"Installed {', '.join(missing)}")
    wrong = [] if dry_run else list(notices(choice))
    for line in wrong:
        click.echo(line)
    return 1 if wrong else 0
