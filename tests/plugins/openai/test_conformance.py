"""What every plugin must hold, held by ``openai``."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel.kit.installing import install
from vivarium_kernel.testing import Conformance
from vivarium_plugins_openai.plugin import OpenAI
from vivarium_plugins_openai.provider import provider


@pytest.fixture
def installed(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distribution as an installer leaves it, where this process finds it."""
    monkeypatch.syspath_prepend(install(repository / "plugins" / "vivarium_plugins_openai", tmp_path / "site"))


@pytest.mark.usefixtures("installed")
class TestOpenAI(Conformance):
    plugin = OpenAI
    models = (provider,)
