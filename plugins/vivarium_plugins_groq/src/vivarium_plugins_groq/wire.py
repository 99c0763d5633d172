"""The room of Groq's wire: a request as the service takes it, and its answers, whole or streamed, as replies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from attrs import define, field

from vivarium_kernel import Invalid, Message, ModelInfo, ProviderFault, Reply, Request, ToolCall, Usage
from vivarium_plugins_groq.faults import without

# What a request may set besides; anything else could change the model, the price or the shape of the answer.
OPTIONS = (
    "frequency_penalty", "parallel_tool_calls", "presence_penalty", "reasoning_effort", "reasoning_format", "seed",
    "service_tier", "stop", "temperature", "tool_choice", "top_p",
)  # fmt: skip


def asked(request: Request) -> dict[str, Any]:
    """The body of a call. Raises Invalid for an option that is not Groq's or not a request's to set."""
    for name in request.options:
        if name not in OPTIONS:
            raise Invalid(
                "model.option", f"Groq takes no option {name!r}.", f"There are: {', '.join(OPTIONS)}.",
                field=name,
            )  # fmt: skip
    body: dict[str, Any] = {
        **request.options,
        "model": request.name,
        "messages": [_message(each) for each in request.messages],
        "max_completion_tokens": request.max_tokens,
        "stream": streams(request),
    }
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
    if request.schema is not None and request.tools:
        # The service refuses a schema together with tools, so the model is told of it in words.
        told = f"Your final answer is JSON that fits this schema, and nothing else: {json.dumps(request.schema)}"
        body["messages"].append({"role": "system", "content": told})
    elif request.schema is not None:
        shape = {"name": "answer", "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    return body


def streams(request: Request) -> bool:
    """Whether the answer is to come piece by piece; the service refuses that together with a schema."""
    return request.say is not None and (request.schema is None or bool(request.tools))


def _message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.answers, "content": message.text}
    found: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return found


def reply_of(body: bytes) -> Reply:
    """A whole answer as a reply; raises ProviderFault for what is none."""
    page = _json(body)
    choice = _first(page.get("choices"))
    message = choice.get("message") if choice is not None else None
    if choice is None or not isinstance(message, dict):
        raise _nonsense("an answer without a choice")
    parts = [_part(each) for each in _list(message.get("tool_calls"))]
    calls = [ToolCall(each["id"], each["name"], each["arguments"]) for each in parts]
    return Reply(
        _text(message.get("content")), _usage(page.get("usage")), calls, _finish(choice.get("finish_reason"), calls),
        _text(page.get("model")),
    )  # fmt: skip


@define
class Stream:
    """An answer that comes in pieces. ``say`` is handed each piece of text; ``key`` is never in what is raised."""

    say: Callable[[str], None]
    key: str = field(repr=False)
    _rest: list[bytes] = field(factory=list)  # of a line whose end has not come
    _texts: list[str] = field(factory=list)
    _calls: dict[int, dict[str, str]] = field(factory=dict)
    _usage: Any = None
    _finish: Any = None
    _model: str = ""
    _done: bool = False

    def feed(self, data: bytes) -> None:
        """Take up the next bytes; raises ProviderFault for what can't be read."""
        first, *more = data.split(b"\n")
        self._rest.append(first)
        if not more:
            return
        *lines, rest = b"".join(self._rest), *more
        self._rest = [rest]
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip())

    def _event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self._done = True
            return
        page = _json(data)
        groq = page.get("x_groq")
        groq = groq if isinstance(groq, dict) else {}
        error = page.get("error") or groq.get("error")
        if error:
            said = error.get("message") if isinstance(error, dict) else error
            raise ProviderFault(f"Groq broke off: {without(str(said), self.key)}", started=True, kind="server")
        self._model = _text(page.get("model")) or self._model
        self._usage = groq.get("usage") or page.get("usage") or self._usage
        choice = _first(page.get("choices"))
        if choice is None:
            return
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._take(delta)

    def _take(self, delta: Mapping[str, Any]) -> None:
        text = _text(delta.get("content"))
        if text:
            self._texts.append(text)
            self.say(text)
        for place, given in enumerate(_list(delta.get("tool_calls"))):
            part = _part(given, whole=False)
            index = given.get("index")
            known = self._calls.setdefault(index if type(index) is int else place, dict.fromkeys(part, ""))
            known["id"] = known["id"] or part["id"]
            known["name"] += part["name"]
            known["arguments"] += part["arguments"]

    def reply(self) -> Reply:
        """What came, once nothing more does; raises ProviderFault when it broke off."""
        self.feed(b"\n")  # the last line may have had no end
        if not self._done and self._finish is None:
            raise ProviderFault("Groq's answer broke off", started=True, kind="cut")
        calls = []
        for _, call in sorted(self._calls.items()):
            if not call["name"]:
                raise _nonsense("a call of a tool without a name")
            calls.append(ToolCall(call["id"], call["name"], call["arguments"] or "{}"))
        finish = _finish(self._finish, calls)
        return Reply("".join(self._texts), _usage(self._usage), calls, finish, self._model)


# Pieces


def _json(data: bytes) -> dict[str, Any]:
    try:
        page = json.loads(data, strict=False)  # models write raw control characters into strings
    except (ValueError, RecursionError):
        raise _nonsense("an answer that is not JSON" if data.strip() else "nothing at all") from None
    if not isinstance(page, dict):
        raise _nonsense("an answer that is no JSON object")
    return page


def _first(choices: Any) -> dict[str, Any] | None:
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def _list(calls: Any) -> Sequence[Any]:
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise _nonsense("calls of tools that are no list")
    return calls


def _part(call: Any, *, whole: bool = True) -> dict[str, str]:
    """The id, name and arguments of a call of a tool, or of a piece of one."""
    function = call.get("function") if isinstance(call, dict) else None
    if function is None and isinstance(call, dict) and not whole:
        function = {}
    if not isinstance(function, dict):
        raise _nonsense("a call of a tool that is none")
    arguments = function.get("arguments")
    if isinstance(arguments, dict | list):
        arguments = json.dumps(arguments)
    part = {"id": _text(call.get("id")), "name": _text(function.get("name")), "arguments": _text(arguments)}
    if whole and not part["name"]:
        raise _nonsense("a call of a tool without a name")
    return part | ({"arguments": part["arguments"] or "{}"} if whole else {})


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _nonsense(f"{type(value).__name__} where a text belongs")
    # Half a character, which JSON can hold and no file can.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _is_broken(value) else value


def _is_broken(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _usage(found: Any) -> Usage:
    """What was used, as it was told: whether that can be true is the kernel's to judge."""
    if not isinstance(found, dict):
        raise _nonsense("an answer that does not say what it used")
    details = found.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(_count(found.get("prompt_tokens")), _count(found.get("completion_tokens")), _count(cached or 0))


def _count(number: Any) -> int:
    if type(number) is not int:
        raise _nonsense(f"a usage that is no number: {number!r:.100}")
    return number


def _finish(reason: Any, calls: Sequence[ToolCall]) -> Literal["stop", "tool_calls", "length"]:
    if calls:
        return "tool_calls"  # a model that was made to use a tool ends with "stop"
    return "length" if reason == "length" else "stop"


def _nonsense(what: str) -> ProviderFault:
    return ProviderFault(f"Groq sent {what}", started=True, kind="nonsense")


# The list of models


def models_of(body: bytes) -> list[ModelInfo]:
    """The models that the service lists, by name; raises ProviderFault for a list that is none."""
    rows = _json(body).get("data")
    if not isinstance(rows, list):
        raise _nonsense("a list of models that is none")
    found = []
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("id"), str):
            context = row.get("context_window")
            note = "not active" if row.get("active") is False else ""
            found.append(ModelInfo(row["id"], context if type(context) is int and context > 0 else None, note=note))
    return sorted(found, key=lambda each: each.name)
