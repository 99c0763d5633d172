"""The room of casting: which plugins a test's village has, by class or by the name of an installed one."""

from __future__ import annotations

from collections.abc import Sequence

from vivarium_kernel.builtin import builtin_plugins
from vivarium_kernel.errors import NotFound
from vivarium_kernel.plugins import Plugin, discover, load
from vivarium_kernel.problems import near


def cast_plugins(asked: Sequence[type[Plugin] | str]) -> tuple[type[Plugin], ...]:
    """The classes that are asked for, with those that they require and that are installed."""
    found: dict[str, type[Plugin]] = {}
    waiting: list[type[Plugin]] = [installed(each) if isinstance(each, str) else each for each in asked]
    given = {each.name for each in waiting} | set(builtin_plugins())
    for plugin in waiting:
        found[plugin.name] = plugin
        for other in plugin.requires:
            if other not in given and other in discover()[0]:
                given.add(other)
                waiting.append(installed(other))  # it may require others in its turn
    return tuple(found.values())


def installed(name: str) -> type[Plugin]:
    """An installed plugin by its name; raises NotFound."""
    points, _ = discover()
    if name not in points:
        close = near(name, points)
        cure = f"Did you mean {close}?" if close else f"Installed are: {', '.join(points) or 'none'}."
        raise NotFound("testing.plugin", f"There is no installed plugin {name!r}.", cure)
    return load(points[name])
