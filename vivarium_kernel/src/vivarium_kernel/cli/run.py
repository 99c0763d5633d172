"""The room of ``vivarium run``: a village lives until its board is empty, and what came of it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import frozen

from vivarium_kernel.cli.choosing import once, once_options
from vivarium_kernel.cli.living import (
    Say,
    end_on_signals,
    post,
    residents_option,
    sandbox_line,
    sandbox_of,
    say_if_it_stands,
    say_what_is_wrong,
    settings_and_tasks,
    supervised,
)
from vivarium_kernel.cli.opening import folder_of, json_option, village_argument
from vivarium_kernel.cli.showing import safe, several, shortened
from vivarium_kernel.cli.standing_in import refuse_named, refuse_without_model

if TYPE_CHECKING:
    from vivarium_kernel.checking import Checked
    from vivarium_kernel.records import NewTask
    from vivarium_kernel.village import Village


@click.command()
@village_argument
@residents_option
@once_options
@click.option(
    "--scripted",
    is_flag=True,
    help="Let a scripted model, which is no LLM, stand in for every model: to see the machinery run.",
)
@json_option
def run(
    village: Path | None,
    count: int | None,
    without: tuple[str, ...],
    with_only: str | None,
    scripted: bool,
    as_json: bool,
) -> int:
    """Let residents work until the board is empty.

    Posts the tasks of the village's files, checks every open task against safety, goes on where an earlier run was
    stopped, shows what happens, and ends with a table of every task and a list of what is left.

    Ctrl-C finishes what is running; a second one stops at once. Neither loses anything.

    \b
    Exit status:
      0  every task ended as it was expected to
      1  one did not, or something is left that waits for more than people
      2  refused: a setting, a file or the database is wrong, or no model is configured; no task was touched
      3  all that is left waits for a person's decision
    """
    folder = folder_of(village)
    chosen = once(folder, without, with_only)
    settings, tasks = settings_and_tasks(folder, chosen)
    if scripted:
        refuse_named(folder, tasks)
    else:
        refuse_without_model(village or Path(), folder, settings, tasks)
    life = partial(until_done, tasks=tasks, count=count, as_json=as_json, by_script=scripted)
    return supervised(folder, life, chosen)


@frozen
class Begun:
    """How a run found its village."""

    tasks: int
    done_before: int
    passed: int
    stopped: Sequence[Checked]
    sandbox: str
    stands: tuple[str, ...]


async def until_done(
    village: Village, *, tasks: Sequence[NewTask], count: int | None, as_json: bool, by_script: bool = False
) -> int:
    """One run: begin, work, tell. Returns the exit status."""
    from vivarium_kernel import people
    from vivarium_kernel.builtin.scripted_tools import LABEL
    from vivarium_kernel.cli import reading, report, standing_in
    from vivarium_kernel.cli.progress import progress_for, watch
    from vivarium_kernel.cli.refusing import log_to
    from vivarium_kernel.runtime import Runtime
    from vivarium_kernel.waiting import Known

    began = village.clock.monotonic()
    progress, drawn = progress_for(village.settings.name, as_json=as_json)
    log_to(progress.say)
    if by_script:
        village.settings = standing_in.scripted(village.settings)
        progress.say(f"{LABEL} It stands in for every model in this run; what it answers means nothing")
    stopped = False
    try:
        begun = await begin(village, tasks, progress.say)
        with village.store.view() as view:
            seen = reading.last_event(view)
            lived = {one.name for one in people.residents(view) if one.state == "active"}
        async with Runtime(village, count, kind="run", until_done=True) as runtime:
            if count is None and lived and not lived & {*runtime.residents}:
                new = ", ".join(runtime.residents)
                if new:
                    progress.say(f"Everybody is at work in another process: {new} was made, and lives here from now on")
            end_on_signals(runtime, progress.say)
            watching = asyncio.create_task(watch(village, progress, seen, drawn, begun.stands))
            try:
                await runtime.run()
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
            stopped = runtime.draining
            known = Known(village.plugins, dict(runtime.rounds.refusals), stopped)
    finally:
        progress.close()
    seconds = village.clock.monotonic() - began
    with village.store.view() as view:
        found = report.Report(village, view, known, seconds)
        return found.as_json(begun) if as_json else found.as_text()


async def begin(village: Village, tasks: Sequence[NewTask], say: Say) -> Begun:
    """Post, check and say what this run begins with."""
    from vivarium_kernel import board
    from vivarium_kernel.checking import check_board

    await asyncio.to_thread(post, village, tasks, say)  # of a long file the process is held by nobody
    say_what_is_wrong(village, say)
    with village.store.view() as view:
        counts = board.counts(view)
    total, done = sum(counts.values()), counts["done"]
    say(f"Village {safe(village.settings.name)}: {several(total, 'task')} in {safe(str(village.folder))}")
    over = {state: counts[state] for state in ("failed", "blocked", "cancelled") if counts[state]}
    if done or over:
        others = "".join(f", {number} {state}" for state, number in over.items())
        say(f"Going on where it was: {done:,} of {total:,} done before{others}")
    if total == 0:
        say(f"The board is empty: {_how_to_fill(village)}")
    passed, stopped = await check_board(village)
    if passed or stopped:
        say(f"Safety: {passed:,} of {passed + len(stopped):,} pass")
    for checked in stopped[:50]:
        say(f"  {safe(checked.task.id)}: {_stopped(checked)}")
    if len(stopped) > 50:
        say(f"  and {len(stopped) - 50:,} more; see `vivarium task list --state blocked`")
    say(sandbox_line(village))
    stands = say_if_it_stands(village, say)
    return Begun(total, done, passed, stopped, sandbox_of(village), stands)


def _how_to_fill(village: Village) -> str:
    lying = [name for name in ("tasks.toml", "tasks.jsonl") if (village.folder / name).is_file()]
    if lying and not village.settings.tasks:
        line = f'tasks = ["{lying[0]}"]'
        return f"{lying[0]} lies here, but vivarium.toml does not name it; write there, above the first table: {line}"
    return "post a task with `vivarium task add`, or name task files in vivarium.toml"


def _stopped(checked: Checked) -> str:
    verdict = checked.verdict
    becomes = "blocked" if verdict.answer == "deny" else "waits for a person's approval"
    if verdict.rule == "safety.failed":
        becomes = "held back, because a check could not judge"
    return f"{becomes} by {verdict.rule}: {shortened(verdict.reason, 200)}"
