"""What docs/tutorial.md says to type and to write, done in a folder of its own.

Installing is the one thing that is not done as it is typed: an editable installation is what pip would leave behind, so
that the tutorial runs where no package index can be reached.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field
from test_docs import environment, typed_lines, unseen

from .first_party import REPOSITORY

PAGE = REPOSITORY / "docs" / "tutorial.md"
PROGRAMS = {
    "vivarium": [sys.executable, "-c", "import sys; from vivarium_kernel.cli import main; sys.exit(main())"],
    "pytest": [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
}
INSTALL = ["pip", "install", "--editable", ".[test]"]


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The page's blocks in their order: what they are written in, and their text."""
    return ((found[1], found[2]) for found in re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))


@define
class Reader:
    """Somebody who follows the page: where they are, and what they have installed."""

    place: Path
    site: Path
    sources: list[Path] = field(factory=list)

    def write(self, text: str) -> None:
        """Write a file that a block is: its first line names it. Settings are added to what is there."""
        head, _, rest = text.partition("\n")
        path = self.place / head.removeprefix("# ").strip()
        before = path.read_text(encoding="utf-8") if path.suffix == ".toml" else ""
        path.write_text(f"{before}\n{rest}" if before else rest, encoding="utf-8")

    def type(self, line: str) -> str:
        """Type a line; returns what was answered. Raises AssertionError when it fails."""
        words = shlex.split(line)
        if words[0] == "cd":
            self.place = (self.place / words[1]).resolve(strict=True)
            return ""
        if words == INSTALL:
            self._install()
            return ""
        done = subprocess.run(
            [*PROGRAMS.get(words[0], [words[0]]), *words[1:]],
            cwd=self.place, env=self._environment(), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"`{line}` failed:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join(map(str, [self.site, *self.sources]))
        kept = {name: value for name, value in environment(PYTHONPATH=path).items() if not name.startswith("PYTEST_")}
        return kept | {"PYTHONDONTWRITEBYTECODE": "1"}

    def _install(self) -> None:
        project = tomllib.loads((self.place / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        name, version = project["name"], project["version"]
        metadata = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir(parents=True)
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {project['description']}\n\n"
        readme = (self.place / project["readme"]).read_text(encoding="utf-8")
        (metadata / "METADATA").write_text(head + readme, encoding="utf-8")
        points = [
            f"[{group}]\n" + "\n".join(f"{key} = {target}" for key, target in found.items())
            for group, found in project["entry-points"].items()
        ]
        (metadata / "entry_points.txt").write_text("\n\n".join(points) + "\n", encoding="utf-8")
        self.sources.append(self.place / "src")


def follow(page: str, reader: Reader, *, leave_out: str = "") -> list[str]:
    """Do what a page says; returns what was typed. Lines of ``leave_out`` are not typed.

    Raises AssertionError for a line that fails, or that does not answer what the page shows.
    """
    typed = []
    for language, text in blocks(page):
        if language in ("python", "toml"):
            reader.write(text)
        elif language == "console":
            for line, shown in typed_lines(text):
                if line == leave_out:
                    continue
                answered = reader.type(line)
                missing = unseen(shown, answered)
                assert missing == [], f"`{line}` answered\n{answered}\nwithout {missing}"
                typed.append(line)
    return typed
