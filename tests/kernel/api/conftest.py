"""The room of the API's fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .scene import Served, found_village, served, with_tokens


@pytest.fixture
def scene(tmp_path: Path, closing: ExitStack) -> Iterator[Served]:
    """A served village whose residents nobody drives, and a token of each role."""
    with served(found_village(tmp_path / "village"), closing=closing) as found:
        yield with_tokens(found)
