"""What the tests of plans share."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel.kit.installing import install


@pytest.fixture
def installed(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The distribution as an installer leaves it; the folder that it is in, which this process finds it in too."""
    site = install(repository / "plugins" / "vivarium_plugins_intent", tmp_path / "site")
    monkeypatch.syspath_prepend(site)
    return site
