"""The room of the recordings: what a running server answered to what this distribution asks, kept byte for byte.

    PYTHONPATH=plugins/vivarium_plugins_openai/src python -m tests.plugins.openai.recording URL MODEL FOLDER

asks MODEL of the server at URL (which ends with ``/v1``) and keeps its answers in FOLDER.

A recording is its status line, its content type, an empty line, and the body as it came. Where a server can't be run
here, its recordings say in ``FOLDER/README.md`` whence they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivarium_plugins_openai.provider import OpenAIProvider, provider

from vivarium_kernel import VivariumError

from .loopback import WALK, Answering, Asked, Folder, Loopback, request, sent

RECORDED = Path(__file__).parent / "recorded"
YES = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": False}
# A model of random weights calls nothing by itself: these are the words that a call begins and goes on with, and the
# number of the token that ends an answer.
BEGIN, END = ("<tool_call>", "\n", '"'), 2


def _forced(*words: str | int) -> Mapping[str, Any]:
    return {"tool_choice": "required", "logit_bias": [[word, 50] for word in words]}


ASKED: Mapping[str, Mapping[str, Any]] = {
    "answer": {"text": "How many birds are there?"},
    "stream": {"text": "How many birds are there?", "say": lambda _: None},
    "call": {"text": "Go.", "tools": (WALK,), "options": _forced(*BEGIN, END), "max_tokens": 400},
    "streamed-call": {
        "text": "Go.", "tools": (WALK,), "options": _forced(*BEGIN, END), "max_tokens": 400,
        "say": lambda _: None,
    },
    "cut-calls": {"text": "Go.", "tools": (WALK,), "options": _forced(*BEGIN), "max_tokens": 200},
    "schema": {"text": "Is it so?", "schema": YES, "max_tokens": 100},
    "too-long": {"text": "village " * 20_000},
    "no-model": {"text": "Hi.", "model": "openai:it/nobody"},
}  # fmt: skip


def replay(server: str, name: str, at_once: int = 0) -> Answering:
    """Answer everything as the server once did, in pieces of ``at_once`` bytes or whole."""
    head, _, body = (RECORDED / server / f"{name}.txt").read_bytes().partition(b"\n\n")
    status, kind = head.decode().split("\n")

    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        whole = sent(int(status), body, kind)
        for at in range(0, len(whole), at_once or len(whole)):
            writer.write(whole[at : at + (at_once or len(whole))])
            await writer.drain()

    return answer


async def record(url: str, model: str, folder: Path) -> None:
    """Ask for each of ``ASKED``, and for the list of models, through a proxy that keeps what comes back."""
    name = "models"

    async def forward(asked: Asked, writer: asyncio.StreamWriter) -> None:
        status, kind, body = await asyncio.to_thread(_fetched, url, asked)
        (folder / f"{name}.txt").write_bytes(f"{status}\n{kind}\n\n".encode() + body)
        writer.write(sent(status, body, kind))

    async with Loopback(forward) as proxy:
        made: OpenAIProvider = provider(Folder({"servers": {"it": {"base_url": proxy.url, "keyless": True}}}))
        await made.models()
        for name, how in ASKED.items():
            given = {"model": f"openai:it/{model}", "max_tokens": 12, "timeout_seconds": 120.0, **how}
            with contextlib.suppress(VivariumError):
                await made.complete(request(given.pop("text"), given.pop("model"), **given))
            print(name)
        await made.close()


def _fetched(url: str, asked: Asked) -> tuple[int, str, bytes]:
    body = None if asked.body is None else json.dumps(asked.body).encode()
    wanted = urllib.request.Request(  # noqa: S310 - whoever records names the server
        url.removesuffix("/v1") + asked.path, body, {"content-type": "application/json"}, method=asked.method
    )
    try:
        with urllib.request.urlopen(wanted, timeout=120) as said:  # noqa: S310
            return said.status, said.headers["content-type"], said.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read()


if __name__ == "__main__":
    folder = Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(record(sys.argv[1], sys.argv[2], folder))
