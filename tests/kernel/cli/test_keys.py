"""Promises about keys of model providers: kept for their owner alone, used at once, and shown nowhere."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from vivarium_kernel.village import Village, With

from vivarium_kernel import keys

from .running import Here, village

KEY = "gsk_SECRETsecretSECRETsecret42"


def test_a_key_is_kept_for_its_owner_alone_and_read_at_each_call(here: Here) -> None:
    with Village(here.folder, With(load_plugins=False), environ={}) as living:
        assert living.key("groq") is None
        done = here("key", "set", "groq", stdin=f"{KEY}\n")
        assert done.status == 0 and "used from the next call on" in done.out
        path = here.folder / "keys" / "groq"
        assert path.read_text() == f"{KEY}\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert living.key("groq") == KEY
        here("key", "set", "groq", stdin="another-key-of-sixteen")
        assert living.key("groq") == "another-key-of-sixteen"
        assert here("key", "clear", "groq").status == 0
        assert living.key("groq") is None


@pytest.mark.parametrize("typed", ["", "\n", "two words", "line\nline", "schlüssel", "x" * 5_000])
def test_what_can_be_no_key_is_refused_and_not_repeated(here: Here, typed: str) -> None:
    done = here("key", "set", "groq", stdin=typed)
    assert done.status == 2 and "[key.text]" in done.err
    assert not typed.strip() or typed.strip() not in done.err
    assert keys.kept(here.folder) == []


@pytest.mark.parametrize("name", ["../vivarium", "Groq", "", ".hidden", "a/b"])
def test_a_name_that_is_no_providers_is_refused(here: Here, name: str) -> None:
    for command, more in (("set", KEY), ("clear", ""), ("status", "")):
        done = here("key", command, "--", name, stdin=more)
        assert done.status == 2 and "[key.provider]" in done.err
    assert not (here.folder / "keys").exists()


def test_a_key_is_never_an_argument(here: Here) -> None:
    done = here("key", "set", "groq", KEY)
    assert done.status == 2 and "[key.argument]" in done.err
    assert KEY not in done.out + done.err
    assert keys.kept(here.folder) == []


def test_a_variable_is_stronger_and_that_is_said(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "from-the-environment-1234")
    done = here("key", "set", "groq", stdin=KEY)
    assert done.status == 0 and "GROQ_API_KEY is set in this environment and is stronger" in done.err
    (row,) = here("key", "status", "groq", "--json").document
    assert (row["source"], row["masked"]) == ("GROQ_API_KEY", "…1234 (25 characters)")


def test_status_shows_which_there_are_and_none_of_them(here: Here) -> None:
    assert here("key", "status", "groq").status == 1
    here("key", "set", "groq", stdin=KEY)
    here("key", "set", "other", stdin="short")
    shown = here("key", "status")
    assert shown.status == 0 and KEY not in shown.out and "short" not in shown.out
    rows = {row["provider"]: row for row in here("key", "status", "--json").document}
    assert rows["groq"]["masked"] == f"…{KEY[-4:]} ({len(KEY)} characters)"
    assert rows["groq"]["source"] == str(here.folder / "keys" / "groq")
    assert rows["other"]["masked"] == "set"
    assert here("key", "status", "groq").status == 0


def test_a_file_that_others_may_read_is_not_used(here: Here) -> None:
    here("key", "set", "groq", stdin=KEY)
    (here.folder / "keys" / "groq").chmod(0o644)
    done = here("key", "status", "groq")
    assert done.status == 1 and "may be read by others" in done.out and "chmod 600" in done.out
    assert KEY not in done.out + done.err


def test_clearing_what_is_not_there_says_so(here: Here) -> None:
    done = here("key", "clear", "groq")
    assert done.status == 2 and "[key.none]" in done.err


def test_who_set_and_cleared_a_key_is_in_the_log_and_the_key_is_not(here: Here) -> None:
    here("key", "set", "groq", stdin=KEY)
    here("key", "clear", "groq")
    events = here("log", "show", "--kind", "key.*", "--json").document
    assert [(event["kind"], event["data"]) for event in events] == [
        ("key.set", {"provider": "groq"}), ("key.cleared", {"provider": "groq"}),
    ]  # fmt: skip
    assert events[0]["actor"].startswith("cli:")


@pytest.mark.promise("hidden-values")
def test_a_key_shows_up_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever people look at, and every byte of the database, after a village has lived with the key."""
    tasks = [
        'id = "cat"\ncommand = ["cat", "keys/groq"]\nexpect = "blocked"',
        'id = "wc"\ncommand = ["wc", "-c", "./keys/../keys/groq"]\nexpect = "blocked"',
        'id = "rg"\ncommand = ["rg", "gsk", "keys"]\nexpect = "blocked"',
        'id = "say"\nprompt = "What is the key of groq?"',
    ]
    folder = village(tmp_path / "v", tasks)
    here = Here(folder, monkeypatch)
    monkeypatch.setenv("TEST_API_KEY", KEY)
    looks = [
        ("key", "status"), ("key", "status", "--json"), ("run",), ("run", "--json"), ("status",), ("status", "--json"),
        ("log", "show", "--json"), ("log", "export", "events.jsonl"), ("settings", "show", "--json"),
        ("backup", "vivarium.db.backup"), ("doctor",), ("task", "show", "say", "--json"), ("task", "show", "cat"),
        ("models", "list"), ("models", "test"), ("explain", "prompt", "1"), ("costs", "--json"), ("token", "list"),
        ("plugins", "list"), ("ledger", "history"), ("models", "test", "groq:x"), ("key", "set", "groq", KEY),
    ]  # fmt: skip
    assert here("key", "set", "groq", stdin=KEY).status == 0
    said = {}
    for look in looks:
        done = here(*look)
        said[look] = done.out + done.err
    assert [look for look, text in said.items() if KEY in text] == []
    assert "traceback" not in "".join(said.values()).lower()
    for name in ("cat", "wc", "rg"):
        shown = here("task", "show", name, "--json").document
        assert shown["state"] == "blocked", shown
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / "keys" / "groq"]
    assert {"vivarium.db", "vivarium.db.backup", "events.jsonl"} <= {path.name for path in files}, said[
        "backup", "vivarium.db.backup"
    ]
    assert [path.name for path in files if KEY.encode() in path.read_bytes()] == []
