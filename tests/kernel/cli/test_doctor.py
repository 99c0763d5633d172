"""Promises about the doctor, backups and the log: what is wrong is found, a copy is proved before it counts."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .running import Here, argv, environment, village, vivarium


def change(sql: str) -> Callable[[Path], None]:
    """A hand in the database."""

    def meddle(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "vivarium.db")) as db:
            db.executescript(sql)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    return meddle


def damage(folder: Path) -> None:
    """One page of an index written over."""
    change("SELECT 1")(folder)
    path = folder / "vivarium.db"
    with closing(sqlite3.connect(path)) as db:
        size = db.execute("PRAGMA page_size").fetchone()[0]
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events'").fetchone()[0]
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def settings(text: str, instead: str = "") -> Callable[[Path], None]:
    """A hand in the settings: ``text`` at the end, or in the place of another."""

    def write(folder: Path) -> None:
        path = folder / "vivarium.toml"
        before = path.read_text()
        path.write_text(before.replace(instead, text) if instead else before + text)

    return write


DEAD = (
    "INSERT INTO processes SELECT 90, machine, 999999999, '1', 'run', 0, 9000000000000000, 0, NULL, NULL "
    "FROM processes LIMIT 1;"
    "UPDATE tasks SET state = 'claimed' WHERE id = 'a';"
    "INSERT INTO attempts (id, task, resident, number, cycle, state, process, started_at) "
    "VALUES (90, 'a', 'ada', 9, 9, 'running', 90, 0)"
)
MISSED = "INSERT INTO missed (plugin, hook, task, inputs, error, at) VALUES ('x', 'end_attempt', 'a', '{}', 'E', 0)"
OFF = "INSERT INTO breakers VALUES ('guilds', 'on_tick', '5 failures in a row', 0, NULL, 0)"
LATER = (
    "INSERT INTO events (id, at, day, hour, kind, actor, data, hash) "
    "SELECT max(id) + 1, max(at) + 900000000000, 0, 0, 'x', 'x', '{}', x'00' FROM events"
)
PROGRAM = '\n[commands]\nsandbox = "auto"\n[commands.allow]\nfrobnicate = "frobnicate"\n'
FAULTS: list[tuple[str, Callable[[Path], Any], str, str, str]] = [
    ("page", damage, "database", "", "backup"),
    ("event", change("UPDATE events SET data = '{}' WHERE id = 3"), "log", "event 3 is not as it was", "backup"),
    ("cut log", change("DELETE FROM events WHERE id = 2"), "log", "event 2 is missing", "backup"),
    (
        "balance",
        change("UPDATE accounts SET balance = balance + 1 WHERE name = 'resident:ada:free'"),
        "ledger",
        "resident:ada:free: the balance says",
        "backup",
    ),
    ("newer", change("PRAGMA user_version = 99"), "database", "newer Vivarium", "pip install --upgrade"),
    ("settings", settings("\npaec_seconds = 3\n"), "settings", "paec_seconds: unknown setting", "pace_seconds"),
    ("task file", settings('\ntasks = ["no.toml"]\n', instead="tasks = []"), "settings", "no such file", "create it"),
    (
        "provider",
        settings('tasks = []\nmodel = "nowhere:x"', instead="tasks = []"),
        "models",
        "the setting model names nowhere:x: There is no model provider 'nowhere'",
        "vivarium plugins list",
    ),
    (
        "model",
        settings('tasks = []\nmodel = "scripted:eco"', instead="tasks = []"),
        "models",
        "There is no model scripted:eco",
        "There are scripted:echo",
    ),
    (
        "key",
        change("UPDATE tasks SET state = 'parked', parked_for = 'key' WHERE id = 'a'"),
        "models",
        "1 task waits for a key",
        "vivarium key set",
    ),
    ("program", settings(PROGRAM), "commands", "no program of that name", "install it"),
    ("read root", settings('\n[commands]\nread_roots = ["/nowhere"]\n'), "commands", "does not exist", "vivarium.toml"),
    ("dead process", change(DEAD), "processes", "(run, pid 999999999) has died with 1 task", "vivarium run"),
    (
        "claimed by nobody",
        change("UPDATE tasks SET state = 'claimed' WHERE id = 'a'"),
        "tasks",
        "a is claimed, but nobody is at it",
        "vivarium task cancel a",
    ),
    (
        "waiting for nothing",
        change("UPDATE tasks SET state = 'waiting' WHERE id = 'a'"),
        "tasks",
        "a waits, though everything that it needs is done",
        "requeue a",
    ),
    ("missed", change(MISSED), "village", "1 part of plugins failed", "vivarium missed retry"),
    (
        "breaker",
        change(OFF),
        "plugins",
        "guilds is off on on_tick: 5 failures in a row",
        "vivarium plugins retry guilds",
    ),
    ("clock", change(LATER), "village", "behind the newest event", "set the machine's clock"),
]


@pytest.fixture(scope="module")
def lived_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = village(tmp_path_factory.mktemp("lived") / "small")
    assert vivarium("task", "add", "--id", "a", "--", "ls", cwd=folder).status == 0
    assert vivarium("run", ".", cwd=folder).status == 0
    return folder


@pytest.fixture
def lived(lived_once: Path, here: Here) -> Here:
    """A small village that has done a task: each test has a copy of one that did."""
    shutil.copytree(lived_once, here.folder, dirs_exist_ok=True)
    return here


def test_a_sound_village_is_found_sound_and_unchanged(lived: Here) -> None:
    before = lived("log", "verify").out
    done = lived("doctor")
    assert (done.status, done.out.splitlines()[-1]) == (0, "Nothing is wrong.")
    assert lived("doctor", "--json").document["sound"] is True
    assert lived("log", "verify").out == before


def test_a_wrong_setting_is_told_once_and_by_what_could_not_be_examined(lived: Here) -> None:
    settings("\npaec_seconds = 3\n")(lived.folder)
    done = lived("doctor")
    assert (done.status, done.out.count("paec_seconds"), done.out.count("did you mean")) == (1, 1, 1)
    assert "not examined before the settings are right" in done.out and done.out.endswith("\n1 problem\n")


@pytest.mark.promise("corruption")
@pytest.mark.parametrize(
    ("meddle", "check", "what", "mend"), [fault[1:] for fault in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_what_is_wrong_is_found_with_what_mends_it(
    lived: Here, meddle: Callable[[Path], Any], check: str, what: str, mend: str
) -> None:
    meddle(lived.folder)
    done = lived("doctor", "--json")
    assert done.status == 1
    assert done.document["sound"] is False
    bad = [finding for finding in done.document["findings"] if finding["state"] != "good"]
    found = [finding for finding in bad if finding["check"] == check and what in finding["what"]]
    assert found, bad
    assert any(mend in finding["mend"] for finding in found), found
    text = lived("doctor")
    assert text.status == 1
    assert found[0]["what"] in text.out


@pytest.mark.promise("corruption")
def test_the_doctor_of_a_damaged_database_does_not_send_to_the_doctor(lived: Here) -> None:
    (lived.folder / "vivarium.db").write_bytes(b"no database at all, but long enough to look at. " * 100)
    done = lived("doctor")
    assert (done.status, "vivarium doctor" in done.out) == (1, False)
    assert "put the newest backup in the place of vivarium.db" in done.out
    assert "Run `vivarium doctor`" in lived("status").err  # who has not been there yet is


def test_names_that_no_plugin_and_nobody_has_are_named_by_the_doctor_and_at_the_start_of_a_run(lived: Here) -> None:
    (lived.folder / "plugins.json").write_text('{"disabled": ["verifer", "zzz"]}')
    settings('plugins_allow = ["verifyer"]\ntasks = []', instead="tasks = []")(lived.folder)
    settings("\n[plugins.dask]\nx = 1\n[limits.adda]\ntool_calls = 3\n[limits.default]\ntool_calls = 9\n")(lived.folder)
    told = (
        ('"disabled" in plugins.json names "verifer"', "did you mean verifier?"),
        ('"disabled" in plugins.json names "zzz"', "see `vivarium plugins list`"),
        ('plugins_allow in vivarium.toml names "verifyer"', "did you mean verifier?"),
        ('[plugins.NAME] in vivarium.toml names "dask"', "did you mean desk?"),
        ("[limits.adda] in vivarium.toml limits nobody", "did you mean ada?"),
    )
    found = lived("doctor", "--json").document["findings"]
    for what, mend in told:
        assert [one for one in found if what in one["what"] and one["mend"] == mend], found
    run = vivarium("run", cwd=lived.folder)
    # The one may just have gone, the other may be made yet.
    assert [what for what, mend in told if what not in run.out] == [told[1][0], told[4][0]]
    once = vivarium("doctor", cwd=lived.folder, env={"VIVARIUM_PLUGINS": "verifer"})
    assert 'VIVARIUM_PLUGINS or --with-only names "verifer"' in once.out


@pytest.mark.promise("corruption")
def test_a_damaged_page_is_never_served(lived: Here) -> None:
    damage(lived.folder)
    for command in (("log", "show"), ("log", "verify"), ("backup", lived.folder.parent / "copy")):
        done = lived(*command)
        assert done.status in (1, 2)
        assert "damaged" in done.err or "malformed" in done.err or "not as it was written" in done.err
    assert not (lived.folder.parent / "copy").exists()


@pytest.mark.promise("corruption")
@pytest.mark.parametrize("data", ['{"name":"evil"}', "no JSON"])
def test_an_event_that_was_changed_is_never_served(lived: Here, data: str) -> None:
    """Nor is the one after one that is gone; all others are."""
    with sqlite3.connect(lived.folder / "vivarium.db") as connection:
        connection.execute("UPDATE events SET data = ? WHERE id = 3", (data,))
    connection.close()
    for command in (("log", "show", "3"), ("log", "tail", "-n", "100"), ("log", "export", "events.jsonl")):
        done = lived(*command)
        assert done.status == 2, done
        assert "[audit.chain]" in done.err and "Event 3 of the log is not as it was written" in done.err
        assert "evil" not in done.out + done.err
    assert lived("log", "show", "4").status == 0
    with sqlite3.connect(lived.folder / "vivarium.db") as connection:
        connection.execute("DELETE FROM events WHERE id = 3")
    connection.close()
    assert "[audit.chain]" in lived("log", "show", "4").err
    assert lived("log", "show", "5").status == 0


def test_the_doctor_finds_a_writer_that_keeps_the_lock(lived: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivarium_kernel.writer.PATIENCE_SECONDS", 0.2)
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lived.folder / "vivarium.lock")], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            refused = lived("task", "add", "--id", "late", "--", "ls")
            done = vivarium("doctor", cwd=lived.folder)
        finally:
            holder.kill()
    assert refused.status == 2
    assert "[store.locked]" in refused.err and "`vivarium doctor` says which it is" in refused.err
    assert lived("task", "show", "late").status == 2
    assert done.status == 1
    assert f"process {holder.pid} has kept the village's lock for more than 5 s" in done.out
    assert f"kill {holder.pid}" in done.out


def test_a_broken_plugin_is_named(lived: Here, tmp_path: Path) -> None:
    information = tmp_path / "site" / "broken-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[vivarium.plugins]\nbroken = nowhere:Plugin\n")
    done = vivarium("doctor", cwd=lived.folder, env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.status == 1
    assert "broken: nowhere:Plugin of broken 1.0: can't be imported" in done.out


def test_a_backup_holds_everything_and_is_the_owners_alone(lived: Here, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    done = lived("backup", copy)
    assert done.status == 0
    assert copy.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"small", "copy.db"}
    verified = lived("log", "verify").out
    for name in ("vivarium.db", "vivarium.db-wal", "vivarium.db-shm"):
        (lived.folder / name).unlink(missing_ok=True)
    copy.rename(lived.folder / "vivarium.db")
    assert lived("log", "verify").out == verified
    assert vivarium("run", ".", cwd=lived.folder).status == 0


def test_a_backup_refuses_what_would_lose_or_show_something(lived: Here, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    assert "[backup.exists]" in lived("backup", tmp_path / "kept").err
    assert (tmp_path / "kept").read_text() == "kept"
    assert "[backup.place]" in lived("backup", "copy.db").err  # commands of residents could read it there
    assert "[backup.place]" in lived("backup", lived.folder / "files" / "copy.db").err
    assert "[backup.folder]" in lived("backup", tmp_path / "no" / "copy").err
    assert "[backup.file]" in lived("backup", tmp_path, "--replace").err
    (lived.folder / "keys").mkdir()
    for name in ("keys/groq", ".env", "server.key"):  # no command may read them, and no backup may replace them
        assert "[backup.place]" in lived("backup", name).err
    assert lived("backup", "vivarium.db.before").status == 0
    assert lived("backup", tmp_path / "kept", "--replace").status == 0


def own_names(folder: Path, place: Path) -> list[Path]:
    """Names of what a village lives in: its own, and by a link, a hard link, and a folder's link."""
    (place / "link").symlink_to(folder / "vivarium.db")
    (place / "hard").hardlink_to(folder / "vivarium.db")
    (place / "again").symlink_to(folder)
    names = ("vivarium.db", "vivarium.db-wal", "vivarium.db-shm", "vivarium.db-journal", "vivarium.lock")
    return [*(folder / name for name in names), place / "link", place / "hard", place / "again" / "vivarium.db"]


def test_nothing_is_written_over_what_a_village_lives_in(lived: Here, tmp_path: Path) -> None:
    before = (lived.folder / "vivarium.db").read_bytes()
    for file in own_names(lived.folder, tmp_path):
        for command in (
            ("backup", file), ("backup", file, "--replace"), ("log", "export", file), ("log", "head", file),
            ("report", "--html", file),
        ):  # fmt: skip
            done = lived(*command)
            assert (done.status, done.out) == (2, ""), command
            assert "Choose another name" in done.err and "--replace" not in done.err
            assert "belongs to a village's own database" in done.err
    assert (lived.folder / "vivarium.db").read_bytes() == before
    assert lived("log", "verify").status == 0


def test_a_backup_never_replaces_the_database_of_another_village(lived: Here, tmp_path: Path) -> None:
    other = village(tmp_path / "other")
    assert lived("backup", other / "vivarium.db").status == 0  # it has not lived: this is how one is moved
    assert vivarium("log", "verify", cwd=other).status == 0
    assert vivarium("pace", "3", cwd=other).status == 0
    done = lived("backup", other / "vivarium.db", "--replace")
    assert (done.status, "[backup.own]" in done.err) == (2, True)
    assert "The pace is 3 s" in vivarium("pace", cwd=other).out


def test_a_backup_that_fails_leaves_the_one_that_is_there(lived: Here, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    damage(lived.folder)
    assert lived("backup", tmp_path / "kept", "--replace").status == 2
    assert {path.name for path in tmp_path.iterdir()} == {"small", "kept"}
    assert (tmp_path / "kept").read_text() == "kept"


def test_the_doctor_says_who_could_be_let_back_where_nobody_is_active(lived: Here) -> None:
    def said() -> dict[str, str]:
        findings = lived("doctor", "--json").document["findings"]
        (found,) = [one for one in findings if "no resident is active" in one["what"]]
        return {"what": found["what"], "mend": found["mend"]}

    lived("resident", "add", "ben")
    lived("resident", "pause", "ada")
    lived("resident", "quarantine", "ben")
    assert said() == {
        "what": "no resident is active, and a run makes none: ada is paused, ben is quarantined",
        "mend": "vivarium resident resume ada",
    }
    for name in ("ada", "ben"):
        lived("resident", "retire", name, "--yes")
    assert said() == {"what": "no resident is active; a run makes some", "mend": "vivarium resident add NAME"}


def test_a_backup_of_a_village_that_writes_is_whole(lived: Here, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            subprocess.run(argv("pace", "1"), cwd=lived.folder, env=environment(), check=True, capture_output=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = [vivarium("backup", tmp_path / f"copy-{number}", cwd=lived.folder) for number in range(3)]
    finally:
        stop.set()
        writer.join()
    assert [one.status for one in done] == [0, 0, 0]


def test_heads_that_were_kept_find_a_log_that_was_rewritten(lived: Here, tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    assert lived("log", "head", heads).status == 0
    lived("pace", "3")
    assert lived("log", "head", heads).status == 0
    assert "agree with the heads" in lived("log", "verify", "--heads", heads).out
    number = len(lived("log", "show", "--json").document)
    change(f"DELETE FROM events WHERE id = {number}")(lived.folder)
    assert lived("log", "verify").status == 0  # a log that was cut short looks whole by itself
    done = lived("log", "verify", "--heads", heads)
    assert done.status == 1
    assert f"Event {number} is not as it was written: the log has no such event any more" in done.err


def test_exported_events_are_the_events(lived: Here, tmp_path: Path) -> None:
    shown = lived("log", "show", "--json").document
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "events.jsonl")
    assert lived("log", "export", link).status == 0
    assert link.is_symlink()
    import json

    assert [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()] == shown
    assert lived("log", "export", "-").out == (tmp_path / "events.jsonl").read_text()
    assert lived("log", "export", "-", "--after", str(len(shown) - 1)).out.count("\n") == 1


def test_an_export_writes_into_a_pipe_and_never_replaces_it(lived: Here, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    assert lived("log", "export", tmp_path / "pipe").status == 0
    reader.join(10)
    assert (tmp_path / "pipe").is_fifo()
    assert read == [lived("log", "export", "-").out]


def test_following_the_log_tells_what_comes(lived: Here) -> None:
    with subprocess.Popen(
        argv("log", "tail", "-n", "0", "-f", "--json", "--kind", "village.*"), cwd=lived.folder, env=environment(),
        stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as tail:  # fmt: skip
        try:
            assert tail.stdout is not None
            time.sleep(1.0)
            lived("pace", "7")
            line = tail.stdout.readline()
        finally:
            tail.kill()
    assert '"village.pace"' in line
    assert '"seconds":7.0' in line


def test_the_filters_of_the_log(lived: Here) -> None:
    def kinds(*options: str) -> set[str]:
        return {event["kind"] for event in lived("log", "show", "--json", *options).document}

    assert kinds("--task", "a") >= {"task.posted", "task.claimed", "attempt.judged", "attempt.ended"}
    assert kinds("--kind", "resident.*") == {"resident.added"}
    assert {event["resident"] for event in lived("log", "show", "--json", "--resident", "ada").document} == {"ada"}
    assert kinds("--day", "5") == set()
    assert kinds("--model", "none") == set()
    with (lived.folder / "vivarium.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert kinds("--task", "a")
