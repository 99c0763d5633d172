"""How commands run: what they are given, what is kept of them, and that none is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vivarium_kernel.commands import Finished, Limits, Runner, Unavailable

from .running import ALLOWED, lives, once, python, run, wait_for_numbers, wait_until_dead
from .scene import MARK, Scene

# What a command is given


def test_output_exit_code_and_working_directory_are_told_apart(runner: Runner, scene: Scene) -> None:
    done = once(runner, scene, "sh", "-c", "pwd; echo wrong >&2; exit 3", cwd="src")
    assert (done.stdout, done.stderr) == (f"{scene.village}/src\n", "wrong\n")
    assert (done.exit_code, done.signal, done.timed_out) == (3, None, False)


def test_a_signal_that_ends_a_command_is_reported(runner: Runner, scene: Scene) -> None:
    done = once(runner, scene, "sh", "-c", "kill -TERM $$")
    assert (done.exit_code, done.signal, done.timed_out) == (None, signal.SIGTERM, False)


def test_the_environment_holds_four_names_and_what_was_allowed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVARIUM_TOKEN", MARK)
    runner = Runner(scene.village, sandbox="auto", environment={"TZ": "UTC"})
    done = asyncio.run(runner.run(["env"], allowed=ALLOWED["env"], cwd=scene.village, env={"TASK": "t-1"}))
    runner.close()
    assert sorted(done.stdout.split()) == [
        f"HOME={scene.files}",
        "LANG=C.UTF-8",
        "PATH=/usr/bin:/bin",
        "TASK=t-1",
        f"TMPDIR={scene.files}/.tmp",
        "TZ=UTC",
    ]


def test_standard_input_is_empty(runner: Runner, scene: Scene) -> None:
    done = once(runner, scene, "cat", limits=Limits(timeout_seconds=5))
    assert (done.exit_code, done.stdout) == (0, "")


def test_no_descriptor_of_ours_is_handed_on(runner: Runner, scene: Scene) -> None:
    done = python(
        runner,
        scene,
        """
        import os
        for end in range(256):
            try: os.fstat(end)
            except OSError: continue
            print(end)
        """,
    )
    assert done.stdout.split() == ["0", "1", "2"]


def test_a_folder_outside_the_village_is_no_working_directory(runner: Runner, scene: Scene) -> None:
    with pytest.raises(ValueError, match="cwd"):
        once(runner, scene, "pwd", cwd="../outside")


# What is kept of it


def test_the_head_and_the_tail_of_long_output_are_kept_and_the_gap_is_marked(runner: Runner, scene: Scene) -> None:
    done = python(
        runner, scene, "print('begin' + 'x' * 1_299_990 + 'end', flush=True)", limits=Limits(output_bytes=65_000)
    )
    head, mark, tail = done.stdout.split("\n", 2)
    assert done.stdout_truncated
    assert not done.stderr_truncated
    assert mark == "[truncated: 1,234,999 bytes more; the first 32,500 and the last 32,500 are kept]"
    assert (head[:5], len(head)) == ("begin", 32_500)
    assert (tail[-4:], len(tail)) == ("end\n", 32_500)


def test_output_of_just_the_limit_is_whole(runner: Runner, scene: Scene) -> None:
    done = python(runner, scene, "print('x' * 998 + 'y')", limits=Limits(output_bytes=1000))
    assert not done.stdout_truncated
    assert done.stdout == "x" * 998 + "y\n"


def test_a_cut_never_halves_a_character(runner: Runner, scene: Scene) -> None:
    done = python(runner, scene, "print('€' * 1000, end='')", limits=Limits(output_bytes=100))
    assert done.stdout_truncated
    assert "\ufffd" not in done.stdout
    assert "[truncated: 2,904 bytes more;" in done.stdout


def test_bytes_that_are_no_text_are_replaced(runner: Runner, scene: Scene) -> None:
    done = python(runner, scene, r"import sys; sys.stdout.buffer.write(b'a\xffb')")
    assert done.stdout == "a\ufffdb"


def test_both_streams_are_read_at_once(runner: Runner, scene: Scene) -> None:
    script = "import sys\nfor _ in range(50): sys.stderr.write('e' * 9999); sys.stdout.write('o' * 9999)"
    done = python(runner, scene, script, limits=Limits(output_bytes=1 << 20))
    assert (len(done.stdout), len(done.stderr)) == (499_950, 499_950)


# That none is left behind


@pytest.mark.promise("confined-commands")
def test_a_timeout_kills_the_grandchildren_too(runner: Runner, scene: Scene) -> None:
    started = time.monotonic()
    done = once(
        runner,
        scene,
        *("sh", "-c", "echo first; sleep 60 & echo $! >files/pid; echo $$ >>files/pid; wait"),
        limits=Limits(timeout_seconds=0.5),
    )
    assert done.timed_out
    assert (done.exit_code, done.signal, done.stdout) == (None, signal.SIGKILL, "first\n")
    assert 0.5 <= done.seconds < 10
    assert time.monotonic() - started < 20
    wait_until_dead(*wait_for_numbers(scene.files / "pid", 2))


def test_what_a_command_leaves_running_is_killed_when_it_ends(runner: Runner, scene: Scene) -> None:
    done = once(runner, scene, "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $! >files/pid")
    assert (done.exit_code, done.timed_out) == (0, False)
    wait_until_dead(*wait_for_numbers(scene.files / "pid", 1))


def test_what_detaches_itself_and_keeps_the_output_is_killed(runner: Runner, scene: Scene) -> None:
    script = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            open('files/pid', 'w').write(str(os.getpid()))
            time.sleep(60)
        while not os.path.exists('files/pid'): time.sleep(0.01)
    """
    done = python(runner, scene, script)
    assert done.exit_code == 0
    assert done.seconds < 5
    wait_until_dead(*wait_for_numbers(scene.files / "pid", 1))


def test_cancelling_kills_the_whole_group_and_waits_until_it_is_gone(runner: Runner, scene: Scene) -> None:
    async def cancel() -> float:
        task = asyncio.create_task(run(runner, scene, "sh", "-c", "sleep 60 & echo $! $$ >files/pid; wait"))
        await asyncio.to_thread(wait_for_numbers, scene.files / "pid", 2)
        before = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - before

    assert asyncio.run(cancel()) < 1
    _, leader = pids = wait_for_numbers(scene.files / "pid", 2)
    assert not Path(f"/proc/{leader}").exists(), "the leader was not reaped"
    wait_until_dead(*pids)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("pause", [0.0, 0.0005, 0.001, 0.002, 0.004, 0.008])
def test_cancelling_at_any_moment_leaves_nothing(runner: Runner, scene: Scene, pause: float, warm: bool) -> None:
    async def cancel() -> None:
        if warm:
            await run(runner, scene, "pwd")
        tasks = [asyncio.create_task(run(runner, scene, "sleep", "61.25")) for _ in range(8)]
        await asyncio.sleep(pause)
        for task in tasks:
            task.cancel()
            task.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert [type(end) for end in ended] == [asyncio.CancelledError] * 8
        assert not children_of(os.getpid(), "61.25")

    asyncio.run(cancel())


def children_of(parent: int, text: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent and text in (folder / "cmdline").read_text():
                    found.append(int(folder.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def test_a_loop_that_ends_takes_its_commands_with_it(runner: Runner, scene: Scene) -> None:
    async def leave() -> None:
        asyncio.get_running_loop().create_task(run(runner, scene, "sh", "-c", "echo $$ >files/pid; sleep 60"))
        await asyncio.to_thread(wait_for_numbers, scene.files / "pid", 1)

    asyncio.run(leave())
    wait_until_dead(*wait_for_numbers(scene.files / "pid", 1))


def test_closing_kills_what_runs_and_refuses_what_comes(runner: Runner, scene: Scene) -> None:
    async def close() -> Finished:
        task = asyncio.create_task(run(runner, scene, "sleep", "60"))
        await asyncio.sleep(0.2)
        runner.close()
        done = await asyncio.wait_for(task, 2)
        with pytest.raises(Unavailable, match="closing") as caught:
            await run(runner, scene, "pwd")
        assert caught.value.passes  # who asks again when it is open is served
        return done

    assert asyncio.run(close()).signal == signal.SIGKILL


HOST = """
import asyncio, sys
from pathlib import Path
from vivarium_kernel.commands import Allowed, Runner
village = Path(sys.argv[1])
async def main():
    runner = Runner(village, sandbox="auto")
    script = "sleep 60 & echo $! $$ >files/pid; wait"
    await runner.run(["sh", "-c", script], allowed=Allowed("sh", Path("/bin/sh"), False), cwd=village)
asyncio.run(main())
"""


@pytest.mark.promise("orphans-die")
def test_commands_and_their_children_die_with_a_killed_worker(scene: Scene) -> None:
    with subprocess.Popen([sys.executable, "-c", HOST, str(scene.village)]) as host:
        try:
            pids = wait_for_numbers(scene.files / "pid", 2, within_seconds=10)
            assert all(map(lives, pids))
        finally:
            host.send_signal(signal.SIGKILL)
    wait_until_dead(*pids)


@pytest.mark.promise("orphans-die")
def test_a_command_dies_with_a_worker_that_is_killed_after_its_guard(scene: Scene) -> None:
    with subprocess.Popen([sys.executable, "-c", HOST, str(scene.village)]) as host:
        try:
            left, command = wait_for_numbers(scene.files / "pid", 2, within_seconds=10)
            (guard,) = children_of(host.pid, "trap")
            os.kill(guard, signal.SIGKILL)
        finally:
            host.send_signal(signal.SIGKILL)
    wait_until_dead(command)
    os.kill(left, signal.SIGKILL)  # the guard's part, which nobody plays here


def test_a_killed_guard_is_replaced(runner: Runner, scene: Scene) -> None:
    once(runner, scene, "pwd")
    guard = runner._guard
    assert guard is not None
    first = guard._process.pid
    os.kill(first, signal.SIGKILL)
    assert once(runner, scene, "echo", "on").stdout == "on\n"
    assert guard._process.pid != first
