"""Promises about a village that stays open: what it prints, what it takes while it lives, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .running import Here, started, village, vivarium

SLEEP = '[commands]\nsandbox = "auto"\n[commands.allow]\nsleep = "sleep"\n'


def said(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """The first line of what a process prints that has the pattern."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"it never said {pattern}: {process.stderr.read() if process.stderr else ''}")


def eventually(reached: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := reached():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def ended(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def complaints(err: str) -> str:
    """What was said on stderr, less what is rightly told of a loaded machine: a plugin that held its thread a while."""
    slow = re.compile(r"vivarium: plugin '\w+' held the \w+ for \d+ ms in ")
    return "".join(line for line in err.splitlines(keepends=True) if not slow.match(line))


def test_up_lets_in_by_a_link_and_does_what_is_posted(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", ['id = "first"\ncommand = ["ls"]'])
    with started("up", folder, "--port", "0", cwd=tmp_path) as process:
        address = said(process, r"^Open at (http://127\.0\.0\.1:\d+)$")[1]
        link = said(process, r"^Log in, once, within 10 minutes: (\S+)$")[1]
        assert link.startswith(f"{address}/login?token=")
        with urllib.request.urlopen(link, timeout=5) as page:  # noqa: S310 - our own server
            assert page.status == 200
        said(process, r"done +ada +first")
        assert vivarium("task", "add", "--id", "second", "-v", folder, "--", "pwd", cwd=tmp_path).status == 0
        said(process, r"done +ada +second")
        status = vivarium("status", "-v", folder, "--json", cwd=tmp_path).document
        assert status["state"] == "living"
        assert [one["kind"] for one in status["processes"]] == ["up"]
        code, _, err = ended(process)
        assert (code, complaints(err)) == (0, "")
    assert vivarium("status", "-v", folder, "--json", cwd=tmp_path).document["state"] == "at rest"


def test_a_second_village_cannot_have_the_same_port(tmp_path: Path) -> None:
    one, other = village(tmp_path / "one"), village(tmp_path / "other")
    with started("serve", one, "--port", "0", cwd=tmp_path) as process:
        port = said(process, r"Open at \S+:(\d+)")[1]
        done = vivarium("up", other, "--port", port, cwd=tmp_path)
        assert done.status == 2
        assert f"Port {port} of 127.0.0.1 is taken" in done.err
        assert "--port" in done.err
        assert ended(process, signal.SIGTERM)[0] == 0


def test_a_worker_elsewhere_does_the_work_of_a_served_village(tmp_path: Path) -> None:
    folder = village(tmp_path / "v")
    token = vivarium("token", "create", "far", "--role", "worker", "-v", folder, cwd=tmp_path).out.strip()
    (tmp_path / "elsewhere").mkdir()
    with started("serve", folder, "--port", "0", cwd=tmp_path) as server:
        address = said(server, r"^Open at (\S+)$")[1]
        wrong = vivarium("work", "elsewhere", "--url", address, "--token", "wrong", cwd=tmp_path)
        assert (wrong.status, "[auth.token]" in wrong.err) == (2, True)
        none = vivarium("work", "elsewhere", "--url", address, cwd=tmp_path)
        assert (none.status, "vivarium token create NAME --role worker" in none.err) == (2, True)
        env = {"VIVARIUM_TOKEN": token}
        with started("work", "elsewhere", "--url", address, cwd=tmp_path, env=env) as worker:
            said(worker, r"ada at work for http")
            vivarium("task", "add", "--id", "far", "-v", folder, "--", "echo", "from afar", cwd=tmp_path)
            said(worker, r"done +far")
            shown = vivarium("status", "-v", folder, cwd=tmp_path).out
            assert "remote worker far since" in shown
            assert "remote (pid" not in shown
            assert ended(worker)[0] == 0
    (attempt,) = vivarium("task", "show", "far", "-v", folder, "--json", cwd=tmp_path).document["tries"]
    assert attempt["stdout"] == "from afar\n"


def test_two_processes_share_one_village(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", [f'id = "t{number}"\ncommand = ["ls"]' for number in range(40)])
    with started("work", folder, "--residents", "2", cwd=tmp_path) as process:
        said(process, r"at work; Ctrl-C ends it")
        done = vivarium("run", folder, "--residents", "2", cwd=tmp_path)
        assert done.status == 0
        assert ended(process)[0] == 0
    tries = vivarium("task", "list", "-v", folder, "--json", cwd=tmp_path).document
    assert {(task["state"], task["attempts"]) for task in tries} == {("done", 1)}


def test_a_further_process_makes_nobody_unless_it_is_told_to(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", ['id = "a"\ncommand = ["ls"]'])

    def residents() -> list[str]:
        listed = vivarium("resident", "list", "-v", folder, "--json", cwd=tmp_path).document
        return [one["name"] for one in listed]

    with started("up", folder, "--port", "0", cwd=tmp_path) as process:
        said(process, r"done +ada +a")
        with started("up", folder, "--port", "0", cwd=tmp_path) as further:
            said(further, r"Every active resident is at work in another process already; --residents N brings more")
            assert residents() == ["ada"]
        with started("work", folder, "--residents", "1", cwd=tmp_path) as further:
            said(further, r"at work|Ctrl-C|[Ll]iv")
            eventually(lambda: len(residents()) == 2)


def test_several_processes_can_work_side_by_side(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", [f'id = "t{number}"\ncommand = ["ls"]' for number in range(40)])
    with started("work", folder, "--processes", "2", "--residents", "1", cwd=tmp_path) as process:

        def rest() -> bool:
            found = vivarium("status", "-v", folder, "--json", cwd=tmp_path).document
            return len(found.get("processes", ())) == 2 and found["tasks"].get("done") == 40

        eventually(rest, 20.0)
        assert ended(process, signal.SIGTERM)[0] == 0
    tries = vivarium("task", "list", "-v", folder, "--json", cwd=tmp_path).document
    assert {(task["state"], task["attempts"]) for task in tries} == {("done", 1)}
    assert vivarium("status", "-v", folder, "--json", cwd=tmp_path).document["processes"] == []


@pytest.mark.parametrize("processes", [2, 5])
def test_processes_share_out_the_residents_and_tell_each_line_once(tmp_path: Path, processes: int) -> None:
    folder = village(tmp_path / "v", [f'id = "t{number}"\ncommand = ["ls"]' for number in range(12)])
    for name in ("ben", "cyn"):
        assert vivarium("resident", "add", name, "-v", folder, cwd=tmp_path).status == 0
    with started("work", folder, "--processes", str(processes), cwd=tmp_path) as process:

        def rest() -> bool:
            found = vivarium("status", "-v", folder, "--json", cwd=tmp_path).document
            return len(found.get("processes", ())) == min(processes, 3) and found["tasks"].get("done") == 12

        eventually(rest, 20.0)
        status, out, _ = ended(process, signal.SIGTERM)
        assert status == 0
    names = sorted(row["name"] for row in vivarium("resident", "list", "-v", folder, "--json", cwd=tmp_path).document)
    assert names == ["ada", "ben", "cyn"]
    lines = out.splitlines()
    done = [found for line in lines if (found := re.search(r"^\[(\d)\] .* done +(\w+) +(t\d+) ", line))]
    assert sorted(found[3] for found in done) == sorted(f"t{number}" for number in range(12))
    at_work = [found for line in lines if (found := re.search(r"^\[(\d)\] ([\w, ]+) at work;", line))]
    whose = {name: found[1] for found in at_work for name in found[2].split(", ")}
    assert sorted(whose) == names and all(whose[found[2]] == found[1] for found in done)
    assert len([line for line in lines if "Village small in" in line]) == 1
    assert {found[1] for found in at_work} == {str(number + 1) for number in range(min(processes, 3))}


@pytest.mark.promise("halt")
def test_switches_reach_a_village_that_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = village(tmp_path / "v", settings=SLEEP)
    here = Here(folder, monkeypatch)

    def call(*words: str) -> Any:
        done = here(*words)
        assert done.status == 0, done.err
        return done

    with started("work", folder, cwd=tmp_path) as process:
        said(process, r"at work")
        call("task", "add", "--id", "long", "--effect", "pure", "--timeout", "90", "--", "sleep", "60")
        (held,) = eventually(lambda: json.loads(call("task", "list", "--claimed", "--json").out))
        assert (held["task"], held["resident"], held["kind"]) == ("long", "ada", "work")
        assert 0 < held["lease_left_seconds"] <= 30
        assert re.search(r"long +1 +ada +work, pid \d+ on \S+ +[\d.]+ s +\d+ s", call("task", "list", "--claimed").out)
        call("halt", "--reason", "smoke")
        eventually(lambda: not json.loads(call("task", "list", "--claimed", "--json").out), 3)
        assert "halted" in call("task", "show", "long").out
        call("unhalt")
        eventually(lambda: json.loads(call("task", "list", "--claimed", "--json").out))
        call("task", "cancel", "long", "--reason", "not any more")
        eventually(lambda: not json.loads(call("task", "list", "--claimed", "--json").out), 3)
        call("pause")
        call("task", "add", "--id", "later", "--", "ls")
        time.sleep(0.7)
        assert call("task", "show", "later", "--json").document["state"] == "open"
        call("resume")
        eventually(lambda: call("task", "show", "later", "--json").document["state"] == "done")
        status, _, err = ended(process)
        assert (status, complaints(err)) == (0, "")


@pytest.mark.promise("quarantine")
def test_a_resident_that_is_quarantined_lets_go_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = village(tmp_path / "v", settings=SLEEP)
    here = Here(folder, monkeypatch)
    with started("work", folder, cwd=tmp_path) as process:
        said(process, r"at work")
        here("task", "add", "--id", "long", "--effect", "pure", "--timeout", "90", "--", "sleep", "60")
        eventually(lambda: here("task", "list", "--claimed", "--json").document)
        secret = here("token", "create", "ada", "--role", "resident").out.strip()
        assert here("resident", "quarantine", "ada", "--reason", "odd").status == 0
        assert "[token.invalid]" in here("pace", "1", "--as", secret).err
        (first,) = here("task", "show", "long", "--json").document["tries"]
        assert (first["ending"], first["reason"]) == ("released", "ada is quarantined")
        time.sleep(0.7)
        assert here("task", "list", "--claimed", "--json").document == []  # nobody is made in her place
        here("resident", "add", "zoe")
        (held,) = eventually(lambda: here("task", "list", "--claimed", "--json").document)
        assert held["resident"] == "zoe"
        here("task", "cancel", "long")
        here("resident", "resume", "ada")
        here("task", "add", "--id", "hers", "--wanted", "ada", "--", "ls")
        eventually(lambda: here("task", "show", "hers", "--json").document["state"] == "done")
        ended(process)


def test_the_number_of_residents_can_be_told_before_and_while_they_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = village(tmp_path / "v")
    here = Here(folder, monkeypatch)

    def driven() -> int:
        return int(here("status", "--json").document["residents"].get("active", 0))

    here("residents", "5")
    with started("up", folder, "--port", "0", "--residents", "2", cwd=tmp_path) as process:
        said(process, r"^Log in")
        eventually(lambda: driven() == 2)  # what it was started with counts
        time.sleep(0.7)
        assert driven() == 2
        here("residents", "4")
        eventually(lambda: driven() == 4)  # until something else is told
        ended(process)
    with started("up", folder, "--port", "0", cwd=tmp_path) as process:
        said(process, r"^Log in")
        here("residents", "6")
        eventually(lambda: driven() == 6)
        ended(process)
