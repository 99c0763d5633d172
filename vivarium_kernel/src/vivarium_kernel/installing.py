"""The room of installing: distributions come and go by the installer that made this environment, pip or uv."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import frozen

from vivarium_kernel.errors import Conflict, Invalid, NotFound
from vivarium_kernel.installed import distribution_of, normal, origin, requirement_of


@frozen
class Installer:
    """A program that installs into this environment. ``name`` is ``pip`` or ``uv``."""

    name: str
    command: tuple[str, ...]

    def install(self, requirements: Sequence[str], editable: Sequence[str] = (), *, upgrade: bool = False) -> None:
        """Install; what the installer says goes where this program's output goes. Raises Conflict if it fails."""
        words = [word for path in editable for word in ("-e", path)]
        self._run("install", *(["--upgrade"] if upgrade else []), *words, *requirements)

    def uninstall(self, distributions: Sequence[str]) -> None:
        """Uninstall; raises Conflict if it fails."""
        self._run("uninstall", *([] if self.name == "uv" else ["--yes"]), *distributions)

    def _run(self, verb: str, *words: str) -> None:
        place = ["--python", sys.executable] if self.name == "uv" else []
        sys.stdout.flush()
        done = subprocess.run([*self.command, verb, *place, *words], check=False)  # noqa: S603 - the installer itself
        importlib.invalidate_caches()
        if done.returncode:
            raise Conflict(
                "plugins.installer", f"{self.name} could not {verb} {' '.join(words)} (status {done.returncode}).",
                f"{self.name} said why, above.",
            )  # fmt: skip


def installer(prefix: Path | None = None) -> Installer:
    """The installer that made this environment; the other one where that is not at hand. Raises NotFound."""
    uv, pip = _uv(), _pip()
    found = (uv or pip) if made_by_uv(Path(sys.prefix) if prefix is None else prefix) else (pip or uv)
    if found is None:
        raise NotFound(
            "plugins.installer", "Neither pip nor uv is here to install with.",
            f"Put uv on the PATH, or run: {sys.executable} -m ensurepip.",
        )  # fmt: skip
    return found


def made_by_uv(prefix: Path) -> bool:
    """Whether uv made the environment, or installed Vivarium into it: it says so in either."""
    try:
        lines = (prefix / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    if any(line.partition("=")[0].strip() == "uv" for line in lines):
        return True
    kernel = next(iter(importlib.metadata.distributions(name="vivarium-kernel")), None)
    return kernel is not None and (kernel.read_text("INSTALLER") or "").strip() == "uv"


def _uv() -> Installer | None:
    path = shutil.which("uv")
    return Installer("uv", (path, "pip")) if path else None


def _pip() -> Installer | None:
    return Installer("pip", (sys.executable, "-m", "pip")) if importlib.util.find_spec("pip") else None


def absolute(requirement: str) -> str:
    """A requirement as it is meant everywhere: a path is made absolute. Raises Invalid for an option."""
    if requirement.startswith("-"):
        raise Invalid(
            "plugins.requirement", f"{requirement!r} is no requirement.",
            "Name a distribution (NAME or NAME==VERSION), a wheel or folder, or an address.", field="requirement",
        )  # fmt: skip
    path = Path(requirement)
    is_path = "/" in requirement or requirement == "." or path.suffix in (".whl", ".gz", ".zip")
    return str(path.resolve()) if is_path and path.exists() else requirement


def owners(requirements: Iterable[str]) -> list[importlib.metadata.Distribution]:
    """The distributions that were installed of these requirements, editable paths among them."""
    wanted = list(requirements)
    names = {normal(distribution_of(one)) for one in wanted} - {""}
    places = {Path(one).as_uri() for one in wanted if one.startswith("/")} | {one for one in wanted if "://" in one}
    found: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        name = normal(distribution.name)
        url = origin(distribution)[0]
        if name in names or (url and (url in places or url.rstrip("/") in places)):
            found.setdefault(name, distribution)
    return list(found.values())


def lacking(requirements: Iterable[str]) -> list[str]:
    """Those of recorded requirements (``D==V``, ``D @ URL``, ``-e PATH``, ``D``) that are not installed so."""
    there = list(importlib.metadata.distributions())
    have = {normal_line(requirement_of(one)) for one in there} | {normal(one.name) for one in there}
    return [line for line in dict.fromkeys(requirements) if normal_line(line) not in have]


def normal_line(line: str) -> str:
    """A recorded requirement so that two that mean the same are the same text."""
    name = distribution_of(line)
    return normal(name) + line.strip()[len(name) :].rstrip("/") if name else line.rstrip("/")
