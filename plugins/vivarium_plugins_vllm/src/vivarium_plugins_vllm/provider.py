"""The room of the provider ``vllm``: one name for several servers, of which each call goes to the least busy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from vivarium_plugins_openai import Server, body_of

from vivarium_kernel import ModelInfo, NotFound, Place, Price, ProviderFault, Reply, Request
from vivarium_plugins_vllm.metrics import Metrics
from vivarium_plugins_vllm.replica import Replica, Served
from vivarium_plugins_vllm.settings import VLLMConfig

ELSEWHERE = ("connection", "overloaded")  # faults after which another server is tried, where they cost nothing
IGNORED = "serves in the order of arrival, priorities do nothing"
UNKNOWN = "whether it heeds priorities is not known (scheduling_policy)"


class VLLMProvider:
    """``vllm:MODEL``: what the servers behind the name serve, adapters too."""

    name = "vllm"

    def __init__(self, place: Place, config: VLLMConfig) -> None:
        key = partial(place.key, self.name)
        self._replicas = [Replica(url, key, config) for url in config.servers]
        self._dialect = Server(config.servers[0], strict_tools="all", extra_body=config.extra_body)

    def price(self, model: str) -> Price | None:
        """One's own server costs nothing by the token; ``[models.prices]`` can price it by the second."""
        return Price(0, 0)

    async def complete(self, request: Request) -> Reply:
        """Answer one call at the least busy server that is up and has the model.

        Raises ProviderFault, NotFound naming the models of all servers, and Invalid.
        """
        body = body_of(request, request.name, self._dialect)
        body["priority"] = -request.priority  # theirs is lower first
        lacking: list[NotFound] = []
        faults: list[ProviderFault] = []
        resting = [replica for replica in self._replicas if replica.rests]
        up = [replica for replica in self._replicas if not replica.rests] or resting
        for replica in sorted(up, key=lambda each: each.in_flight):
            try:
                return await replica.complete(body, request)
            except NotFound as error:
                lacking.append(error)
            except ProviderFault as fault:
                if fault.kind in ELSEWHERE:
                    replica.rest(fault.reason)
                if fault.started or fault.kind not in ELSEWHERE:
                    raise
                faults.append(fault)
        if faults or len(lacking) < len(self._replicas):  # who is down may have the model
            reasons = [fault.reason for fault in faults]
            reasons += [replica.down for replica in resting if replica not in up]
            kind = faults[0].kind if faults else "connection"
            waits = [fault.retry_seconds for fault in faults if fault.retry_seconds is not None]
            retry = min(waits) if waits else None
            raise ProviderFault("; ".join(reasons), started=False, kind=kind, retry_seconds=retry)
        raise lacking[0] if len(lacking) == 1 else _none_has(request.name, lacking)

    async def models(self) -> Sequence[ModelInfo]:
        """What the servers have, with their queues and caches. One that is down is noted; all down: ProviderFault."""
        looked = await asyncio.gather(*(_look(replica) for replica in self._replicas))
        models: dict[str, list[tuple[Replica, Served, Metrics]]] = {}
        down: list[tuple[Replica, ProviderFault]] = []
        for replica, found in zip(self._replicas, looked, strict=True):
            if isinstance(found, ProviderFault):
                down.append((replica, found))
                continue
            for name, served in found[0].items():
                models.setdefault(name, []).append((replica, served, found[1]))
        if len(down) == len(self._replicas):
            raise down[0][1]
        infos = [self._info(name, models[name]) for name in sorted(models)]
        return infos + [ModelInfo(f"* of {replica.root}", note=fault.reason) for replica, fault in down]

    async def close(self) -> None:
        """Close every connection."""
        for replica in self._replicas:
            await replica.close()

    def _info(self, name: str, found: list[tuple[Replica, Served, Metrics]]) -> ModelInfo:
        lengths = [served.context_tokens for _, served, _ in found if served.context_tokens is not None]
        queries, hits = _sum([each.queries for *_, each in found]), _sum([each.hits for *_, each in found])
        policies = {replica.policy for replica, *_ in found}
        notes = [f"adapter of {parent}" for parent in sorted({served.parent for _, served, _ in found} - {""})]
        if len(self._replicas) > 1:
            notes.append(f"on {len(found)} of {len(self._replicas)} servers")
        notes += [IGNORED] * ("fcfs" in policies) + [UNKNOWN] * ("" in policies)
        return ModelInfo(
            name,
            min(lengths, default=None),
            _sum([each.running for *_, each in found]),
            _sum([each.waiting for *_, each in found]),
            Metrics(queries=queries, hits=hits).cached,
            "; ".join(notes),
        )


async def _look(replica: Replica) -> tuple[dict[str, Served], Metrics] | ProviderFault:
    try:
        served = dict(await replica.served())
    except ProviderFault as fault:
        return fault
    try:
        return served, await replica.metrics()
    except ProviderFault:
        return served, Metrics()  # a proxy may keep the page from us; the models are there all the same


def _none_has(model: str, lacking: Sequence[NotFound]) -> NotFound:
    return NotFound("model.unknown", f"No server has a model {model!r}.", " ".join(
        f"{error.message.split(' has no ')[0]}: {error.next_step}" for error in lacking
    ))  # fmt: skip


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def provider(place: Place) -> VLLMProvider:
    """Make the provider for a village, or for a worker's folder elsewhere."""
    return VLLMProvider(place, place.config("vllm", VLLMConfig))
