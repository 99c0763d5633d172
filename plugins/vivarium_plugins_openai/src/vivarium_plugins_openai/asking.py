"""The room of the question: what a request looks like on the wire. All of it is pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vivarium_kernel import Invalid, Message, Request, Tool
from vivarium_plugins_openai.settings import Server

OURS = ("model", "messages", "tools", "stream", "stream_options", "response_format", "max_tokens",
        "max_completion_tokens")  # fmt: skip
SCHEMA_WORDS = "Answer with one JSON value of this JSON Schema and with nothing else:\n"


def body_of(request: Request, model: str, server: Server) -> dict[str, Any]:
    """The body of a chat completion. Raises Invalid for options that would replace what is said elsewhere."""
    for name in request.options:
        if name in OURS:
            raise Invalid("model.options", f"{name} is no option of a call: the request says it itself.",
                          "Leave it out.", field=f"options.{name}")  # fmt: skip
    body: dict[str, Any] = {
        **server.extra_body,
        **request.options,
        "model": model,
        "messages": [wire_message(message) for message in request.messages],
        server.max_tokens_field: request.max_tokens,
    }
    if request.tools:
        body["tools"] = [wire_tool(tool, server) for tool in request.tools]
    if request.schema is not None:
        _put_schema(body, request.schema, server)
    if request.say is not None and server.streams:
        body["stream"] = True
        if server.stream_usage:
            body["stream_options"] = {"include_usage": True}
    return body


def wire_message(message: Message) -> dict[str, Any]:
    """One message of the conversation."""
    if message.role == "tool":
        return {"role": "tool", "content": message.text, "tool_call_id": message.answers}
    if not message.tool_calls:
        return {"role": message.role, "content": message.text}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": readable(call.arguments)}}
        for call in message.tool_calls
    ]
    return {"role": "assistant", "content": message.text or None, "tool_calls": calls}


def readable(arguments: str) -> str:
    """Arguments as a server can read them again: what a model wrote wrongly stays in the conversation as a text.

    Servers put earlier calls into the prompt by reading them, and refuse a whole request for one that isn't JSON.
    """
    try:
        value = json.loads(arguments or "{}", strict=False)
    except (ValueError, RecursionError):
        value = {"unreadable": arguments}
    return json.dumps(value if isinstance(value, dict) else {"unreadable": arguments}, ensure_ascii=False)


def wire_tool(tool: Tool, server: Server) -> dict[str, Any]:
    """One tool, strict where the server takes that."""
    function: dict[str, Any] = {
        "name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)
    }  # fmt: skip
    if server.strict_tools == "all" or (server.strict_tools == "fitting" and fits_strict(tool.parameters)):
        function["strict"] = True
    return {"type": "function", "function": function}


def fits_strict(schema: Any) -> bool:
    """Whether each object of a schema requires all of its properties and allows no others, as OpenAI's strict wants."""
    if isinstance(schema, list):
        return all(fits_strict(each) for each in schema)
    if not isinstance(schema, Mapping):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties):
            return False
        return all(fits_strict(each) for each in properties.values())
    return all(fits_strict(each) for each in schema.values())


def _put_schema(body: dict[str, Any], schema: Mapping[str, Any], server: Server) -> None:
    if server.schemas == "json_schema":
        form = {"name": "answer", "schema": dict(schema), "strict": server.strict_tools == "all" or fits_strict(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
        return
    body["messages"].append({"role": "system", "content": SCHEMA_WORDS + json.dumps(schema, ensure_ascii=False)})
    if server.schemas == "json_object":
        body["response_format"] = {"type": "json_object"}
