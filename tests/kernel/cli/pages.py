"""The command line's page and its recorded sessions, made from the commands themselves.

``uv run python -m tests.kernel.cli.pages`` writes docs/cli.md and tests/kernel/cli/sessions/*.txt anew; the tests
compare them. A session is what a person would see: a line that begins with ``$`` is typed, the rest is answered.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from vivarium_kernel.cli import root

from .running import Done, Here, vivarium

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "cli.md"
SESSIONS = Path(__file__).with_name("sessions")
COMMAND = "uv run python -m tests.kernel.cli.pages"
HEAD = f"""# The command line

What `--help` says of every command. This page is written by `{COMMAND}` from the commands; a test fails
when it is not what they say.

Every command that lists something has `--json`: one document on standard output, amounts in integer millionths, times
in integer microseconds of Unix time, ids whole. Errors go to standard error: what is wrong, the rule's name, the next
step.

| exit status | means |
|---|---|
| 0 | done; for `run`: every task ended as it was expected to |
| 1 | something is not as it should be: `run`, `doctor`, `verify`, `missed retry` say what |
| 2 | refused: the input, the role, the settings or the database don't allow it; nothing was changed |
| 3 | `run` alone: all that is left waits for a person's decision |

With `--as TOKEN` a command may do what that token may do over HTTP; without it, whoever may write in the village's
folder is its operator.
"""


def page() -> str:
    """docs/cli.md."""
    parts = [HEAD]
    for path, command, context in commands():
        depth = "##" if " " not in path else "###"
        text = context.command.get_help(context)
        parts.append(f"{depth} {path}\n\n```text\n{text.rstrip()}\n```\n")
        del command
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command with its whole name and a context that renders at a fixed width."""

    def below(name: str, command: click.Command, parent: click.Context | None) -> Iterator[Any]:
        context = click.Context(
            command, parent, info_name=name, terminal_width=100, max_content_width=100,
            help_option_names=["-h", "--help"],
        )  # fmt: skip
        yield context.command_path, command, context
        if isinstance(command, click.Group):
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                assert found is not None
                yield from below(child, found, context)

    yield from below("vivarium", root(), None)


def play(name: str, here: Callable[..., Done], folder: Path) -> str:
    """A session once more: its typed lines, each with what is answered now."""
    lines = []
    for line in (SESSIONS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            lines.append(line)
        if not line.startswith("$ "):
            continue
        lines.append(line)
        typed, _, stdin = line[2:].removeprefix("vivarium ").partition(" << ")
        words = shlex.split(typed)
        # A run lives in a child process, whose words only a process of its own can collect.
        alone = words[0] == "run"
        done = vivarium(*words, cwd=folder) if alone else here(*words, stdin=stdin.replace("\\n", "\n"))
        lines += plain(done.out, folder).splitlines()
        lines += [f"! {told}" for told in plain(done.err, folder).splitlines()]
        if done.status:
            lines.append(f"[{done.status}]")
        lines.append("")
    return "\n".join(lines)


def plain(text: str, folder: Path) -> str:
    """What was said without what differs from one time or machine to the next."""
    for pattern, shown in (
        (re.escape(str(folder)), "VILLAGE"),
        (rf"\bcli:{re.escape(getpass.getuser())}\b", "cli:YOU"),
        (r"\b\d\d:\d\d:\d\d\b|\b\d\d [A-Z][a-z]{2} \d\d:\d\d\b", "HH:MM:SS"),
        (r"\b\d+\.\d\d s\b", "0.00 s"),
        (r"(?<=  )\d+\.\d\d(?=  )", "0.00"),
        (r"the last [^\n;]* ago", "the last a moment ago"),
        (r"^vivarium: plugin '\w+' held the loop for .*\n", ""),  # of a machine that others use too
        (r"\bin (\d+ min \d+ s|\d+ d( \d+ h)?)", "in a while"),
        (r"\b[0-9a-f]{64}\b", "HASH"),
        (r"(?<![\w-])[\w-]{43}(?![\w-])", "SECRET"),
        (r'"(\w+_at|at|now)": \d{16}', r'"\1": 0'),
        (r'"(seconds|run_seconds|age_seconds)": [\d.e-]+', r'"\1": 0'),
        (r"^Commands .*$", "Commands are confined as this machine can"),
        (r"(ok  |note)  commands .*(\n +→.*)?", "ok    commands     confined as this machine can"),
        (r"^(ok  |note)  disk .*", "ok    disk         enough"),
        (r"^ok    system .*", "ok    system       fit"),
        (r"SQLite [\d.]+", "SQLite"),
        (r"pid \d+", "pid 1"),
        (r"\d[\d,]* bytes", "N bytes"),
    ):
        text = re.sub(pattern, shown, text, flags=re.MULTILINE)
    return text


def write() -> None:
    """Write the page and every session."""
    PAGE.write_text(page(), encoding="utf-8")
    for session in sorted(SESSIONS.glob("*.txt")):
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("VIVARIUM_")]:
                patch.delenv(name)
            patch.setenv("COLUMNS", "200")
            place = Path(folder).resolve() / "place"
            place.mkdir()
            session.write_text(play(session.stem, Here(place, patch), place), encoding="utf-8")


if __name__ == "__main__":
    write()
