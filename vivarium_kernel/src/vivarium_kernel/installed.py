"""The room of what is installed: plugins as their distributions' metadata has them, and the files they consist of.

Nothing here imports a plugin: names, versions and files are read, never run.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import json
import re
import sys
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

from attrs import frozen

GROUP = "vivarium.plugins"
UNCLASH = "uninstall one of them"
TAKEN = "uninstall that distribution, or rename its entry point"
MODELS = "vivarium.models"
# What an installer writes beside a distribution: its own record of the day, no part of what was published.
_NOT_PUBLISHED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")


@frozen
class Found:
    """A plugin that is installed, as its distribution's metadata has it; not imported."""

    name: str
    distribution: str
    version: str
    entry_point: importlib.metadata.EntryPoint

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


def claims(group: str = GROUP) -> dict[str, list[Found]]:
    """Who claims each name; more than one distribution for a name is a clash, and none of them is taken."""
    found: dict[str, list[Found]] = {}
    heads: dict[int, tuple[str, str]] = {}
    for point in importlib.metadata.entry_points(group=group):
        # An entry point of an installed distribution knows it; one that is made by hand does not.
        owner = point.dist
        name, version = ("unknown", "0") if owner is None else heads.setdefault(id(owner), named(owner))
        one = Found(point.name, name, version, point)
        if one not in found.setdefault(point.name, []):
            found[point.name].append(one)
    return dict(sorted(found.items()))


def claimants(found: Iterable[Found]) -> str:
    """Those who claim one name, in words."""
    return " and ".join(sorted(map(str, found)))


def named(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """A distribution's name and version: the two lines that count of its metadata, which the library parses whole."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    head = dict(line.partition(": ")[::2] for line in text.partition("\n\n")[0].splitlines())
    return head.get("Name", "unknown").strip(), head.get("Version", "0").strip()


def versions(names: Iterable[str] | None = None) -> dict[str, str]:
    """The version of each of these distributions that is installed, or of all, by their normal names."""
    if names is None:
        found: Iterable[importlib.metadata.Distribution] = importlib.metadata.distributions()
    else:
        found = (one for name in names for one in importlib.metadata.distributions(name=name))
    heads: dict[str, str] = {}
    for distribution in found:
        name, version = named(distribution)
        heads.setdefault(normal(name), version)
    return heads


def normal(name: str) -> str:
    """A distribution's name as installers compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution_of(requirement: str) -> str:
    """The distribution that a requirement names at its beginning; empty for a path or an address."""
    match = re.match(r"\s*([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*(?:$|[=<>~!;@,( ])", requirement)
    return match[1] if match else ""


def origin(distribution: importlib.metadata.Distribution) -> tuple[str, bool]:
    """The address that a distribution was installed from, if not from an index; and whether it is editable."""
    text = distribution.read_text("direct_url.json")
    about = json.loads(text) if text else {}
    return str(about.get("url", "")), bool(about.get("dir_info", {}).get("editable"))


def requirement_of(distribution: importlib.metadata.Distribution | None) -> str:
    """What an installer is given to get a distribution again: ``D==V``, ``D @ URL`` or ``-e PATH``."""
    if distribution is None:
        return ""
    name, version = named(distribution)
    url, editable = origin(distribution)
    if editable:
        return f"-e {path_of(url) or url}"
    return f"{name} @ {url}" if url else f"{name}=={version}"


def digest(found: Found) -> str:
    """The hash of a plugin's files: those of its distribution, or of its package where that is installed editable."""
    total = sha256()
    for name, path in sorted(_files(found)):
        try:
            content = sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            content = f"unreadable: {error.strerror}"
        total.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    return f"sha256:{total.hexdigest()}"


def _files(found: Found) -> Iterator[tuple[str, Path]]:
    listed = list(_listed(found.entry_point.dist))
    if any(not _is_metadata(name) for name, _ in listed):
        yield from listed
        return
    # Editable: what is listed points at the sources, so they are what counts.
    yield from ((name, path) for name, path in listed if name.endswith("entry_points.txt"))
    for top in _places(found.entry_point.module):
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(top.parent).as_posix(), path


def _listed(distribution: importlib.metadata.Distribution | None) -> Iterator[tuple[str, Path]]:
    for file in (distribution.files if distribution is not None else None) or ():
        if file.suffix != ".pyc" and file.name not in _NOT_PUBLISHED:
            yield file.as_posix(), Path(str(file.locate()))


def _is_metadata(name: str) -> bool:
    first = name.partition("/")[0]
    return first.endswith((".dist-info", ".egg-info", ".pth")) or name.startswith(("..", "__editable__"))


def _places(module: str) -> list[Path]:
    """Where a module's package is, found as the import system finds it and without running any of it."""
    path: list[str] | None = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = _spec(name, path)
        if spec is None:
            return []
        if spec.origin is not None and spec.loader is not None:
            place = Path(spec.origin)
            return [place.parent if spec.submodule_search_locations is not None else place]
        path = list(spec.submodule_search_locations or ())  # a namespace: its own files are in what is below it
    return [Path(place) for place in path or ()]


def _spec(name: str, path: list[str] | None) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(name, path) if find is not None else None
        if isinstance(spec, importlib.machinery.ModuleSpec):
            return spec
    return None


def path_of(url: str) -> Path | None:
    """The path that a ``file:`` address names."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None
