"""The room of the wire: one server, over one bounded pool of connections.

The SDK keeps the connections, the headers and the stream; what comes is read as plain JSON (``reading``), for servers
differ from what its types promise, and it costs a third less. The SDK retries nothing: the kernel does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vivarium_kernel import ModelInfo, NotFound, ProviderFault, Reply, Request, VivariumError
from vivarium_plugins_openai import faults
from vivarium_plugins_openai.reading import Answer

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONNECT_SECONDS = 10.0
KEPT_SECONDS = 3.0  # servers drop a quiet connection after 5 s, and a call on a dropped one is a call lost
LIST_SECONDS = 10.0
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
CONTEXT = ("max_model_len", "context_length", "context_window", "max_context_length")


class Wire:
    """A server: ``who`` names it in messages, ``key`` gives its key as it is now, None where there is none.

    ``mend`` is what a person can do where one is wanted and none is set.

    Not before the first call is anything imported or opened, and after ``close`` the next call opens it anew.
    """

    def __init__(
        self,
        who: str,
        base_url: str,
        key: Callable[[], str | None],
        *,
        keyless: bool = False,
        mend: str = "",
        connections: int = 512,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.who = f"{who} ({base_url})"
        self.base_url = base_url.rstrip("/")
        self._key = key
        self._keyless = keyless
        self._mend = mend
        self._connections = connections
        self._headers = dict(headers or {})
        self._client: AsyncOpenAI | None = None

    def __repr__(self) -> str:
        return f"<wire to {self.who}>"

    async def complete(self, body: Mapping[str, Any], request: Request) -> Reply:
        """The reply to a chat completion, streamed to ``request.say`` where the body says so.

        Raises ProviderFault, Invalid, and NotFound naming the models that the server has.
        """
        try:
            async with asyncio.timeout(request.timeout_seconds):
                return await self._completed(body, request)
        except TimeoutError:
            told = f"{self.who} did not answer within {request.timeout_seconds:g} s"
            raise ProviderFault(told, started=True, kind="timeout") from None

    async def models(self) -> list[Mapping[str, Any]]:
        """What the server's list of models says of each; it has an ``id`` at least. Raises ProviderFault."""
        data = await self.json("GET", f"{self.base_url}/models")
        listed = data.get("data") if isinstance(data, Mapping) else None
        if not isinstance(listed, list):
            told = f"{self.who} has no list of models: {faults.scrub(str(data), self._key())}"
            raise ProviderFault(told, started=False, kind="nonsense")
        return [each for each in listed if isinstance(each, Mapping) and isinstance(each.get("id"), str)]

    async def json(self, method: str, url: str, body: object = None) -> Any:
        """The JSON at a whole URL of this server. Raises ProviderFault, or Invalid."""
        return self._parsed(await self.text(method, url, body), started=False)

    async def text(self, method: str, url: str, body: object = None) -> str:
        """The text at a whole URL of this server. Raises ProviderFault, or Invalid. To be told something costs nothing,
        so that no fault of it says that it did."""
        key, headers = await self._credential()
        try:
            async with asyncio.timeout(LIST_SECONDS):
                content: bytes = (await self._sent(method, url, body, headers, LIST_SECONDS)).content
                return content.decode(errors="replace")
        except TimeoutError:
            told = f"{self.who} did not answer within {LIST_SECONDS:g} s"
            raise ProviderFault(told, started=False, kind="timeout") from None
        except Exception as error:
            fault = self._fault(error, key, reading=False)
            if isinstance(fault, ProviderFault):
                fault.started = False
            raise fault from None

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _completed(self, body: Mapping[str, Any], request: Request) -> Reply:
        key, headers = await self._credential()
        answer = Answer()
        url = f"{self.base_url}/chat/completions"
        try:
            if body.get("stream"):
                await self._stream(url, body, headers, request, answer)
            else:
                sent = await self._sent("POST", url, body, headers, request.timeout_seconds)
                if not sent.content.strip():
                    raise ProviderFault("it answered nothing at all", started=True, kind="nonsense")
                answer.take_whole(self._parsed(sent.content))
                if request.say is not None and answer.texts:
                    request.say("".join(answer.texts))
            return answer.reply(request)
        except ProviderFault as fault:
            raise self._named(fault, key) from None
        except Exception as error:
            lacking = await self._lacking(error, str(body["model"]))
            raise lacking or self._fault(error, key, reading=answer.pieces > 0) from None

    async def _stream(
        self, url: str, body: Mapping[str, Any], headers: Mapping[str, Any], request: Request, answer: Answer
    ) -> None:
        from openai import AsyncStream

        stream = await self._open().post(
            url,
            body=body,
            cast_to=object,
            stream=True,
            stream_cls=AsyncStream[object],
            options={"headers": headers, "timeout": _timeout(request.timeout_seconds)},
        )
        async with stream:
            async for piece in stream:
                text = answer.add(piece)
                if text and request.say is not None:
                    request.say(text)

    async def _sent(self, method: str, url: str, body: object, headers: Mapping[str, Any], seconds: float) -> Any:
        import httpx2

        options: Any = {"headers": headers, "timeout": _timeout(seconds)}
        if method == "GET":
            return await self._open().get(url, cast_to=httpx2.Response, options=options)
        return await self._open().post(url, body=body, cast_to=httpx2.Response, options=options)

    def _open(self) -> AsyncOpenAI:
        if self._client is None:
            import httpx2
            from openai import AsyncOpenAI, DefaultAioHttpClient, Omit

            from vivarium_plugins_openai.bounding import bound

            limits = httpx2.Limits(
                max_connections=self._connections, max_keepalive_connections=self._connections,
                keepalive_expiry=KEPT_SECONDS,
            )  # fmt: skip
            self._client = AsyncOpenAI(
                api_key="none",  # each call brings the key as it is then, or sends none
                base_url=self.base_url,
                max_retries=0,
                # The SDK would send what variables of the environment say of an account at OpenAI to any server.
                default_headers={"OpenAI-Organization": Omit(), "OpenAI-Project": Omit(), **self._headers},  # type: ignore[dict-item]
                # A proxy of the environment can't reach what is on this machine.
                http_client=DefaultAioHttpClient(
                    limits=limits,
                    follow_redirects=False,
                    mounts={f"all://{host}": None for host in LOOPBACK},
                    event_hooks={"response": [bound]},
                ),
            )
        return self._client

    async def _credential(self) -> tuple[str | None, dict[str, Any]]:
        """The key and the header that carries it. Raises ProviderFault where the server wants one and none is set."""
        key = self._key()
        if key is None:
            if not self._keyless:
                told = f"no key is set for {self.who}: {self._mend}"
                raise ProviderFault(told, started=False, kind="unauthorized")
            await self._import()
            from openai import Omit

            return None, {"Authorization": Omit()}
        if not (key.isascii() and key.isprintable()):
            told = f"the key of {self.who} has characters that no key has: set it again"
            raise ProviderFault(told, started=False, kind="unauthorized")
        await self._import()
        return key, {"Authorization": f"Bearer {key}"}

    async def _import(self) -> None:
        """Import the SDK before the first call, in a thread: it takes half a second, in which all else would wait."""
        if self._client is None:
            await asyncio.to_thread(import_module, "openai")

    def _parsed(self, text: str | bytes, *, started: bool = True) -> Any:
        try:
            return json.loads(text, strict=False)  # raw control characters come from servers that guide an answer
        except (ValueError, RecursionError) as error:
            told = f"{self.who} answered what is not JSON: {error}"
            raise ProviderFault(told, started=started, kind="nonsense") from None

    def _named(self, fault: ProviderFault, key: str | None) -> ProviderFault:
        reason = faults.scrub(fault.reason, key)
        if self.who not in reason:
            reason = f"{self.who}: {reason}"
        return ProviderFault(reason, started=fault.started, kind=fault.kind, retry_seconds=fault.retry_seconds)

    def _fault(self, error: Exception, key: str | None, *, reading: bool) -> Exception:
        import aiohttp
        import httpx2
        from openai import APIConnectionError, APIError, APIStatusError

        if isinstance(error, APIStatusError):
            response = error.response
            return faults.of_status(error.status_code, response.headers, error.body or response.text, self.who, key)
        if isinstance(error, ProviderFault):
            return self._named(error, key)
        if isinstance(error, APIError) and not isinstance(error, APIConnectionError):
            told = f"{self.who} ended its answer with an error: {faults.scrub(error.message, key)}"
            return ProviderFault(told, started=True, kind="server")
        wires = (APIError, httpx2.HTTPError, aiohttp.ClientError, OSError, json.JSONDecodeError, UnicodeDecodeError)
        return faults.of_exception(error, self.who, key, reading=reading) if isinstance(error, wires) else error

    async def _lacking(self, error: Exception, model: str) -> NotFound | None:
        """The error for a model that the server does not have, if that is why a call failed: its own list decides."""
        from openai import APIStatusError

        if not isinstance(error, APIStatusError) or not faults.is_unknown_model(error.status_code, error.body):
            return None
        try:
            names = sorted(each["id"] for each in await self.models())
        except VivariumError:  # without a list the status has to say enough
            return None
        if model in names:
            return None
        there = f"It has: {', '.join(names) or 'none'}."
        return NotFound("model.unknown", f"{self.who} has no model {model!r}.", there)


def model_info(listed: Mapping[str, Any], name: str) -> ModelInfo:
    """What a server's list says of one model, under ``name``."""
    meta = listed.get("meta")
    places = [listed.get(field) for field in CONTEXT] + [meta.get("n_ctx") if isinstance(meta, Mapping) else None]
    context = next((each for each in places if type(each) is int and each > 0), None)
    return ModelInfo(name, context)


def _timeout(seconds: float) -> Any:
    import httpx2

    return httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
