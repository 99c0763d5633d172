"""The room of the loop of thought: a model and its tools in turn, until it has an answer or a limit is reached.

Everything that happens in it is a step: a call of the model, an action. So an attempt that was cut off anywhere goes on
from what was recorded: the loop is run again and is given the same replies, until it comes to what is new. It holds
nothing else that lasts, and asks neither clock nor chance for what it decides by.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import define, field, frozen

from vivarium_kernel import model_calls
from vivarium_kernel.actions import action_name
from vivarium_kernel.errors import Invalid, LeaseLapsed, RateLimited, StoreError, VivariumError
from vivarium_kernel.jobs import Diverged, Job
from vivarium_kernel.models import Message, ProviderFault, Reply, Request, Tool, ToolCall
from vivarium_kernel.problems import near
from vivarium_kernel.prompting import marked, messages_of
from vivarium_kernel.records import Outcome, Usage

IDENTICAL_CALLS = 4  # the fourth identical call is a loop (docs/rules.md, "Safety")
TOO_LATE = "thought.seconds"
REPAIRS = 1  # how often in a row an answer that can't be read is sent back
MOST_TOOL_CALLS = 16  # in one reply; what is beyond is answered with that
RESULT_CHARACTERS = 20_000  # how much of a tool's reply a model is shown
_encode = msgspec.json.Encoder().encode


class Stopped(VivariumError):
    """A thought that was stopped, and by which limit: the attempt has failed by its task's own fault."""

    def __init__(self, rule: str, reason: str, next_step: str = "") -> None:
        super().__init__(rule, reason, next_step)


@frozen
class Limits:
    """Where a thought ends: after so many steps, tokens, seconds, and steps in a row that bring nothing new."""

    steps: int
    tokens: int
    seconds: float
    idle_steps: int


@define
class Thought:
    """One attempt's conversation so far, and what it has used."""

    messages: list[Message]
    began: float  # by the job's clock
    steps: int = 0
    usage: Usage = field(factory=Usage)
    idle: int = 0
    repairs: int = 0
    seen: dict[str, int] = field(factory=dict)

    def add(self, used: Usage) -> None:
        self.usage = Usage(
            self.usage.tokens_in + used.tokens_in,
            self.usage.tokens_out + used.tokens_out,
            self.usage.cached_tokens + used.cached_tokens,
        )


async def think(job: Job, *, schema: Mapping[str, Any] | None = None) -> Outcome:
    """Let the job's model think about its task with its tools; returns its answer.

    ``schema`` is a JSON Schema that the answer has to fit. A limit that is reached, a loop, or an answer that can't be
    read twice is the task's own fault; whatever a provider does wrong is not. Raises LeaseLapsed when a tool ended the
    attempt.
    """
    settings = job.models
    limits = Limits(settings.steps, settings.attempt_tokens, job.task.timeout_seconds, settings.steps_without_progress)
    thought = Thought(messages_of(job.sections), job.now())
    try:
        answer = await _to_the_end(job, thought, limits, schema)
    except Stopped as stopped:
        late = stopped.rule == TOO_LATE
        return _outcome(job, thought, fault="task", reason=f"{stopped.rule}: {stopped.message}", timed_out=late)
    return _outcome(job, thought, answer=answer)


async def _to_the_end(job: Job, thought: Thought, limits: Limits, schema: Mapping[str, Any] | None) -> str:
    """The final answer; raises Stopped."""
    while True:
        _check(thought, limits)
        left = limits.seconds - (job.now() - thought.began)
        if left <= 0:
            raise _too_late(limits)
        reply = await _asked(job, _request(job, thought, schema, min(left, job.models.call_seconds)), left, limits)
        thought.steps += 1
        thought.add(reply.usage)
        calls = _numbered(reply.tool_calls, thought.steps)
        thought.messages.append(Message("assistant", reply.text, calls))
        if calls:
            thought.repairs = 0
            await _in_time(job, thought, calls, limits, limits.seconds - (job.now() - thought.began))
            continue
        fault = _fault(reply, schema)
        if not fault:
            return reply.text
        if thought.repairs >= REPAIRS:
            raise Stopped("thought.answer", f"{job.model} gave no answer that can be used: {fault}")
        thought.repairs += 1
        thought.messages.append(Message("user", f"That can't be used: {fault}. Give the whole answer again."))


async def _asked(job: Job, request: Request, left: float, limits: Limits) -> Reply:
    """The model's reply. A call that may take all of the time that is left and needs more is the task's delay."""
    try:
        return await model_calls.call(job, request)
    except ProviderFault as fault:
        if fault.kind == "timeout" and request.timeout_seconds >= left:
            raise _too_late(limits) from fault
        raise


def _request(job: Job, thought: Thought, schema: Mapping[str, Any] | None, seconds: float) -> Request:
    return Request(
        job.model,
        tuple(thought.messages),
        _tools(job),
        schema,
        job.models.max_tokens,
        seconds,
        job.entitlement.priority,
        job.step_key(job.number + 1),
        say=job.say if job.is_heard else None,
    )


def _check(thought: Thought, limits: Limits) -> None:
    if thought.steps >= limits.steps:
        raise Stopped("thought.steps", f"it took {thought.steps} steps and had no answer")
    used = thought.usage.tokens_in + thought.usage.tokens_out
    if used >= limits.tokens:
        raise Stopped("thought.tokens", f"it used {used:,} tokens of at most {limits.tokens:,} and had no answer")
    if thought.idle >= limits.idle_steps:
        raise Stopped("thought.progress", f"its last {thought.idle} steps brought nothing new")


def _too_late(limits: Limits) -> Stopped:
    return Stopped(TOO_LATE, f"it was not done within its {limits.seconds:g} s")


# Tools


async def _in_time(job: Job, thought: Thought, calls: Sequence[ToolCall], limits: Limits, seconds: float) -> None:
    """Use the tools of a reply in the time that is left. (A call of the model has a time limit of its own.)"""
    try:
        async with asyncio.timeout(max(0.0, seconds)) as deadline:
            await _use_all(job, thought, calls, limits)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise _too_late(limits) from None


async def _use_all(job: Job, thought: Thought, calls: Sequence[ToolCall], limits: Limits) -> None:
    """Use the tools of one reply in its order, and tell the model what came of each.

    In order and one after the other: a continued attempt then finds each step at its number.
    """
    new = False
    for place, call in enumerate(calls):
        if place >= MOST_TOOL_CALLS:
            text = _told("tool.many", f"only {MOST_TOOL_CALLS} tools can be used in one reply", "Use it in the next.")
        else:
            _check(thought, limits)
            repeated = _count(job, thought, call)
            text, well = await _use(job, call)
            new |= well and not repeated
            thought.steps += 1
        thought.messages.append(Message("tool", text, answers=call.id))
    thought.idle = 0 if new else thought.idle + 1


def _count(job: Job, thought: Thought, call: ToolCall) -> bool:
    """Whether this very call was made before; raises Stopped at the fourth."""
    same = f"{call.name} {_canonical(call.arguments)}"
    thought.seen[same] = thought.seen.get(same, 0) + 1
    if thought.seen[same] >= IDENTICAL_CALLS:
        raise Stopped("thought.loop", f"it called {call.name} {IDENTICAL_CALLS} times with the same arguments")
    return thought.seen[same] > 1


async def _use(job: Job, call: ToolCall) -> tuple[str, bool]:
    """What a tool answered, as the model is told it, and whether it went well. A refusal is told and is no fault.

    Each call is one step, also one that can't be: so a continued attempt finds everything at its number.
    """
    try:
        try:
            arguments = _arguments(job, call)
        except Invalid as error:
            await job.refuse(action_name(call.name)[:100], error)
            raise
        reply = await job.act(action_name(call.name), arguments)
    except (LeaseLapsed, StoreError, RateLimited, Diverged):
        raise
    except VivariumError as error:
        return _told(error.rule, error.message, error.next_step), False
    return _shown(reply, call.name), True


def _arguments(job: Job, call: ToolCall) -> dict[str, Any]:
    """The arguments of a call of a tool that there is; raises Invalid."""
    names = [tool.name for tool in _tools(job)]
    # What was used before is used again, whatever there is by now.
    if call.name not in names and not job.has_recorded(action_name(call.name)):
        meant = near(call.name, names)
        known = f"Did you mean {meant}?" if meant else f"There are: {', '.join(names) or 'none'}."
        raise Invalid("tool.unknown", f"there is no tool {call.name!r:.100}", known)
    try:
        found = json.loads(call.arguments or "{}", strict=False)
    except (ValueError, RecursionError) as error:
        raise Invalid(
            "tool.arguments", f"the arguments are not JSON: {error}", "Write them as one JSON object."
        ) from error
    if not isinstance(found, dict):
        raise Invalid("tool.arguments", "the arguments are not a JSON object", "Write them as one JSON object.")
    return found


def _tools(job: Job) -> Sequence[Tool]:
    """What the model is offered: nothing to a resident who may run no tool."""
    return () if job.entitlement.tool_calls == 0 else job.tools


def _told(rule: str, message: str, next_step: str) -> str:
    return f"Refused ({rule}): {message} {next_step}".strip()


def _shown(reply: Any, tool: str) -> str:
    """A tool's reply as the model reads it: marked, for what a tool found is nobody's instruction."""
    text = reply if isinstance(reply, str) else _encode(reply).decode()
    if len(text) > RESULT_CHARACTERS:
        text = f"{text[:RESULT_CHARACTERS]}\n[cut: {len(text) - RESULT_CHARACTERS:,} more characters]"
    return marked(text, f"tool {tool}")


def _numbered(calls: Sequence[ToolCall], step: int) -> tuple[ToolCall, ...]:
    """The calls of a reply with ids of their own: some servers give none, or the same twice."""
    ids = [call.id for call in calls]
    if all(ids) and len(set(ids)) == len(ids):
        return tuple(calls)
    return tuple(ToolCall(f"call_{step}_{place}", call.name, call.arguments) for place, call in enumerate(calls))


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments, strict=False), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


# Answers


def _fault(reply: Reply, schema: Mapping[str, Any] | None) -> str:
    """Why an answer can't be used; empty when it can."""
    if not reply.text.strip():
        return "it is empty"
    if reply.finish == "length":
        return "it was cut off, for it was too long"
    return "" if schema is None else schema_fault(reply.text, schema)


def schema_fault(text: str, schema: Mapping[str, Any]) -> str:
    """What keeps a text from being JSON of this schema; empty when nothing does. Raises Stopped for no schema."""
    from jsonschema import Draft202012Validator, SchemaError  # costs 60 ms, and few answers need it
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        return f"it is not JSON ({error})"
    try:
        Draft202012Validator.check_schema(schema)
        # An empty registry: a schema that points elsewhere is not fetched.
        found = min(
            Draft202012Validator(schema, registry=Registry()).iter_errors(value),
            key=lambda error: error.json_path,
            default=None,
        )
    except (SchemaError, Unresolvable) as error:
        raise Stopped("thought.schema", f"the task's schema can't be used: {str(error)[:300]}") from error
    return "" if found is None else f"at {found.json_path}: {found.message[:300]}"


def _outcome(job: Job, thought: Thought, **more: Any) -> Outcome:
    data: dict[str, Any] = {"steps": thought.steps}
    if job.route.instead_of:
        data |= {"instead_of": job.route.instead_of, "because": job.route.why}
    seconds = job.now() - thought.began
    return Outcome(model=job.model, usage=thought.usage, data=data, seconds=seconds, **more)
