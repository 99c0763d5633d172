"""The reference of the settings, made from the attrs classes that hold them.

``uv run python -m tests.kernel.docs.config`` writes docs/config.md anew; a test compares it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import attrs
from vivarium_kernel.problems import InputError
from vivarium_kernel.settings import OTHER_VARIABLES, Leaf, Settings, leaves
from vivarium_kernel.settings_text import toml, written

from .first_party import REPOSITORY, first_party

PAGE = REPOSITORY / "docs" / "config.md"
WORDS = Path(__file__).with_name("config.toml")
COMMAND = "uv run python -m tests.kernel.docs.config"
KINDS: Mapping[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
PLURALS: Mapping[Any, str] = {int: "whole numbers", float: "numbers", str: "texts", bool: "true or false"}
BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
OTHERS = {
    "VIVARIUM_PLUGINS": "`a,b`: of the installed plugins only these are on, for one run",
    "VIVARIUM_VILLAGE": "the village's folder, in place of the one that a command is called in",
    "VIVARIUM_TOKEN": "the credential of a client or worker",
    "VIVARIUM_URL": "where a client or worker reaches the village",
}
HEAD = f"""# Settings

All that can be set, with its default. This page is written by
`{COMMAND}` from the classes that hold the settings. A test fails when it is not
what they say.

A village's settings stand in its `vivarium.toml`. A variable is stronger than the file, the file than the default.
What is wrong is told all at once, each problem with its path, and nothing is begun. `vivarium init` writes the file,
with every setting explained; `vivarium settings show` says what is set and where.

Amounts are written as decimals in quotes, such as `"0.10"`. A list in a variable is written with commas: `ada,ben`.
A table in a variable is written as in TOML, and laid over the file's: `VIVARIUM_COMMANDS_ALLOW='{{ sort = "sort" }}'`,
`VIVARIUM_MODELS_PRICES`, `VIVARIUM_LIMITS`, and for each plugin `VIVARIUM_PLUGINS_NAME='{{ key = 1 }}'`.

What each resident may use, `[limits.NAME]`, and prices, `[models.prices]`, stand in [models.md](models.md).
"""
PLUGINS = """## Plugins

Each plugin has a table of its own, `[plugins.NAME]`, which its `Config` class reads: unknown keys are refused. A plugin
that is not in this list says in its README what can be set. `vivarium plugins list` shows which are on.
"""


def page() -> str:
    """docs/config.md."""
    parts = [HEAD]
    of: dict[str, list[Leaf]] = {}
    for leaf in leaves():
        of.setdefault(leaf.parent, []).append(leaf)
    for parent, found in of.items():
        title = f"[{parent}]" if parent else "The village"
        parts += [f"## {title}\n"]
        if parent:
            parts += [_sentence(attrs.fields_dict(Settings)[parent].metadata["doc"]) + "\n"]
        parts += ["| setting | default | is | what for |", "|---|---|---|---|"]
        parts += [_row(_key(leaf), toml(written(leaf, leaf.field.default)), _must(leaf), leaf.doc) for leaf in found]
        variable = found[0].variables[0]
        said = f"As a variable, `{_key(found[0])}` is `{variable}`, and so on."
        aliases = [f" `{leaf.variables[0]}` is also `{name}`." for leaf in found for name in leaf.variables[1:]]
        parts += ["", said + "".join(aliases), ""]
        parts += list(_tables(parent))
    parts += ["## Variables that are no settings\n", "| variable | is |", "|---|---|"]
    parts += [f"| `{name}` | {OTHERS[name]} |" for name in OTHER_VARIABLES]
    parts += ["", PLUGINS, *_plugins()]
    return "\n".join(parts).rstrip() + "\n"


def unexplained() -> list[str]:
    """Settings of plugins of which nobody says what they are for, and words about settings that there are not."""
    words, found = _words(), {name: _fields(plugin.Config) for name, (_, plugin) in first_party().items()}
    lacking = [f"{name}.{a.name}" for name, fields in found.items() for a in fields if not _doc(name, a)]
    known = {f"{name}.{a.name}" for name, fields in found.items() for a in fields}
    return lacking + [f"{name}.{key}" for name, keys in words.items() for key in keys if f"{name}.{key}" not in known]


def _plugins() -> Iterator[str]:
    for name, (distribution, plugin) in first_party().items():
        fields = _fields(plugin.Config)
        if not fields:
            continue
        yield f"### [plugins.{name}]\n"
        yield f"Of {distribution}. {_sentence((plugin.__doc__ or '').strip().splitlines()[0])}\n"
        yield from ("| setting | default | is | what for |", "|---|---|---|---|")
        for a in fields:
            default = "" if a.default is None or isinstance(a.default, attrs.Factory) else toml(a.default)  # type: ignore[arg-type]
            yield _row(a.metadata.get("key", a.alias or a.name), default, kind(a), _doc(name, a))
        yield ""


def _tables(parent: str) -> Iterator[str]:
    """The tables of a section that have a line for each thing that somebody names."""
    for a in attrs.fields(attrs.fields_dict(Settings)[parent].type) if parent else ():  # type: ignore[arg-type]
        if "example" in a.metadata:
            yield f"### [{parent}.{a.name}]\n"
            yield f"{_sentence(a.metadata['doc'])}\n"
            yield f"```toml\n[{parent}.{a.name}]\n{a.metadata['example'].lstrip('#')}\n```\n"


def _fields(config: type | None) -> Sequence[attrs.Attribute[Any]]:
    if config is None:
        return ()
    attrs.resolve_types(config)
    return tuple(attrs.fields(config))


def _doc(name: str, a: attrs.Attribute[Any]) -> str:
    return str(a.metadata.get("doc") or _words().get(name, {}).get(a.name, ""))


def _words() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(WORDS.read_text(encoding="utf-8"))


def _key(leaf: Leaf) -> str:
    return leaf.path.rpartition(".")[2]


def _must(leaf: Leaf) -> str:
    """What a setting must be: what its own check answers to a value that is nothing of the kind."""
    if "parse" in leaf.field.metadata:
        return "an amount" + (', or `"none"` for no cap' if leaf.field.default is None else "")
    if get_origin(leaf.field.type) is tuple:
        return kind(leaf.field)
    try:
        leaf.field.validator(None, leaf.field, object())  # type: ignore[misc]
    except InputError as error:
        return error.problems[0].message.removeprefix("must be ").rpartition(", not ")[0]
    return kind(leaf.field)


def kind(a: attrs.Attribute[Any]) -> str:
    """What a plugin's setting must be: its type, and the limits that attrs' own validators set."""
    return ", ".join([_type(a.type), *_limits(a.validator)])


def _type(of: Any) -> str:
    if get_origin(of) in (Union, UnionType):
        return " or ".join(_type(each) for each in get_args(of) if each is not type(None))
    if get_origin(of) in (tuple, list, frozenset):
        return f"a list of {PLURALS.get(get_args(of)[0], 'tables')}"
    if of in KINDS:
        return KINDS[of]
    words = [toml(word) for word in get_args(of) if isinstance(word, str)]
    return " or ".join(words) if words else "a table"


def _limits(validator: Any) -> Iterator[str]:
    validator = getattr(validator, "validator", validator)  # of an optional one
    for each in getattr(validator, "_validators", (validator,)):
        if hasattr(each, "bound"):
            yield f"{BOUNDS[each.compare_op]} {each.bound:,}"
        elif hasattr(each, "min_length"):
            yield f"at least {each.min_length} long"
        elif hasattr(each, "max_length"):
            yield f"at most {each.max_length} long"
        elif hasattr(each, "options"):
            yield "one of " + ", ".join(toml(option) for option in each.options)


def _row(key: str, default: str, must: str, doc: str) -> str:
    cells = (f"`{key}`", f"`{default}`" if default else "", must, doc)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
