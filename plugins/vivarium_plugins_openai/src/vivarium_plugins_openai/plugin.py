"""The room of the plugin ``openai``: its settings, checked and documented; the provider is in ``provider``."""

from __future__ import annotations

import asyncio
from importlib import import_module

from vivarium_kernel.clock import SimulatedLoop

from vivarium_kernel import Plugin, hookimpl
from vivarium_plugins_openai.settings import OpenAIConfig


class OpenAI(Plugin):
    """Models of any server that speaks OpenAI's chat completions."""

    name = "openai"
    Config = OpenAIConfig

    @hookimpl
    async def startup(self) -> None:
        """Import the tables of prices in a thread: the first call asks for them on the loop, and all would wait."""
        config: OpenAIConfig = self.config
        servers = (config.server("")[2], *config.servers.values())
        if isinstance(asyncio.get_running_loop(), SimulatedLoop):
            return  # no thread can wake a simulation
        if any(server.prices not in ("", "free") for server in servers):
            await asyncio.to_thread(import_module, "genai_prices.data")
