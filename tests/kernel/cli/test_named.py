"""Promises about tables of named things: they fit the terminal, no name in them is cut, and no reason is lost."""

from __future__ import annotations

import errno
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from .running import argv, environment, village, vivarium

LONG = "letter-to-the-keeper-of-the-lighthouse-about-oil-and-wicks"
MODEL = "scripted:wait-0.00000000000000000000000000000000000000000000001"
SETTINGS = f'''
[models]
small = "{MODEL}"

[models.prices]
"{MODEL}" = {{ in_usd = "1", out_usd = "2" }}
'''


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A village whose tasks and models have long names: some are done, one is too dear, and one waits."""
    tasks = [f'id = "{LONG}-{number}"\nprompt = "Say {number}."\nmodel = "{MODEL}"\nmax_budget = "0.9"'
             for number in range(2)]  # fmt: skip
    tasks.append(f'id = "{LONG}-dear"\nprompt = "Buy the sea."\nmodel = "{MODEL}"\nmax_budget = "0.000001"')
    tasks.append(f'id = "{LONG}-read"\nprompt = "Read it."\nhuman = true')
    folder = village(tmp_path_factory.mktemp("named") / "v", tasks, SETTINGS)
    vivarium("run", folder, cwd=folder)
    return folder


def in_terminal(folder: Path, columns: int, *arguments: str) -> list[str]:
    """The lines of a command in a terminal of so many columns."""
    main, other = pty.openpty()
    env = environment({"COLUMNS": str(columns), "LINES": "40", "TERM": "xterm"})
    with subprocess.Popen(
        argv(*arguments), cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=other, stderr=other
    ) as process:
        os.close(other)
        said = b"".join(iter(lambda: _read(main), b""))
        process.wait(60)
    os.close(main)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r", "").splitlines()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError as error:
        if error.errno == errno.EIO:  # the other side is closed
            return b""
        raise


@pytest.mark.promise("No name is cut in the tables of costs, models and the report, and they fit 80 columns")
@pytest.mark.parametrize(
    ("command", "names"),
    [
        (("costs", "--by", "task"), (f"{LONG}-0", f"{LONG}-1")),
        (("costs", "--by", "model"), (MODEL,)),
        (("models", "list"), (MODEL, "scripted:echo")),
        (("report",), (f"{LONG}-0", f"{LONG}-dear", f"{LONG}-read", MODEL)),
    ],
    ids=" ".join,
)
def test_names_can_be_copied_from_eighty_columns(lived: Path, command: tuple[str, ...], names: tuple[str, ...]) -> None:
    lines = in_terminal(lived, 80, *command)
    assert [line for line in lines if len(line) > 80] == []
    words = {word.rstrip(";") for line in lines for word in line.split()}
    assert {*names} <= words, lines


def test_a_reason_is_whole_in_a_narrow_terminal(lived: Path) -> None:
    text = " ".join(" ".join(in_terminal(lived, 80, "report")).split())
    (refused,) = vivarium("report", "--json", cwd=lived).document["refused"]
    assert " ".join(refused["why"].split()) in text and "[budget." in refused["why"]


def test_in_a_wide_terminal_it_is_one_line_each(lived: Path) -> None:
    lines = in_terminal(lived, 250, "costs", "--by", "task")
    rows = [line for line in lines if line.startswith(LONG)]
    assert len(rows) == 3 and all(re.match(r"\S+ +[\d.]+ +[\d.]* +1 ", row) for row in rows), rows


def test_a_task_that_has_ended_has_no_cap_to_reach(lived: Path) -> None:
    lines = in_terminal(lived, 250, "costs", "--by", "task")
    rows = {line.split()[0]: line.split()[-1] for line in lines if line.startswith(("task ", LONG))}
    assert rows["task"] == "cap"
    assert {name: last for name, last in rows.items() if "." in last} == {f"{LONG}-read": "0.10"}  # it is in review
    line, *_ = vivarium("costs", "--by", "task", "--json", cwd=lived).document["lines"]
    assert line["cap"]["left_micros"] > 0  # programs are told all the same
