"""The room of the scripted model of a test: it answers what the test says, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from vivarium_kernel.models import Price, ProviderFault, Reply, Request, count_tokens
from vivarium_kernel.records import Usage

NAME = "scripted_model"
LABEL = "[scripted model, no LLM]"
Line = str | Reply | Exception | Callable[[Request], "str | Reply"]


class ScriptedModel:
    """A model provider without a model. It costs nothing unless ``price_of_all`` says so.

    Without a line of its script it repeats the task. ``requests`` are the calls that it took, oldest first;
    ``delay_seconds`` is how long each takes.
    """

    name = NAME

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.price_of_all = Price(0, 0)
        self.delay_seconds = 0.0
        self._lines: deque[Line] = deque()

    def says(self, *lines: Line) -> None:
        """Add lines to the script, one for each call to come: a text or :class:`Reply` is answered, an exception is
        raised (``ProviderFault("429", started=False)`` is an outage), a function is asked with the request."""
        self._lines.extend(lines)

    def fails(self, reason: str = "the model is not there", *, started: bool = False) -> None:
        """Let the next call fail through no fault of the task; ``started`` True is one that may have cost."""
        self.says(ProviderFault(reason, started=started))

    @property
    def unsaid(self) -> int:
        """How many lines of the script nobody has asked for yet."""
        return len(self._lines)

    @property
    def prompts(self) -> Sequence[str]:
        """The whole text of each prompt, oldest first."""
        return [request.text for request in self.requests]

    def price(self, model: str) -> Price | None:
        return self.price_of_all

    async def complete(self, request: Request) -> Reply:
        self.requests.append(request)
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        line: Line = self._lines.popleft() if self._lines else _echo
        if isinstance(line, Exception):
            raise line
        said = line(request) if callable(line) else line
        if isinstance(said, Reply):
            return said
        return Reply(said, Usage(count_tokens(request.text), count_tokens(said)))


def _echo(request: Request) -> str:
    return f"{LABEL} {request.messages[-1].text[:200] if request.messages else ''}"
