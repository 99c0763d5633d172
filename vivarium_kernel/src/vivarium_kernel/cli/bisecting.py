"""The room of the bisection: finds which plugins break a command, by running it with some of them switched off."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

VARIABLE = "VIVARIUM_PLUGINS"  # the plugins that are on in a run; an empty value is none of them
SHOWN_LINES = 5

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
