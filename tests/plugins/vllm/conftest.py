"""The room of the real vLLM server: one on CPU with a tiny model, for all the tests that want it.

``.ci/vllm FOLDER`` makes what it needs and prints the variables that tell where it is; without them those tests skip.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

KEY = "tell-nobody-0123456789"
CONTEXT = 4096
SEQUENCES = 2  # so few at once that the order in which the others wait shows
START_SECONDS = 240
VARIABLES = ("TESTS_VLLM_COMMAND", "TESTS_VLLM_MODEL", "TESTS_VLLM_LORA")


@frozen
class RealServer:
    """A real vLLM server: ``tiny`` and its adapter ``poet``."""

    root: str
    key: str = KEY


@pytest.fixture(scope="session")
def real_vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """The server, started and ended by ``vivarium vllm serve`` as anybody would."""
    missing = [name for name in VARIABLES if not Path(os.environ.get(name) or "/nowhere").exists()]
    if missing:
        pytest.skip(f"no real vllm server here: .ci/vllm makes one and says what to set ({', '.join(missing)})")
    command, model, adapter = (os.environ[name] for name in VARIABLES)
    folder = tmp_path_factory.mktemp("vllm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "tmp").mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VIVARIUM_")} | {
        "HOME": str(folder), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": os.pathsep.join(sys.path),
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_HOST_IP": "127.0.0.1",
        # One thread for the tiny model: with one on each core, the part that talks to us gets no turn.
        "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_API_KEY": KEY, "VLLM_SERVER_DEV_MODE": "1",
        # Lets the backend below be what it says, which on CPU it else is not.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }  # fmt: skip
    main = "import sys; from vivarium_plugins_vllm.commands import vllm; vllm(sys.argv[1:])"
    arguments = ["serve", "--model", model, "--name", "tiny", "--port", str(port), "--vllm", command, "--"]
    arguments += ["--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--max-num-seqs", str(SEQUENCES)]
    # The server works in one process, for two of them wait for each other in busy loops, and leave the front no core.
    arguments += ["--distributed-executor-backend", "uni"]
    arguments += ["--enforce-eager", "--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"poet={adapter}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", main, *arguments], env=environ, stdout=log, stderr=log)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", process, folder / "log")
        yield RealServer(f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(60)
    assert ended == 0, (folder / "log").read_text()[-3000:]


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    pytest.fail(f"the vllm server did not come up:\n{log.read_text()[-3000:]}")
