"""The room of the scripted model that uses tools: no LLM, but a fixed script, so that all the machinery can be seen.

It lists what there is, searches for the rarest words of the task, reads around what it found, writes the page that the
task asks for, and answers with quotations and citations. It understands nothing: what it quotes only holds the words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from vivarium_kernel.models import Message, Reply, Request, ToolCall, count_tokens
from vivarium_kernel.records import Usage

LABEL = "[scripted model, no LLM]"
SEARCHES = 2
CITED = 3
LONGEST_QUOTE = 160
_LINE = re.compile(r"^(\S[^:\n]*):(\d+): (.*)$", re.MULTILINE)
_NUMBERED = re.compile(r"^(\d+): (.*)$", re.MULTILINE)
_PAGE = re.compile(r"files/library/[\w./-]{1,300}\.md\b")
_WORD = re.compile(r"[^\W\d_]{5,}")
_QUESTION = re.compile(r"(?<![^.?!])[^.?!]++\?")
_MARKS = re.compile(r"</?untrusted[^>\n]{0,300}+>")
_Found = tuple[str, int, str]  # path, line, its text


def scripted_reply(request: Request) -> Reply:
    """The next step of the script, which is read off the conversation alone: the same conversation, the same step."""
    text, calls = _next(request)
    said = text + "".join(call.arguments for call in calls)
    usage = Usage(count_tokens(request.text), count_tokens(said))
    return Reply(text, usage, calls, "tool_calls" if calls else "stop", "tools")


def _next(request: Request) -> tuple[str, Sequence[ToolCall]]:  # noqa: PLR0911 - one return a step
    told = [_MARKS.sub("", message.text).strip() for message in request.messages if message.role == "tool"]
    told = ["" if text.startswith(("Refused (", "[empty]")) else text for text in told]
    task = _task(request.messages)
    tools = {tool.name for tool in request.tools}
    if not {"files__list", "files__search", "files__read"} <= tools:
        return f"{LABEL} It has no tools for files here. The task: {task[:200]}", ()
    step = len(told)
    if step == 0:
        return "", [_call(step, "files__list")]
    place = _last_place(told[0])
    if step == 1:
        return "", [_call(step, "files__list", path=place)]
    words = _words(task)[:SEARCHES]
    if step < 2 + len(words):
        return "", [_call(step, "files__search", text=words[step - 2], path=place)]
    hits = _hits(told[2 : 2 + len(words)])
    path, line = (hits[0][0], hits[0][1]) if hits else (_first_file(place, told[1]), 1)
    if not path:
        return f"{LABEL} There is no document to look into.", ()
    if step == 2 + len(words):
        return "", [_call(step, "files__read", path=path, offset=max(0, line - 4), lines=8)]
    found = _chosen(hits, path, told[2 + len(words)])
    page = _PAGE.search(task)
    if page and "files__write" in tools and step == 3 + len(words):
        return "", [_call(step, "files__write", path=page[0], text=_page(words, found))]
    where = f" The page is {page[0]}." if page and "files__write" in tools else ""
    return f"{LABEL} Lines that hold {' or '.join(words) or 'nothing'}: {'; '.join(map(_cited, found))}.{where}", ()


def _task(messages: Sequence[Message]) -> str:
    """What the resident is asked: the first message of the user."""
    return next((message.text for message in messages if message.role == "user"), "")


def _call(step: int, name: str, **arguments: object) -> ToolCall:
    return ToolCall(f"script_{step}", name, json.dumps(arguments, ensure_ascii=False))


def _last_place(listing: str) -> str:
    """The last of the places that a resident has: what the operator lets it read comes after its own."""
    places = [line.strip().rstrip("/") for line in listing.splitlines() if line.strip().endswith("/")]
    return places[-1] if places else ""


def _first_file(place: str, listing: str) -> str:
    names = [line.split(" ")[0] for line in listing.splitlines() if line and line[0] != "[" and not line.endswith("/")]
    return f"{place}/{names[0]}" if names else ""


def _words(task: str) -> list[str]:
    """The longest words of the last question, else of the last paragraph: of words as long the first."""
    asked = _QUESTION.findall(task) or [task.rpartition("\n\n")[2]]
    found = dict.fromkeys(word.casefold() for word in _WORD.findall(_PAGE.sub("", asked[-1])))
    return sorted(found, key=lambda word: -len(word))


def _hits(results: Sequence[str]) -> list[_Found]:
    """Lines that the searches found, those of the first one first, each once."""
    lines = ((match[1], int(match[2]), match[3]) for result in results for match in _LINE.finditer(result))
    return list(dict.fromkeys(lines))


def _chosen(hits: Sequence[_Found], path: str, read: str) -> list[_Found]:
    """What is cited: lines that were found, and where they are too few, lines that were read."""
    around = [(path, int(match[1]), match[2]) for match in _NUMBERED.finditer(read)]
    whole = {(name, number): (name, number, text) for name, number, text in [*hits, *around] if _quotable(text)}
    return list(whole.values())[:CITED]


def _quotable(text: str) -> str:
    """The longest part of a line that can stand in quotation marks."""
    part = max(re.split(r'["“”]', text), key=len).strip(" .,;:|#-*>")
    return part[:LONGEST_QUOTE].rsplit(" ", 1)[0] if len(part) > LONGEST_QUOTE else part


def _cited(found: _Found) -> str:
    path, line, text = found
    return f'"{_quotable(text)}" [{path}:{line}]'


def _page(words: Sequence[str], found: Sequence[_Found]) -> str:
    lines = "\n".join(f"- {_cited(each)}" for each in found)
    title = f"# What the documents say of {' and '.join(words)}"
    return f"{title}\n\n{LABEL} It quotes lines, and understands none.\n\n{lines}\n"
