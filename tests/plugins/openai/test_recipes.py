"""Promises about the recipes of the distribution's README: the settings there work with what these servers answer.

What they answer now is kept in files (``recorded/README.md`` says whence). What they answered before, or answer when
told other things, is made up here in their form: Ollama's tool calls without an id, without a number or all numbered 0,
with arguments as an object; llama.cpp's streams without usage.
"""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from vivarium_plugins_openai.provider import provider

from vivarium_kernel import Invalid, ModelInfo, NotFound, Price, ProviderFault, Reply, Usage

from .loopback import WALK, Answering, Asked, Folder, Loopback, request, says, streams
from .recording import ASKED, replay


@pytest.fixture(scope="module")
def recipes(repository: Path) -> dict[str, dict[str, Any]]:
    """The servers that the README's TOML blocks describe."""
    text = (repository / "plugins" / "vivarium_plugins_openai" / "README.md").read_text(encoding="utf-8")
    servers: dict[str, dict[str, Any]] = {}
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        servers |= tomllib.loads(block).get("plugins", {}).get("openai", {}).get("servers", {})
    return servers


def answered(recipe: dict[str, Any], answer: Answering, **more: Any) -> Reply:
    async def run() -> Reply:
        async with Loopback(answer) as loopback:
            made = provider(Folder({"servers": {"it": recipe | {"base_url": loopback.url}}}))
            assert made.price("it/any") == Price(0, 0)
            reply = await made.complete(request(model="openai:it/any", **more))
            await made.close()
            return reply

    return asyncio.run(run())


def replayed(recipes: dict[str, dict[str, Any]], server: str, name: str, at_once: int = 0, **more: Any) -> Reply:
    """What is made of a recorded answer, to what it was an answer to."""
    how = {"max_tokens": 12, **ASKED.get(name, {}), **more}
    return answered(recipes[server], replay(server, name, at_once), **{k: v for k, v in how.items() if k != "model"})


@pytest.mark.parametrize("server", ["llamacpp", "ollama"])
@pytest.mark.promise("llama.cpp is read as it answered, and Ollama as its users say that it answers")
def test_a_recorded_answer_is_read(recipes: dict[str, dict[str, Any]], server: str) -> None:
    reply = replayed(recipes, server, "answer")
    assert reply.text
    assert reply.finish == {"llamacpp": "length", "ollama": "stop"}[server]
    assert reply.usage == {"llamacpp": Usage(63, 12, 48), "ollama": Usage(39, 140, 38)}[server]
    assert "The log of the watch" not in reply.text  # what a model thinks is no answer


@pytest.mark.parametrize("at_once", [0, 1, 7, 500])
@pytest.mark.parametrize("server", ["llamacpp", "ollama"])
def test_a_recorded_stream_is_read_however_it_is_cut(
    recipes: dict[str, dict[str, Any]], server: str, at_once: int
) -> None:
    heard: list[str] = []
    reply = replayed(recipes, server, "stream", at_once, say=heard.append)
    assert len(heard) == {"llamacpp": 12, "ollama": 5}[server]
    assert "".join(heard) == reply.text
    assert (reply.finish, reply.usage.tokens_out) == ("length", len(heard))


@pytest.mark.parametrize(
    ("server", "name"), [("llamacpp", "call"), ("llamacpp", "streamed-call"), ("ollama", "streamed-call")]
)
def test_a_recorded_call_is_read(recipes: dict[str, dict[str, Any]], server: str, name: str) -> None:
    reply = replayed(recipes, server, name)
    assert reply.finish == "tool_calls"
    assert {(call.name, *json.loads(call.arguments)) for call in reply.tool_calls} == {("walk", "to")}
    assert len({call.id for call in reply.tool_calls}) == len(reply.tool_calls)


def test_recorded_calls_that_ran_out_of_tokens_are_no_whole_calls(recipes: dict[str, dict[str, Any]]) -> None:
    reply = replayed(recipes, "llamacpp", "cut-calls")
    assert reply.finish == "length"
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(reply.tool_calls[-1].arguments)


def test_a_recorded_answer_fits_its_schema(recipes: dict[str, dict[str, Any]]) -> None:
    reply = replayed(recipes, "llamacpp", "schema")
    assert list(json.loads(reply.text)) == ["yes"]


def test_a_model_that_only_thought_has_said_nothing(recipes: dict[str, dict[str, Any]]) -> None:
    heard: list[str] = []
    reply = replayed(recipes, "ollama", "thinking-cut", say=heard.append)
    assert (reply.text, heard, reply.finish, reply.usage) == ("", [], "length", Usage(39, 30, 38))


@pytest.mark.parametrize("server", ["llamacpp", "ollama"])
def test_a_recorded_refusal_of_a_long_prompt_says_how_much_fits(
    recipes: dict[str, dict[str, Any]], server: str
) -> None:
    with pytest.raises(Invalid, match=r"tokens\) exceeds the available context size \(4096 tokens\)"):
        replayed(recipes, server, "too-long", text="Hi.")


def test_recorded_errors_of_ollama_have_their_kinds(recipes: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(Invalid, match="gemma3:4b does not support tools"):
        replayed(recipes, "ollama", "no-tools")
    with pytest.raises(ProviderFault, match="insufficient memory") as caught:
        replayed(recipes, "ollama", "no-room")
    assert (caught.value.kind, caught.value.started) == ("server", True)
    listed, missing = replay("ollama", "models"), replay("ollama", "no-model")

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await (listed if asked.path == "/v1/models" else missing)(asked, writer)

    with pytest.raises(NotFound, match=r"llama3\.2:1b"):
        answered(recipes["ollama"], answer)


@pytest.mark.parametrize("server", ["llamacpp", "ollama"])
def test_recorded_models_are_listed(recipes: dict[str, dict[str, Any]], server: str) -> None:
    async def run() -> list[ModelInfo]:
        async with Loopback(replay(server, "models")) as loopback:
            made = provider(Folder({"servers": {"it": recipes[server] | {"base_url": loopback.url}}}))
            found = list(await made.models())
            await made.close()
            return found

    names = {model.name for model in asyncio.run(run()) if model.name.startswith("it/")}
    assert names == {"llamacpp": {"it/tiny.gguf"}, "ollama": {"it/qwen3:1.7b", "it/llama3.2:1b"}}[server]


def test_llama_cpp_answers_to_any_name(recipes: dict[str, dict[str, Any]]) -> None:
    assert replayed(recipes, "llamacpp", "no-model").model == "tiny.gguf"


def ollama(delta: str = "message", finish: str | None = "tool_calls", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": "", **message}
    choice = {"index": 0, delta: said, "finish_reason": finish}
    return {"id": "chatcmpl-561", "object": "chat.completion", "created": 1764000000, "model": "qwen3:4b",
            "system_fingerprint": "fp_ollama", "choices": [choice]}  # fmt: skip


def test_ollamas_calls_with_objects_and_without_ids_are_calls(recipes: dict[str, dict[str, Any]]) -> None:
    calls = [{"function": {"name": "walk", "arguments": {"to": place}}} for place in ("hall", "home")]
    data = ollama(tool_calls=calls) | {"usage": {"prompt_tokens": 168, "completion_tokens": 20, "total_tokens": 188}}
    reply = answered(recipes["ollama"], says(data), tools=(WALK,))
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [
        ("walk", '{"to": "hall"}'), ("walk", '{"to": "home"}'),
    ]  # fmt: skip
    assert len({call.id for call in reply.tool_calls}) == 2
    assert (reply.usage, reply.finish, reply.model) == (Usage(168, 20), "tool_calls", "qwen3:4b")


@pytest.mark.parametrize(
    "marks",
    [
        [{"id": "call_a", "index": 0}, {"id": "call_b", "index": 0}],
        [{"id": "call_a"}, {"id": "call_b"}],
        [{"index": 0}, {"index": 1}],
        [{}, {}],
    ],
    ids=["all numbered 0", "not numbered", "without ids", "with neither"],
)
def test_ollamas_streamed_calls_stay_apart(recipes: dict[str, dict[str, Any]], marks: list[dict[str, Any]]) -> None:
    pieces: list[Any] = [
        ollama("delta", None, tool_calls=[mark | {"type": "function", "function": {"name": "walk", "arguments": text}}])
        for mark, text in zip(marks, ('{"to":"hall"}', '{"to":"home"}'), strict=True)
    ]
    counts = {"prompt_tokens": 168, "completion_tokens": 20, "total_tokens": 188}
    pieces += [ollama("delta", "tool_calls"), ollama() | {"choices": [], "usage": counts}]
    reply = answered(recipes["ollama"], streams(*pieces), say=lambda _: None, tools=(WALK,))
    assert [call.arguments for call in reply.tool_calls] == ['{"to":"hall"}', '{"to":"home"}']
    assert len({call.id for call in reply.tool_calls}) == 2
    assert reply.usage == Usage(168, 20)


TIMINGS = {"cache_n": 236, "prompt_n": 1, "prompt_ms": 30.958, "prompt_per_token_ms": 30.958,
           "prompt_per_second": 32.3, "predicted_n": 35, "predicted_ms": 661.064, "predicted_per_token_ms": 18.9,
           "predicted_per_second": 52.9}  # fmt: skip


def llama_cpp(delta: str, finish: str | None, text: str | None) -> dict[str, Any]:
    return {"choices": [{"finish_reason": finish, "index": 0, delta: {"content": text}}], "created": 1757141666,
            "id": "chatcmpl-ecQ", "model": "gemma.gguf", "system_fingerprint": "b6400-abc",
            "object": "chat.completion.chunk"}  # fmt: skip


@pytest.mark.parametrize("where", ["with the end", "after the end"])
def test_llama_cpps_timings_are_its_usage_where_it_gives_no_other(
    recipes: dict[str, dict[str, Any]], where: str
) -> None:
    end = llama_cpp("delta", "stop", None)
    last = [end | {"timings": TIMINGS}] if where == "with the end" else [end, end | {"choices": [], "timings": TIMINGS}]
    heard: list[str] = []
    reply = answered(recipes["llamacpp"], streams(llama_cpp("delta", None, "Hi"), *last), say=heard.append)
    assert (reply.text, heard, reply.usage) == ("Hi", ["Hi"], Usage(237, 35, 236))


def test_llama_cpps_usage_counts_where_it_gives_one(recipes: dict[str, dict[str, Any]]) -> None:
    counts = {"completion_tokens": 35, "prompt_tokens": 237, "total_tokens": 272}
    data = llama_cpp("message", "stop", "Hi") | {"timings": TIMINGS, "usage": counts}
    assert answered(recipes["llamacpp"], says(data)).usage == Usage(237, 35)


def test_a_llama_cpp_that_still_loads_its_model_costs_nothing(recipes: dict[str, dict[str, Any]]) -> None:
    loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    with pytest.raises(ProviderFault) as caught:
        answered(recipes["llamacpp"], says(loading, 503))
    assert (caught.value.kind, caught.value.started) == ("overloaded", False)
