"""The room of the settings: ``vivarium.toml``, ``VIVARIUM_*`` and defaults as one record, each value with its origin.

What can be set stands in ``settings_record.py``; ``settings_text.py`` writes settings as text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import frozen

from vivarium_kernel.documents import plain, text_of, toml_of
from vivarium_kernel.problems import InputError, Problem, joined, key_path, near, quoted
from vivarium_kernel.settings_record import PREFIX, Api, Budgets, Commands, Limit, ModelPrice, Models, Retries, Settings

__all__ = [
    "FILE_NAME",
    "OTHER_VARIABLES",
    "TABLES",
    "Api",
    "Budgets",
    "Commands",
    "Leaf",
    "Limit",
    "Loaded",
    "ModelPrice",
    "Models",
    "Retries",
    "Settings",
    "SettingsError",
    "Source",
    "entries",
    "leaves",
    "load",
    "settle",
]

FILE_NAME = "vivarium.toml"
TABLES = ("commands.allow", "models.prices", "limits", "plugins")  # whose keys people choose
# Their variables hold a TOML table, which is laid over the file's: VIVARIUM_LIMITS='{ ada = { tool_calls = 5 } }'.
TABLE_VARIABLES = {f"{PREFIX}{table.replace('.', '_').upper()}": table for table in TABLES if table != "plugins"}
PLUGIN_VARIABLES = f"{PREFIX}PLUGINS_"  # and a plugin's name

# Variables that are no settings: which plugins for one run, which village, and how a client or worker reaches one.
OTHER_VARIABLES = ("VIVARIUM_PLUGINS", "VIVARIUM_VILLAGE", "VIVARIUM_TOKEN", "VIVARIUM_URL")


class SettingsError(InputError):
    """Settings that were refused: ``problems`` has every one, with its path."""

    RULE = "settings"


@frozen
class Source:
    """Where a value came from. ``where`` is the file's path or the variable's name, and empty for a default."""

    kind: Literal["default", "file", "environment"]
    where: str = ""


@frozen
class Loaded:
    """Settings, and by path (``commands.sandbox``) where each came from."""

    settings: Settings
    sources: Mapping[str, Source]


@frozen
class Leaf:
    """One setting that has a variable: its path, its variables, its attrs field and the one above it."""

    path: str
    variables: tuple[str, ...]
    field: attrs.Attribute[Any]
    parent: str = ""

    @property
    def doc(self) -> str:
        return str(self.field.metadata["doc"])

    def value(self, settings: Settings) -> Any:
        """The setting's value, in the program's form."""
        return getattr(getattr(settings, self.parent) if self.parent else settings, self.field.name)


def entries(settings: Settings, table: str) -> Mapping[str, Any]:
    """What stands in one of the TABLES: the records by the names that people gave them."""
    value: Any = settings
    for name in table.split("."):
        value = getattr(value, name)
    found: Mapping[str, Any] = value
    return found


def leaves() -> list[Leaf]:
    """Every setting that has a variable, in the order in which the classes state them."""
    return list(_leaves(Settings, ""))


def load(folder: Path, environ: Mapping[str, str] | None = None) -> Loaded:
    """The settings of the village in ``folder``; a variable is stronger than the file, the file than the default.

    Raises :class:`SettingsError` with everything that is wrong in the file and in the ``VIVARIUM_*`` variables.
    """
    path = folder / FILE_NAME
    environ = os.environ if environ is None else environ
    try:
        text = text_of(path, f"run `vivarium init {folder}` to make a village there")
        raw = _plain_plugins(toml_of(text, str(path)), str(path))
    except InputError as error:
        raise SettingsError(error.problems) from None
    return settle(raw, environ, str(path), _name_of(folder))


def settle(raw: Mapping[str, Any], environ: Mapping[str, str], where: str, default_name: str) -> Loaded:
    """Settings from the tables of a file and an environment; ``where`` is how problems name the file."""
    from vivarium_kernel.structuring import structure

    known = leaves()
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    sources = {leaf.path: Source("file", where) if _written(raw, leaf) else Source("default") for leaf in known}
    problems = list(_unknown_variables(environ, known))
    for leaf in known:
        problems += _overlay(merged, sources, leaf, environ)
    for table in TABLES:
        found = _inner(raw, *table.split("."))
        if isinstance(found, Mapping):
            sources.update({joined(table, key_path(name)): Source("file", where) for name in found})
    for name, path in _tables_of(environ, known):
        problems += _overlay_table(merged, sources, path, name, environ[name])
    merged.setdefault("name", default_name)
    try:
        settings = structure(Settings, merged)
    except InputError as error:
        problems += [_placed(problem, sources, known, where) for problem in error.problems]
    if problems:
        raise SettingsError(problems)
    return Loaded(settings, sources)


def _name_of(folder: Path) -> str:
    return "".join(c for c in folder.resolve().name if c.isprintable()).strip()[:80] or "village"


def _plain_plugins(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """The same tables, those of plugins with ordinary floats: plugins keep and hand on what they are given."""
    try:
        return {key: plain(value) if key == "plugins" else value for key, value in raw.items()}
    except InputError as error:
        raise InputError(problem.below("plugins", where) for problem in error.problems) from None


def _leaves(cls: Any, parent: str) -> Iterator[Leaf]:
    attrs.resolve_types(cls)
    for field in attrs.fields(cls):
        if attrs.has(field.type):
            yield from _leaves(field.type, field.name)
        elif "aliases" in field.metadata:
            path = joined(parent, field.metadata.get("key", field.name))
            variable = PREFIX + path.replace(".", "_").upper()
            yield Leaf(path, (variable, *field.metadata["aliases"]), field, parent)


def _inner(raw: Mapping[str, Any], *keys: str) -> Any:
    value: Any = raw
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _written(raw: Mapping[str, Any], leaf: Leaf) -> bool:
    *tables, key = leaf.path.split(".")
    table = _inner(raw, *tables)
    return isinstance(table, Mapping) and key in table


def _overlay(
    merged: dict[str, Any], sources: dict[str, Source], leaf: Leaf, environ: Mapping[str, str]
) -> Iterator[Problem]:
    """Put the leaf's variable, if it is set, over what the file says."""
    found = {name: environ[name] for name in leaf.variables if name in environ}
    if not found:
        return
    name, text = next(iter(found.items()))
    if len(set(found.values())) > 1:
        both = " and ".join(f"{key}={value}" for key, value in found.items())
        yield Problem(leaf.path, quoted(text), f"is set twice, differently: {both}", f"unset {[*found][1]}", name)
        return
    *tables, key = leaf.path.split(".")
    table = merged
    for part in tables:
        if not isinstance(table.setdefault(part, {}), dict):
            return  # the file has something else where the table belongs; that is told with the file's problems
        table = table[part]
    try:
        table[key] = _from_text(text, leaf)
        sources[leaf.path] = Source("environment", name)
    except ValueError as error:
        yield Problem(leaf.path, quoted(text), f"must be {error}, not {quoted(text)}", f"set {name} again", name)


def _tables_of(environ: Mapping[str, str], known: list[Leaf]) -> Iterator[tuple[str, str]]:
    """The variables that hold tables, each with the path of its table."""
    others = {name for leaf in known for name in leaf.variables}
    for name in sorted(environ):
        if name in TABLE_VARIABLES:
            yield name, TABLE_VARIABLES[name]
        elif name.startswith(PLUGIN_VARIABLES) and name not in others and environ[name].lstrip().startswith("{"):
            yield name, f"plugins.{name.removeprefix(PLUGIN_VARIABLES).lower()}"


def _overlay_table(
    merged: dict[str, Any], sources: dict[str, Source], path: str, name: str, text: str
) -> Iterator[Problem]:
    """Put a table's keys over those of the file."""
    try:
        found = toml_of(f"table = {text}", name)["table"]
        found = plain(found) if path.startswith("plugins.") else found
    except InputError:
        found = None
    if not isinstance(found, Mapping):
        yield Problem(path, quoted(text), f"must be a TOML table such as {{ key = 1 }}, not {quoted(text)}",
                      f"set {name} again", name)  # fmt: skip
        return
    table = merged
    for part in path.split("."):
        if not isinstance(table.setdefault(part, {}), Mapping):
            return  # as in _overlay
        table[part] = dict(table[part])
        table = table[part]
    table.update(found)
    if path.startswith("plugins."):
        sources[path] = Source("environment", name)
    sources.update({joined(path, key_path(key)): Source("environment", name) for key in found})


def _from_text(text: str, leaf: Leaf) -> Any:
    """What the variable's text would be in TOML; the ValueError says what it must be."""
    kind: Any = leaf.field.type
    if kind is bool:
        words = {
            "true": True,
            "1": True,
            "yes": True,
            "on": True,
            "false": False,
            "0": False,
            "no": False,
            "off": False,
        }
        if text.strip().lower() not in words:
            raise ValueError("true or false")
        return words[text.strip().lower()]
    if kind in (int, float) and "parse" not in leaf.field.metadata:
        try:
            return kind(text) if text.isascii() else kind("")
        except ValueError:
            raise ValueError("a whole number" if kind is int else "a number") from None
    if kind is str or "parse" in leaf.field.metadata:
        return text.strip()
    return [item.strip() for item in text.split(",") if item.strip()]


def _unknown_variables(environ: Mapping[str, str], known: list[Leaf]) -> Iterator[Problem]:
    names = [*OTHER_VARIABLES, *TABLE_VARIABLES, *(name for leaf in known for name in leaf.variables)]
    tables = {name for name, _ in _tables_of(environ, known)}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in names and name not in tables:
            meant = near(name, names)
            next_step = f"did you mean {meant}?" if meant else "unset it; `vivarium settings show` lists all"
            yield Problem(name, quoted(environ[name]), "unknown variable", next_step)


def _placed(problem: Problem, sources: Mapping[str, Source], known: list[Leaf], where: str) -> Problem:
    """The problem with its file or variable, and for a setting in the wrong table the right one."""
    source = next((sources[leaf.path] for leaf in known if _concerns(problem.path, leaf.path)), None)
    if source is not None and source.kind == "environment":
        return attrs.evolve(problem, where=source.where)
    if problem.message == "unknown key":
        word = problem.path.rpartition(".")[2]
        elsewhere = [leaf.path for leaf in known if leaf.path.rpartition(".")[2] == word]
        is_near = problem.next_step.startswith("did you mean")
        meant = f'did you mean "{elsewhere[0]}"?' if elsewhere and not is_near else problem.next_step
        return attrs.evolve(problem, message="unknown setting", next_step=meant, where=where)
    return attrs.evolve(problem, where=where)


def _concerns(path: str, leaf: str) -> bool:
    return path == leaf or path.startswith((f"{leaf}.", f"{leaf}["))
