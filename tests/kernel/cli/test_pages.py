"""Promises about the command line's pages: what is written is what the commands say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from vivarium_kernel.cli import root
from vivarium_kernel.cli.lazy import LazyGroup

from . import pages
from .running import Here, environment

COMMANDS = (
    "init run up serve work status do pace residents pause resume halt unhalt backup doctor "
    "task/add/list/show/cancel/requeue/approve/answer/reject/acknowledge/clear "
    "resident/add/list/show/pause/quarantine/ban/retire/resume "
    "log/tail/show/export/verify/head ledger/balances/history/verify token/create/list/revoke settings/show "
    "missed/list/retry explain/claim/prompt key/set/clear/status models/list/test/price costs report "
    "plugins/list/info/hooks/enable/disable/install/uninstall/sync/new/check/profile/bisect/retry"
)
HEAVY = ("sqlite3", "rich", "starlette", "uvicorn", "cattrs", "sqlite_utils", "asyncio", "msgspec", "pluggy", "jinja2")


@pytest.mark.promise("cli-pages")
def test_the_page_is_what_the_commands_say() -> None:
    assert pages.PAGE.read_text(encoding="utf-8") == pages.page(), f"write it with `{pages.COMMAND}`"


@pytest.mark.promise("cli-pages")
@pytest.mark.parametrize("session", sorted(path.stem for path in pages.SESSIONS.glob("*.txt")))
def test_a_session_is_answered_as_it_was_agreed(session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    place.mkdir()
    played = pages.play(session, Here(place, monkeypatch), place)
    agreed = (pages.SESSIONS / f"{session}.txt").read_text(encoding="utf-8")
    assert played == agreed, f"if this is as it should be, write it with `{pages.COMMAND}`"


def test_there_are_the_commands_that_were_promised() -> None:
    promised = {"vivarium"}
    for word in COMMANDS.split():
        group, *names = word.split("/")
        promised |= {f"vivarium {group}", *(f"vivarium {group} {name}" for name in names)}
    assert {path for path, _, _ in pages.commands()} == promised


def test_a_group_says_of_each_command_what_its_own_page_begins_with() -> None:
    """The lines stand in a table, so that a group's page imports none of its commands."""
    for path, command, context in pages.commands():
        if isinstance(command, LazyGroup):
            for name, entry in command._entries.items():
                child = command.get_command(context, name)
                assert child is not None
                assert entry.line == (child.help or "").strip().splitlines()[0], f"{path} {name}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["task", "--help"], ["log", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from vivarium_kernel.cli import main; main(sys.argv[1:]);"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stderr == "[]\n"


def test_status_imports_neither_the_api_nor_plugins_nor_tables(here: Here) -> None:
    here("pace", "1")  # founds it
    code = (
        "import sys; from vivarium_kernel.cli import main; main(sys.argv[1:]);"
        "print(sorted(set(sys.modules) & {'rich', 'starlette', 'uvicorn', 'sqlite_utils', 'pluggy'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "status"], capture_output=True, text=True, check=True, cwd=here.folder,
        env=environment(),
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_list_has_json() -> None:
    for path, command, _ in pages.commands():
        lists = path.rpartition(" ")[2] in ("list", "show", "balances", "history", "tail", "status", "run", "doctor")
        if lists and not hasattr(command, "commands"):
            assert "--json" in [option for parameter in command.params for option in parameter.opts], path


def test_an_unknown_command_suggests_the_one_that_was_meant(here: Here) -> None:
    done = here("staus")
    assert done.status == 2
    assert "Did you mean" in done.err and "'status'" in done.err
    assert root().name == "vivarium"
