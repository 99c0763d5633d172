"""The room of ``vivarium task``: reading the board, and people's decisions about what is on it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from vivarium_kernel.cli.lazy import Entry, LazyGroup
from vivarium_kernel.cli.named import named_table
from vivarium_kernel.cli.opening import (
    acting,
    as_option,
    folder_of,
    json_option,
    looking,
    village_option,
)
from vivarium_kernel.cli.showing import plain, print_json_list, several, shortened, table
from vivarium_kernel.terms import ENDED_STATES, MICROS, TaskState
from vivarium_kernel.wording import lasting

if TYPE_CHECKING:
    from vivarium_kernel.deciding import What
    from vivarium_kernel.records import Task
    from vivarium_kernel.store import View

task = LazyGroup(
    "task",
    help="Post, read and decide tasks.",
    no_args_is_help=True,
    sections={
        "Commands": {
            "add": Entry("adding:add", "Post a task: a prompt, or a command after --."),
            "list": Entry("tasks:list_", "List the tasks of the board."),
            "show": Entry("showing_task:show", "Show a task with every attempt's output."),
            "answer": Entry("tasks:answer", "Answer what a resident asks; its task goes on."),
            "approve": Entry("tasks:approve", "Accept what is in review, or let go on what waits for approval."),
            "reject": Entry("tasks:reject", "Refuse what is in review, or what waits for approval."),
            "requeue": Entry("tasks:requeue", "Put tasks back on the board, their failures forgotten."),
            "cancel": Entry("tasks:cancel", "Call tasks off; what runs is ended."),
            "acknowledge": Entry("tasks:acknowledge", "Leave it at how tasks ended, expected or not."),
            "clear": Entry("tasks:clear", "Remove ended tasks that were never tried."),
        }
    },
)


@click.command("list")
@click.option("--state", type=click.Choice(get_args(TaskState)), help="Only tasks in this state.")
@click.option("--label", metavar="TEXT", help="Only tasks with this label.")
@click.option(
    "--claimed", is_flag=True, help="Only what somebody is at, with holder, age and what is left of its lease."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The newest N; by default 100, with --json all.")
@village_option
@json_option
def list_(
    state: str | None, label: str | None, claimed: bool, limit: int | None, village: Path | None, as_json: bool
) -> None:
    """List the tasks of the board."""
    from vivarium_kernel.cli import reading

    with looking(folder_of(village)) as view:
        if claimed:
            _list_claimed(view, as_json)
        elif as_json:
            found = reading.pages(view, state, label) if limit is None else reading.newest(view, limit, state, label)[0]
            print_json_list(plain(one) for one in found)
        else:
            _list(view, *reading.newest(view, limit or 100, state, label))


def _list(view: View, found: list[Task], total: int) -> None:
    from vivarium_kernel.waiting import wait_of

    if not found:
        click.echo("There are no such tasks.")
        return
    rows = []
    for one in found:
        why = one.reason if one.state in ENDED_STATES else wait_of(view, one).what
        rows.append(
            (one.id, one.state, one.priority or "", one.attempts or "", one.title or _work(one), shortened(why, 80))
        )
    named_table(("task", "state", ">priority", ">attempts", "*title", "*reason, or what it waits for"), rows)
    if total > len(found):
        click.echo(f"The newest {len(found):,} of {total:,}; --limit N shows more, --json all")


def _work(task: Task) -> str:
    return shortened(" ".join(task.command) if task.command else task.prompt, 60)


def _list_claimed(view: View, as_json: bool) -> None:
    from attrs import asdict

    from vivarium_kernel.cli import reading

    held = reading.claimed(view)
    now = view.now
    if as_json:
        print_json_list(
            asdict(one) | {"age_seconds": (now - one.started_at) / MICROS, "lease_left_seconds": _left(one, now)}
            for one in held
        )
        return
    if not held:
        click.echo("Nobody is at a task.")
        return
    table(
        ("!task", ">attempt", "holder", "*where", ">age", ">lease left"),
        (
            (
                one.task,
                one.number,
                one.resident,
                _where(one),
                lasting((now - one.started_at) / MICROS),
                _lease(one, now),
            )
            for one in islice(held, 1_000)
        ),
    )


def _left(one: Any, now: int) -> float | None:
    return None if one.lease_until_at is None else (one.lease_until_at - now) / MICROS


def _lease(one: Any, now: int) -> str:
    seconds = _left(one, now)
    return "none" if seconds is None else lasting(seconds) if seconds > 0 else "lapsed"


def _where(one: Any) -> str:
    if one.process is None:
        return "a remote worker"
    return f"{one.kind}, pid {one.pid} on {str(one.machine).partition('/')[0]}"


_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")
_reason = click.option("--reason", default="", help="Why; it is kept with the task and in the log.")


def _decide(what: What, done: str, ids: tuple[str, ...], reason: str, village: Path | None, token: str | None) -> None:
    from vivarium_kernel import deciding

    with acting(village, token, f"POST /tasks/{{task}}/{what}", plugins=True) as (opened, actor):
        end_attempt, retries = opened.hooks.end_attempt, opened.retries()
        asked = [deciding.Decision(name, what, actor, reason, end_attempt, retries) for name in dict.fromkeys(ids)]
        found = opened.store.call(deciding.decide_all, asked)
    for one in found:
        now = f": it is {one.state} now" if one.state != done else ""
        if what == "acknowledge":
            now = f": it stays {one.state}"
        if what == "reject" and one.state in ("open", "parked"):
            now = f": it is tried again, with {one.failures} of {several(one.max_attempts, 'failure')}"
        click.echo(f"{one.id} is {done}{now}")


@click.command()
@click.argument("id_", metavar="ID")
@click.argument("text")
@village_option
@as_option
def answer(id_: str, text: str, village: Path | None, token: str | None) -> None:
    """Answer what a resident asks; its task goes on.

    `vivarium task show ID` has the question.
    """
    from vivarium_kernel import deciding
    from vivarium_kernel.checks import text as text_check
    from vivarium_kernel.problems import InputError

    if problems := [problem.below("TEXT") for problem in text_check(deciding.LONGEST_ANSWER, lines=True)(text)]:
        raise InputError(problems)
    with acting(village, token, "POST /tasks/{task}/answer") as (opened, actor):
        found = opened.store.call(deciding.answer, deciding.Answering(id_, text, actor))
    click.echo(f"{found.id} is answered: it is {found.state} now")


@click.command()
@_ids
@_reason
@village_option
@as_option
def approve(ids: tuple[str, ...], reason: str, village: Path | None, token: str | None) -> None:
    """Accept what is in review, or let go on what waits for approval."""
    _decide("approve", "approved", ids, reason, village, token)


@click.command()
@_ids
@_reason
@village_option
@as_option
def reject(ids: tuple[str, ...], reason: str, village: Path | None, token: str | None) -> None:
    """Refuse what is in review, or what waits for approval."""
    _decide("reject", "rejected", ids, reason, village, token)


@click.command()
@_ids
@_reason
@village_option
@as_option
def requeue(ids: tuple[str, ...], reason: str, village: Path | None, token: str | None) -> None:
    """Put tasks back on the board, their failures forgotten.

    What failed only because one of them had failed comes back with it.
    """
    _decide("requeue", "requeued", ids, reason, village, token)


@click.command()
@_ids
@_reason
@village_option
@as_option
def cancel(ids: tuple[str, ...], reason: str, village: Path | None, token: str | None) -> None:
    """Call tasks off; what runs is ended."""
    _decide("cancel", "cancelled", ids, reason, village, token)


@click.command()
@_ids
@click.option("--reason", default="", help="Why; it is kept in the log.")
@village_option
@as_option
def acknowledge(ids: tuple[str, ...], reason: str, village: Path | None, token: str | None) -> None:
    """Leave it at how tasks ended, expected or not.

    What is acknowledged counts no more against a run: its exit status is about the others. Once it is requeued, it is
    expected to end as it was posted, as before.
    """
    _decide("acknowledge", "acknowledged", ids, reason, village, token)


@click.command()
@click.argument("state", type=click.Choice(ENDED_STATES))
@village_option
@as_option
def clear(state: str, village: Path | None, token: str | None) -> None:
    """Remove ended tasks that were never tried.

    Those that were tried stay: their attempts are the record. What stands in the village's own task files is posted
    again by the next run; take it out there, too.
    """
    from vivarium_kernel import deciding

    with acting(village, token, "POST /tasks/clear") as (opened, actor):
        count = opened.store.call(deciding.clear, (state, actor))
    click.echo(f"Removed {several(count, 'task')} that {'was' if count == 1 else 'were'} {state} without a try")
