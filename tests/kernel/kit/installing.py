"""A distribution installed as a wheel would be, without any installer: its package and its metadata in one folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from attrs import frozen


@frozen
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


def install(project: Path, site: Path) -> Path:
    """Put a project's package and dist-info into ``site``."""
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    packages = [folder for folder in (project / "src").iterdir() if folder.is_dir() and folder.name != "__pycache__"]
    for package in packages:
        shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir(parents=True)
    readme = (project / about["readme"]).read_text()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
        f"Summary: {about['description']}\nDescription-Content-Type: text/markdown\n\n{readme}"
    )
    groups = about["entry-points"].items()
    (info / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in points.items()) for group, points in groups)
    )
    files = [path for path in site.rglob("*") if path.is_file()]
    (info / "RECORD").write_text("".join(f"{path.relative_to(site)},,\n" for path in files))
    return site


def plugin(site: Path, source: str, name: str = "rogue", cls: str = "Rogue", readme: str = "# Rogue") -> str:
    """Install a plugin of one module; returns its distribution's name."""
    project = site.parent / f"{name}-project"
    package = project / "src" / f"vivarium_plugins_{name}"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source)
    (project / "README.md").write_text(readme)
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "vivarium-plugins-{name}"\nversion = "1.0"\ndescription = "A test\'s."\n'
        f'readme = "README.md"\n[project.entry-points."vivarium.plugins"]\n{name} = "vivarium_plugins_{name}:{cls}"\n'
    )
    install(project, site)
    return f"vivarium-plugins-{name}"


def python(*arguments: str | Path, site: Path, cwd: Path, timeout: float = 240.0) -> Done:
    """Run this Python with what is installed in ``site``, and nothing of the repository on its path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "VIVARIUM_"))}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False,
        env=kept | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def vivarium(*arguments: str | Path, site: Path, cwd: Path) -> Done:
    """Run ``vivarium`` there."""
    call = "import sys; from vivarium_kernel.cli import main; sys.exit(main())"
    return python("-c", call, *arguments, site=site, cwd=cwd)
