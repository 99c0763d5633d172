"""Distributions that are really installed, made by hand: a folder on the path, and wheels for an installer."""

from __future__ import annotations

import base64
import hashlib
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen


def source(name: str, body: str = "", *, marks: Path | None = None, top: str = "") -> str:
    """A plugin's module. With ``marks`` it leaves a line there whenever it is imported."""
    noted = f"open({str(marks)!r}, 'a').write({name!r} + '\\n')\n" if marks is not None else ""
    return (
        "import attrs\nfrom vivarium_kernel import NewTask, Plugin, hookimpl\n"
        f"{noted}{textwrap.dedent(top)}\n\nclass It(Plugin):\n    'Does one thing.'\n    name = {name!r}\n"
        + textwrap.indent(textwrap.dedent(body), "    ")
    )


def files_of(
    distribution: str, version: str, plugins: Mapping[str, str], models: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The files of a distribution whose plugins, by name, have these modules."""
    info = f"{distribution.replace('-', '_')}-{version}.dist-info"
    points = "".join(f"{name} = zz_{name}:It\n" for name in plugins)
    providers = "".join(f"{name} = {value}\n" for name, value in (models or {}).items())
    return {f"zz_{name}.py": text for name, text in plugins.items()} | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[vivarium.plugins]\n{points}\n[vivarium.models]\n{providers}",
    }


def record_of(files: Mapping[str, str]) -> tuple[str, str]:
    """A distribution's RECORD: its name and text."""
    info = next(name for name in files if name.endswith("/METADATA")).removesuffix("METADATA")
    lines = []
    for name, text in files.items():
        hashed = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={hashed},{len(text.encode())}")
    return f"{info}RECORD", "\n".join([*lines, f"{info}RECORD,,"]) + "\n"


def wheel(folder: Path, distribution: str, version: str, plugins: Mapping[str, str]) -> Path:
    """A wheel that any installer takes."""
    files = files_of(distribution, version, plugins)
    name, text = record_of(files)
    path = folder / f"{distribution.replace('-', '_')}-{version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in (files | {name: text}).items():
            archive.writestr(each, content)
    return path


@frozen
class Shelf:
    """A folder that is on the path, and where modules leave a mark when they are imported."""

    folder: Path

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    def put(
        self, distribution: str, version: str, /, *, models: Mapping[str, str] | None = None, **bodies: str
    ) -> Path:
        """Install a distribution with these plugins: the bodies of their classes by name. Returns its dist-info."""
        modules = {name: source(name, body, marks=self.marks) for name, body in bodies.items()}
        return self.put_modules(distribution, version, modules, models)

    def put_modules(
        self, distribution: str, version: str, modules: Mapping[str, str], models: Mapping[str, str] | None = None
    ) -> Path:
        files = files_of(distribution, version, modules, models)
        name, text = record_of(files)
        for each, content in (files | {name: text}).items():
            path = self.folder / each
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        return self.folder / Path(name).parent

    def imported(self) -> list[str]:
        """Which plugins were imported, once for each time."""
        return self.marks.read_text().split() if self.marks.exists() else []
