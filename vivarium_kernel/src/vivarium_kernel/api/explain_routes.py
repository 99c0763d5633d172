"""The room of the routes that explain: why a task goes to whom, who wrote a prompt, and what each plugin costs."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from vivarium_kernel import explaining, timings, written
from vivarium_kernel.api.operations import Call, Operation
from vivarium_kernel.api.shapes import Number, Word
from vivarium_kernel.explaining import Claims
from vivarium_kernel.timings import Profile
from vivarium_kernel.written import Prompt


@frozen
class ClaimQuery:
    """Which task, and what one resident makes of it; without ``resident`` each that is active."""

    task: Word
    resident: Word | None = None


@frozen
class PromptQuery:
    """The prompt of which attempt."""

    attempt: Number


@frozen
class ProfileQuery:
    """Of which processes: those that live, or else the last that did; or all that are kept."""

    processes: Literal["living", "all"] = "living"


def operations() -> list[Operation]:
    """The routes of this room."""
    return [
        Operation(
            "GET /explain/claim",
            "Say what residents make of a task now, and why it was claimed before.",
            _claim,
            query=ClaimQuery,
            reply=Claims,
        ),
        Operation(
            "GET /explain/prompt",
            "Say which plugin wrote which section of an attempt's prompt.",
            _prompt,
            query=PromptQuery,
            reply=Prompt,
        ),
        Operation(
            "GET /plugins/profile",
            "Say what each plugin's hooks cost.",
            _profile,
            query=ProfileQuery,
            reply=Profile,
        ),
    ]


async def _claim(call: Call) -> Claims:
    return await explaining.claims(call.village, call.query.task, call.query.resident)


async def _prompt(call: Call) -> Prompt:
    with call.village.store.view() as view:
        return written.prompt(view, call.query.attempt, call.village.settings.models.prompt_tokens)


async def _profile(call: Call) -> Profile:
    with call.village.store.view() as view:
        return timings.profile(view, everything=call.query.processes == "all")
