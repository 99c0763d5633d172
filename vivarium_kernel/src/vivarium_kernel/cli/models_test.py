"""The room of ``vivarium models test``: one small task for a model, done at once, by the rules of every other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.cli.opening import acting, as_option, json_option, village_option
from vivarium_kernel.cli.showing import fields, money, print_json
from vivarium_kernel.errors import Conflict
from vivarium_kernel.wording import lasting

if TYPE_CHECKING:
    from vivarium_kernel.records import NewTask, Step, Task
    from vivarium_kernel.terms import Actor
    from vivarium_kernel.village import Village

LABEL = "models test"
PROMPT = "This is a test of the model. Answer with the one word: ready. Use no tool."
SECONDS = 60.0
GRACE_SECONDS = 10.0  # until somebody has taken it
LOOK_SECONDS = 0.1
PRIORITY = 1_000


@click.command()
@click.argument("model", required=False)
@village_option
@as_option
@json_option
def test(model: str | None, village: Path | None, token: str | None, as_json: bool) -> int:
    """Make one small call of a model, paid as any other.

    It posts one task that a resident does at once, within its budget and every limit. The call counts against the
    resident's budget and the resident gets the task's reward; both are in the log and the ledger, as any other. This is
    said before anything is posted. Without MODEL it is the village's own. Exit status 1 if the model did not answer.
    """
    with acting(village, token, "POST /tasks", plugins=True) as (opened, actor):
        found = asyncio.run(_tested(opened, model or opened.settings.model, actor))
    if as_json:
        print_json(found)
    else:
        _tell(found)
    return 0 if found["answered"] else 1


async def _tested(village: Village, model: str, actor: Actor) -> dict[str, Any]:
    """Post the task, let a resident do it, and tell what came of it. What is left of it is cancelled."""
    from attrs import evolve

    from vivarium_kernel import board, people
    from vivarium_kernel.claiming import NotClaimed
    from vivarium_kernel.records import NewTask
    from vivarium_kernel.rounds import Won
    from vivarium_kernel.runtime import Runtime
    from vivarium_kernel.terms import ANY_ENDING

    new = NewTask(
        prompt=PROMPT, title=f"Test of {model}", mode="llm", model=model, max_attempts=1, timeout_seconds=SECONDS,
        priority=PRIORITY, labels=(LABEL,), expect=ANY_ENDING,
    )  # fmt: skip
    _check(village, new)
    async with Runtime(village, 0, kind="test") as runtime:
        with village.store.view() as view:
            resident = people.free_resident(view)
            if resident is None and not any(one.state == "active" for one in people.residents(view)):
                raise Conflict("models.nobody", "No resident is active who could make the call.",
                               "vivarium resident list; resume one, or add one.", field="model")  # fmt: skip
        _say_what_it_does(model, None if resident is None else resident.name)
        (task,) = await village.store.write(
            board.post, village.posting([evolve(new, wanted=None if resident is None else resident.name)], actor)
        )
        won = None if resident is None else await runtime.rounds.claim_now(resident.name, task)
        if isinstance(won, Won):
            await runtime.live(won)
        elif won is None:
            await _waited(village, task)  # all residents are driven by what runs: one of them takes it
        with village.store.view() as view:
            task = board.task(view, task.id)
            attempts = board.attempts(view, task.id)
            steps = board.steps(view, attempts[-1].id) if attempts else []
        refused = won.reason if isinstance(won, NotClaimed) else "" if attempts else "nobody took it in time"
        await _cancelled(village, task, actor)
    calls = [step for step in steps if step.kind == "model"]
    return {
        "model": model, "task": task.id, "resident": attempts[-1].resident if attempts else None,
        "answered": any(step.state == "done" for step in calls),
        "answer": attempts[-1].answer if attempts else None,
        "why": refused or (attempts[-1].reason if attempts else task.reason) or task.reason,
        "kind": next((_fault_kind(step) for step in calls if _fault_kind(step)), ""),
        "seconds": sum(((step.ended_at or step.started_at) - step.started_at) / 1_000_000 for step in calls),
        "calls": len(calls),
        "tokens_in": sum(step.tokens_in for step in calls), "tokens_out": sum(step.tokens_out for step in calls),
        "spent_micros": sum(step.spent_micros for step in calls),
    }  # fmt: skip


def _say_what_it_does(model: str, resident: str | None) -> None:
    who = resident or "whoever is free first"
    click.echo(
        f"This posts one task for {model}, which {who} does now: the call is paid from the budgets, and {who} gets the "
        "task's reward.", err=True,
    )  # fmt: skip


def _check(village: Village, new: NewTask) -> None:
    """Refuse what could not be done now, before anything is posted."""
    from vivarium_kernel import routing
    from vivarium_kernel.models import split_name
    from vivarium_kernel.records import Entitlement, Task

    times = village.times()
    if times.halted or times.paused:
        word, end = ("halted", "unhalt") if times.halted else ("paused", "resume")
        raise Conflict(f"village.{word}", f"The village is {word}: nothing is run now.", f"vivarium {end}")
    route = routing.choose(new.model or "", Task(0, "", "llm"), Entitlement(), village.settings.models)
    provider, name = split_name(route.model)
    village.provider(provider).price(name)  # raises for a provider or a model that is not there
    village.check_modes([new])


async def _waited(village: Village, task: Task) -> None:
    """Wait until the task was tried once, as long as that may take."""
    from vivarium_kernel import board

    until = village.clock.monotonic() + SECONDS + GRACE_SECONDS
    while village.clock.monotonic() < until:
        await asyncio.sleep(LOOK_SECONDS)
        with village.store.view() as view:
            attempts = board.attempts(view, task.id)
        if attempts and attempts[-1].state != "running":
            return


async def _cancelled(village: Village, task: Task, actor: Actor) -> None:
    """A test that could not be done now is not done later."""
    from vivarium_kernel import deciding
    from vivarium_kernel.terms import ENDED_STATES

    if task.state not in ENDED_STATES and task.state != "review":
        asked = deciding.Decision(
            task.id, "cancel", actor, "the test is over", village.hooks.end_attempt, village.retries()
        )  # fmt: skip
        await village.store.write(deciding.decide, asked)


def _fault_kind(step: Step) -> str:
    result = step.result if isinstance(step.result, dict) else {}
    return str(result.get("kind", "")) if "fault" in result else ""


_STEPS = {
    "unauthorized": "vivarium key set {provider}",
    "rate_limited": "wait; residents are given the time that the server asks for",
    "overloaded": "wait, or choose another model: vivarium models list",
    "server": "see the server's own log, and try again",
    "connection": "see that the server runs, and its address in [plugins.{provider}] of vivarium.toml",
    "timeout": "see whether the server is busy: vivarium models list",
    "cut": "try again; see the server's own log",
    "nonsense": "see that the address in [plugins.{provider}] is that of a model server",
    "open": "wait: it is tried again by itself",
}


def _tell(found: dict[str, Any]) -> None:
    provider = found["model"].partition(":")[0]
    step = _STEPS.get(found["kind"], "").format(provider=provider)
    fields(
        [
            ("model", found["model"]),
            ("result", "it answered" if found["answered"] else "it did not answer"),
            ("kind", found["kind"]),
            ("why", "" if found["answered"] and found["answer"] else found["why"]),
            ("next", "" if found["answered"] else step),
            ("answer", (found["answer"] or "")[:200]),
            ("took", lasting(found["seconds"]) if found["calls"] else ""),
            ("tokens", f"{found['tokens_in']:,} read, {found['tokens_out']:,} written" if found["calls"] else ""),
            (
                "cost",
                f"{money(found['spent_micros'], 'usd')}, recorded with task {found['task']} of {found['resident']}",
            ),
        ]
    )
