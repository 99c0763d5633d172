"""The room of one vLLM server among those behind a name: what it serves, how busy it is, whether it is up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from vivarium_plugins_openai import Wire

from vivarium_kernel import Invalid, NotFound, ProviderFault, Reply, Request, count_tokens
from vivarium_plugins_vllm import fitting, metrics
from vivarium_plugins_vllm.settings import VLLMConfig, root_of

log = logging.getLogger("vivarium.vllm")
REST_SECONDS = 10.0  # how long a server that is down is left out
KNOWN_SECONDS = 60.0  # how long a list of models is believed


@frozen
class Served:
    """A model that a server has; ``parent`` is the model that an adapter bends."""

    context_tokens: int | None
    parent: str = ""


class Replica:
    """One server. ``in_flight`` counts our own calls: its gauges lag behind, and asking for them at each call costs."""

    def __init__(self, url: str, key: Callable[[], str | None], config: VLLMConfig) -> None:
        self.root = root_of(url)
        self.wire = Wire("vllm", f"{self.root}/v1", key, keyless=True, connections=config.connections)
        self.in_flight = 0
        self.policy = config.scheduling_policy
        self.down = ""  # why it was left out at last
        self._down_until = 0.0
        self._served: dict[str, Served] = {}
        self._known_until = 0.0
        self._looking = asyncio.Lock()
        self._asked_policy = bool(self.policy)
        self._warned = False

    def __repr__(self) -> str:
        return f"<replica {self.root}, {self.in_flight} in flight>"

    @property
    def rests(self) -> bool:
        """Whether it is left out for now."""
        return time.monotonic() < self._down_until

    def rest(self, reason: str) -> None:
        """Leave it out for a while."""
        self.down = reason
        self._down_until = time.monotonic() + REST_SECONDS

    async def complete(self, body: Mapping[str, Any], request: Request) -> Reply:
        """The reply to a chat completion. Raises ProviderFault, NotFound for a model that it lacks, and Invalid."""
        self.in_flight += 1
        try:
            served = await self._find(body["model"])
            if request.priority and self.policy == "fcfs" and not self._warned:
                self._warned = True
                log.warning("%s serves in the order of arrival: priorities do nothing there", self.root)
            room = await self._fitted(body, request.max_tokens, served)
            return await self.wire.complete({**body, "max_tokens": room}, request)
        except ProviderFault as fault:
            if fault.kind == "connection":
                self._known_until = 0.0  # who comes back may serve other models
            raise
        finally:
            self.in_flight -= 1

    async def served(self) -> Mapping[str, Served]:
        """The models that it has now. Raises ProviderFault."""
        async with self._looking:
            await self._look()
            return self._served

    async def metrics(self) -> metrics.Metrics:
        """Its queue and its cache. Raises ProviderFault."""
        return metrics.read(await self.wire.text("GET", f"{self.root}/metrics"))

    async def _find(self, model: str) -> Served:
        async with self._looking:
            if time.monotonic() >= self._known_until or model not in self._served:
                await self._look()
        if model not in self._served:
            names = ", ".join(sorted(self._served)) or "none"
            raise NotFound("model.unknown", f"{self.wire.who} has no model {model!r}.", f"It has: {names}.")
        return self._served[model]

    async def _look(self) -> None:
        listed = {each["id"]: each for each in await self.wire.models()}
        found = {}
        for name, each in listed.items():
            parent = str(each.get("parent") or "")
            # A server names no length for an adapter: it is that of the model below.
            lengths = (each.get("max_model_len"), listed.get(parent, {}).get("max_model_len"))
            found[name] = Served(next((length for length in lengths if type(length) is int), None), parent)
        self._served = found
        self._known_until = time.monotonic() + KNOWN_SECONDS
        if not self._asked_policy:
            self._asked_policy = True
            self.policy = await self._said_policy()

    async def _said_policy(self) -> Any:
        """How it orders its queue, which only a server with VLLM_SERVER_DEV_MODE tells; empty where it doesn't."""
        try:
            told = await self.wire.json("GET", f"{self.root}/server_info?config_format=json")
            return str(told["vllm_config"]["scheduler_config"]["policy"])
        except (ProviderFault, Invalid, KeyError, TypeError):
            return ""

    async def _fitted(self, body: Mapping[str, Any], asked: int, served: Served) -> int:
        """The most tokens of the answer. The server counts the prompt, but only where it might not fit."""
        context = served.context_tokens
        if context is None or fitting.prompt_bytes(body) + asked <= context:
            return asked
        question = {name: body[name] for name in ("model", "messages", "tools") if name in body}
        try:
            told = await self.wire.json("POST", f"{self.root}/tokenize", question)
            count = told["count"]
        except (ProviderFault, Invalid, KeyError, TypeError):
            # It can't count, or counting is switched off: by an estimate then, and the server has the last word.
            count = count_tokens(str(question["messages"]))
        return fitting.fitted(asked, count, context, body["model"])

    async def close(self) -> None:
        await self.wire.close()
