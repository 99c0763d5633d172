"""The room of writing a new plugin: names that go together, and a complete distribution from the templates."""

from __future__ import annotations

import builtins
import contextlib
import importlib.metadata
import keyword
import re
from pathlib import Path

import jinja2
from attrs import frozen

import vivarium_kernel
from vivarium_kernel.builtin import builtin_plugins
from vivarium_kernel.errors import Conflict, Invalid
from vivarium_kernel.installed import claims

PREFIX = "vivarium-plugins-"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Template, file in the distribution, and what it is for; a kind's own template stands before the common one.
_FILES = (
    ("pyproject.toml", "pyproject.toml", "the distribution, and its entry point"),
    ("README.md", "README.md", "what it does, for those who run villages"),
    ("CHANGELOG.md", "CHANGELOG.md", "what changed, in their words"),
    ("gitignore", ".gitignore", "what git leaves alone"),
    ("ci.yml", ".github/workflows/test.yml", "the tests, wherever it is pushed to"),
    ("package.py", "src/{package}/__init__.py", "the package"),
    ("py.typed", "src/{package}/py.typed", "its types count"),
    ("plugin.py", "src/{package}/plugin.py", "the plugin: begin here"),
    ("tables.py", "src/{package}/tables.py", "its tables, as migrations"),
    ("models.py", "src/{package}/models.py", "the model provider"),
    ("panel.html", "src/{package}/panel.html", "the panel's page"),
    ("test_plugin.py", "tests/test_{name}.py", "its tests, on a real village"),
    ("test_conformance.py", "tests/test_conformance.py", "what every plugin must hold"),
)


@frozen
class Names:
    """One name in all its forms: ``my_plugin``, ``vivarium-plugins-my-plugin``, ``vivarium_plugins_my_plugin`` and
    ``MyPlugin``."""

    name: str
    distribution: str
    package: str
    cls: str


@frozen
class Written:
    """What was written: the folder, and each file with what it is for."""

    folder: Path
    files: tuple[tuple[str, str], ...]


def name_of(asked: str) -> Names:
    """The names of a new plugin; raises Invalid for one that can't be, Conflict for one that is taken here."""
    name = asked.strip().lower().removeprefix(PREFIX).removeprefix("vivarium_plugins_").replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > 40 or keyword.iskeyword(name):
        raise Invalid(
            "plugins.name", f"A plugin can't be called {asked!r}.",
            "A name is a small letter and up to 39 letters, digits and dashes, such as my-plugin.", field="name",
        )  # fmt: skip
    if name in builtin_plugins() or name == "kernel":
        raise Conflict("plugins.name", f"{name} is the kernel's own.", "Choose another name.", field="name")
    taken = claims().get(name)
    if taken:
        raise Conflict(
            "plugins.name", f"There is a plugin {name} here already, of {taken[0].distribution} {taken[0].version}.",
            "Choose another name: of two with one name neither is taken.", field="name",
        )  # fmt: skip
    cls = "".join(word.capitalize() for word in name.split("_"))
    if cls in dir(vivarium_kernel) or hasattr(builtins, cls) or cls in ("Any", "Sequence"):
        cls += "Plugin"
    return Names(name, f"{PREFIX}{name.replace('_', '-')}", f"vivarium_plugins_{name}", cls)


def write(names: Names, kind: str, where: Path, author: str = "") -> Written:
    """Write the distribution into a folder of its name in ``where``; all of it or nothing."""
    folder = where / names.distribution
    if folder.exists():
        raise Conflict("plugins.exists", f"{folder} is there already.", "Remove it, or choose another name or --in.")
    found = rendered(names, kind, author)
    made: list[Path] = []
    try:
        for file, (text, _) in found.items():
            path = folder / file
            for above in reversed(path.parents):
                if not above.exists():
                    above.mkdir()
                    made.append(above)
            path.write_text(text, encoding="utf-8")
            made.append(path)
    except OSError as error:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise Invalid(
            "plugins.folder", f"{folder} can't be written: {error.strerror or error}.",
            "Choose a folder that you may write in, with --in.",
        ) from error  # fmt: skip
    return Written(folder, tuple((file, what) for file, (_, what) in found.items()))


def rendered(names: Names, kind: str, author: str = "") -> dict[str, tuple[str, str]]:
    """The text of each file of a new plugin and what it is for, by its path in the distribution."""
    environment = jinja2.Environment(  # noqa: S701 - these are sources, not pages
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("vivarium_kernel.scaffold", f"templates/{each}") for each in (kind, "common")]
        ),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    there = set(environment.list_templates())
    words = {
        "n": names, "name": names.name, "cls": names.cls, "package": names.package, "kind": kind, "author": author,
        "kernel": ".".join(importlib.metadata.version("vivarium-kernel").split(".")[:2]),
    }  # fmt: skip
    return {
        place.format(package=names.package, name=names.name): (
            environment.get_template(f"{template}.jinja").render(words), what,
        )
        for template, place, what in _FILES
        if f"{template}.jinja" in there
    }  # fmt: skip
