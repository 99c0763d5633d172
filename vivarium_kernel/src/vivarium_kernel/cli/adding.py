"""The room of ``vivarium task add``: a task as it is typed, or many from a file, on the board once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from vivarium_kernel.cli.opening import acting, as_option, json_option, village_option
from vivarium_kernel.problems import InputError, Problem, quoted

if TYPE_CHECKING:
    from vivarium_kernel.board import Posting
    from vivarium_kernel.records import NewTask, Task
    from vivarium_kernel.store import Tx
    from vivarium_kernel.village import Village

# The options: the task's field, how people write it, and what it means.
_OPTIONS: tuple[tuple[str, str, str, str], ...] = (
    ("id", "--id", "ID", "Its id: 1 to 80 of A-Z a-z 0-9 . _ -; by default the next number, such as t12."),
    ("key", "--key", "TEXT", "Posting again with the same key posts nothing new."),
    ("title", "--title", "TEXT", "What it is about, in a line."),
    ("mode", "--mode", "MODE", "Who executes it: command, llm or a plugin's own mode."),
    ("model", "--model", "PROVIDER:NAME", "The model for it; by default its resident's."),
    ("max_micros", "--max", "USD", "Its budget at most, such as 0.10; 0 is none, and earns nothing."),
    ("min_micros", "--min", "USD", "Don't begin it with less left than this."),
    ("priority", "--priority", "N", "Higher comes first; from -1000 to 1000."),
    ("timeout_seconds", "--timeout", "SECONDS", "How long one attempt may take; by default 30, for a model 600."),
    ("max_attempts", "--max-attempts", "N", "After how many failures it fails for good; by default 3."),
    (
        "effect",
        "--effect",
        "CLASS",
        "Whether it may run twice: pure, idempotent, once; shipped commands are pure, others once.",
    ),
    ("wanted", "--wanted", "RESIDENT", "The one resident that may take it."),
    ("not_before_at", "--not-before", "TIME", "When it may begin: an ISO time with its offset."),
    ("expect", "--expect", "STATE", "How it is to end: done (the default), failed, blocked, cancelled or any."),
    ("cwd", "--cwd", "DIR", "Where its command runs, from the village's folder."),
)
_LISTS: tuple[tuple[str, str, str, str], ...] = (
    ("needs", "--needs", "ID", "A task that must be done first; may be given several times."),
    ("labels", "--label", "TEXT", "A label; may be given several times."),
    ("files", "--file", "PATH", "A file that it will have made; may be given several times."),
)
_NAMES = {field: option for field, option, _, _ in (*_OPTIONS, *_LISTS)} | {"command": "COMMAND", "human": "--human"}


def _with_options(command: Any) -> Any:
    for name, option, metavar, text in reversed(_OPTIONS):
        command = click.option(option, name, metavar=metavar, help=text)(command)
    for name, option, metavar, text in reversed(_LISTS):
        command = click.option(option, name, metavar=metavar, multiple=True, help=text)(command)
    return command


class _Add(click.Command):
    """Remembers whether a ``--`` was typed: click drops it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["dashes"] = "--" in args
        return super().parse_args(ctx, args)


@click.command(cls=_Add)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option("--prompt", metavar="TEXT", help="What is to be done, in words.")
@_with_options
@click.option("--human", is_flag=True, help="A person must approve its outcome.")
@click.option(
    "--from", "sources", multiple=True, metavar="FILE",
    help="Post the tasks of a file, TOML or JSONL; - is standard input. May be given several times.",
)  # fmt: skip
@village_option
@as_option
@json_option
def add(
    command: tuple[str, ...], prompt: str | None, human: bool, sources: tuple[str, ...], village: Path | None,
    token: str | None, as_json: bool, **typed: Any,
) -> None:  # fmt: skip
    """Post a task: a prompt, or a command after --.

    Posting the same task again, by its id or key, changes nothing.

    \b
    vivarium task add --prompt "Compare the two reports" --max 0.50
    vivarium task add --id lines --label daily -- wc -l notes.txt
    vivarium task add --from tasks.toml
    """
    given = {name: value for name, value in typed.items() if value not in (None, ())}
    if prompt is not None:
        given["prompt"] = prompt
    if command:
        given["command"] = command
    if command and not click.get_current_context().meta["dashes"]:
        words = " ".join(command)
        if prompt is not None:
            raise click.UsageError(
                f'--prompt takes one text: put it in quotes, --prompt "{prompt} {words}". '
                "(A command that is described by a prompt comes after --.)"
            )
        raise click.UsageError(f'A command comes after --, as in -- {words}; words are a prompt: --prompt "{words}".')
    if sources and (given or human):
        raise click.UsageError("--from takes its tasks from the file: leave out the other options and the command.")
    if not sources and not given:
        raise click.UsageError('Say what is to be done: --prompt "TEXT", a command after --, or --from FILE.')
    with acting(village, token, "POST /tasks") as (opened, actor):
        if sources:
            tasks = [task for source in sources for task in from_file(source)]
            opened.check_modes(tasks)
        else:
            tasks = [typed_task(given, human, opened)]
        found: list[tuple[Task, bool]] = opened.store.call(_post, opened.posting(tasks, actor))
    _tell(found, as_json)


def _post(tx: Tx, posting: Posting) -> list[tuple[Task, bool]]:
    """The tasks, each with whether it is new."""
    from vivarium_kernel import board

    known = (tx.row("SELECT coalesce(max(seq), 0) FROM tasks") or (0,))[0]
    return [(task, task.seq > known) for task in board.post(tx, posting)]


def from_file(source: str) -> list[NewTask]:
    """The tasks of a file, or of standard input, whose first character tells JSONL from TOML."""
    from vivarium_kernel import taskfile

    if source != "-":
        return taskfile.read(Path(source), "check its path: it is looked for from this folder")
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        shown = f"byte 0x{error.object[error.start]:02x}"
        raise taskfile.TaskFileError([Problem("", shown, f"is not UTF-8 ({shown})", "save it as UTF-8", "-")]) from None
    return taskfile.read_text(text, "standard input", jsonl=text.lstrip().startswith("{"))


def typed_task(given: dict[str, Any], human: bool, village: Village) -> NewTask:
    """A task from the texts of its options; raises with everything that is wrong with them."""
    from vivarium_kernel import posting
    from vivarium_kernel.records import NewTask

    values: dict[str, Any] = {"human": human}
    problems: list[Problem] = []
    parsers = _parsers()
    for name, value in given.items():
        try:
            values[name] = parsers[name](value) if name in parsers else value
        except InputError as error:
            problems += (evolve(problem, path=_NAMES[name]) for problem in error.problems)
    unread = {problem.path for problem in problems}
    new = NewTask(**values)
    default = village.settings.budgets.task_usd_micros
    for problem in posting.validate(new, modes=village.modes(), task_micros=default):
        field = problem.path.split("[")[0]
        option = _NAMES.get(field, f"--{field}")
        if option not in unread:
            problems.append(evolve(problem, path=option + problem.path[len(field) :]))
    if problems:
        raise posting.TaskError(problems)
    return new


def _parsers() -> dict[str, Any]:
    from vivarium_kernel import taskfile
    from vivarium_kernel.amounts import money

    moment = taskfile.keys()["not_before"][1]
    return {
        "max_micros": lambda text: money(text, ""),
        "min_micros": lambda text: money(text, ""),
        "priority": lambda text: _number(text, int, "a whole number"),
        "max_attempts": lambda text: _number(text, int, "a whole number"),
        "timeout_seconds": lambda text: _number(text, float, "a number of seconds"),
        "not_before_at": moment,
    }


def _number(text: str, kind: type[int] | type[float], must: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise InputError([Problem("", quoted(text), f"must be {must}, not {quoted(text)}", "")]) from None


def _tell(found: Sequence[tuple[Task, bool]], as_json: bool) -> None:
    from collections import Counter

    from vivarium_kernel.cli.showing import print_json, several

    if as_json:
        print_json([{"id": task.id, "state": task.state, "posted": new} for task, new in found])
        return
    if len(found) == 1:
        task, new = found[0]
        click.echo(
            f"Posted {task.id}: it is {task.state}" if new else f"{task.id} was posted before: it is {task.state}"
        )
        return
    states = Counter(task.state for task, new in found if new)
    said = ", ".join(f"{count:,} {state}" for state, count in states.items())
    before = sum(not new for _, new in found)
    click.echo(f"Posted {several(len(found) - before, 'task')}{f' ({said})' if said else ''}", nl=not before)
    if before:
        click.echo(f"; {before:,} {'was' if before == 1 else 'were'} posted before")
