"""Promises about ``vivarium vllm serve``: it keeps a server running, tells what happens, and leaves nothing behind.

The server here is a small program of ours that takes the place of ``vllm``; the real one is in ``test_real_server``.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel.kit.installing import install, vivarium
from vivarium_plugins_vllm.supervising import Service, supervise

from vivarium_kernel import Conflict

MAIN = "import sys; from vivarium_plugins_vllm.commands import vllm; vllm(sys.argv[1:])"
SERVER = """\
#!{python}
import http.server, os, subprocess, sys
from pathlib import Path
here = Path(__file__).parent
with (here / "lives").open("a") as file:
    print(os.getpid(), *sys.argv[1:], file=file)
if (here / "broken").exists():
    sys.exit(3)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(here / "child").write_text(str(child.pid))
class Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Well).serve_forever()
"""


def program(folder: Path) -> str:
    """Write the server's program; returns its path."""
    command = folder / "vllm"
    command.write_text(SERVER.format(python=sys.executable), encoding="utf-8")
    command.chmod(0o755)
    return str(command)


def environment() -> dict[str, str]:
    """A process of ours finds what this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


class Served:
    """The command at work; ``until`` reads what it says until some words come."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.said = folder, port, ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "serve", "--model", "some/model", "--port", str(port),
             "--vllm", program(folder), "--", "--max-num-seqs", "2"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(),
        )  # fmt: skip

    def until(self, words: str) -> str:
        assert self.process.stdout is not None
        deadline = time.monotonic() + 30
        while words not in self.said:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            read = os.read(self.process.stdout.fileno(), 65_536).decode() if ready else ""
            if not read:
                raise AssertionError(f"it never said {words!r}: {self.said}")
            self.said += read
        before, _, self.said = self.said.partition(words)
        return before + words

    @property
    def lives(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "lives").read_text().splitlines()]


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found: int = free.getsockname()[1]
        return found


@pytest.fixture
def serve(tmp_path: Path, port: int) -> Iterator[Callable[[], Served]]:
    started: list[Served] = []

    def start() -> Served:
        started.append(Served(tmp_path, port))
        return started[-1]

    yield start
    for each in started:
        each.process.terminate()
        each.process.wait(30)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
def test_it_says_what_to_set_and_ends_the_server_and_its_children_when_told_to(
    serve: Callable[[], Served], number: signal.Signals
) -> None:
    served = serve()
    said = served.until(f"up at http://127.0.0.1:{served.port}")
    assert f'servers = ["http://127.0.0.1:{served.port}"]\nscheduling_policy = "priority"' in said
    assert 'small = "vllm:some/model"' in said
    ((pid, *arguments),) = served.lives
    assert arguments[:2] == ["serve", "some/model"] and arguments[-2:] == ["--max-num-seqs", "2"]
    child = int((served.folder / "child").read_text())
    served.process.send_signal(number)
    assert served.process.wait(30) == 0
    assert not runs(int(pid)) and not runs(child)


def test_a_server_that_dies_is_started_again(serve: Callable[[], Served]) -> None:
    served = serve()
    served.until("The server is up")
    child = int((served.folder / "child").read_text())
    os.kill(int(served.lives[0][0]), signal.SIGKILL)
    served.until("ended with -9; it is started again in 1 s")
    served.until("The server is up")
    assert len(served.lives) == 2
    assert not runs(child)


def test_a_server_that_never_comes_up_is_given_up(tmp_path: Path, port: int) -> None:
    (tmp_path / "broken").touch()
    command = program(tmp_path)
    said: list[str] = []
    with pytest.raises(Conflict, match="ended 3 times before it was up, the last time with 3"):
        asyncio.run(supervise(Service([command], "127.0.0.1", port, os.environ, 0.01), said.append))
    assert [text.partition(";")[0] for text in said] == ["The server ended with 3"] * 2


def test_a_port_that_is_taken_and_a_command_that_is_not_there_are_refused(tmp_path: Path, port: int) -> None:
    def refused(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "serve", "--model", "m", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
            env=environment(),
        )
        assert done.returncode != 0
        return done.stderr

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        used = str(taken.getsockname()[1])
        assert f"Port {used} can't be used" in refused("--port", used)
    assert "There is no command" in refused("--port", str(port), "--vllm", str(tmp_path / "vllm"))
    assert "before the `--`" in refused("--port", str(port), "--", "--port", "1")


def test_it_is_a_command_of_vivarium_once_it_is_installed(repository: Path, tmp_path: Path) -> None:
    for name in ("openai", "vllm"):
        install(repository / "plugins" / f"vivarium_plugins_{name}", tmp_path / "site")
    told = vivarium("vllm", "serve", "--help", site=tmp_path / "site", cwd=tmp_path)
    assert told.status == 0 and "What follows `--` goes to `vllm serve`" in told.out, told
    missing = str(tmp_path / "vllm")
    refused = vivarium("vllm", "serve", "--model", "m", "--vllm", missing, site=tmp_path / "site", cwd=tmp_path)
    assert refused.status == 2 and "vivarium-plugins-vllm[server]" in refused.err
    assert "Traceback" not in refused.err
