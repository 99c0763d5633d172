"""The room of composition: which plugins a village has on, and how they are loaded, migrated and built.

A plugin that can't be is left out with its reason; the others live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from attrs import frozen

from vivarium_kernel.audit import emit
from vivarium_kernel.breakers import follow
from vivarium_kernel.builtin import builtin_places, builtin_plugins
from vivarium_kernel.calls import Hooks
from vivarium_kernel.errors import Invalid
from vivarium_kernel.health import Health, describe
from vivarium_kernel.installed import TAKEN, Found
from vivarium_kernel.migrating import migrate
from vivarium_kernel.plugins import (
    BadService,
    Broken,
    Changed,
    Failed,
    NameClash,
    Plugin,
    PluginError,
    build,
    discover,
    load,
    switch_off,
)
from vivarium_kernel.registry import Choice, changed
from vivarium_kernel.services import Services, cure, named
from vivarium_kernel.store import Tx

if TYPE_CHECKING:
    from vivarium_kernel.village import Village, With


@frozen
class Composition:
    """A village's plugins, ready to be called; ``failed`` are those that are left out, with what is wrong."""

    hooks: Hooks
    health: Health
    failed: list[Failed]
    services: Services


def compose(village: Village, how: With, alive: Mapping[str, Plugin] | None = None) -> Composition:
    """Load, migrate and build what is on: the built-in plugins, the installed ones, and those of ``how``.

    Those that are ``alive`` stay the same objects.
    """
    choice = village.choice()
    failed: list[Failed] = []
    given = {plugin.name: plugin for plugin in how.plugins}
    own = builtin_plugins(village.settings) | given
    classes = {name: plugin for name, plugin in own.items() if not choice.why_off(name, installed=False)}
    if how.installed:
        classes = _installed(choice, failed, set(given)) | classes
    for name, plugin in list(classes.items()):
        try:
            migrate(village, name, plugin)
            _compare_physics(village, name, plugin)
        except Exception as error:
            failed.append(_broken(name, plugin, error))
            del classes[name]
    if alive is None:
        health = Health(monotonic=village.clock.monotonic)
        for (name, hook), cause in how.switched_off.items():
            health.off(name, hook, cause)
        with village.store.view() as view:
            follow(view, health)
    else:
        health = village.health  # switching forgets nothing
    while True:
        plugins, wrong = build(village, classes, village.settings.plugins, alive)
        hooks = Hooks(plugins, health, timeouts=how.timeouts, mark=how.mark)
        hooks.register_actions()
        withdrawn = [_broken(call.plugin, classes[call.plugin], call.error, call.hook) for call in hooks.failed]
        services, broken = _services(hooks.plugins)
        withdrawn += [] if withdrawn else _unlike(hooks.plugins, services)
        if not withdrawn:
            return Composition(hooks, health, failed + wrong + broken, services)
        for each in withdrawn:
            if classes.pop(each.name, None) is not None:
                failed.append(each)


def _installed(choice: Choice, failed: list[Failed], given: set[str]) -> dict[str, type[Plugin]]:
    found, clashes = discover()
    failed += [clash for clash in clashes if not choice.why_off(clash.name, installed=True)]
    classes = {}
    for name, each in found.items():
        if name not in given and not choice.why_off(name, installed=True):
            try:
                _refuse_kernels_own(each)
                _refuse_changed(choice, each)
                classes[name] = load(each)
            except PluginError as error:
                failed.append(Failed(name, (error,)))
    return classes


def _refuse_kernels_own(found: Found) -> None:
    if found.name in builtin_places():
        what = f"plugin {found.name!r} of {found}"
        raise NameClash(found.name, what, "has the name of one of the kernel's own, which stays", TAKEN)


def _refuse_changed(choice: Choice, found: Found) -> None:
    """Where plugins_allow names what may load, that means what was looked at: other files are refused."""
    recorded = choice.registry.plugins.get(found.name)
    if choice.strict and recorded is not None:
        what = changed(recorded, found)
        if what:
            cure = f"look at what has changed, then accept it: vivarium plugins enable {found.name}"
            raise Changed(found.name, f"plugin {found.name!r}", what, cure)


def _compare_physics(village: Village, name: str, plugin: type[Plugin]) -> None:
    if plugin.Physics is not None:
        constants = msgspec.json.encode(plugin.Physics(), order="sorted").decode()
        village.store.call(_keep_physics, (name, constants))


def _keep_physics(tx: Tx, asked: tuple[str, str]) -> None:
    """Note a plugin's constants when it is first enabled; refuse others ever after."""
    name, constants = asked
    digest = sha256(constants.encode()).hexdigest()
    row = tx.row("SELECT physics FROM plugins WHERE name = ?", (name,))
    if row is None or row[0] is None:
        tx.run(
            "INSERT INTO plugins (name, physics) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET physics = ?2",
            (name, digest),
        )
        emit(tx, "plugin.physics", "system:kernel", plugin=name, digest=digest, constants=constants)
    elif row[0] != digest:
        raise Invalid(
            "plugins.physics",
            f"the physics of {name} are not those that this village was founded with",
            "use the version of the plugin that has them, or found a new village",
        )


def _services(plugins: Iterable[Plugin]) -> tuple[Services, list[Failed]]:
    """What the plugins provide, and those whose service can't be made: others do without it."""
    services, broken = {}, []
    for plugin in plugins:
        provides = type(plugin).provides
        if provides is not None:
            try:
                services[plugin.name] = provides(plugin)
            except Exception as error:
                broken.append(_broken(plugin.name, type(plugin), error))
    return Services(services), broken


def _unlike(plugins: Iterable[Plugin], services: Services) -> list[Failed]:
    """The plugins that ask for more than the services that are on can do."""
    found = []
    for plugin in plugins:
        errors = [
            BadService(plugin.name, f"{plugin.name} asks {other} by {named(protocol)} for {wanted}", fault, cure(other))
            for other, protocol in type(plugin).asks.items()
            for wanted, fault in services.lacking(other, protocol)
        ]
        if errors:
            found.append(Failed(plugin.name, tuple(errors)))
    return found


def _broken(name: str, plugin: type[Plugin], error: BaseException | None, hook: str = "") -> Failed:
    where = f"{plugin.__module__}.{plugin.__qualname__}" + (f".{hook}" if hook else "")
    cure = getattr(error, "next_step", "") or f"mend it, or switch it off: {switch_off(name)}"
    return Failed(name, (Broken(name, where, getattr(error, "message", "") or describe(error), cure),))
