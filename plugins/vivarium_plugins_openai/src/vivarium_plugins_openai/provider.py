"""The room of the provider ``openai``: a model's name is looked up in the settings, and its server is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from vivarium_kernel import ModelInfo, Place, Price, ProviderFault, Reply, Request
from vivarium_plugins_openai.asking import body_of
from vivarium_plugins_openai.prices import price_of
from vivarium_plugins_openai.settings import OpenAIConfig, Server
from vivarium_plugins_openai.wire import Wire, model_info


class OpenAIProvider:
    """``openai:MODEL`` at the default server, ``openai:NAME/MODEL`` at one that the settings name."""

    name = "openai"

    def __init__(self, place: Place, config: OpenAIConfig) -> None:
        self._place = place
        self._config = config
        self._wires: dict[str, Wire] = {}

    def price(self, model: str) -> Price | None:
        """By the source that the server's settings name."""
        _, own, server = self._config.server(model)
        return price_of(server.prices, own)

    async def complete(self, request: Request) -> Reply:
        """Answer one call. Raises ProviderFault, NotFound and Invalid."""
        name, own, server = self._config.server(request.name)
        return await self._wire(name, server).complete(body_of(request, own, server), request)

    async def models(self) -> Sequence[ModelInfo]:
        """What each server lists. One that does not answer is named in a note, unless none answers: ProviderFault."""
        asked = {f"{name}/": server.kept_as(name) for name, server in self._config.servers.items()}
        if not self._config.default:
            server = self._config.server("")[2]
            if not asked or self._place.key(server.key) is not None:
                asked = {"": server, **asked}
        found = await asyncio.gather(*(self._listed(prefix, server) for prefix, server in asked.items()))
        models: list[ModelInfo] = []
        faults: list[ProviderFault] = []
        for prefix, listed in zip(asked, found, strict=True):
            if isinstance(listed, ProviderFault):
                faults.append(listed)
                models.append(ModelInfo(f"{prefix}*", note=listed.reason))
            else:
                models += listed
        if len(faults) == len(asked):
            raise faults[0]
        return models

    async def close(self) -> None:
        """Close every connection."""
        wires, self._wires = self._wires, {}
        for wire in wires.values():
            await wire.close()

    async def _listed(self, prefix: str, server: Server) -> list[ModelInfo] | ProviderFault:
        try:
            listed = await self._wire(prefix.rstrip("/"), server).models()
        except ProviderFault as fault:
            return fault
        return [model_info(each, prefix + each["id"]) for each in listed]

    def _wire(self, name: str, server: Server) -> Wire:
        wire = self._wires.get(name)
        if wire is None:
            wire = self._wires[name] = Wire(
                name or "openai",
                server.base_url,
                partial(self._place.key, server.key),
                keyless=server.keyless,
                mend=self._mend(name, server),
                connections=self._config.connections,
                headers=server.headers,
            )
        return wire

    def _mend(self, name: str, server: Server) -> str:
        name = name or self._config.default
        table = f"[plugins.openai.servers.{name or 'NAME'}]"
        keyless = f"`keyless = true` in {table}" if name else f'its own table {table} and `default = "NAME"`'
        return f"`vivarium key set {server.key}`; a server that needs none has {keyless}"


def provider(place: Place) -> OpenAIProvider:
    """Make the provider for a village, or for a worker's folder elsewhere."""
    return OpenAIProvider(place, place.config("openai", OpenAIConfig))
