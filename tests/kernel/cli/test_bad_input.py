"""Promises about bad input: the field, the value and the next step are said, the status is 2, nothing is changed."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from vivarium_kernel.cli.refusing import answered
from vivarium_kernel.committing import told

from .running import Here, argv, environment, village, vivarium

SETTINGS = [
    ("sandbox = ", ["line 4, column 11", "is not TOML", "mend that line"]),
    ("[budgets]\n[models]\n[budgets]\n", ["[budgets] stands in line", "already: put these keys there"]),
    ("[models.prices]\n[models.prices] # pasted\n", ["[models.prices] stands in line", "already"]),
    ("paec_seconds = 2", ["unknown setting", '(did you mean "pace_seconds"?)']),
    ('[commands]\nsandbox = "jail"', ["commands.sandbox", '"jail"', "landlock, auto or none"]),
    (
        'pace_seconds = 301\nmodel = "x"',
        ["pace_seconds", "301", 'model: must be PROVIDER:NAME, small, medium, large or auto, not "x"'],
    ),
    ('[budgets]\ntask_usd = "-1"', ["budgets.task_usd", "must not be negative", '"-1"']),
]
TASKS = [
    ('id = "../up"\ncommand = ["ls"]', ["task number 1", "id:", '"../up"', "choose another id"]),
    ('id = "a"\nmode = "command"', ["command", "must not be empty", 'write ["wc", "-l", "FILE"]']),
    ('id = "a"\ncommand = []', ["prompt", "a task needs a prompt or a command"]),
    ('id = "a"\ncommand = ["ls"]\nmode = "magic"', ["mode", 'unknown mode "magic"', "use command or llm"]),
    ('id = "a"\ncommand = ["ls"]\nmax_budget = -1', ["max_budget", "must not be negative"]),
    ('id = "a"\ncommand = ["ls"]\npriorty = 1', ["priorty", 'did you mean "priority"?']),
    ('id = "a"\ncommand = ["ls"]\nmax = -1', ["max: unknown key", 'did you mean "max_budget"?']),
    (f'id = "a"\nprompt = "{"x" * 1_000_000}"', ["prompt", "at most 100,000 characters, not 1,000,000"]),
    ('id = "a"\ncommand = ["ls"]\nneeds = ["a"]', ["needs[0]", "a task can't need itself"]),
    ('id = "a"\ncommand = ["ls"]\nneeds = ["b"]', ["needs 'b', which doesn't exist", "Post that one first"]),
]
ADDED = [
    (("--id", "a/b", "--", "ls"), ["--id", '"a/b"', "choose another id"]),
    (("--max", "-0.10", "--prompt", "x"), ["--max", "must not be negative", '"-0.10"']),
    (("--max", "0.10", "--min", "0.20", "--prompt", "x"), ["--min", "at most the maximum budget (0.10)"]),
    (("--mode", "magic", "--prompt", "x"), ["--mode", 'unknown mode "magic"']),
    (("--mode", "command", "--prompt", "x"), ["COMMAND", "must not be empty"]),
    (("--prompt", "x" * 100_001), ["--prompt", "at most 100,000 characters"]),
    (("--timeout", "soon", "--priority", "high", "--", "ls"), ["3 problems", "--timeout", "--priority", "--id"][1:3]),
    (("--not-before", "tomorrow", "--", "ls"), ["--not-before", "ISO time", "with its offset"]),
    (("--cwd", "/etc", "--", "ls"), ["--cwd", "inside the village"]),
    (("--effect", "twice", "--", "ls"), ["--effect", "pure, idempotent or once"]),
    (("--wanted", "zoe", "--", "ls"), ["wants 'zoe', who is no resident", "vivarium resident add zoe"]),
    (("--needs", "ghost", "--", "ls"), ["needs 'ghost', which doesn't exist"]),
    (("--from", "no.toml"), ["no.toml", "there is no such file (check its path"]),
    (("--from", "tasks.txt"), ["must be a file that ends in .toml or .jsonl"]),
    (("--from", "-", "--id", "a"), ["--from takes its tasks from the file"]),
    (("--prompt", "Say", "good", "morning"), ["--prompt takes one text", '--prompt "Say good morning"']),
    (("Say hello",), ["A command comes after --", '--prompt "Say hello"']),
    (("--model", "gpt-4", "--prompt", "x"), ["--model", "PROVIDER:NAME, small, medium, large or auto", '"gpt-4"']),
    ((), ["Say what is to be done"]),
]

LOOKING = [
    ("log", "show"), ("log", "tail"), ("log", "export", "-"), ("log", "verify"), ("log", "verify", "--json"),
    ("log", "head", "heads"), ("ledger", "balances"), ("ledger", "history"),
    ("ledger", "verify"), ("task", "list"), ("task", "list", "--json"), ("task", "show", "a"), ("resident", "list"),
    ("resident", "show", "ada"), ("token", "list"), ("missed", "list"), ("explain", "claim", "a"),
    ("explain", "prompt", "1"), ("plugins", "profile"), ("costs",), ("report",), ("pace",), ("residents",),
    ("backup", "../copy", "--replace"), ("task", "add", "--as", "token", "--", "ls"),
]  # fmt: skip


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.promise("bad-settings")
@pytest.mark.parametrize(("text", "said"), SETTINGS)
def test_bad_settings_are_told_and_nothing_is_made(here: Here, text: str, said: list[str]) -> None:
    folder = village(here.folder, settings=text)
    for command in (("run", folder), ("status", "-v", folder), ("settings", "show", "-v", folder)):
        done = here(*command)
        assert (done.status, done.out) == (2, "")
        assert [words for words in said if words not in done.err] == []
    assert contents(folder) == {"vivarium.toml"}


@pytest.mark.promise("bad-settings")
def test_every_problem_of_every_file_is_told_at_once(tmp_path: Path) -> None:
    folder = village(tmp_path / "v", settings="")
    (folder / "vivarium.toml").write_text('tasks = ["one.toml", "two.jsonl", "three.toml"]\n')
    (folder / "one.toml").write_text('[[task]]\nid = "a"\nmode = "Magic"\ncommand = ["ls"]\n')
    (folder / "two.jsonl").write_text('{"id": "b"}\n{"id": \n')
    done = vivarium("run", folder, cwd=tmp_path)
    assert done.status == 2
    for place in (
        "one.toml, task number 1",
        "two.jsonl, line 1",
        "two.jsonl, line 2",
        "three.toml: there is no such file",
    ):
        assert place in done.err
    assert contents(folder) == {"vivarium.toml", "one.toml", "two.jsonl"}


def test_an_unknown_variable_is_told(tmp_path: Path) -> None:
    done = vivarium("status", "-v", village(tmp_path / "v"), cwd=tmp_path, env={"VIVARIUM_PACE_SECOND": "1"})
    assert done.status == 2
    assert "VIVARIUM_PACE_SECOND: unknown variable (did you mean VIVARIUM_PACE_SECONDS?)" in done.err


def test_status_refuses_the_settings_that_a_run_refuses_also_once_the_village_has_lived(here: Here) -> None:
    here("pace", "1")
    env = {"VIVARIUM_PACE_SECONDS": "abc"}
    status, run = (vivarium(command, cwd=here.folder, env=env) for command in ("status", "run"))
    assert (status.status, status.err) == (2, run.err)
    assert "VIVARIUM_PACE_SECONDS" in status.err


@pytest.mark.promise("halt")
def test_a_village_can_be_stopped_whatever_is_wrong_with_its_settings(here: Here) -> None:
    assert here("pace", "1").status == 0
    settings = here.folder / "vivarium.toml"
    settings.write_text(f"{settings.read_text()}\noops = \n")
    assert here("pace", "2").status == 2  # what the settings say may matter here
    for word, state in (("halt", "halted"), ("unhalt", "at rest"), ("pause", "paused"), ("resume", "at rest")):
        done = here(word)
        assert (done.status, "1 problem in the settings: vivarium doctor" in done.err) == (0, True), done.err
        shown = here("status", "--json")
        assert (shown.status, shown.document["state"], "is not TOML" in shown.err) == (2, state, True)
    assert "is not TOML" in here("status").err and "at rest" in here("status").out


def test_the_status_of_a_village_that_has_not_lived_says_so_and_makes_nothing(here: Here) -> None:
    done = here("status")
    assert (done.status, "has not lived yet: `vivarium run`" in done.out) == (0, True)
    assert here("status", "--json").document == {"folder": str(here.folder), "state": "not lived yet"}
    assert contents(here.folder) == {"vivarium.toml"}


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_what_looks_at_a_village_never_founds_it(here: Here, command: tuple[str, ...]) -> None:
    done = here(*command)
    assert (done.status, done.out) == (2, "")
    assert "has not lived yet" in done.err and "[village.unlived]" in done.err and "`vivarium run`" in done.err
    assert contents(here.folder) == {"vivarium.toml"}
    here("pace", "1")
    assert "has not lived yet" not in here(*command).err
    for database in here.folder.glob("vivarium.db*"):
        database.unlink()
    done = here(*command)
    assert (done.status, done.out) == (2, "")
    assert "[village.lost]" in done.err and "Put the newest backup there" in done.err
    assert not (here.folder / "vivarium.db").exists()


def test_a_village_whose_database_is_gone_is_neither_sound_nor_new(here: Here) -> None:
    here("pace", "1")
    for database in here.folder.glob("vivarium.db*"):
        database.unlink()
    for command in (
        ("status",),
        ("status", "--json"),
        ("models", "list"),
        ("models", "price", "scripted:echo"),
        ("do",),
    ):
        assert "[village.lost]" in here(*command).err
    done = here("doctor")
    assert (done.status, "put the newest backup in the place of vivarium.db" in done.out) == (1, True)
    assert not (here.folder / "vivarium.db").exists()
    (here.folder / "vivarium.db").touch()
    assert "[village.lost]" in here("log", "verify").err


@pytest.mark.parametrize("command", [("run",), ("task", "add", "look", "--", "ls")], ids=" ".join)
def test_a_village_whose_database_is_gone_begins_anew_only_with_a_word_about_it(
    here: Here, command: tuple[str, ...]
) -> None:
    here("pace", "1")
    assert "its database is gone" not in here("pace", "2").err
    for database in here.folder.glob("vivarium.db*"):
        database.unlink()
    done = here(*command)
    assert done.err.count("its database is gone") == 1 and "put the newest backup there" in done.err
    assert "its database is gone" not in here("pace", "1").err


def test_names_of_nothing_are_refused_or_told(here: Here) -> None:
    assert here("pace", "1").status == 0
    for more in ((), ("--json",)):
        done = here("ledger", "history", "resident:ad:free", *more)
        assert (done.status, done.out) == (2, "")
        assert "[ledger.account]" in done.err and "Did you mean resident:ada:free?" in done.err
    assert here("ledger", "history", "resident:ada:free").status == 0
    assert here("ledger", "history", "operator").out == "There are no transfers.\n"
    done = here("ledger", "balances", "resident:zoe")
    assert (done.status, done.out) == (0, 'No account begins with "resident:zoe".\n')
    assert here("ledger", "balances", "resident:zoe", "--json").document == []


@pytest.mark.parametrize("state", ["ban", "retire"])
def test_whoever_is_gone_for_good_does_not_live_here_already(here: Here, state: str) -> None:
    assert here("resident", state, "ada", "--yes").status == 0
    done = here("resident", "add", "ada")
    assert (done.status, done.out, "[resident.for_good]" in done.err) == (2, "", True)
    assert "Add a resident with another name" in done.err


@pytest.mark.parametrize("state", ["ban", "retire"])
def test_nobody_goes_for_good_where_nobody_can_be_asked(here: Here, state: str) -> None:
    here("pace", "1")
    done = vivarium("resident", state, "ada", cwd=here.folder, stdin="n\n")
    assert (done.status, done.out) == (2, "")
    assert "say --yes" in done.err
    assert here("resident", "show", "ada", "--json").document["state"] == "active"


def test_what_is_wrong_with_the_folders_of_commands_is_told_before_anything_begins(here: Here) -> None:
    """With all else: an absent folder would leave out the plugin, and every command would fail for want of one."""
    (here.folder / "vivarium.toml").write_text(
        f'[commands]\nread_roots = ["ghost", "{here.folder.parent}"]\n[commands.allow]\nx = "/no/such"\n'
    )
    done = here("run")
    assert (done.status, done.out) == (2, "")
    assert "ghost does not exist (name another folder, or take it out)" in done.err
    assert "contains the village" in done.err and "/no/such" in done.err
    assert not (here.folder / "vivarium.db").exists()
    (here.folder / "vivarium.toml").write_text('[commands]\nread_roots = ["ghost"]\n')
    assert here("run", "--without", "command_execution").status == 0  # none is run


def test_the_tasks_of_several_files_are_posted_together(here: Here) -> None:
    (here.folder / "one.jsonl").write_text('{"id": "a", "command": ["ls"], "needs": ["b"]}\n')
    (here.folder / "two.toml").write_text('[[task]]\nid = "b"\ncommand = ["ls"]\n')
    assert here("task", "add", "--from", "one.jsonl", "--from", "two.toml").status == 0
    assert [one["id"] for one in here("task", "list", "--json").document] == ["a", "b"]


def test_the_way_to_a_village_can_be_typed_as_it_is_printed(tmp_path: Path) -> None:
    folder = village(tmp_path / "a place", ['id = "a"\ncommand = ["cat", "ghost"]\nmax_attempts = 1'])
    done = vivarium("run", folder, cwd=tmp_path)
    assert "vivarium task requeue a -v 'a place' tries it again" in done.out
    assert "vivarium task show ID -v 'a place'" in done.out


@pytest.mark.parametrize("option", ["--input", "--key"])
def test_what_belongs_to_an_action_is_refused_without_one(here: Here, option: str) -> None:
    done = here("do", option, "{bad")
    assert (done.status, done.out) == (2, "")
    assert "take the NAME of an action" in done.err


def test_a_village_in_the_wrong_place_of_a_command_line_is_told(here: Here) -> None:
    for command in (("status", "v"), ("task", "list", "v"), ("pace", "1", "v", "w")):
        done = here(*command)
        assert done.status == 2
        assert "Did you mean -v v?" in done.err
    assert "Did you mean" not in here("run", ".", "v").err


@pytest.mark.parametrize(("command", "limit"), [("pace", "300 seconds"), ("residents", "0 to 10,000")])
def test_a_number_beyond_its_limits_is_refused_with_the_limits_and_a_next_step(
    here: Here, command: str, limit: str
) -> None:
    done = here(command, "100000")
    assert done.status == 2
    assert limit in done.err.splitlines()[0]
    assert done.err.splitlines()[1].startswith("  Choose ")


@pytest.mark.promise("impossible-tasks")
@pytest.mark.parametrize(("task", "said"), TASKS)
def test_an_impossible_task_of_a_file_is_told_and_none_is_posted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, said: list[str]
) -> None:
    folder = village(tmp_path / "v", ['id = "good"\ncommand = ["ls"]', task])
    done = vivarium("run", folder, cwd=tmp_path)
    assert done.status == 2
    assert [words for words in said if words not in done.err.replace("task number 2", "task number 1")] == []
    here = Here(folder, monkeypatch)
    assert here("pace", "1").status == 0  # founds it, where the run did not come so far
    assert here("task", "list", "--json").document == []


@pytest.mark.promise("impossible-tasks")
@pytest.mark.parametrize(("arguments", "said"), ADDED)
def test_an_impossible_task_is_told_by_its_options(here: Here, arguments: tuple[str, ...], said: list[str]) -> None:
    here("pace", "1")
    done = here("task", "add", *arguments)
    assert (done.status, done.out) == (2, "")
    assert [words for words in said if words not in done.err] == []
    assert here("task", "list", "--json").document == []


def test_a_cycle_of_needs_is_named(here: Here) -> None:
    lines = '{"id": "a", "command": ["ls"], "needs": ["b"]}\n{"id": "b", "command": ["ls"], "needs": ["a"]}\n'
    done = here("task", "add", "--from", "-", stdin=lines)
    assert done.status == 2
    assert "a -> b -> a" in done.err


def test_where_there_is_no_village(tmp_path: Path) -> None:
    done = vivarium("status", cwd=tmp_path)
    assert done.status == 2
    assert "no village here" in done.err
    assert "vivarium init" in done.err
    done = vivarium("run", tmp_path / "nowhere", cwd=tmp_path)
    assert done.status == 2
    assert "vivarium init" in done.err
    assert contents(tmp_path) == set()


def test_a_village_is_found_from_a_folder_inside_it(here: Here) -> None:
    inside = here.folder / "files" / "deep"
    inside.mkdir(parents=True)
    assert str(here.folder) in vivarium("status", cwd=inside).out
    env = {"VIVARIUM_VILLAGE": str(here.folder)}
    assert str(here.folder) in vivarium("status", cwd=Path("/"), env=env).out


@pytest.mark.promise("newer-database")
@pytest.mark.parametrize(
    "command", [("status",), ("task", "list"), ("pace", "1"), ("task", "add", "--", "ls"), ("run",)]
)
def test_a_database_of_a_newer_version_is_refused_untouched(here: Here, command: tuple[str, ...]) -> None:
    here("pace", "1")
    with closing(sqlite3.connect(here.folder / "vivarium.db")) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (here.folder / "vivarium.db").read_bytes()
    done = vivarium(*command, cwd=here.folder)
    assert done.status == 2
    assert "newer Vivarium (schema 99" in done.err
    assert "pip install --upgrade vivarium-kernel" in done.err
    assert (here.folder / "vivarium.db").read_bytes() == before


@pytest.mark.parametrize("command", [("status",), ("pace", "1"), ("run",)])
def test_a_database_that_is_none_is_told(here: Here, command: tuple[str, ...]) -> None:
    (here.folder / "vivarium.db").write_bytes(b"no database at all, but long enough to look at. " * 100)
    done = vivarium(*command, cwd=here.folder)
    assert done.status == 2
    assert "is damaged: file is not a database" in done.err
    assert "vivarium doctor" in done.err


def test_a_folder_where_the_database_belongs_is_told(here: Here) -> None:
    (here.folder / "vivarium.db").mkdir()
    done = here("pace", "1")
    assert done.status == 2
    assert "Mend the permissions" in done.err


def test_on_a_read_only_file_system_nobody_is_sent_to_the_permissions(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    here("pace", "1")

    def read_only(path: object) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 1000, 1000, 1000, 1000, 1000, 1000, os.ST_RDONLY, 255))

    real_open = os.open

    def refused(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_RDWR and str(path).startswith(str(here.folder)):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real_open(path, flags, *more)

    monkeypatch.setattr(os, "statvfs", read_only)
    monkeypatch.setattr(os, "open", refused)
    done = here("pace", "2")
    assert done.status == 2
    assert "Read-only file system" in done.err and "Mount it for writing" in done.err and "chmod" not in done.err
    (finding,) = [one for one in here("doctor", "--json").document["findings"] if one["check"] == "folder"]
    assert (finding["state"], "is on a read-only file system" in finding["what"]) == ("problem", True)
    text = str(told(sqlite3.OperationalError("attempt to write a readonly database"), here.folder / "vivarium.db"))
    assert "Mount it for writing" in text and "Mend the permissions" not in text


def test_a_disk_that_does_not_say_how_large_it_is_is_not_full(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some that are reached over a network or in user space."""
    unknown = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: unknown)
    assert here("pace", "2").status == 0
    full = os.statvfs_result((4096, 4096, 1000, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    done = here("pace", "3")
    assert (done.status, "store.full" in done.err) == (2, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(here: Here) -> None:
    here.folder.chmod(0o500)
    try:
        done = here("pace", "1")
    finally:
        here.folder.chmod(0o700)
    assert done.status == 2
    assert "can't be written" in done.err


def test_a_village_cannot_be_made_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = vivarium("init", tmp_path / "file" / "village", cwd=tmp_path)
    assert done.status == 2
    assert "No village can be made" in done.err


def test_another_program_that_keeps_the_database_locked_is_told(here: Here) -> None:
    here("pace", "1")
    with closing(sqlite3.connect(here.folder / "vivarium.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert here("status").status == 0  # looking takes no lock
        done = here("pace", "2")
    assert done.status == 2
    assert "locked by another program" in done.err
    assert "The pace is 1 s" in here("pace").out


def test_looking_waits_for_nobody(here: Here) -> None:
    """Status shows a village whose writer is stuck: with the lock held it still answers."""
    here("pace", "1")
    with (here.folder / "vivarium.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (("status",), ("task", "list"), ("log", "tail"), ("resident", "list")):
            assert vivarium(*command, cwd=here.folder).status == 0


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_taken_port_is_named_before_anything_is_opened(here: Here, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = vivarium(command, ".", "--port", str(port), cwd=here.folder)
    assert done.status == 2
    assert f"Port {port} of 127.0.0.1 is taken" in done.err
    assert "--port" in done.err
    assert contents(here.folder) == {"vivarium.toml"}


def test_a_full_disk_and_other_refusals_of_the_system_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere")

    def denied() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere")

    assert answered(full) == 2
    assert "The disk is full: /somewhere" in capsys.readouterr().err
    assert answered(denied) == 2
    assert "/somewhere: Permission denied" in capsys.readouterr().err


def test_a_fault_of_our_own_is_one_line_and_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken() -> None:
        raise ZeroDivisionError("of our own")

    assert answered(broken) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError: of our own" in said
    assert "Traceback" not in said
    (details,) = tmp_path.iterdir()
    assert str(details) in said
    assert "Traceback" in details.read_text()


def test_output_that_nobody_reads_any_more_is_no_fault(here: Here) -> None:
    for _ in range(30):
        here("pace", "1")
    with subprocess.Popen(
        argv("log", "export", "-"), cwd=here.folder, env=environment(), text=True, bufsize=1,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() in (1, 141)  # never 0: not all may be done


def test_an_output_without_room_is_told(here: Here) -> None:
    here("pace", "1")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            argv("log", "export", "-"), cwd=here.folder, env=environment(), text=True, check=False,
            stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert done.returncode == 2
    assert "The disk is full" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_that_is_nearly_one_of_its_table_is_that_one(tmp_path: Path) -> None:
    folder = village(tmp_path / "small")
    path = folder / "vivarium.toml"
    path.write_text(f'{path.read_text()}\n[limits.ada]\nmodel = ["small"]\n')
    assert 'did you mean "models"?' in vivarium("status", cwd=folder).err
