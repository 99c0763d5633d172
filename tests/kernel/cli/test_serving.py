"""Promises about a village that stays open: what it prints, what it takes while it lives, and how it ends."""

from __future__ import annotations

import json
import os
import pty
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

from .running import Here, argv, environment, started, village, vivarium

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
        assert [(one["kind"], one["address"]) for one in status["processes"]] == [("up", address)]
        assert f", at {address}" in vivarium("status", "-v", folder, cwd=tmp_path).out
        login = vivarium("token", "create", "--login", "-v", folder, cwd=tmp_path)
        assert login.out.startswith(f"{address}/login?token=")
        assert "nothing serves it now" not in login.err
        again = vivarium("up", folder, "--port", address.rpartition(":")[2], cwd=tmp_path)
        assert again.status == 2
        assert f"This village is served at {address} already, by `up` (pid " in again.err
        code, _, err = ended(process)
        assert (code, complaints(err)) == (0, "")
    assert vivarium("status", "-v", folder, "--json", cwd=tmp_path).document["state"] == "at rest"
    login = vivarium("token", "create", "--login", "-v", folder, cwd=tmp_path)
    assert re.fullmatch(r"http://127\.0\.0\.1:8420/login\?token=\S+\n", login.out)
    assert "nothing serves it now: begin with `vivarium up`" in login.err


def test_a_quicker_pace_is_felt_at_once(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", ['id = "first"\ncommand = ["ls"]'], "pace_seconds = 300\n")
    with started("up", folder, "--port", "0", cwd=tmp_path) as process:
        said(process, r"done +ada +first")
        assert vivarium("task", "add", "--id", "second", "-v", folder, "--", "pwd", cwd=tmp_path).status == 0
        assert vivarium("pace", "1", "-v", folder, cwd=tmp_path).status == 0
        said(process, r"done +ada +second")
        assert ended(process)[0] == 0


@pytest.mark.promise("A run waits for the end of a pause or a halt, and survives being stopped and continued")
def test_a_run_waits_for_the_end_of_a_pause_and_of_a_stop(tmp_path: Path) -> None:
    tasks = [f'id = "t{number}"\nprompt = "x"\nmodel = "scripted:wait-0.6"' for number in range(4)]
    folder = village(tmp_path / "v", tasks)
    with started("run", folder, cwd=tmp_path) as process:
        said(process, r"done +ada +t0")
        process.send_signal(signal.SIGSTOP)  # the process that waits for the one that works
        assert vivarium("pause", "-v", folder, cwd=tmp_path).status == 0
        time.sleep(1.2)
        process.send_signal(signal.SIGCONT)
        said(process, "The village is paused: nothing runs until `vivarium resume`")
        time.sleep(1.5)
        assert process.poll() is None
        assert vivarium("resume", "-v", folder, cwd=tmp_path).status == 0
        said(process, "The village goes on")
        assert vivarium("halt", "-v", folder, cwd=tmp_path).status == 0
        said(process, "The village is halted: nothing runs until `vivarium unhalt`")
        assert vivarium("unhalt", "-v", folder, cwd=tmp_path).status == 0
        said(process, "4 tasks: 4 done")
        assert process.wait(10) == 0


def test_a_run_that_finds_everybody_at_work_says_whom_it_made(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", [], SLEEP)
    with started("up", folder, "--port", "0", cwd=tmp_path) as process:
        said(process, "http://")
        eventually(lambda: vivarium("status", "-v", folder, "--json", cwd=tmp_path).document["processes"])
        for _ in range(2):  # where nothing is to do nobody is needed
            done = vivarium("run", folder, cwd=tmp_path)
            assert (done.status, done.err, "Everybody" in done.out) == (0, "", False)
        add = ("task", "add", "-v", folder, "--wanted", "ada", "--", "sleep", "4")
        assert vivarium(*add, cwd=tmp_path).status == 0
        eventually(lambda: "ada" in vivarium("task", "list", "--claimed", "-v", folder, cwd=tmp_path).out)
        done = vivarium("run", folder, cwd=tmp_path)
        assert (done.status, done.err) == (0, ""), done.out
        assert "Everybody is at work in another process: ben was made, and lives here from now on" in done.out
        assert ended(process)[0] == 0
    for name in ("ada", "ben"):
        assert vivarium("resident", "ban", name, "--yes", "-v", folder, cwd=tmp_path).status == 0
    assert "Everybody" not in vivarium("run", folder, cwd=tmp_path).out  # nobody is


def test_a_process_whose_database_is_gone_acknowledges_nothing_more_and_ends(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", ['id = "long"\ncommand = ["sleep", "60"]\ntimeout_seconds = 90'],
                     f"lease_seconds = 5\n{SLEEP}")  # fmt: skip
    with started("up", folder, "--port", "0", cwd=tmp_path) as process:
        eventually(lambda: "long" in vivarium("task", "list", "--claimed", "-v", folder, cwd=tmp_path).out)
        for database in folder.glob("vivarium.db*"):
            database.unlink()
        out, err = process.communicate(timeout=30)
    assert process.returncode not in (0, None)
    assert "was removed or replaced while this process had it open" in err, out + err


def test_a_terminal_that_is_closed_ends_what_lives_in_it(tmp_path: Path) -> None:
    """Also where the command itself is the terminal's first process, which alone is told of it."""
    folder = village(tmp_path / "v")
    here, there = pty.openpty()
    process = subprocess.Popen(
        ["/usr/bin/setsid", "--ctty", *argv("up", folder, "--port", "0")], cwd=tmp_path, env=environment(None),
        stdin=there, stdout=there, stderr=there,
    )  # fmt: skip
    try:
        os.close(there)
        eventually(lambda: vivarium("status", "-v", folder, "--json", cwd=tmp_path).document.get("processes"))
        os.close(here)
        process.wait(15)
        eventually(lambda: not vivarium("status", "-v", folder, "--json", cwd=tmp_path).document["processes"])
    finally:
        process.kill()
        process.wait()


def test_nobody_is_made_in_place_of_those_who_were_paused(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", ['id = "first"\ncommand = ["ls"]'])
    assert vivarium("resident", "pause", "ada", "-v", folder, cwd=tmp_path).status == 0
    for more in ((), ("--residents", "2")):
        done = vivarium("run", folder, *more, cwd=tmp_path)
        assert done.status == 1
        assert "nobody is active, ada is paused" in done.out
        assert "vivarium resident resume ada" in done.out
    assert vivarium("resident", "add", "ben", "-v", folder, cwd=tmp_path).status == 0
    assert vivarium("run", folder, cwd=tmp_path).status == 0
    names = [one["name"] for one in vivarium("resident", "list", "-v", folder, "--json", cwd=tmp_path).document]
    assert len(names) == 2


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


@pytest.mark.parametrize("how", [(), ("--processes", "2")], ids=["one", "two"])
def test_work_whose_reader_has_gone_ends(tmp_path: Path, how: tuple[str, ...]) -> None:
    """As after ``… | head``: at the next line that nobody can read it ends, and a signal ends it at once."""
    folder = village(tmp_path / "v", [f'id = "t{number}"\ncommand = ["ls"]' for number in range(4)])
    with started("work", folder, *how, cwd=tmp_path) as process:
        said(process, "at work; Ctrl-C ends it")
        assert process.stdout is not None
        process.stdout.close()
        vivarium("task", "add", "-v", folder, "--", "pwd", cwd=tmp_path)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert vivarium("status", "-v", folder, "--json", cwd=tmp_path).document["state"] == "at rest"


def test_a_signal_that_comes_by_several_ways_counts_once(tmp_path: Path) -> None:
    """The parents pass it on to a child that the group's signal has reached already."""
    folder = village(tmp_path / "v", ['id = "long"\ncommand = ["sleep", "2"]\neffect = "once"'], SLEEP)
    with started("work", folder, cwd=tmp_path) as process:
        eventually(lambda: "long" in vivarium("task", "list", "--claimed", "-v", folder, cwd=tmp_path).out)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        out, _ = process.communicate(timeout=20)
    assert "Finishing 1 running task" in out
    assert "Stopping now" not in out
    listed = vivarium("task", "list", "-v", folder, "--json", cwd=tmp_path).document
    assert [one["state"] for one in listed] == ["done"]


def test_further_processes_share_those_who_are_free_and_make_nobody(tmp_path: Path) -> None:
    folder = village(tmp_path / "v")
    assert vivarium("pace", "2", "-v", folder, cwd=tmp_path).status == 0  # founds it
    names = {one["name"] for one in vivarium("resident", "list", "-v", folder, "--json", cwd=tmp_path).document}
    with started("work", folder, cwd=tmp_path) as first:
        said(first, "at work; Ctrl-C ends it")
        with started("work", folder, "--processes", "2", cwd=tmp_path) as second:
            assert said(second, "Every active resident is at work in another process already")
            assert said(second, "^Waiting for residents; Ctrl-C ends it")
            ended(second)
        ended(first)
    with started("work", folder, "--processes", "2", cwd=tmp_path) as both:
        said(both, "at work; Ctrl-C ends it")
        ended(both)
    found = {one["name"] for one in vivarium("resident", "list", "-v", folder, "--json", cwd=tmp_path).document}
    assert found == names
