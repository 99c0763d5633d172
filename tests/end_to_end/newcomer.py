"""A newcomer at an example: its folder copied, and ``vivarium`` typed in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES, PLUGINS = REPOSITORY / "examples", REPOSITORY / "plugins"
MADE_BY_THE_PROGRAM = shutil.ignore_patterns("vivarium.db*", "vivarium.lock", "plugins.json", "files", "__pycache__")
VIVARIUM = [sys.executable, "-c", "import sys; from vivarium_kernel.cli import main; sys.exit(main())"]
SECONDS = 300.0  # more than any of these takes: what hangs fails


@frozen
class Done:
    """How a call ended."""

    status: int
    out: str
    err: str


def copied(example: str, place: Path) -> Path:
    """A copy of an example, as it is in the repository."""
    shutil.copytree(EXAMPLES / example, place / example, ignore=MADE_BY_THE_PROGRAM)
    return place / example


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables without those of any village, and without what would lead round the loopback device."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("VIVARIUM_") and not name.lower().endswith("_proxy")
    }
    return kept | {"LANG": "C.UTF-8"} | dict(more or {})


def typed(*words: str | Path, place: Path, env: Mapping[str, str] | None = None) -> Done:
    """``vivarium`` with these words."""
    done = subprocess.run(
        [*VIVARIUM, *map(str, words)], cwd=place, env=environment(env), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def installed(place: Path, *distributions: str) -> dict[str, str]:
    """The variables that let a process find these distributions of ``plugins/`` as if they were installed.

    The environment of the tests has none of them, for all of the kernel's own tests would then live with them.
    """
    paths = [str(place)]
    for name in distributions:
        folder = PLUGINS / name
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        information = place / f"{name}-{project['version']}.dist-info"
        information.mkdir(parents=True)
        about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (information / "METADATA").write_text(about, encoding="utf-8")
        points = [
            f"[{group}]\n" + "".join(f"{point} = {target}\n" for point, target in found.items())
            for group, found in project["entry-points"].items()
        ]
        (information / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
        paths.append(str(folder / "src"))
    return {"PYTHONPATH": os.pathsep.join(paths)}
