"""A village whose plugins are given on the spot, lived on quick time, and plugins that are installed beside it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kernel.faults import quick
from kernel.faults.scene import live
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import NewTask
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village, With

SETTINGS = 'name = "explained"\nresidents = ["ada", "ben"]\nmodel = "scripted:echo"\n'


def plugin(
    name: str, *, needs: tuple[str, ...] = (), guards: tuple[str, ...] | None = None, **hooks: Callable[..., Any]
) -> type[Plugin]:
    """A plugin's class whose methods are these functions, marked."""
    marked = {hook: hookimpl(function) for hook, function in hooks.items()}
    return type(name.title(), (Plugin,), {"name": name, "requires": needs, "guards": guards, **marked})


def folder(path: Path, settings: str = "") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "vivarium.toml").write_text(SETTINGS + settings)
    return path


def opened(path: Path, *plugins: type[Plugin], **more: Any) -> Village:
    """The village in this folder, on quick time; its settings must be there."""
    how = With(threaded=True, installed=False, plugins=plugins, **more)
    return Village(path, how, clock=quick.QuickClock(), environ={})


def run(village: Village, residents: int = 2) -> None:
    """Let residents work until the board is empty."""
    quick.run(live(Runtime(village, residents, until_done=True)))


def prompts(*names: str, **more: Any) -> list[NewTask]:
    return [NewTask(id=name, prompt=f"Do {name}.", **more) for name in names]


def rows(village: Village, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with village.store.view() as view:
        return view.rows(sql, values)


def site(path: Path, **plugins: str) -> dict[str, str]:
    """Distributions with one plugin each, by name: the body of its class. Returns the variables that install them."""
    for name, body in plugins.items():
        information = path / f"{name}-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[vivarium.plugins]\n{name} = {name}_plugin:It\n")
        lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
        (path / f"{name}_plugin.py").write_text(
            "from pathlib import Path\n"
            "from vivarium_kernel import Outcome, Plugin, hookimpl\n\n"
            f"class It(Plugin):\n    name = {name!r}\n{lines}"
        )
    return {"PYTHONPATH": str(path)}


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """What the kernel logs meanwhile."""
    lines: list[str] = []
    log, handler = logging.getLogger("vivarium"), _Lines(lines)
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)


def names(found: Sequence[Any]) -> list[str]:
    return [each.plugin for each in found]
