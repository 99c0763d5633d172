"""The room of the plugin ``vllm``: its settings, checked and documented; the provider is in ``provider``."""

from __future__ import annotations

from vivarium_kernel import Plugin
from vivarium_plugins_vllm.settings import VLLMConfig


class VLLM(Plugin):
    """Models of vLLM servers."""

    name = "vllm"
    Config = VLLMConfig
