"""The room of the bisection: finds which plugins break a command, by running it with some of them switched off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

VARIABLE = "VIVARIUM_PLUGINS"  # the plugins that are on in a run; an empty value is none of them
SHOWN_LINES = 5

# Asks each plugin what it requires. A plugin may do anything when it is imported, so that is not done in this process.
_ASK = """
import importlib.metadata, json, sys
points = {point.name: point for point in importlib.metadata.entry_points(group="vivarium.plugins")}
for name in sys.argv[1:]:
    print(json.dumps([name, None]), flush=True)
    try:
        requires = [str(other) for other in points[name].load().requires]
    except BaseException:
        requires = []
    print(json.dumps([name, requires]), flush=True)
"""

Run = Callable[[frozenset[str]], "Ran"]


@frozen
class Ran:
    """How a command went with some plugins on: its exit status (None for one that was ended), and its last lines."""

    plugins: frozenset[str]
    broke: bool
    status: int | None
    seconds: float
    last: str = ""


@frozen
class Found:
    """What breaks a command: each of ``culprits`` by itself, those of one tuple only together.

    ``without`` is how it goes with no plugin at all, ``everything`` how it goes with all of them. ``beside`` are the
    plugins that are on with a culprit because it requires them.
    """

    everything: Ran
    without: Ran | None
    culprits: tuple[tuple[str, ...], ...] = ()
    beside: Mapping[str, tuple[str, ...]] = field(factory=dict)
    runs: int = 0


def find(names: Iterable[str], requires: Mapping[str, Sequence[str]], run: Run) -> Found:
    """Bisect: about log2(n) runs a culprit.

    A set is always closed: with a plugin, what it requires is on. So what is removed in the end is a plugin that no
    other of the set requires, and the culprits are those that can't be removed.
    """
    known: dict[frozenset[str], Ran] = {}
    every = frozenset(names)

    def closed(wanted: Iterable[str]) -> frozenset[str]:
        found: set[str] = set()
        waiting = list(wanted)
        while waiting:
            name = waiting.pop()
            if name in every and name not in found:
                found.add(name)
                waiting += requires.get(name, ())
        return frozenset(found)

    def breaks(wanted: Iterable[str]) -> bool:
        plugins = closed(wanted)
        if plugins not in known:
            known[plugins] = run(plugins)
        return known[plugins].broke

    if not breaks(every):
        return Found(known[every], None, runs=len(known))
    if breaks(()):
        return Found(known[every], known[frozenset()], runs=len(known))
    culprits: list[tuple[str, ...]] = []
    beside: dict[str, tuple[str, ...]] = {}
    left = every
    while breaks(left):
        broken = _smallest(closed(_fewer(sorted(left), breaks)), requires, breaks)
        tops = _tops(broken, requires)
        culprits.append(tuple(tops))
        for top in tops:
            if others := closed([top]) - {top}:
                beside[top] = tuple(sorted(others))
        # Without one of them, and without what requires it: does anything else break the command?
        left = frozenset(name for name in left if tops[0] not in closed([name]))
    return Found(known[every], known[frozenset()], tuple(culprits), beside, len(known))


def _fewer(names: list[str], breaks: Callable[[Iterable[str]], bool]) -> list[str]:
    """Names of which none can be left out by itself (Zeller's delta debugging): quick where one does it alone."""
    parts = 2
    while len(names) > 1:
        size = -(-len(names) // parts)
        chunks = [names[start : start + size] for start in range(0, len(names), size)]
        rests = [[name for name in names if name not in chunk] for chunk in chunks]
        alone = next((chunk for chunk in chunks if breaks(chunk)), None)
        if alone is not None:
            names, parts = alone, 2
            continue
        rest = next((rest for rest in rests if breaks(rest)), None) if len(chunks) > 2 else None
        if rest is not None:
            names, parts = rest, max(parts - 1, 2)
        elif parts >= len(names):
            break
        else:
            parts = min(parts * 2, len(names))
    return names


def _smallest(
    plugins: frozenset[str], requires: Mapping[str, Sequence[str]], breaks: Callable[[Iterable[str]], bool]
) -> frozenset[str]:
    """What is left when everything that no other requires and that is not needed for the fault is taken away."""
    removable = [name for name in _tops(plugins, requires) if breaks(plugins - {name})]
    return _smallest(plugins - {removable[0]}, requires, breaks) if removable else plugins


def _tops(plugins: frozenset[str], requires: Mapping[str, Sequence[str]]) -> list[str]:
    """Those that no other of them requires."""
    needed = {other for name in plugins for other in requires.get(name, ()) if other != name}
    return sorted(plugins - needed) or sorted(plugins)


def requirements(names: Sequence[str], timeout_seconds: float) -> dict[str, list[str]]:
    """What each plugin requires, asked in another process; nothing of one that can't be imported."""
    found: dict[str, list[str]] = {}
    left = list(names)
    while left:
        said = _asked(left, timeout_seconds)
        answered = {name: requires for name, requires in said if requires is not None}
        found |= answered
        # The last that was begun and not answered ended the process, or never came back.
        lost = [name for name, requires in said if requires is None and name not in answered]
        found |= {name: [] for name in lost}
        before, left = left, [name for name in left if name not in found]
        if len(left) == len(before):  # not even the first was begun: nothing can be asked here
            break
    return found | {name: [] for name in left}


def _asked(names: Sequence[str], timeout_seconds: float) -> list[tuple[str, list[str] | None]]:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        process = subprocess.Popen(  # noqa: S603 - the names are those of installed plugins
            [sys.executable, "-c", _ASK, *names],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        _end(process, timeout_seconds)
        out.seek(0)
        lines = out.read().splitlines()
    said: list[tuple[str, list[str] | None]] = []
    for line in lines:
        try:
            name, requires = json.loads(line)
        except (ValueError, TypeError):
            continue  # what a plugin printed while it was imported
        if name in names:
            said.append((name, requires))
    return said


def runner(
    argv: Sequence[str], cwd: Path, timeout_seconds: float | None, words: str | None, say: Callable[[Ran], None]
) -> Run:
    """Runs a command with some plugins on. It breaks with an exit status other than 0 or after the time is over; with
    ``words``, only where its output has them."""

    def run(plugins: frozenset[str]) -> Ran:
        environ = {**os.environ, VARIABLE: ",".join(sorted(plugins))}
        began = time.monotonic()
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out:
            process = subprocess.Popen(  # noqa: S603 - the command is what the person asked to run
                argv, cwd=cwd, env=environ,
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            status = _end(process, timeout_seconds)
            out.seek(0)
            text = out.read()
        broke = status != 0 and (words is None or words in text)
        lines = [line for line in text.splitlines() if line.strip()]
        ran = Ran(plugins, broke, status, time.monotonic() - began, "\n".join(lines[-SHOWN_LINES:]))
        say(ran)
        return ran

    return run


def _end(process: subprocess.Popen[bytes], timeout_seconds: float | None) -> int | None:
    """The exit status; None for a process that had to be ended."""
    try:
        return process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started
            process.wait()
