"""The hook reference, made from hookspecs.py, from what hooks.toml says of each hook, and from examples that run.

``uv run python -m tests.kernel.docs.hooks`` writes docs/hooks.md anew; a test compares it.
"""

from __future__ import annotations

import ast
import inspect
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivarium_kernel import hookspecs

from .first_party import REPOSITORY, first_party, hooks_of

PAGE = REPOSITORY / "docs" / "hooks.md"
FACTS = Path(__file__).with_name("hooks.toml")
EXAMPLES = Path(__file__).with_name("plugins")
COMMAND = "uv run python -m tests.kernel.docs.hooks"

# What a kind means, in the order in which the page explains them.
KINDS = {
    "register": "The plugin gives items. Each is known under its plugin's name.",
    "collect": "Everybody's items count, in the plugins' order.",
    "filter": "Everybody is asked; one refusal is enough.",
    "score": "Everybody's numbers count, as a weighted mean.",
    "strictest": "Everybody is asked; the strictest answer wins. Who is switched off by failures counts as strictest, "
    "and is tried again every 30 s.",
    "first": "Plugins are asked in turn until one does not answer None.",
    "transact": "The plugin writes in the open transaction. What it wrote is kept whole or left out whole.",
    "around": "The plugin wraps what the kernel does.",
    "notify": "The plugin is told. What it answers is ignored.",
}

HEAD = f"""# Hooks

Every plug point of the kernel, in the order in which a cycle meets them. This page is written by
`{COMMAND}` from `hookspecs.py` and from examples that run. Tests fail when it is
not what they say, or when a hook has no example that was called.

New here? Begin with the [tutorial](tutorial.md). How plugins are made is in [the guide](plugins.md).

## What is true of every hook

- Mark the method with `@hookimpl`. A method of a wrong name or with an argument that the hook does not have is refused
  when the plugin is loaded, with the cure.
- Take the arguments that you need, by name; leave out the others.
- A hook that is given `tx` or `view` is a plain function (`def`); one that may wait is a coroutine (`async def`).
  A plain function runs on the event loop or inside a transaction: let it be quick. One that takes more than 50 ms is
  logged with its file and line; one that holds its thread for 5 s ends the process, which begins again without it.
- A coroutine is cancelled after 10 s, except in `execute_task`, where the task's own limit holds.
- Whatever an implementation raises stays with its plugin: it is recorded under its name, and the village lives on.
  After five failures in a row the plugin is switched off on that hook; `vivarium plugins list` shows it.
- Order: `@hookimpl(tryfirst=True)` first, `trylast=True` last; between them each plugin after those in its `requires`
  and `after`, else by name.
- Amounts whose names end in `_micros` are integer millionths. Times whose names end in `_at` (and `now`, `at`) are
  integer microseconds of Unix time. `_seconds` are seconds.

The records that hooks are given and give back stand in [records.py](../vivarium_kernel/src/vivarium_kernel/records.py),
and are imported from `vivarium_kernel`.
"""


def specs() -> dict[str, Any]:
    """Every hook's spec by its name, in the order of the file."""
    return {name: value for name, value in vars(hookspecs).items() if hasattr(value, "vivarium_spec")}


def facts() -> dict[str, Any]:
    """What hooks.toml says."""
    return tomllib.loads(FACTS.read_text(encoding="utf-8"))


def page() -> str:
    """docs/hooks.md."""
    said, plugins = facts(), {name: hooks_of(plugin) for name, (_, plugin) in first_party().items()}
    parts = [HEAD, "## The kinds\n", "| kind | what becomes of the answers |", "|---|---|"]
    parts += [f"| {kind} | {meaning} |" for kind, meaning in KINDS.items()]
    parts += ["", "## The hooks\n", "| hook | kind | what for |", "|---|---|---|"]
    for name, spec in specs().items():
        parts.append(f"| [`{name}`](#{name}) | {said[name]['kind']} | {_first_sentence(spec)} |")
    for name, spec in specs().items():
        by = [f"`{plugin}`" for plugin, hooks in plugins.items() if name in hooks]
        parts += ["", *_entry(name, spec, said[name], by)]
    return "\n".join(parts) + "\n"


def _entry(name: str, spec: Any, said: Mapping[str, Any], by: list[str]) -> list[str]:
    word = "async def" if inspect.iscoroutinefunction(spec) else "def"
    lines = [
        f"### {name}",
        "",
        "```text",
        f"{word} {name}{inspect.signature(spec)}".replace("'", ""),
        "```",
        "",
        _one_line(spec),
        "",
    ]
    if said["arguments"]:
        lines += ["| argument | is |", "|---|---|"]
        lines += [f"| `{argument}` | {meaning} |" for argument, meaning in said["arguments"].items()]
        lines.append("")
    caption, code = example(said["example"])
    return [
        *lines,
        f"- **When.** {said['when']}",
        f"- **Kind.** {said['kind']}.",
        f"- **Gives.** {said['gives'][0].upper()}{said['gives'][1:]}.",
        f"- **When it fails.** {said['fails']}",
        f"- **Who has it.** {', '.join(by) or 'None of the plugins that are shipped so far'}.",
        "",
        f"An example: {caption[0].lower()}{caption[1:]}",
        "",
        "```python",
        code,
        "```",
    ]


def example(name: str) -> tuple[str, str]:
    """An example's first docstring line, and its code without it."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    head = tree.body[0]
    caption = ast.get_docstring(tree)
    assert caption is not None and head.end_lineno is not None, f"{name} says nothing about itself"
    return caption, "\n".join(text.splitlines()[head.end_lineno :]).strip()


def _one_line(spec: Any) -> str:
    return " ".join((inspect.getdoc(spec) or "").split()).replace("``", "`")


def _first_sentence(spec: Any) -> str:
    return _one_line(spec).partition(". ")[0].rstrip(".")


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
