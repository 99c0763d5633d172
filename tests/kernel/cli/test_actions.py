"""Promises about ``vivarium do``: an action that a plugin declares is a command, with its roles and its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from .running import Done, village, vivarium

PLUGIN = """
from attrs import frozen
from vivarium_kernel import Action, Plugin, hookimpl

@frozen
class Note:
    text: str
    times: int = 1

def write(tx, actor, note):
    return {"by": str(actor), "said": note.text * note.times}

class Notes(Plugin):
    name = "slips"

    @hookimpl
    def register_actions(self):
        return [Action(name="slips.write", doc="Write a note.", Input=Note, roles=("operator", "resident"), run=write)]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    information = tmp_path / "site" / "slips-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: slips\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[vivarium.plugins]\nslips = slips_plugin:Notes\n")
    (tmp_path / "site" / "slips_plugin.py").write_text(PLUGIN)
    return village(tmp_path / "v")


def do(folder: Path, *arguments: str, stdin: str = "") -> Done:
    return vivarium("do", *arguments, cwd=folder, env={"PYTHONPATH": str(folder.parent / "site")}, stdin=stdin)


def test_an_action_is_a_command(folder: Path) -> None:
    assert "slips.write" in do(folder).out
    (listed,) = (each for each in do(folder, "--json").document if each["name"] == "slips.write")
    assert listed["input"]["required"] == ["text"]
    done = do(folder, "slips.write", "text=hm ", "times=2")
    assert done.status == 0, done.err
    assert done.document["said"] == "hm hm "
    assert done.document["by"].startswith("cli:")
    for word in ("5", "true", "null", "[1]"):  # text where text is wanted
        assert do(folder, "slips.write", f"text={word}", "times=2").document["said"] == word * 2
    assert do(folder, "slips.write", "--input", "-", stdin='{"text": "oh"}').document["said"] == "oh"


def test_a_key_does_it_once(folder: Path) -> None:
    first = do(folder, "slips.write", "text=a", "--key", "k")
    again = do(folder, "slips.write", "text=a", "--key", "k")
    assert (again.out, "done before" in again.err) == (first.out, True)
    other = do(folder, "slips.write", "text=b", "--key", "k")
    assert other.status == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("slips.wirte",), "Did you mean slips.write?"),
        (("slips.write",), "text"),
        (("slips.write", "text=a", "txet=b"), "txet"),
        (("slips.write", "text=a", "times=often"), "times"),
        (("slips.write", "text"), "must be KEY=VALUE"),
        (("slips.write", "--input", "[1]"), "must be a JSON object"),
        (("slips.write", "--input", "{"), "is not JSON"),
        (("slips.write", "text=a", "--input", "{}"), "not both"),
    ],
)
def test_what_cannot_be_done_is_told(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done = do(folder, *arguments)
    assert (done.status, done.out) == (2, "")
    assert said in done.err


def test_a_token_does_what_its_role_may(folder: Path) -> None:
    def token(*arguments: str) -> str:
        return vivarium("token", "create", *arguments, cwd=folder).out.strip()

    ada = do(folder, "slips.write", "text=a", "--as", token("ada", "--role", "resident"))
    assert ada.document["by"] == "resident:ada"
    human = do(folder, "slips.write", "text=a", "--as", token("kim", "--role", "human"))
    assert (human.status, "[action.role]" in human.err) == (2, True)
    assert "slips.write" not in do(folder, "--as", token("kim", "--role", "human")).out
