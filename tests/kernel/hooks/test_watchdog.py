"""A plugin that holds the process: real processes, real sleeps, a real regular expression, real signals."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vivarium_kernel.watchdog import IDLE, Mark, frame_of, label

STUCK = Path(__file__).with_name("stuck.py")


def run(scenario: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(STUCK), scenario]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def start(scenario: str) -> tuple["subprocess.Popen[str]", int]:
    """A supervisor whose child says that it is ready, and the child's pid."""
    command = [sys.executable, str(STUCK), scenario]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ready"):
            return process, int(line.split()[1])
    raise AssertionError("the child was never ready")


def line_of(text: str) -> int:
    """The line of stuck.py that holds the scenario."""
    lines = STUCK.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if text in line)
    return next(
        n + 1 for n in range(start, len(lines)) if re.search(r"sleep\(60\)|re\.match|acquire|string_at", lines[n])
    )


@pytest.mark.promise("watchdog")
@pytest.mark.parametrize(
    ("scenario", "hook", "thread", "marker", "below"),
    [
        ("sleep", "enrich_prompt", "loop", '"sleep", "restart', 0),
        ("regex", "enrich_prompt", "loop", '"regex"', 0),
        ("lock", "enrich_prompt", "loop", '"lock"', 1),
        ("coroutine", "check_safety", "loop", '"coroutine"', 0),
        ("writer", "end_attempt", "writer", '"writer"', 0),
        ("writer-regex", "end_attempt", "writer", '"writer-regex"', 0),
        ("segfault", "enrich_prompt", "loop", '"segfault"', 0),
    ],
)
def test_a_hook_that_holds_or_crashes_the_process_is_named_and_left_out_of_the_next(
    scenario: str, hook: str, thread: str, marker: str, below: int
) -> None:
    """A sleep, a regular expression that keeps the interpreter's lock, a lock that nobody gives back, a crash."""
    done = run(scenario)
    place = f"{STUCK}:{line_of(marker) + below}"
    fault = "ended the process with SIGSEGV" if scenario == "segfault" else "held the process for too long"
    assert f"plugin 'holder' {fault} in {hook} ({thread}) at {place}; it is off" in done.stderr
    assert f"child 1 without [('holder', '{hook}')]" in done.stdout
    assert "child 2" not in done.stdout
    assert done.returncode == 5


def test_many_holds_shorter_than_the_limit_end_nothing() -> None:
    done = run("busy-but-well")
    assert (done.returncode, done.stderr, done.stdout.count("child")) == (5, "", 1)


def test_a_heart_that_was_stopped_ends_nothing() -> None:
    done = run("stopped-heart")
    assert (done.returncode, done.stderr, done.stdout.count("child")) == (5, "", 1)


def test_a_process_that_is_ended_again_and_again_is_given_up_with_the_reason() -> None:
    done = run("restart-for-ever")
    assert done.returncode == 1
    assert "gave up: the process was ended 6 times" in done.stderr
    assert done.stdout.count("child") == 6


def test_a_normal_end_with_status_1_inside_a_hook_is_no_fault() -> None:
    done = run("exits")
    assert (done.returncode, done.stdout.count("child")) == (1, 1)


def test_an_error_of_the_child_is_printed_and_its_status_is_1() -> None:
    done = run("raises")
    assert (done.returncode, done.stdout.count("child")) == (1, 1)
    assert "LookupError: boom" in done.stderr


# Signals


def test_signals_to_the_supervisor_reach_the_child_each_once() -> None:
    process, _ = start("waits")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert f"signal {int(signal.SIGTERM)}\nsignals 1\n" in out
    assert process.returncode == 7


def test_a_second_signal_reaches_the_child_too() -> None:
    process, _ = start("dies")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("signal")  # two at once might count as one
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert "signals 2\n" in out
    assert process.returncode == 7


def test_a_signal_that_comes_as_the_child_ends_does_not_hide_its_status() -> None:
    done = run("parting")
    assert (done.returncode, done.stderr) == (5, "")


def in_terminal(scenario: str, *moments: str) -> tuple[str, int]:
    """Run the scenario on a terminal of its own, and press Ctrl-C whenever it has said the next of these words."""
    terminal, its_side = pty.openpty()
    # Not pty.fork(): a fork of a process that has threads may hang before it becomes another program.
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, str(STUCK), scenario],  # noqa: S607 - of util-linux, as setpriv
        stdin=its_side, stdout=its_side, stderr=its_side,
    )  # fmt: skip
    os.close(its_side)
    out = ""
    left = list(moments)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.5)[0]:
            continue
        try:
            piece = os.read(terminal, 4096).decode()
        except OSError:  # the terminal's other side was closed
            break
        if not piece:
            break
        out += piece
        if left and left[0] in out:
            del left[0]
            os.write(terminal, b"\x03")
    os.close(terminal)
    return out.replace("\r\n", "\n"), process.wait(20)


def test_a_ctrl_c_counts_once_though_it_reaches_both_processes() -> None:
    out, status = in_terminal("waits", "ready")
    assert f"signal {int(signal.SIGINT)}\nsignals 1\n" in out
    assert status == 7


def test_a_second_ctrl_c_counts_as_the_second() -> None:
    out, status = in_terminal("dies", "ready", f"signal {int(signal.SIGINT)}")
    assert "signals 2\n" in out
    assert status == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_a_child_that_somebody_killed_is_not_started_again(number: signal.Signals) -> None:
    process, child = start("waits")
    os.kill(child, number)
    out, _ = process.communicate(timeout=20)
    assert "child 1" not in out
    assert process.returncode == 128 + number


def test_a_child_dies_with_its_killed_supervisor() -> None:
    process, child = start("waits")
    process.kill()
    process.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and is_alive(child):
        time.sleep(0.01)
    assert not is_alive(child)


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# The mark


def test_the_mark_names_the_innermost_of_nested_calls_and_goes_back() -> None:
    mark = Mark()
    assert mark.held() == []
    outer = mark.loop.hold(label("tools", "execute_task"))
    assert outer == IDLE
    inner = mark.loop.hold(label("policy", "check_safety"))
    assert mark.held() == [("loop", "policy", "check_safety")]
    mark.loop.hold(inner)
    assert mark.held() == [("loop", "tools", "execute_task")]
    mark.writer.hold(label("wages", "end_attempt"))
    assert [plugin for _, plugin, _ in mark.held()] == ["tools", "wages"]
    mark.writer_is_stuck(True)
    assert mark.held() == [("writer", "wages", "end_attempt")]
    mark.clear()
    assert mark.held() == []
    mark.close()


def test_a_traceback_without_the_call_loop_names_no_place() -> None:
    assert (
        frame_of('Timeout (0:00:05)!\nThread 0x01 (most recent call first):\n  File "a.py", line 1 in f\n', "f") == ""
    )
