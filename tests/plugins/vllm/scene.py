"""The room of the vLLM servers that a test makes up: their lists, metrics and answers, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from attrs import define, field
from vivarium_plugins_vllm.provider import VLLMProvider, provider

from vivarium_kernel import Request

from ..openai import loopback

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 2.0
vllm:num_requests_running{engine="1",model_name="tiny"} 1.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 5.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 5.0
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 1.2e+03
vllm:prefix_cache_queries_created{engine="0",model_name="tiny"} 1.7952792424532843e+09
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 900.0
"""


@define
class Fake:
    """What one server has and says. ``status`` and ``reply`` are those of its chat."""

    models: list[dict[str, Any]] = field(factory=lambda: [{"id": "tiny", "max_model_len": 4096, "parent": None}])
    reply: Mapping[str, Any] = field(factory=loopback.whole)
    tokens: int | None = 100
    policy: str = ""
    status: int = 200
    slow_seconds: float = 0.0
    page: str = PAGE

    async def __call__(self, asked: loopback.Asked, writer: asyncio.StreamWriter) -> None:
        path = asked.path.partition("?")[0]
        data: Any = {"detail": "Not Found"}
        status = 404
        if path == "/v1/models":
            status, data = 200, {"object": "list", "data": self.models}
        elif path == "/metrics":
            writer.write(loopback.sent(200, self.page.encode(), "text/plain; version=0.0.4"))
            return
        elif path == "/tokenize" and self.tokens is not None:
            status, data = 200, {"count": self.tokens, "max_model_len": 4096, "tokens": []}
        elif path == "/server_info" and self.policy:
            status, data = 200, {"vllm_config": {"scheduler_config": {"policy": self.policy}}}
        elif path == "/v1/chat/completions":
            await asyncio.sleep(self.slow_seconds)
            status, data = self.status, self.reply
        writer.write(loopback.sent(status, json.dumps(data).encode()))


def made(*servers: loopback.Loopback | str, key: str | None = None, **settings: Any) -> VLLMProvider:
    """A provider for these servers."""
    urls = [server if isinstance(server, str) else server.root for server in servers]
    return provider(loopback.Folder({"servers": urls, **settings}, {} if key is None else {"vllm": key}))


def request(text: str = "Hi.", model: str = "vllm:tiny", **more: Any) -> Request:
    return loopback.request(text, model, **more)


def chats(server: loopback.Loopback) -> list[dict[str, Any]]:
    """The bodies of the chat completions that a server was asked for."""
    return [asked.body for asked in server.asked if asked.path == "/v1/chat/completions"]
