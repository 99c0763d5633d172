"""The room of the answer: a reply from what a server sent, whole or in pieces. All of it is pure.

Servers differ in small things: arguments as an object, calls without ids, no usage, ``stop`` where tools are wanted.
What can be read in one way only is read; anything else is a fault that quotes what came, whole: the wire takes the key
out before it cuts it short.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, Literal

from attrs import define, field

from vivarium_kernel import ProviderFault, Reply, Request, ToolCall, Usage

FILTERED = "[the server withheld its answer: content filter]"
Finish = Literal["stop", "tool_calls", "length"]


@define
class _Call:
    """A tool call whose pieces still come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(factory=list)


@define
class Answer:
    """What has come of an answer so far: ``add`` takes each piece, ``reply`` makes the whole."""

    texts: list[str] = field(factory=list)
    calls: list[_Call] = field(factory=list)
    _latest: dict[str, _Call] = field(factory=dict)  # by number: to search through all for each piece could take hours
    finish: str = ""
    model: str = ""
    usage: Usage | None = None
    pieces: int = 0

    def add(self, piece: object) -> str:
        """Take one piece of a stream; returns the text that it brought. Raises ProviderFault for what is none."""
        if not isinstance(piece, Mapping):
            raise nonsense(f"a piece of its answer is no object: {piece}")
        self.pieces += 1
        self._take_frame(piece)
        choices = piece.get("choices")
        if not choices:
            return ""  # the last piece has the usage alone; others have nothing but a keep-alive
        choice = _first(choices)
        self.finish = choice.get("finish_reason") or self.finish
        return self._take(choice.get("delta") or {})

    def take_whole(self, data: object) -> None:
        """Take an answer that came at once. Raises ProviderFault for what is none."""
        if not isinstance(data, Mapping) or not data.get("choices"):
            raise nonsense(f"its answer has no choices: {data}")
        self.pieces += 1
        self._take_frame(data)
        choice = _first(data["choices"])
        message = choice.get("message")
        if not isinstance(message, Mapping):
            raise nonsense(f"its answer has no message: {data}")
        self.finish = choice.get("finish_reason") or "stop"
        self._take(message)

    def reply(self, request: Request) -> Reply:
        """The whole answer. Raises ProviderFault where it broke off."""
        if not self.finish:
            if not self.pieces:
                raise nonsense("it answered nothing at all")
            raise ProviderFault("its answer broke off", started=True, kind="cut")
        text = "".join(self.texts)
        if self.finish == "content_filter" and not text:
            text = FILTERED
        calls = tuple(
            ToolCall(call.id or f"call_{secrets.token_hex(6)}", call.name, "".join(call.arguments) or "{}")
            for call in self.calls
        )
        # A call that was asked for by name ends with "stop", and one that ran out of tokens is no whole call.
        finish: Finish = "length" if self.finish == "length" else "tool_calls" if calls else "stop"
        return Reply(text, self.usage or _most(request, text, calls), calls, finish, self.model)

    def _take_frame(self, data: Mapping[str, Any]) -> None:
        error = data.get("error")
        if error:
            raise ProviderFault(f"it ended its answer with an error: {error}", started=True, kind="server")
        if isinstance(data.get("model"), str):
            self.model = data["model"]
        self.usage = usage_of(data) or self.usage

    def _take(self, said: Any) -> str:
        if not isinstance(said, Mapping):
            raise nonsense(f"a message is no object: {said}")
        text = _text(said.get("content")) or _text(said.get("refusal"))
        if text:
            self.texts.append(text)
        calls = said.get("tool_calls") or ()
        if not isinstance(calls, (list, tuple)):
            raise nonsense(f"its tool calls are no list: {calls}")
        for call in calls:
            self._take_call(call)
        return text

    def _take_call(self, call: Any) -> None:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise nonsense(f"a tool call is none: {call}")
        taken = self._open_call(call, function)
        taken.id = taken.id or str(call.get("id") or "")
        taken.name = taken.name or str(function.get("name") or "")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            taken.arguments.append(arguments)
        elif arguments is not None:
            taken.arguments.append(json.dumps(arguments, ensure_ascii=False))

    def _open_call(self, call: Mapping[str, Any], function: Mapping[str, Any]) -> _Call:
        """The call that a piece goes on with, or a new one: some servers number none, or all of them 0."""
        place, given = repr(call.get("index")), call.get("id")
        last = self._latest.get(place)
        other_id = last is not None and bool(given) and bool(last.id) and given != last.id
        whole_again = last is not None and not given and bool(function.get("name")) and bool(last.name)
        if last is None or other_id or whole_again:
            last = self._latest[place] = _Call()
            self.calls.append(last)
        return last


def usage_of(data: Mapping[str, Any]) -> Usage | None:
    """The usage that an answer reports, as it reports it: what can't be true is for the kernel to refuse.

    llama.cpp's ``timings`` count the same where it gives no usage.
    """
    usage = data.get("usage")
    if isinstance(usage, Mapping) and usage.get("prompt_tokens") is not None:
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        return Usage(usage["prompt_tokens"], usage.get("completion_tokens") or 0, cached or 0)
    timings = data.get("timings")
    if isinstance(timings, Mapping) and isinstance(timings.get("prompt_n"), int):
        cached = timings.get("cache_n") or 0
        return Usage(timings["prompt_n"] + cached, timings.get("predicted_n") or 0, cached)
    return None


def _most(request: Request, text: str, calls: tuple[ToolCall, ...]) -> Usage:
    """What a call used at the most, where nobody says: a token is a byte at least.

    It is never more than the kernel set aside, which would tell against the server.
    """
    earlier = (call for message in request.messages for call in message.tool_calls)
    said = request.text + "".join(call.name + call.arguments for call in earlier)
    schema = "" if request.schema is None else json.dumps(request.schema, ensure_ascii=False, separators=(",", ":"))
    answered = text + "".join(call.name + call.arguments for call in calls)
    read = len((said + schema).encode()) + sum(tool.size for tool in request.tools)
    return Usage(read, min(len(answered.encode()), request.max_tokens))


def nonsense(what: str) -> ProviderFault:
    return ProviderFault(what, started=True, kind="nonsense")


def _first(choices: Any) -> Mapping[str, Any]:
    first = choices[0] if isinstance(choices, (list, tuple)) else None
    if not isinstance(first, Mapping):
        raise nonsense(f"its answer has no choices: {choices}")
    return first


def _text(content: Any) -> str:
    """A message's text, which some servers give in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, Mapping))
    return ""
