"""The room of the guard: a small process that outlives this one by a moment, to end the commands it leaves behind.

`setpriv --pdeathsig` ends a command when the process that runs it is killed, but not what the command started itself.
The guard reads the running process groups from a pipe; when the pipe closes, for whatever reason, it kills them.
"""

import subprocess
import threading

_SCRIPT = r"""
trap '' INT TERM HUP QUIT
groups=' '
while read -r sign group; do
    case $sign in
        +) groups="$groups$group " ;;
        -) groups="${groups%% "$group" *} ${groups#* "$group" }" ;;
    esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
"""


class Guard:
    """Start it from a thread without restrictions: a confined guard could not signal commands of other rules."""

    def __init__(self, shell: str) -> None:
        self._shell = shell
        self._groups: set[int] = set()
        self._lock = threading.Lock()
        self._process = self._start()

    def add(self, group: int) -> None:
        with self._lock:
            self._groups.add(group)
            self._tell(f"+ {group}\n")

    def remove(self, group: int) -> None:
        """Call it before the group's leader is reaped: after that the number may be somebody else's."""
        with self._lock:
            self._groups.discard(group)
            self._tell(f"- {group}\n")

    def close(self) -> None:
        """End the guard, which kills the groups that are still in its care."""
        with self._lock:
            self._end()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
        except BrokenPipeError:
            # Somebody killed the guard: a new one learns all groups at once.
            self._end()
            self._process = self._start()
            assert self._process.stdin is not None
            self._process.stdin.write("".join(f"+ {group}\n" for group in self._groups).encode())
        except ValueError:
            pass  # closed; what ends now was killed by close()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - a fixed program
            [self._shell, "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            start_new_session=True,  # a signal to our own group must not reach it
        )

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
