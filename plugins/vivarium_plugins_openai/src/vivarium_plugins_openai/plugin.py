"""The room of the plugin ``openai``: its settings, checked and documented; the provider is in ``provider``."""

from __future__ import annotations

from vivarium_kernel import Plugin
from vivarium_plugins_openai.settings import OpenAIConfig


class OpenAI(Plugin):
    """Models of any server that speaks OpenAI's chat completions."""

    name = "openai"
    Config = OpenAIConfig
