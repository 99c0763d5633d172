"""The room of ``vivarium plugins list``, ``info`` and ``hooks``: what is there, how it stands and what it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.cli.choosing import breakers_of, surroundings
from vivarium_kernel.cli.named import named_table
from vivarium_kernel.cli.opening import json_option, village_option
from vivarium_kernel.cli.showing import fields, print_json, print_json_list, several

if TYPE_CHECKING:
    from vivarium_kernel.inspecting import Looked
    from vivarium_kernel.settings import Settings
    from vivarium_kernel.standing import Standing


@click.command("list")
@click.option("--imports", is_flag=True, help="Import each in a process of its own: what fails, and what it costs.")
@village_option
@json_option
def list_(imports: bool, village: Path | None, as_json: bool) -> None:
    """List the plugins: on, off or failed, and why.

    Without --imports no plugin is imported: hooks and settings are shown of those that were enabled or installed by
    command, as they were then.
    """
    from vivarium_kernel.standing import standings

    folder, settings, choice = surroundings(village)
    found = standings(choice, breakers_of(folder))
    if imports:
        looked = _look([one.name for one in found if one.state != "off"], settings, alone=True)
        found = standings(choice, breakers_of(folder), looked)
    if as_json:
        print_json_list(_as_json(one) for one in found)
        return
    named_table(
        (
            "plugin",
            "state",
            "version",
            "distribution",
            "*hooks",
            "*settings",
            *((">import ms",) if imports else ()),
            "why",
        ),
        [_row(one, imports) for one in found],
    )
    untold = sum(one.hooks is None for one in found)
    if untold:
        click.echo(
            f"\nOf {several(untold, 'plugin')} hooks and settings are not recorded: --imports, `vivarium plugins info "
            "NAME` or `vivarium plugins enable NAME` look."
        )


def _row(one: Standing, imports: bool) -> tuple[Any, ...]:
    hooks = "?" if one.hooks is None else ", ".join(one.hooks)
    config = "?" if one.config is None else ", ".join(one.config)
    took = ("" if one.import_ms is None else f"{one.import_ms:.1f}",) if imports else ()
    why = [f"{one.cause}" + (f" → {one.next_step}" if one.next_step else "")] if one.cause else []
    why += [f"off on {hook}: {cause} → vivarium plugins retry {one.name}" for hook, cause in one.off_on.items()]
    return (one.name, one.state, one.version, one.distribution, hooks, config, *took, "; ".join(why))


def _as_json(one: Standing) -> dict[str, Any]:
    from attrs import asdict

    return asdict(one)


def _look(names: list[str], settings: Settings | None, *, alone: bool = False) -> dict[str, Looked]:
    from vivarium_kernel.builtin import builtin_places
    from vivarium_kernel.inspecting import look
    from vivarium_kernel.installed import claims

    there = claims()
    own = builtin_places()
    wanted = [name for name in names if name in there and name not in own]
    return look(wanted, settings.plugins if settings is not None else {}, alone=alone)


@click.command()
@click.argument("name")
@village_option
@json_option
def info(name: str, village: Path | None, as_json: bool) -> None:
    """Show what a plugin is, does and can be set to.

    It is imported in a process of its own.
    """
    from attrs import asdict

    from vivarium_kernel.builtin import builtin_plugins
    from vivarium_kernel.enabling import unknown
    from vivarium_kernel.inspecting import of_class
    from vivarium_kernel.standing import standings

    folder, settings, choice = surroundings(village)
    breakers = breakers_of(folder)
    by_name = {one.name: one for one in reversed(standings(choice, breakers))}
    if name not in by_name:
        raise unknown(name, by_name)
    looked = _look([name], settings)
    if name in by_name and by_name[name].distribution == "vivarium-kernel":
        raw = settings.plugins.get(name, {}) if settings is not None else {}
        looked = {name: of_class(name, builtin_plugins()[name], raw)}
    one = next(one for one in standings(choice, breakers, looked) if one.name == name)
    what = looked.get(name)
    if as_json:
        print_json(_as_json(one) | {"looked": asdict(what) if what is not None else None})
        return
    fields(
        [
            ("plugin", one.name),
            ("what", what.doc if what is not None else ""),
            ("state", one.state + (f": {one.cause}" if one.cause else "")),
            ("next", one.next_step),
            ("off on", "\n".join(f"{hook}: {cause}" for hook, cause in one.off_on.items())),
            ("from", f"{one.distribution} {one.version}".strip()),
            *(_fields_of(what) if what is not None else ()),
        ]
    )


def _fields_of(what: Looked) -> list[tuple[str, Any]]:
    keys = [f"{each.key}: {each.type} = {each.default}" + (f"  {each.doc}" if each.doc else "") for each in what.config]
    return [
        ("class", what.place),
        ("hook API", what.api),
        ("hooks", ", ".join(what.hooks)),
        (f"[plugins.{what.name}]", "\n".join(keys)),
        ("requires", ", ".join(what.requires)),
        ("comes after", ", ".join(what.after)),
        ("provides", what.provides),
        ("asks", ", ".join(what.asks)),
        ("own hooks", "\n".join(what.offers)),
        ("waiting", "\n".join(what.waits)),
        ("import", f"{what.import_ms:.1f} ms" if what.import_ms else ""),
        ("wrong", "\n".join(what.faults)),
    ]


@click.command()
@click.argument("hook", required=False)
@village_option
@json_option
def hooks(hook: str | None, village: Path | None, as_json: bool) -> None:
    """List the hooks, and who implements each.

    The kernel's, then those that plugins offer; with HOOK, that one alone. Plugins whose hooks are not recorded are
    imported, in a process of their own.
    """
    from vivarium_kernel.errors import NotFound
    from vivarium_kernel.plugins import hook_docs
    from vivarium_kernel.problems import near
    from vivarium_kernel.standing import standings

    folder, settings, choice = surroundings(village)
    found = standings(choice, breakers_of(folder))
    looked = _look([one.name for one in found if one.hooks is None and one.state == "on"], settings)
    found = standings(choice, breakers_of(folder), looked) if looked else found
    own = {each: one.name for one in found if one.state == "on" for each in one.offers}
    offered = {each.partition(": ")[0]: f"{each.partition(': ')[2]} (of {name})" for each, name in own.items()}
    docs = hook_docs() | offered
    if hook is not None and hook not in docs:
        meant = near(hook, docs)
        raise NotFound("plugins.hook", f"There is no hook {hook!r}.", f"Did you mean {meant}?" if meant else "")
    rows = []
    for name, line in docs.items():
        if hook in (None, name):
            off = [one.name for one in found if name in one.off_on]
            on = [one.name for one in found if one.state == "on" and name in (one.hooks or ()) and one.name not in off]
            rows.append((name, on, off, line))
    if as_json:
        print_json_list({"hook": name, "on": on, "off": off, "doc": line} for name, on, off, line in rows)
        return
    named_table(
        ("hook", "plugins", "what it does"),
        ((name, ", ".join([*on, *(f"{each} (off)" for each in off)]), line) for name, on, off, line in rows),
    )
