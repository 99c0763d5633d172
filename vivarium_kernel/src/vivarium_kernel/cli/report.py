"""The room of a run's end: the table of what ended, the list of what is left, the sums, and the exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click
from attrs import asdict

from vivarium_kernel import board
from vivarium_kernel.amounts import money_text
from vivarium_kernel.builtin.scripted_tools import LABEL
from vivarium_kernel.cli import reading, thoughts
from vivarium_kernel.cli.named import MOST_CHARACTERS, named_table
from vivarium_kernel.cli.reading import Done
from vivarium_kernel.cli.showing import WIDE, money, print_json, safe, several, shortened
from vivarium_kernel.cli.thoughts import Sums, Thought
from vivarium_kernel.terms import ENDED_STATES
from vivarium_kernel.waiting import Known, count_left, left, only_people_awaited
from vivarium_kernel.wording import lasting

if TYPE_CHECKING:
    from vivarium_kernel.cli.run import Begun
    from vivarium_kernel.store import View
    from vivarium_kernel.village import Village

ALL, SOME = 200, 50  # tasks that the table shows whole; past that, this many of each sort
COLUMNS = ("task", "status", "resident", ">attempts", ">exit code", ">seconds", ">reward")
THOUGHT = ("task", "model", ">usd", ">tokens in", ">out", ">steps", ">cited")


class Report:
    """What a run came to, from one snapshot after its end."""

    def __init__(self, village: Village, view: View, known: Known, seconds: float) -> None:
        self._village = village
        self._view = view
        self._known = known
        self._seconds = seconds
        self._counts = board.counts(view)
        self._totals = reading.totals(view)
        self._left = count_left(view)
        self._thoughts = list(thoughts.thoughts(view))

    @property
    def status(self) -> int:
        """0: all ended as expected. 3: only people are awaited. 1: anything else."""
        if self._totals.unexpected:
            return 1
        if not self._left:
            return 0
        return 3 if only_people_awaited(self._view) else 1

    def as_text(self) -> int:
        """Print it for people; returns the exit status."""
        if self._totals.ended:
            click.echo()
            self._print_ended()
        if self._totals.unexpected:
            self._print_unexpected()
        if self._thoughts:
            self._print_thoughts()
        if self._left:
            self._print_left()
        click.echo()
        self._print_sums()
        return self.status

    def _print_ended(self) -> None:
        if self._totals.ended <= ALL:
            named_table(COLUMNS, map(_row, reading.ended(self._view)))
            return
        click.echo(f"The last {SOME} of {self._totals.ended:,} that ended; `vivarium task list` has them all:")
        named_table(COLUMNS, map(_row, reading.last_ended(self._view, SOME)))

    def _print_unexpected(self) -> None:
        strange = reading.unexpected(self._view, SOME)
        most = MOST_CHARACTERS if sys.stdout.isatty() else WIDE
        click.echo(f"\n{_some(len(strange), self._totals.unexpected)} not as expected, and why:")
        named_table(
            ("task", "status", "why", "next step"),
            [(one.task, _status(one), shortened(self._why(one), most), self._again(one)) for one in strange],
        )
        click.echo(f"To leave one at that: vivarium task acknowledge ID{self._where}")

    def _why(self, done: Done) -> str:
        """Why it ended so; of a command that failed, also the last line that it wrote to stderr."""
        if done.state == "done":
            return "it was accepted"
        if done.state != "failed" or not done.exit_code:
            return done.reason
        row = self._view.row("SELECT stderr FROM attempts WHERE task = ? ORDER BY id DESC LIMIT 1", (done.task,))
        lines = (row[0] or "").split("\n") if row else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{done.reason}: {last}" if last else done.reason

    def _again(self, done: Done) -> str:
        """The next step; of a task that failed for another one, that of the first of these."""
        name, state = done.task, done.state
        while state == "failed" and (need := board.lost_need(self._view, name)) is not None:
            name, state = need
        requeue = f"vivarium task requeue {name}{self._where}"
        both = "" if name == done.task else " and what needed it"
        return {"done": "", "blocked": f"mend that, then {requeue}; or post another"}.get(
            state, f"{requeue} tries it again{both}"
        )

    @property
    def _where(self) -> str:
        """What tells a command which village is meant, from here."""
        folder = self._village.folder
        return "" if Path.cwd().is_relative_to(folder) else f" -v {quote(str(_near(folder)))}"

    def _print_thoughts(self) -> None:
        """What models did: the dearest tasks, where they are too many to show."""
        found = self._thoughts
        if len(found) > ALL:
            dearest = sorted(found, key=lambda one: (-one.spent_micros, -one.tokens_in - one.tokens_out))[:SOME]
            click.echo(f"\nWhat models did, the {SOME} tasks of {len(found):,} that cost most:")
            shown = {one.task for one in dearest}
            found = [one for one in found if one.task in shown]
        else:
            click.echo("\nWhat models did:")
        total = thoughts.sums(self._thoughts)
        rows = [
            (one.task, thoughts.named(one), *_figures(one), thoughts.cited(one))
            for one in found
        ]  # fmt: skip
        named_table(THOUGHT, [*rows, ("total", "", *_figures(total), thoughts.cited(total))])
        for one in [one for one in found if one.instead_of][:SOME]:
            click.echo(safe(thoughts.stood_in(one)))
        if any(one.model.startswith("scripted:") for one in self._thoughts):
            click.echo(f"scripted:... is the {LABEL}: what it answers means nothing")

    def _print_left(self) -> None:
        shown = left(self._view, self._known, SOME)
        each = "it" if self._left == 1 else "each"
        most = MOST_CHARACTERS if sys.stdout.isatty() else WIDE
        click.echo(f"\n{_some(len(shown), self._left)} left, and what {each} waits for:")
        named_table(
            ("task", "state", "waits for", "next step"),
            ((wait.task, wait.state, shortened(wait.what, most), wait.next_step) for wait in shown),
        )

    def _print_sums(self) -> None:
        counts, sums = self._counts, self._totals
        parts = [f"{counts[state]:,} {state}" for state in ENDED_STATES if counts[state]]
        parts += [f"{self._left:,} left"] if self._left else []
        said = f"{several(sum(counts.values()), 'task')}: {', '.join(parts) or 'none'}"
        if sums.ended:
            strange = several(sums.unexpected, "task")
            each = "each that ended did so as expected" if self._left else "each ended as it was expected to"
            said += f"; {strange} not as expected" if sums.unexpected else f"; {each}"
        click.echo(said)
        rewards = f"{money(sums.reward_micros, 'aid')} paid in rewards"
        spent = f", {money(sums.spent_micros, 'usd')} spent" if sums.spent_micros else ""
        click.echo(f"{lasting(sums.seconds)} of work in all, {lasting(self._seconds)} this time; {rewards}{spent}")
        files = safe(str(_near(self._village.folder / "files")))
        click.echo(f"Outputs: vivarium task show ID{self._where}; what tasks wrote: {files}")

    def as_json(self, begun: Begun) -> int:
        """Print it for programs; returns the exit status."""
        stopped = [
            {"task": one.task.id, "answer": one.verdict.answer, "rule": one.verdict.rule, "reason": one.verdict.reason}
            for one in begun.stopped
        ]
        by_task = {one.task: one for one in self._thoughts}
        print_json(
            {
                "village": self._village.settings.name,
                "folder": str(self._village.folder),
                "exit_status": self.status,
                "stopped": self._known.stopped,
                "done_before": begun.done_before,
                "safety": {"passed": begun.passed, "stopped": stopped},
                "sandbox": begun.sandbox,
                "tasks": [_plain(done, by_task.get(done.task)) for done in reading.ended(self._view)],
                "left": [asdict(wait) for wait in left(self._view, self._known)],
                "counts": self._counts,
                "thoughts": [asdict(one) for one in self._thoughts],
                "totals": asdict(self._totals)
                | {"run_seconds": round(self._seconds, 3), "thoughts": asdict(thoughts.sums(self._thoughts))},
                "files": str(self._village.folder / "files"),
            }
        )
        return self.status


def _row(done: Done) -> tuple[Any, ...]:
    return (
        done.task, _status(done), done.resident, done.attempts or "", done.exit_code,
        f"{done.seconds:.2f}" if done.attempts else "", money_text(done.reward_micros) if done.reward_micros else "",
    )  # fmt: skip


def _status(done: Done) -> str:
    if not done.as_expected:
        return f"{done.state}, not {done.expect}"
    return f"{done.state}, as expected" if done.state == done.expect != "done" else done.state


def _figures(one: Thought | Sums) -> tuple[str, ...]:
    return (money_text(one.spent_micros), f"{one.tokens_in:,}", f"{one.tokens_out:,}", f"{one.steps:,}")


def _plain(done: Done, thought: Thought | None) -> dict[str, Any]:
    return asdict(done) | {"as_expected": done.as_expected, "thought": None if thought is None else asdict(thought)}


def _some(shown: int, total: int) -> str:
    return several(total, "task") if shown == total else f"The first {shown} of {several(total, 'task')}"


def _near(path: Path) -> Path:
    """A path as it is shortest to type from here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
