"""The room of Groq as a model provider: ``groq:NAME``, within its rate limits and a call's own time.

Calls that certainly cost nothing are tried again here; whatever else fails is the kernel's to judge.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vivarium_kernel import ModelInfo, NotFound, Place, Price, ProviderFault, Reply, Request, VivariumError
from vivarium_plugins_groq import faults, wire
from vivarium_plugins_groq.limits import Limit
from vivarium_plugins_groq.plugin import GroqConfig
from vivarium_plugins_groq.prices import price_of

if TYPE_CHECKING:
    from groq import AsyncGroq

TRIES = 4
LONGEST_WAIT_SECONDS = 60.0  # for longer a task waits better than a call
FIRST_PAUSE_SECONDS = 0.5  # it doubles, where the server does not say how long
CONNECT_SECONDS = 10.0
LIST_SECONDS = 10.0
_RETRIED = ("rate_limited", "overloaded")


class GroqProvider:
    """Calls models of Groq. One object serves one event loop at a time."""

    name = "groq"

    def __init__(
        self,
        place: Place,
        config: GroqConfig,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``now`` and ``sleep`` are the clock that waits for rate limits go by, in seconds."""
        self._place = place
        self._config = config
        self._now = now
        self._sleep = sleep
        self._prices: dict[str, Price | None] = {}
        self._limits: dict[str, Limit] = {}
        self._key = ""
        self._client: AsyncGroq | None = None
        self._slots = asyncio.Semaphore(config.connections)

    def price(self, model: str) -> Price | None:
        """What the model costs; None is unknown. A model that was shut down is refused by the service itself."""
        if model not in self._prices:
            self._prices[model] = price_of(model)
        return self._prices[model]

    async def complete(self, request: Request) -> Reply:
        """Answer one call within its time, waiting for the service's limits rather than running into them."""
        body = wire.asked(request)
        until = self._now() + request.timeout_seconds
        tries = 0
        while True:
            await self._wait(request.name, until)
            tries += 1
            try:
                return await self._try(request, body, until)
            except faults.NoSuchModel as gone:
                raise await self._not_found(request.name, str(gone)) from None
            except ProviderFault as fault:
                if fault.started or fault.kind not in _RETRIED or tries == TRIES:
                    raise
                pause = FIRST_PAUSE_SECONDS * 2 ** (tries - 1) if fault.retry_seconds is None else fault.retry_seconds
                self._limit(request.name).bar(pause, self._now())
                if self._is_too_long(pause, until):
                    raise _again_in(fault, pause) from None

    async def _wait(self, model: str, until: float) -> None:
        """Wait until the model's limits let a call through; raises at once when that takes too long."""
        self._current_key()
        while wait := self._limit(model).wait_seconds(self._now()):
            if self._is_too_long(wait, until):
                fault = ProviderFault(f"Groq's limit for {model} is used up", started=False, kind="rate_limited")
                raise _again_in(fault, wait)
            await self._sleep(wait)

    def _is_too_long(self, wait: float, until: float) -> bool:
        return wait > LONGEST_WAIT_SECONDS or self._now() + wait >= until

    async def _try(self, request: Request, body: dict[str, Any], until: float) -> Reply:
        left = max(0.001, until - self._now())
        timing, sent = asyncio.timeout(left), False
        try:
            async with timing, self._slots:
                await self._import()
                key = self._current_key()
                limit = self._limit(request.name)
                limit.take(self._now())
                sent = True
                create = self._connected(key).chat.completions.with_streaming_response.create
                return await self._answer(create(**body), key, limit, request)
        except TimeoutError:
            if not timing.expired():
                raise
            said = f"Groq did not answer within {request.timeout_seconds:g} s" if sent else "no connection was free"
            raise ProviderFault(said, started=sent, kind="timeout") from None

    async def _answer(self, sending: Any, key: str, limit: Limit, request: Request) -> Reply:
        if request.say is None or not wire.streams(request):
            whole: list[bytes] = []
            await self._read(sending, key, limit, whole.append)
            return wire.reply_of(b"".join(whole))
        stream = wire.Stream(request.say, key)
        await self._read(sending, key, limit, stream.feed)
        return stream.reply()

    async def _read(self, sending: Any, key: str, limit: Limit | None, take: Callable[[bytes], None]) -> None:
        """Send, and hand on the bytes of the answer as they come; raises what any other answer is."""
        import groq
        import httpx

        begun = False
        fault: Exception
        try:
            async with sending as response:
                begun = True
                if limit is not None:
                    limit.learn(response.headers, self._now())
                async for data in response.iter_bytes():
                    take(data)
                return
        except groq.APIStatusError as error:
            if limit is not None:
                limit.learn(error.response.headers, self._now())
            fault = faults.of_status(error.status_code, error.response.headers, _body(error.response), key)
        except (groq.APIConnectionError, httpx.HTTPError, httpx.StreamError) as error:
            if begun:
                said = f"Groq's answer broke off: {faults.without(str(error), key)}"
                fault = ProviderFault(said, started=True, kind="cut")
            else:
                fault = faults.of_connection(error, key)
        raise fault  # out here, so that the client's own error, which may repeat the key, is not its context

    async def models(self) -> Sequence[ModelInfo]:
        """The models that the service has now."""
        key = self._current_key()
        page: list[bytes] = []
        try:
            async with asyncio.timeout(LIST_SECONDS):
                await self._import()
                listing = self._connected(key).models.with_streaming_response.list()
                await self._read(listing, key, None, page.append)
        except TimeoutError:
            said = f"Groq did not answer within {LIST_SECONDS:g} s"
            raise ProviderFault(said, started=False, kind="timeout") from None
        except faults.NoSuchModel as error:
            raise ProviderFault(f"Groq has no list of models: {error}", started=False) from None
        return wire.models_of(b"".join(page))

    async def _not_found(self, model: str, said: str) -> NotFound:
        try:
            names = ", ".join(each.name for each in await self.models() if not each.note) or "none"
            there = f"It has: {names}."
        except VivariumError as error:
            there = f"Which it has could not be asked: {error.message}"
        return NotFound("model.unknown", f"Groq does not have the model {model} (any more): {said}", there)

    def _current_key(self) -> str:
        """The key as it is now; raises what keeps it from being sent."""
        key = self._place.key(self.name) or ""
        if not key:
            raise ProviderFault("no key of Groq is set: `vivarium key set groq`", started=False, kind="unauthorized")
        if not key.isascii() or not key.isprintable() or " " in key:
            # The client would repeat it in the error that a header of such characters is.
            said = "the key of Groq is not one word of ASCII characters: `vivarium key set groq`"
            raise ProviderFault(said, started=False, kind="unauthorized")
        if key != self._key:
            self._key, self._limits = key, {}
            if self._client is not None:
                self._client = self._client.copy(api_key=key)  # calls that are under way keep theirs
        return key

    def _limit(self, model: str) -> Limit:
        return self._limits.setdefault(model, Limit())

    async def _import(self) -> None:
        """Import the client before the first call, in a thread: all else would wait for it."""
        if self._client is None:
            await asyncio.to_thread(import_module, "groq.resources.chat")

    def _connected(self, key: str) -> AsyncGroq:
        if self._client is None:
            import httpx
            from groq import AsyncGroq

            from vivarium_plugins_groq.bounding import bound
            from vivarium_plugins_groq.pools import Pools

            # An answer that leads elsewhere is not followed: the key goes to its server alone.
            hooks = {"response": [bound]}
            http = httpx.AsyncClient(transport=Pools(), follow_redirects=False, event_hooks=hooks)
            self._client = AsyncGroq(
                api_key=key, base_url=self._config.base_url, max_retries=0, http_client=http,
                timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            )  # fmt: skip
        return self._client

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        client, self._client = self._client, None
        self._slots = asyncio.Semaphore(self._config.connections)
        if client is not None:
            await client.close()


def _again_in(fault: ProviderFault, seconds: float) -> ProviderFault:
    return ProviderFault(f"{fault.reason} (again in {seconds:.1f} s)", started=False, kind=fault.kind,
                         retry_seconds=seconds)  # fmt: skip


def _body(response: Any) -> bytes:
    """An error's page; empty when it broke off."""
    import httpx

    try:
        content: bytes = response.content
        return content
    except httpx.ResponseNotRead:
        return b""


def provider(place: Place) -> GroqProvider:
    """Make the provider, with the settings of ``[plugins.groq]``."""
    return GroqProvider(place, place.config("groq", GroqConfig))
