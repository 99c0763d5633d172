"""The room of the runner: runs one village's commands, confined, limited, and never left behind."""

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from attrs import frozen

from vivarium_kernel.commands import landlock
from vivarium_kernel.commands.child import Child, unhurried
from vivarium_kernel.commands.confinement import confine_thread, describe, rules_for
from vivarium_kernel.commands.guard import Guard
from vivarium_kernel.commands.limits import Limits, impose
from vivarium_kernel.commands.places import FILES, resolved, unfit_roots
from vivarium_kernel.commands.policy import Allowed
from vivarium_kernel.commands.spawner import (
    SEARCH_PATH,
    Spawner,
    Started,
    Unavailable,
    Wrapper,
    find_wrapper,
    is_short,
)

Sandbox = Literal["landlock", "auto", "none"]


@frozen
class Finished:
    """How a command ended. `exit_code` is None if a signal ended it, `signal` is None if it exited."""

    exit_code: int | None
    signal: int | None
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool
    seconds: float
    timed_out: bool


class Runner:
    """Runs commands of one village; event loops and further runners in the same process don't disturb each other.

    With `sandbox` "landlock", commands that the operator added need Landlock; with "auto" they have it where the
    kernel does; with "none" nothing has it. The shipped commands have it whenever it is active.

    Bounds, said plainly: a command that starts a new session, drops its output and turns to nothing but sleep outlives
    its group's end (still confined, and limited in processor time). Below Landlock ABI 6 it may signal processes of
    the same user. Modes and times of files that the user owns are not covered by Landlock.
    """

    def __init__(
        self,
        village: Path,
        read_roots: Sequence[Path] = (),
        sandbox: Sandbox = "landlock",
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is what every command gets beside PATH, LANG, HOME and TMPDIR; nothing else is passed on.

        Raises ValueError naming every read root that can't be given, and a sandbox that there isn't.
        """
        if sandbox not in ("landlock", "auto", "none"):
            raise ValueError(f'sandbox = "{sandbox}": choose "landlock", "auto" or "none"')
        self._village = resolved(village, Path.cwd())
        self._read_roots = tuple(resolved(root, self._village) for root in read_roots)
        faults = unfit_roots(self._village, self._read_roots)
        if faults:
            raise ValueError("; ".join(faults))
        self._sandbox = sandbox
        self._abi = 0 if sandbox == "none" else landlock.abi()
        self._environment = dict(environment or {})
        self._files = resolved(FILES, self._village)
        self._lock = threading.Lock()  # for what follows; held for moments only
        self._making = threading.Lock()  # while a thread or the guard is made, which takes milliseconds
        self._spawners: dict[landlock.Rules | None, Spawner] = {}
        self._children: set[Child] = set()
        self._guard: Guard | None = None
        self._wrapper: Wrapper | None = None
        self._closed = False

    @property
    def active(self) -> str:
        """What confines commands here, for people: "Landlock (ABI 7) and seccomp", or "none"."""
        return describe(self._abi)

    async def run(
        self,
        argv: Sequence[str],
        *,
        allowed: Allowed,
        cwd: Path,
        limits: Limits | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run `allowed` with the arguments `argv[1:]`, which the policy has checked, in `cwd` below the village.

        Cancelling kills the whole group at once and ends when it is reaped. Raises Unavailable if this system can't
        run it, ValueError if `cwd` lies outside the village.
        """
        limits = limits or Limits()
        self._check(allowed, cwd)
        folder, environment = resolved(cwd, self._village), self._env(env)
        spawner = await self._hold_spawner(allowed)
        try:
            started, cancelled = await _started(spawner, [str(allowed.path), *argv[1:]], folder, environment)
            return await self._watch(Child(started, limits.output_bytes), limits, cancelled)
        finally:
            self._release(spawner)

    def close(self) -> None:
        """Kill what still runs and end all threads. Runs that were waiting end as killed. May be called twice."""
        with self._making, self._lock:
            self._closed = True
            for child in self._children:
                child.kill()
            for spawner in self._spawners.values():
                spawner.close()
            self._spawners.clear()
            if self._guard is not None:
                self._guard.close()

    async def _watch(self, child: Child, limits: Limits, cancelled: bool) -> Finished:
        begun = time.monotonic()
        ended_itself = False
        guard = self._register(child)
        try:
            if not cancelled and guard is not None:
                guard.add(child.pid)
                impose(limits, child.pid)
                child.open_gate()
                ended_itself = await child.wait(limits.timeout_seconds)
        finally:
            cancelled |= await child.end()
            seconds = time.monotonic() - begun
            if guard is not None:
                guard.remove(child.pid)
            with self._lock:
                self._children.discard(child)  # before its number may become somebody else's
            code = child.reap()
        if cancelled:
            raise asyncio.CancelledError
        if guard is None:
            raise _closed()
        return Finished(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            stdout=child.stdout.text(),
            stderr=child.stderr.text(),
            stdout_truncated=child.stdout.truncated,
            stderr_truncated=child.stderr.truncated,
            seconds=seconds,
            timed_out=not ended_itself,
        )

    def _register(self, child: Child) -> Guard | None:
        """From here on close() kills it too; None if that has happened already."""
        with self._lock:
            self._children.add(child)
            return None if self._closed else self._guard

    def _check(self, allowed: Allowed, cwd: Path) -> None:
        if not allowed.shipped and self._sandbox == "landlock" and not self._abi:
            raise Unavailable(
                f"`{allowed.name}` is a command that the operator added, and this kernel has no Landlock to confine it",
                'The operator can set sandbox = "auto" or "none" in [commands] of vivarium.toml to run it unconfined',
            )
        if not os.access(allowed.path, os.X_OK):
            raise Unavailable(
                f"`{allowed.name}` is {allowed.path}, which can't be run",
                "Install the program or correct its entry in [commands.allow] of vivarium.toml",
            )
        folder = resolved(cwd, self._village)
        if not folder.is_relative_to(self._village) or not folder.is_dir():
            raise ValueError(f"cwd: {cwd} is no folder in the village {self._village}")

    def _env(self, more: Mapping[str, str] | None) -> dict[str, str]:
        temporary = self._files / ".tmp"
        try:
            temporary.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"Commands need the folder {temporary}: {error}", "Make it writable") from error
        own = {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "HOME": str(self._files), "TMPDIR": str(temporary)}
        return own | self._environment | dict(more or {})

    async def _hold_spawner(self, allowed: Allowed) -> Spawner:
        """The thread for this command's rules, made where there is none."""
        rules = rules_for(self._village, self._read_roots, allowed.path) if self._abi else None
        held = self._hold(rules)
        if held is not None:
            return held
        making = asyncio.get_running_loop().run_in_executor(None, self._make, rules)
        if await unhurried({making}):
            if making.exception() is None:
                self._release(making.result())
            raise asyncio.CancelledError
        return making.result()

    def _hold(self, rules: landlock.Rules | None) -> Spawner | None:
        with self._lock:
            if self._closed:
                raise _closed()
            spawner = self._spawners.get(rules)
            if spawner is not None:
                spawner.held += 1
            return spawner

    def _make(self, rules: landlock.Rules | None) -> Spawner:
        with self._making:
            held = self._hold(rules)
            if held is not None:
                return held  # another run made it meanwhile
            if self._wrapper is None:
                self._wrapper = find_wrapper()
            if self._guard is None:
                self._guard = Guard(self._wrapper.shell)  # this thread has no restrictions, as it asks
            restrict = None if rules is None else partial(confine_thread, rules, self._abi)
            spawner = Spawner(self._wrapper, restrict)
            spawner.held = 1
            with self._lock:
                self._retire_outdated(rules)
                self._spawners[rules] = spawner
            return spawner

    def _retire_outdated(self, rules: landlock.Rules | None) -> None:
        """Let go of threads that stood for the same program before the village's folder changed."""
        for known in [known for known in self._spawners if known and rules and known.execute == rules.execute]:
            spawner = self._spawners.pop(known)
            spawner.outdated = True
            if not spawner.held:
                spawner.close()

    def _release(self, spawner: Spawner) -> None:
        with self._lock:
            spawner.held -= 1
            if spawner.outdated and not spawner.held:
                spawner.close()


async def _started(spawner: Spawner, command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[Started, bool]:
    """The process before its gate, and whether the caller was cancelled meanwhile and must end it."""
    try:
        asked = spawner.start(command, cwd, env)
    except RuntimeError as error:
        raise _closed() from error
    starting = asyncio.wrap_future(asked)
    cancelled = await unhurried({starting}, on_cancel=asked.cancel)
    if starting.cancelled():
        raise asyncio.CancelledError  # it was still waiting for its turn
    try:
        return starting.result(), cancelled
    except OSError as error:
        what = f"`{command[0]}` could not be started: {error}"
        raise Unavailable(what, "See `vivarium doctor`", passes=is_short(error)) from error


def _closed() -> Unavailable:
    return Unavailable("The village is closing", "Open it again to run commands", passes=True)
