"""The plugins of this repository, found by what their distributions declare; none of them need be installed."""

from __future__ import annotations

import sys
import tomllib
from importlib import import_module
from pathlib import Path

from vivarium_kernel.builtin import builtin_plugins
from vivarium_kernel.installed import GROUP
from vivarium_kernel.plugins import Plugin

REPOSITORY = Path(__file__).resolve().parents[3]


def first_party() -> dict[str, tuple[str, type[Plugin]]]:
    """Each plugin's class by its name, with its distribution: the kernel's own first, then by name."""
    found = {name: ("vivarium-kernel", plugin) for name, plugin in builtin_plugins().items()}
    others = {}
    for file in sorted(
        [*REPOSITORY.glob("vivarium_plugins_*/pyproject.toml"), *REPOSITORY.glob("plugins/*/pyproject.toml")]
    ):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        source = str(file.parent / "src")
        if source not in sys.path:
            sys.path.append(source)  # pytest has it already; the generators run without
        for name, target in project.get("entry-points", {}).get(GROUP, {}).items():
            module, _, attribute = target.partition(":")
            others[name] = (project["name"], getattr(import_module(module), attribute))
    return found | dict(sorted(others.items()))


def hooks_of(plugin: type[Plugin]) -> set[str]:
    """The hooks that a plugin implements: what ``@hookimpl`` marks."""
    return {name for name in dir(plugin) if hasattr(getattr(plugin, name, None), "vivarium_impl")}
