"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from .running import Here, village


@pytest.fixture(autouse=True)
def no_village_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the person who runs the tests reaches a village of theirs."""
    import os

    for name in [name for name in os.environ if name.startswith("VIVARIUM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Commands in a small village that has not lived yet."""
    return Here(village(tmp_path / "small"), monkeypatch)
