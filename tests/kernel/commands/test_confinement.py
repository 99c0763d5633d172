"""What commands may touch and use, and what is said where they can't be confined."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from vivarium_kernel.commands import Allowed, Finished, Limits, Runner, Unavailable
from vivarium_kernel.commands import landlock as landlock_module

from .running import once, python, run
from .scene import MARK, Scene, build

# What it may touch and use


@pytest.mark.usefixtures("with_landlock")
@pytest.mark.parametrize(
    "path",
    [
        *(
            "/etc/shadow",
            "../outside/secret.txt",
            "src/link_out",
            "src/link_db",
            "top_out/secret.txt",
            "/proc/1/environ",
        ),
        *("vivarium.db", "vivarium.db-wal", "vivarium.lock", "keys/ada", "host.key", ".secrets.toml"),
    ],
)
def test_the_database_the_keys_and_the_rest_of_the_machine_cannot_be_read(
    runner: Runner, scene: Scene, path: str
) -> None:
    done = once(runner, scene, "cat", path)
    assert done.exit_code == 1
    assert "Permission denied" in done.stderr or "No such file" in done.stderr
    assert MARK not in done.stdout + done.stderr


def test_the_village_and_the_system_can_be_read(runner: Runner, scene: Scene) -> None:
    assert once(runner, scene, "cat", "notes.txt", "src/app.py").stdout == "one\ntwo\nthree\nprint('hello')\n"
    assert python(runner, scene, "import json, sqlite3, hashlib, ssl; print('fine')").stdout == "fine\n"
    assert once(runner, scene, "sort", "-r", "notes.txt").stdout == "two\nthree\none\n"


@pytest.mark.usefixtures("with_landlock")
def test_a_read_root_can_be_read_but_not_written(scene: Scene) -> None:
    runner = Runner(scene.village, [scene.outside], "auto")
    assert once(runner, scene, "cat", "../outside/secret.txt").stdout.startswith(MARK)
    assert once(runner, scene, "sh", "-c", "echo x >../outside/new").exit_code == 2
    runner.close()
    assert not (scene.outside / "new").exists()


@pytest.mark.promise("confined-commands")
@pytest.mark.usefixtures("with_landlock")
@pytest.mark.parametrize(
    "deed",
    [
        "open('new', 'w')",
        "open('notes.txt', 'a')",
        "open('../outside/new', 'w')",
        "open('vivarium.db', 'r+')",
        "os.truncate('vivarium.db', 0)",
        "os.open('notes.txt', os.O_RDONLY | os.O_TRUNC)",
        "os.open('notes.txt', 3 | os.O_TRUNC)",
        "os.remove('notes.txt')",
        "os.rename('notes.txt', 'files/notes.txt')",
        "os.link('vivarium.db', 'files/linked')",
        "os.mkdir('folder')",
        "os.symlink('notes.txt', 'link')",
        "os.rename('files', 'other')",
        "os.mknod('files/device', 0o600 | stat.S_IFBLK, os.makedev(8, 0))",
        "tempfile.TemporaryFile(dir='/tmp')",
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3, 99])
def test_nothing_outside_files_can_be_written(scene: Scene, deed: str, version: int) -> None:
    """Also under the older versions of Landlock, which say nothing of truncation."""
    runner = Runner(scene.village, sandbox="auto")
    runner._abi = min(version, runner._abi)
    before = contents(scene)
    script = f"import os, stat, tempfile\ntry: {deed}\nexcept OSError as fault: print(type(fault).__name__)"
    done = python(runner, scene, script)
    runner.close()
    assert done.stdout.strip() in ("PermissionError", "OSError", "FileNotFoundError"), done
    assert contents(scene) == before


def contents(scene: Scene) -> list[tuple[Path, int]]:
    everything = (path for path in scene.village.parent.rglob("*") if ".tmp" not in path.parts)
    return sorted((path, 0 if path.is_dir() else path.lstat().st_size) for path in everything)


def test_below_files_everything_ordinary_works(runner: Runner, scene: Scene) -> None:
    script = """
        import os, tempfile
        os.makedirs('files/a/b'); os.makedirs('files/c')
        open('files/a/b/one', 'w').write('text'); os.truncate('files/a/b/one', 2)
        os.rename('files/a/b/one', 'files/c/two'); os.symlink('two', 'files/c/link')
        with tempfile.NamedTemporaryFile() as made: print(made.name)
        print(open('files/c/link').read()); os.remove('files/c/link'); os.removedirs('files/a/b')
    """
    done = python(runner, scene, script)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(f"{scene.files}/.tmp/")
    assert done.stdout.endswith("te\n")


@pytest.mark.usefixtures("with_landlock")
@pytest.mark.parametrize("kind", ["AF_INET, SOCK_STREAM", "AF_INET, SOCK_DGRAM", "AF_INET6, SOCK_STREAM", "AF_UNIX"])
def test_no_command_reaches_the_network_or_a_daemons_socket(runner: Runner, scene: Scene, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"""
            from socket import *
            try: socket({kind}).connect(('127.0.0.1', {port}))
            except OSError as fault: print(type(fault).__name__)
        """
        assert python(runner, scene, script).stdout == "PermissionError\n"


@pytest.mark.usefixtures("with_landlock")
def test_landlock_alone_refuses_tcp(runner: Runner, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    if landlock_module.abi() < 4:
        pytest.skip("Landlock knows TCP from ABI 4 on")
    monkeypatch.setattr("vivarium_kernel.commands.seccomp.available", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        assert "PermissionError" in python(runner, scene, script).stderr


@pytest.mark.usefixtures("with_landlock")
def test_a_command_cannot_signal_the_worker(runner: Runner, scene: Scene) -> None:
    if landlock_module.abi() < 6:
        pytest.skip("Landlock knows signals from ABI 6 on")
    assert "PermissionError" in python(runner, scene, f"import os; os.kill({os.getpid()}, 0)").stderr


@pytest.mark.usefixtures("with_landlock")
def test_this_process_stays_unrestricted(runner: Runner, scene: Scene) -> None:
    once(runner, scene, "pwd")
    (scene.village / "written-by-us").write_text("free")
    assert (scene.village / "vivarium.db").read_text() == MARK + "\n"
    assert "NoNewPrivs:\t0" in Path("/proc/self/status").read_text()


@pytest.mark.usefixtures("with_landlock")
def test_files_that_appear_or_are_replaced_can_be_read_by_the_next_command(runner: Runner, scene: Scene) -> None:
    once(runner, scene, "pwd")
    (scene.village / "late.txt").write_text("late")
    (scene.village / "new-notes").write_text("replaced")
    (scene.village / "new-notes").rename(scene.village / "notes.txt")
    (scene.village / "late.key").write_text(MARK)
    assert once(runner, scene, "cat", "late.txt", "notes.txt").stdout == "latereplaced"
    assert once(runner, scene, "cat", "late.key").exit_code == 1


def test_a_changed_folder_does_not_end_commands_that_run(runner: Runner, scene: Scene) -> None:
    async def overlap() -> Finished:
        slow = asyncio.create_task(run(runner, scene, "sh", "-c", "sleep 0.5; echo whole"))
        await asyncio.sleep(0.1)
        (scene.village / "late.txt").write_text("late")
        await run(runner, scene, "pwd")
        assert len(runner._spawners) == 1
        return await slow

    assert asyncio.run(overlap()).stdout == "whole\n"


@pytest.mark.promise("confined-commands")
def test_the_limits_bite(runner: Runner, scene: Scene) -> None:
    few = Limits(cpu_seconds=1, memory_bytes=300 << 20, file_bytes=1 << 20, open_files=32, timeout_seconds=10)
    assert "MemoryError" in python(runner, scene, "x = bytearray(400 << 20)", few).stderr
    assert "File too large" in python(runner, scene, "open('files/big', 'wb').write(bytes(2 << 20))", few).stderr
    assert "Too many open files" in python(runner, scene, "x = [open('/dev/null') for _ in range(64)]", few).stderr
    spun = python(runner, scene, "while True: pass", few)
    assert (spun.signal, spun.timed_out) == (signal.SIGKILL, False)


def test_no_limit_can_be_lifted(runner: Runner, scene: Scene) -> None:
    script = """
        import resource
        for name in ('CPU', 'AS', 'FSIZE', 'NPROC', 'NOFILE', 'CORE'):
            kind = getattr(resource, 'RLIMIT_' + name)
            soft, hard = resource.getrlimit(kind)
            assert soft == hard != resource.RLIM_INFINITY, name
            try: resource.setrlimit(kind, (hard + 1, hard + 1))
            except (ValueError, PermissionError): print(name, end=' ')
    """
    assert python(runner, scene, script).stdout.split() == ["CPU", "AS", "FSIZE", "NPROC", "NOFILE", "CORE"]


def test_a_set_user_id_program_gains_nothing(runner: Runner, scene: Scene) -> None:
    done = python(runner, scene, "import ctypes; print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))")
    assert done.stdout == "1\n"


# Where it can't be done


def test_without_landlock_the_operators_commands_are_refused_and_shipped_ones_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock_module, "abi", lambda: 0)
    strict, auto = Runner(scene.village, sandbox="landlock"), Runner(scene.village, sandbox="auto")
    assert (strict.active, auto.active) == ("none", "none")
    with pytest.raises(Unavailable, match='sandbox = "auto" or "none"'):
        once(strict, scene, "sort", "notes.txt")
    assert once(strict, scene, "cat", "notes.txt").exit_code == 0
    assert once(auto, scene, "sort", "notes.txt").exit_code == 0
    strict.close()
    auto.close()


def test_what_is_active_is_said(scene: Scene) -> None:
    assert Runner(scene.village, sandbox="none").active == "none"
    if landlock_module.abi():
        assert Runner(scene.village).active.startswith(f"Landlock (ABI {landlock_module.abi()})")


def test_a_missing_program_is_named_with_what_to_install(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, runner: Runner
) -> None:
    gone = Allowed("gone", Path("/usr/bin/no-such-program"), shipped=False)
    with pytest.raises(Unavailable, match="/usr/bin/no-such-program"):
        asyncio.run(runner.run(["gone"], allowed=gone, cwd=scene.village))
    monkeypatch.setattr("vivarium_kernel.commands.spawner.SEARCH_PATH", str(scene.outside))
    with pytest.raises(Unavailable, match="util-linux"):
        once(runner, scene, "pwd")


@pytest.mark.parametrize(("number", "passes"), [(errno.EAGAIN, True), (errno.ENOMEM, True), (errno.EACCES, False)])
def test_a_system_that_is_short_of_something_may_start_it_a_moment_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, runner: Runner, number: int, passes: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "not now")

    once(runner, scene, "pwd")
    monkeypatch.setattr(subprocess, "Popen", fail)
    with pytest.raises(Unavailable, match="not now") as caught:
        once(runner, scene, "pwd")
    assert caught.value.passes is passes
    monkeypatch.undo()
    assert once(runner, scene, "pwd").exit_code == 0


def test_a_confinement_that_fails_runs_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(1, "not today")

    monkeypatch.setattr(landlock_module, "abi", lambda: 7)
    monkeypatch.setattr(landlock_module, "restrict_thread", fail)
    runner = Runner(scene.village, sandbox="auto")
    with pytest.raises(Unavailable, match="not today"):
        once(runner, scene, "echo", "x")
    runner.close()


@pytest.mark.parametrize("root", ["..", ".", "/", "keys", "no-such-folder"])
def test_read_roots_that_would_open_the_keys_are_refused(scene: Scene, root: str) -> None:
    with pytest.raises(ValueError, match="read_roots"):
        Runner(scene.village, [Path(root)])


def test_villages_and_loops_in_one_process_do_not_meet(tmp_path: Path, scene: Scene) -> None:
    other = build(tmp_path / "other")
    (other.village / "notes.txt").write_text("other")
    runners = [Runner(place.village, sandbox="auto") for place in (scene, other)]

    def work(number: int) -> list[str]:
        place, runner = ((scene, other)[number % 2], runners[number % 2])

        async def several() -> list[str]:
            done = await asyncio.gather(*(run(runner, place, "cat", "notes.txt") for _ in range(10)))
            foreign = await run(runner, place, "cat", str((other, scene)[number % 2].village / "notes.txt"))
            assert foreign.exit_code == (1 if runner.active != "none" else 0)
            return [finished.stdout for finished in done]

        return asyncio.run(several())

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    assert results == [["one\ntwo\nthree\n"] * 10, ["other"] * 10] * 2
    for runner in runners:
        runner.close()


def test_no_descriptor_and_no_thread_is_left(scene: Scene) -> None:
    ends, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    runner = Runner(scene.village, sandbox="auto")
    for _ in range(5):
        once(runner, scene, "echo", "x")
    runner.close()
    deadline = time.monotonic() + 2
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(list(Path("/proc/self/fd").iterdir())) <= ends
    assert threading.active_count() <= threads
