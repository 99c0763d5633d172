"""The room of the settings as text: the commented ``vivarium.toml`` of a new village, and the rows that are shown."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import frozen

from vivarium_kernel.amounts import money_text
from vivarium_kernel.problems import joined, key_path
from vivarium_kernel.settings import TABLES, Leaf, Loaded, Settings, Source, entries, leaves

HIDDEN = "(hidden)"
SECRET_WORDS = frozenset(("key", "keys", "token", "apikey", "secret", "secrets", "password"))


@frozen
class Row:
    """One line of ``vivarium settings show``: ``value`` is plain data as the file would have it."""

    path: str
    value: Any
    source: Source
    variable: str
    doc: str


def rows(loaded: Loaded) -> list[Row]:
    """Every setting with its value and where that came from; what may be a secret of a plugin is hidden."""
    shown = [
        Row(
            leaf.path,
            written(leaf, leaf.value(loaded.settings)),
            loaded.sources[leaf.path],
            leaf.variables[0],
            leaf.doc,
        )
        for leaf in leaves()
    ]
    for table in TABLES:
        for name, value in entries(loaded.settings, table).items():
            path = joined(table, key_path(name))
            shown.append(
                Row(path, _without_secrets(_plain(value)), loaded.sources.get(path, Source("default")), "", "")
            )
    return shown


def example_toml(name: str, set_to: Mapping[str, Any] | None = None) -> str:
    """The text of a new village's ``vivarium.toml``: every setting with its documentation, as a comment that shows
    its default. ``set_to`` has the settings, by path, that are written as values instead."""
    given = {"name": name, **(set_to or {})}
    by_parent: dict[str, list[Leaf]] = {}
    for leaf in leaves():
        by_parent.setdefault(leaf.parent, []).append(leaf)
    lines = [
        "# The settings of this village. A line that begins with #NAME = shows a default:",
        "# remove its # to set it.",
    ]
    for leaf in by_parent[""]:
        lines += _lines(leaf, given)
    for section in attrs.fields(Settings):
        if section.name in by_parent:
            lines += ["", *_comment(section.metadata["doc"]), f"[{section.name}]"]
            for leaf in by_parent[section.name]:
                lines += _lines(leaf, given)
            for table in attrs.fields(section.type):  # type: ignore[arg-type]
                if "example" in table.metadata:
                    path = f"{section.name}.{table.name}"
                    lines += ["", *_comment(table.metadata["doc"]), f"[{path}]"]
                    given_here = given.get(path, {})
                    lines += [f"{_key(key)} = {toml(value)}" for key, value in given_here.items()]
                    lines += [] if given_here else [table.metadata["example"]]
        elif "example" in section.metadata:
            lines += ["", *_comment(section.metadata["doc"]), f"#   [{section.name}.NAME]"]
    return "\n".join(lines) + "\n"


def written(leaf: Leaf, value: Any) -> Any:
    """A setting's value as it stands in a file."""
    if "parse" in leaf.field.metadata:
        return "none" if value is None else money_text(value)
    return list(value) if isinstance(value, tuple) else value


def toml(value: Any) -> str:
    """A value as TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case list() | tuple():
            return "[" + ", ".join(toml(item) for item in value) + "]"
    plain = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in plain) + '"'


def _lines(leaf: Leaf, given: Mapping[str, Any]) -> list[str]:
    key = leaf.path.rpartition(".")[2]
    mark = "" if leaf.path in given else "#"
    value = given[leaf.path] if leaf.path in given else written(leaf, leaf.field.default)
    return ["", *_comment(f"{leaf.doc} ({', '.join(leaf.variables)})"), f"{mark}{key} = {toml(value)}"]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else toml(name)


def _plain(value: Any) -> Any:
    """A record of a table as it stands in the file: without what is not set."""
    if not attrs.has(type(value)):
        return value
    return {
        each.metadata.get("key", each.name): money_text(found) if "parse" in each.metadata else found
        for each in attrs.fields(type(value))
        if (found := getattr(value, each.name)) is not None and found != each.default
    }


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if not SECRET_WORDS.isdisjoint(str(key).lower().split("_")) else _without_secrets(item)
            for key, item in value.items()
        }
    return [_without_secrets(item) for item in value] if isinstance(value, (list, tuple)) else value
