"""Running pytest in a process of its own, as an author does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def pytester_like(tmp_path: Path) -> Callable[[str], str]:
    """Runs a test file of its own with nothing but the kit; answers what pytest said."""

    def run(code: str) -> str:
        folder = tmp_path / "author"
        folder.mkdir(exist_ok=True)
        (folder / "test_it.py").write_text(code)
        (folder / "pytest.ini").write_text("[pytest]\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "VIVARIUM_"))}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "vivarium_kernel.testing.fixtures",
             "test_it.py"],
            cwd=folder, env=kept | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    return run
