"""The room of the village's choice of plugins: ``plugins.json``, and what is on or off by name before any import.

The file says which plugins are switched off, and of those that were enabled or installed by command which distribution
they came from, in what version and with which files. Without it every installed plugin is on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, field, frozen

from vivarium_kernel.errors import Invalid

if TYPE_CHECKING:
    from vivarium_kernel.installed import Found

FILE_NAME = "plugins.json"
VERSION = 1
EVERY = "*"  # in plugins_allow: every installed plugin


@frozen
class Recorded:
    """A plugin as it was when it was enabled or installed. ``files`` is the hash of its files.

    ``requirement`` is what an installer is given to get it again: ``D==V``, ``D @ URL`` or ``-e PATH``.
    """

    distribution: str
    version: str
    requirement: str
    files: str = ""
    hooks: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()


@frozen
class Registry:
    """What ``plugins.json`` says. ``installed`` are requirements that ``vivarium plugins install`` was given."""

    disabled: frozenset[str] = frozenset()
    plugins: Mapping[str, Recorded] = field(factory=dict)
    installed: tuple[str, ...] = ()

    def record(self, name: str, recorded: Recorded) -> Registry:
        """With a plugin as it is now, on or off as it was; what was installed of its distribution follows."""
        older = self.plugins.get(name)
        known = evolve(self, plugins={**self.plugins, name: recorded})
        kept = [line for line in self.installed if older is None or line != older.requirement]
        same = any(_same(line, recorded.distribution) for line in kept) or len(kept) < len(self.installed)
        return evolve(known, installed=tuple(kept)).install([recorded.requirement]) if same else known

    def enable(self, name: str, recorded: Recorded | None) -> Registry:
        """With a plugin on; ``recorded`` None is one of the kernel's own, of which nothing need be kept."""
        known = self if recorded is None else self.record(name, recorded)
        return evolve(known, disabled=self.disabled - {name})

    def install(self, requirements: Sequence[str]) -> Registry:
        """With requirements, each in place of an older one of its distribution."""
        from vivarium_kernel.installed import distribution_of

        new = [distribution_of(line) for line in requirements]
        kept = [line for line in self.installed if not any(name and _same(line, name) for name in new)]
        return evolve(self, installed=tuple(dict.fromkeys((*kept, *requirements))))

    def disable(self, name: str) -> Registry:
        return evolve(self, disabled=self.disabled | {name})

    def forget(self, names: Sequence[str], distribution: str) -> Registry:
        """Without these plugins and what was installed of ``distribution``."""
        gone = {self.plugins[name].requirement for name in names if name in self.plugins}
        kept = [line for line in self.installed if line not in gone and not _same(line, distribution)]
        return Registry(
            self.disabled - set(names),
            {name: one for name, one in self.plugins.items() if name not in names},
            tuple(kept),
        )


@frozen
class Choice:
    """What decides which plugins one opening of a village has on; only ``registry`` outlives it.

    ``configured`` are the names of the tables ``[plugins.NAME]``.
    """

    registry: Registry = field(factory=Registry)
    allow: tuple[str, ...] = (EVERY,)
    without: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    configured: tuple[str, ...] = ()

    @property
    def strict(self) -> bool:
        """Whether plugins_allow names the plugins that may load, so that a changed file is refused."""
        return EVERY not in self.allow

    def why_off(self, name: str, *, installed: bool) -> str:
        """Why a plugin is off, empty when it is on. The kernel's own are no matter of plugins_allow or ``only``."""
        if name in self.registry.disabled:
            return "switched off"
        if name in self.without:
            return "left out this time by --without"
        if installed and self.only is not None and name not in self.only:
            return "left out this time: --with-only or VIVARIUM_PLUGINS names others"
        if installed and self.strict and name not in self.allow:
            return "plugins_allow in vivarium.toml does not name it"
        return ""


def stamp(folder: Path) -> tuple[int, ...] | None:
    """What changes whenever ``plugins.json`` does (mtime in ns, size, inode); None without the file."""
    try:
        found = (folder / FILE_NAME).stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read(folder: Path) -> Registry:
    """The village's registry; one without the file has every installed plugin on. Raises Invalid."""
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Registry()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    try:
        raw = json.loads(text)
        version = raw.get("version", VERSION)
        if version != VERSION:
            raise Invalid(
                "plugins.version", f"{path} is of version {version!r}; this Vivarium knows {VERSION}.",
                "Upgrade: pip install --upgrade vivarium-kernel.",
            )  # fmt: skip
        return Registry(
            frozenset(_names(raw.get("disabled", []), "disabled")),
            {name: _recorded(name, one) for name, one in raw.get("plugins", {}).items()},
            tuple(_names(raw.get("installed", []), "installed")),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise _unreadable(path, str(error)) from error


def write(folder: Path, registry: Registry) -> None:
    """Replace ``plugins.json``: whoever reads it sees the old file or the new one, also after a power cut."""
    path = folder / FILE_NAME
    draft = folder / f".{FILE_NAME}.{os.getpid()}"
    document = {
        "version": VERSION,
        "disabled": sorted(registry.disabled),
        "plugins": {name: asdict(one) for name, one in sorted(registry.plugins.items())},
        "installed": list(registry.installed),
    }
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(above)
    finally:
        os.close(above)


def only_of(environ: Mapping[str, str]) -> frozenset[str] | None:
    """The installed plugins that VIVARIUM_PLUGINS leaves on, None without it."""
    text = environ.get("VIVARIUM_PLUGINS")
    return None if text is None else names_of(text)


def names_of(text: str) -> frozenset[str]:
    """``a,b`` as names."""
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def changed(recorded: Recorded, found: Found) -> str:
    """How an installed plugin differs from what was recorded of it; empty when it does not."""
    from vivarium_kernel.installed import digest, normal

    if normal(found.distribution) != normal(recorded.distribution):
        return f"it was enabled as part of {recorded.distribution} {recorded.version} and comes from {found} now"
    if found.version != recorded.version:
        return f"it was enabled in version {recorded.version} and is {found.version} now"
    if recorded.files and digest(found) != recorded.files:
        return f"its files are not those of {found} as it was enabled"
    return ""


def _same(requirement: str, distribution: str) -> bool:
    from vivarium_kernel.installed import distribution_of, normal

    return normal(distribution_of(requirement)) == normal(distribution)


def _names(value: Any, key: str) -> Iterator[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f'"{key}" must be a list of texts, not {json.dumps(value)[:80]}')
    yield from value


def _recorded(name: str, raw: Any) -> Recorded:
    if not isinstance(raw, dict):
        raise TypeError(f'"plugins" has {json.dumps(raw)[:80]} under "{name}", not an object')
    fields: dict[str, Any] = {}
    for key in ("distribution", "version", "requirement", "files"):
        fields[key] = raw.get(key, "")
        if not isinstance(fields[key], str):
            raise TypeError(f'"plugins.{name}.{key}" must be text, not {json.dumps(fields[key])[:80]}')
    for key in ("hooks", "config", "requires", "offers"):
        fields[key] = tuple(_names(raw.get(key, []), f"plugins.{name}.{key}"))
    return Recorded(**fields)


def _unreadable(path: Path, why: str) -> Invalid:
    return Invalid(
        "plugins.file",
        f"{path} can't be read: {why}.",
        'It holds {"disabled": ["NAME", …]}; mend or remove it.',
    )
