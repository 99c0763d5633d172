"""What the tests of the plugin platform share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.cli.running import Here, village
from kernel.plugins.shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """An empty folder on the path of this process and of those that it starts."""
    for name in [name for name in os.environ if name.startswith("VIVARIUM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield Shelf(folder)
    for name in [name for name in sys.modules if name.startswith("zz_")]:
        del sys.modules[name]


@pytest.fixture
def here(tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Commands in a small village, with the shelf on the path."""
    return Here(village(tmp_path / "small"), monkeypatch)
