"""The room of limits: how much of the machine one command may use."""

import resource
from pathlib import Path

from attrs import field, frozen
from attrs.validators import ge, gt


@frozen
class Limits:
    """The most that one command may use. The kernel enforces all but the first and the last on each process."""

    timeout_seconds: float = field(default=30.0, validator=gt(0))
    cpu_seconds: int = field(default=60, validator=ge(1))
    memory_bytes: int = field(default=2 << 30, validator=ge(1 << 20))
    """Address space; interpreters ask for far more of it than they use."""
    file_bytes: int = field(default=256 << 20, validator=ge(0))
    processes: int = field(default=128, validator=ge(1))
    """Further processes and threads for the command's user, on top of all that run when it starts. Linux counts
    them per user and not at all for root."""
    open_files: int = field(default=256, validator=ge(16))
    output_bytes: int = field(default=65536, validator=ge(2))
    """Kept of standard output, and as much of standard error."""


def impose(limits: Limits, pid: int) -> None:
    """Set the limits of the running process `pid`, which its children inherit; hard, so that it can't lift them.

    A limit above what this process has itself becomes this process's. Raises ProcessLookupError, OSError.
    """
    wanted = {
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NPROC: _running() + limits.processes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.prlimit(pid, kind, (value, value))


def _running() -> int:
    """All processes and threads of the machine: never less than the user's own, and one read instead of a scan."""
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
