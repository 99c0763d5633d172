"""Promises that every plugin holds, held by `intent`."""

from __future__ import annotations

from typing import ClassVar

import pytest
from vivarium_kernel.testing import Conformance
from vivarium_plugins_intent.plugin import IntentPlugin


@pytest.mark.usefixtures("installed")
class TestIntent(Conformance):
    plugin: ClassVar[type[IntentPlugin]] = IntentPlugin
