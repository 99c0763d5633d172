"""The room of spawners: long-lived threads that start commands, each under one set of rules.

Both ways to bind a child to its starter hang on the *thread* that forked: Landlock's rules are the thread's, and the
death signal comes when the thread ends. So a spawner keeps its thread until it is closed.

No command starts before it is bound. A spawner runs `setpriv` (death signal, no new privileges), which becomes `sh`,
which waits for a line. The caller sets the resource limits and tells the guard, and only then sends the line. If the
caller dies first, `sh` reads end-of-file; if it died between fork and setpriv's call, `sh` sees another parent.
"""

import errno
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from attrs import frozen

SEARCH_PATH = "/usr/bin:/bin"

_GATE = 'read -r go && [ "$PPID" = "$0" ] && unset PWD OLDPWD && exec "$@" </dev/null; exit 125'
_KEPT_BY_ROOT = "-all,+chown,+dac_override,+fowner"
_CAP_SETPCAP = 8


class Unavailable(RuntimeError):
    """A command can't be run here; `what` is missing or wrong and `next_step` mends it.

    `passes` is what the system may be able to do a moment later: it is short of something, or the village is closing.
    """

    def __init__(self, what: str, next_step: str, *, passes: bool = False) -> None:
        super().__init__(f"{what}. {next_step}")
        self.what = what
        self.next_step = next_step
        self.passes = passes


def is_short(error: OSError) -> bool:
    """Whether the system was short of memory, processes or files when it refused."""
    return error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EINTR)


@frozen
class Started:
    """A bound process that waits at its gate, and the ends of its pipes that are ours to close."""

    process: subprocess.Popen[bytes]
    pidfd: int
    gate: int
    stdout: int
    stderr: int


@frozen
class Wrapper:
    """The programs in front of every command."""

    setpriv: str
    shell: str
    drop_capabilities: bool

    def argv(self, command: Sequence[str]) -> list[str]:
        dropped = ("--bounding-set", _KEPT_BY_ROOT) if self.drop_capabilities else ()
        bound = [self.setpriv, "--pdeathsig", "KILL", "--no-new-privs", *dropped, "--"]
        return [*bound, self.shell, "-c", _GATE, str(os.getpid()), *command]


def find_wrapper() -> Wrapper:
    """The wrapper's programs on this system. Raises Unavailable naming what to install."""
    if not hasattr(os, "pidfd_open"):
        raise Unavailable("This system has no pidfd_open", "Run the village on Linux 5.4 or newer")
    found = {}
    for name, package in (("setpriv", "util-linux"), ("sh", "dash")):
        places = [f"{folder}/{name}" for folder in SEARCH_PATH.split(":")]
        usable = [place for place in places if os.access(place, os.X_OK)]
        if not usable:
            raise Unavailable(f"Commands need `{name}` in {SEARCH_PATH}, and it isn't there", f"Install {package}")
        found[name] = usable[0]
    return Wrapper(found["setpriv"], found["sh"], _may_drop_capabilities())


class Spawner:
    """One thread that starts commands. Its children die with it."""

    def __init__(self, wrapper: Wrapper, restrict: Callable[[], None] | None) -> None:
        """Restrict the thread and try it out with a trivial command. Raises Unavailable. Takes milliseconds."""
        self.held = 0
        """How many commands of this spawner have not been reaped; the runner counts under its own lock."""
        self.outdated = False
        self._wrapper = wrapper
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vivarium-commands")
        try:
            if restrict is not None:
                self._thread.submit(restrict).result()
            self._try_out()
        except OSError as error:
            self.close()
            raise Unavailable(
                f"The confinement of commands can't be set up: {error}", _CHOICE, passes=is_short(error)
            ) from error
        except BaseException:
            self.close()
            raise

    def start(self, command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> "Future[Started]":
        """Start `command` (an absolute path and its arguments) up to its gate. The future may raise OSError."""
        return self._thread.submit(_start, self._wrapper.argv(command), cwd, env)

    def close(self) -> None:
        """End the thread once it has started what it was asked to; the kernel then kills its children."""
        self._thread.shutdown(wait=False)

    def _try_out(self) -> None:
        started = self.start([self._wrapper.shell, "-c", "exit 42"], Path("/"), {"PATH": SEARCH_PATH}).result()
        os.write(started.gate, b"go\n")
        code = started.process.wait()
        said = os.read(started.stderr, 4096).decode(errors="replace").strip()
        for end in (started.pidfd, started.gate, started.stdout, started.stderr):
            os.close(end)
        if code != 42:
            what = f"A trial command ended with {code} instead of 42: {said or 'no message'}"
            raise Unavailable(what, _CHOICE, passes=code < 0)  # what a signal ended may go well another time


_CHOICE = 'See `vivarium doctor`, or choose sandbox = "none" in [commands] of vivarium.toml'


def _start(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Started:
    opened: list[int] = []
    try:
        for _ in range(3):
            opened += os.pipe()
        gate_out, gate_in, stdout_out, stdout_in, stderr_out, stderr_in = opened
        process = subprocess.Popen(  # noqa: S603 - argv without a shell; the policy has checked it
            argv, stdin=gate_out, stdout=stdout_in, stderr=stderr_in, cwd=cwd, env=dict(env), start_new_session=True
        )
        try:
            pidfd = os.pidfd_open(process.pid)
        except BaseException:
            process.kill()
            process.wait()
            raise
    except BaseException:
        for end in opened:
            os.close(end)
        raise
    for end in (gate_out, stdout_in, stderr_in):
        os.close(end)
    os.set_blocking(stdout_out, False)
    os.set_blocking(stderr_out, False)
    return Started(process, pidfd, gate_in, stdout_out, stderr_out)


def _may_drop_capabilities() -> bool:
    """Root keeps only what writing in other people's folders takes; without CAP_SETPCAP setpriv can't drop the rest."""
    if os.geteuid() != 0:
        return False
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SETPCAP & 1)
    return False
