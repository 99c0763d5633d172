"""The room of ``vivarium task show``: one task, everything that was tried, and every output."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import asdict

from vivarium_kernel.cli.opening import folder_of, json_option, looking, village_option
from vivarium_kernel.cli.showing import fields, money, plain, print_json, safe, several, state_text
from vivarium_kernel.terms import ANY_ENDING, ENDED_STATES
from vivarium_kernel.wording import lasting, when

if TYPE_CHECKING:
    from vivarium_kernel.records import Attempt, Step, Task, Transfer
    from vivarium_kernel.waiting import Wait


@click.command()
@click.argument("id_", metavar="ID")
@village_option
@json_option
def show(id_: str, village: Path | None, as_json: bool) -> None:
    """Show a task with every attempt's output."""
    from vivarium_kernel import board
    from vivarium_kernel.records import Transfer
    from vivarium_kernel.waiting import wait_of

    with looking(folder_of(village)) as view:
        task = board.task(view, id_)
        needs: dict[str, str] = {name: board.task(view, name).state for name in board.needs_of(view, id_)}
        attempts = [(attempt, board.steps(view, attempt.id)) for attempt in board.attempts(view, id_)]
        wait = None if task.state in ENDED_STATES else wait_of(view, task)
        paid = [
            Transfer(*row)
            for row in view.rows(
                "SELECT key, payer, payee, currency, micros, reason, source, actor, ref, at FROM transfers "
                "WHERE ref = ? ORDER BY id",
                (f"task:{id_}",),
            )
        ]
        now = view.now
    if as_json:
        print_json(
            plain(task)
            | {"needs": needs, "waits_for": None if wait is None else asdict(wait)}
            | {"tries": [plain(one) | {"steps": [plain(step) for step in steps]} for one, steps in attempts]}
            | {"transfers": [plain(transfer) for transfer in paid]}
        )
        return
    _print_task(task, needs, wait, paid, now)
    numbers = {attempt.id: attempt.number for attempt, _ in attempts}
    for attempt, steps in attempts:
        _print_attempt(attempt, steps, now, numbers)


def _print_task(task: Task, needs: dict[str, str], wait: Wait | None, paid: list[Transfer], now: int) -> None:
    state = state_text(task.state)
    if task.state in ENDED_STATES and task.expect not in (ANY_ENDING, task.state):
        state += f", expected {task.expect}"
    click.echo(f"{click.style(safe(task.id), bold=True)}  {state}" + (f"  {safe(task.title)}" if task.title else ""))
    waits = "" if wait is None else wait.what + (f"\n→ {wait.next_step}" if wait.next_step else "")
    budget = money(task.max_micros, "usd") if task.max_micros else "none, and so no reward"
    fields(
        [
            ("  waits for", waits),
            ("  reason", task.reason if wait is None else ""),
            ("  command", shlex.join(task.command) if task.command else ""),
            ("  prompt", task.prompt),
            ("  in", task.cwd if task.cwd != "." else ""),
            ("  mode", task.mode + (f", model {task.model}" if task.model else "")),
            ("  needs", ", ".join(f"{name} ({state})" for name, state in needs.items())),
            ("  makes", ", ".join(task.files)),
            ("  labels", ", ".join(task.labels)),
            ("  wanted", task.wanted or ""),
            ("  budget", budget + (f", at least {money(task.min_micros, 'usd')}" if task.min_micros else "")),
            ("  priority", task.priority or ""),
            (
                "  limits",
                f"{lasting(task.timeout_seconds)} an attempt, {several(task.max_attempts, 'failure')}; "
                f"effect {task.effect}",
            ),
            (
                "  failures",
                f"{task.failures} of {task.max_attempts}, faults {task.faults}" if task.failures or task.faults else "",
            ),
            ("  declined by", ", ".join(task.declined)),
            ("  approved by", task.approved or ""),
            ("  expected", task.expect if task.expect != "done" else ""),
            ("  posted", f"{when(task.posted_at, now)} by {task.by}"),
            ("  ended", when(task.ended_at, now)),
            ("  moved", "\n".join(f"{money(one.micros, one.currency)} to {one.payee} ({one.reason})" for one in paid)),
        ]
    )


def _print_attempt(attempt: Attempt, steps: list[Step], now: int, numbers: Mapping[int, int]) -> None:
    how = attempt.ending or attempt.state
    took = f", {lasting(attempt.seconds)}" if attempt.seconds is not None else ""
    code = f", exit code {attempt.exit_code}" if attempt.exit_code is not None else ""
    # One by another resident begins afresh, though it comes after: then nothing was replayed.
    before = numbers.get(attempt.continues or 0) if any(step.replayed for step in steps) else None
    again = "" if before is None else f", continues attempt {before}"
    click.echo(
        f"\n{click.style(f'Attempt {attempt.number}', bold=True)} by {attempt.resident}, begun "
        f"{when(attempt.started_at, now)}: {how}{took}{code}{again}"
    )
    fields(
        [
            ("  reason", attempt.reason),
            ("  model", attempt.model or ""),
            ("  confidence", "" if attempt.confidence is None else f"{attempt.confidence:g}"),
            ("  spent", money(attempt.spent_micros, "usd") if attempt.spent_micros else ""),
        ]
    )
    for step in steps:
        click.echo(f"  step {step.number}: {_step(step)}")
    for name, text in (("answer", attempt.answer), ("stdout", attempt.stdout), ("stderr", attempt.stderr)):
        if text:
            click.echo(click.style(f"  {name}", dim=True))
            click.echo("\n".join(f"  │ {line}" for line in safe(text, lines=True).rstrip("\n").split("\n")))


def _step(step: Step) -> str:
    cost = f", {money(step.spent_micros, 'usd')}" if step.spent_micros else ""
    tokens = f", {step.tokens_in:,} + {step.tokens_out:,} tokens" if step.tokens_in or step.tokens_out else ""
    again = ", as recorded before" if step.replayed else ""
    return (
        f"{step.kind} {safe(step.name)} {_arguments(step.arguments)}({step.effect}): {step.state}{again}{tokens}{cost}"
    )


def _arguments(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("argv"), list):
        return ""  # a command's own line stands above
    text = "" if value is None else json.dumps(value, ensure_ascii=False)
    return f"{safe(text[:100])} " if text else ""
