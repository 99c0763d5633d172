"""What every plugin must hold, held by ``vllm``."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel.kit.installing import install
from vivarium_kernel.testing import Conformance
from vivarium_plugins_vllm.plugin import VLLM
from vivarium_plugins_vllm.provider import provider


@pytest.fixture
def installed(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distribution as an installer leaves it, where this process finds it."""
    monkeypatch.syspath_prepend(install(repository / "plugins" / "vivarium_plugins_vllm", tmp_path / "site"))


@pytest.mark.usefixtures("installed")
class TestVLLM(Conformance):
    plugin = VLLM
    models = (provider,)
