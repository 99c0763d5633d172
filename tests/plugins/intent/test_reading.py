"""Promises about the files that a plan may be made of: never those that hold a key."""

from __future__ import annotations

from pathlib import Path

import pytest
from vivarium_kernel.commands.places import PROTECTED
from vivarium_plugins_intent.reading import read

from vivarium_kernel import NotFound

NAMES = ["groq.key", "tls.pem", "TLS.PEM", "Groq.Key", ".env.local", ".secrets.toml", "vivarium.db", "vivarium.db-wal"]


@pytest.mark.parametrize("folder", ["", "deep/deeper", "keys", "Keys", "deep/keys"])
@pytest.mark.parametrize("name", NAMES)
def test_no_key_is_read_wherever_it_lies_and_however_it_is_written(tmp_path: Path, folder: str, name: str) -> None:
    place = tmp_path / folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("SECRET")
    (tmp_path / "notes.md").write_text("notes")
    assert read(tmp_path, "*", 100) == [("notes.md", "notes")]
    with pytest.raises(NotFound):
        read(tmp_path, place.relative_to(tmp_path).as_posix(), 100)


@pytest.mark.parametrize("pattern", PROTECTED)
def test_what_no_command_may_read_no_plan_does(tmp_path: Path, pattern: str) -> None:
    (tmp_path / pattern.replace("*", "x")).write_text("SECRET")
    with pytest.raises(NotFound):
        read(tmp_path, "*", 100)


def test_what_only_sounds_like_one_is_read(tmp_path: Path) -> None:
    for name in ("keyboard.md", "key", "pem.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "plugins.json").write_text("{}")
    found = [name for name, _ in read(tmp_path, "*", 100)]
    assert found == ["deep/plugins.json", "key", "keyboard.md", "pem.txt"]
