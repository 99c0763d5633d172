"""Calling ``vivarium`` as a person does: in a process of its own, or in this one where only its words count."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from vivarium_kernel.cli import main

TIMEOUT = 60.0
FORKING = ("run", "up", "serve", "work")


@frozen
class Done:
    """How a call ended: its exit status, and what it said."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What ``--json`` printed."""
        return json.loads(self.out)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables without those of any village."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIVARIUM_")}
    return kept | {"LANG": "C.UTF-8", "COLUMNS": "200"} | dict(more or {})


def argv(*arguments: str | Path) -> list[str]:
    """The command line, run by the Python of this test."""
    call = "import sys; from vivarium_kernel.cli import main; sys.exit(main())"
    return [sys.executable, "-c", call, *map(str, arguments)]


def vivarium(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = "") -> Done:
    """Run a command in a process of its own."""
    done = subprocess.run(
        argv(*arguments), cwd=cwd, env=environment(env), input=stdin, capture_output=True, text=True,
        timeout=TIMEOUT, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def started(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command that stays; whatever happens, it is ended with the block."""
    process = subprocess.Popen(
        argv(*arguments), cwd=cwd, env=environment(env), text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Here:
    """Commands in this process, one after the other, in one village's folder.

    Those that live in a child of their own get a process: a fork of this one, with its threads, might hang.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str | Path, stdin: str = "") -> Done:
        if arguments[:1] and arguments[0] in FORKING:
            return vivarium(*arguments, cwd=self.folder, stdin=stdin)
        out, err = _stream(), _stream()
        with self._monkeypatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.chdir(self.folder)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
            status = main([str(argument) for argument in arguments])
            out.flush()
            err.flush()
        return Done(status, _text(out), _text(err))


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def village(folder: Path, tasks: Sequence[str] = (), settings: str = "") -> Path:
    """A small village: its settings, and its tasks as TOML tables."""
    folder.mkdir(parents=True, exist_ok=True)
    names = '["tasks.toml"]' if tasks else "[]"
    text = f'name = "small"\ntasks = {names}\nresidents = ["ada"]\n{settings}'
    (folder / "vivarium.toml").write_text(text, encoding="utf-8")
    if tasks:
        (folder / "tasks.toml").write_text("\n".join(f"[[task]]\n{task}\n" for task in tasks), encoding="utf-8")
    return folder
