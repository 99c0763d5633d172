"""Which commands may run: the table of cases, and what no accepted command can ever show."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vivarium_kernel.commands.policy import (
    MAX_ARGUMENTS,
    MAX_BYTES,
    SHIPPED,
    Allowed,
    BadAllow,
    check,
    resolve_allowed,
    shipped,
)

from .scene import LINES, MARK, UNLISTED, Scene

ALLOWED = {name: Allowed(name, Path("/usr/bin") / name, shipped=True) for name in SHIPPED} | {
    name: Allowed(name, Path("/usr/bin") / name, shipped=False) for name in ("grep", "awk", "tar", "sed", "cut", "dd")
}

ACCEPTED = [
    ["ls"],
    ["ls", "-la", "--sort=size", "src"],
    ["ls", "-w", "80", "--color"],
    ["pwd", "-P"],
    ["echo", "-n", "../../etc/passwd", "--anything"],
    ["cat", "-n", "notes.txt", "-"],
    ["cat", "src/../notes.txt"],
    ["/usr/bin/cat", "notes.txt"],
    ["head", "-5", "notes.txt"],
    ["head", "-n", "-2", "--", "notes.txt"],
    ["tail", "-n2", "notes.txt"],
    ["tail", "--lines=+2", "notes.txt"],
    ["wc", "-lw", "notes.txt", "--total=never"],
    ["rg", "-in", "-A", "2", "/etc/passwd", "src"],
    ["rg", "-e", "-x", "-tpy", "src", "notes.txt"],
    ["rg", "--files", "src"],
    ["rg", "-f", "notes.txt", "src"],
    ["cat", "no-such-file"],
    ["grep", "-rn", "--include=*.py", "print", "src"],
    ["awk", "/error/ { print $1 }", "notes.txt"],
    ["awk", "/error/", "notes.txt"],
    ["sed", "-n", "s/a/b/p", "notes.txt"],
    ["cut", "-d/", "-f1", "notes.txt"],
    ["tar", "-cf", "files/new.tar", "src"],
]

REFUSED = [
    ([], "command.empty"),
    ("ls", "command.empty"),
    ([""], "command.empty"),
    (["ls", 3], "command.empty"),
    (["cat", "a\0b"], "command.argument"),
    (["cat", "\ud800"], "command.argument"),
    (["echo", "x" * MAX_BYTES], "command.size"),
    (["echo"] + ["x"] * MAX_ARGUMENTS, "command.size"),
    (["rm", "notes.txt"], "command.unknown"),
    (["./cat", "notes.txt"], "command.unknown"),
    (["/usr/bin/../bin/cat", "notes.txt"], "command.unknown"),
    (["/opt/cat"], "command.unknown"),
    (["CAT"], "command.unknown"),
    (["cat", "/etc/passwd"], "command.path"),
    (["cat", "../outside/secret.txt"], "command.path"),
    (["cat", "--", "-", "../outside/secret.txt"], "command.path"),
    (["cat", "src/link_out"], "command.path"),
    (["cat", "src/folder_out/secret.txt"], "command.path"),
    (["ls", "src/folder_out"], "command.path"),
    (["ls", "top_out"], "command.path"),
    (["cat", "src/link_db"], "command.path"),
    (["cat", "files/hard_link"], "command.path"),
    (["cat", "vivarium.db"], "command.path"),
    (["head", "-n", "1", "vivarium.db-wal"], "command.path"),
    (["wc", "src/../vivarium.lock"], "command.path"),
    (["cat", "keys/ada"], "command.path"),
    (["ls", "keys"], "command.path"),
    (["cat", "host.key"], "command.path"),
    (["cat", ".secrets.toml"], "command.path"),
    (["cat", "/proc/self/environ"], "command.path"),
    (["ls", "-L", "src"], "command.flag"),
    (["ls", "-RL", "src"], "command.flag"),
    (["ls", "--dereference"], "command.flag"),
    (["tail", "-f", "notes.txt"], "command.flag"),
    (["tail", "-qf", "notes.txt"], "command.flag"),
    (["tail", "-F", "notes.txt"], "command.flag"),
    (["tail", "--follow=name", "notes.txt"], "command.flag"),
    (["tail", "--foll", "notes.txt"], "command.flag"),
    (["tail", "--retry", "notes.txt"], "command.flag"),
    (["tail", "--pid=1", "notes.txt"], "command.flag"),
    (["tail", "-n"], "command.flag"),
    (["wc", "--files0-from=notes.txt"], "command.flag"),
    (["wc", "--files0-from", "notes.txt"], "command.flag"),
    (["wc", "--lines=3", "notes.txt"], "command.flag"),
    (["rg", "--pre", "sh", "x", "src"], "command.flag"),
    (["rg", "--pre=sh", "x", "src"], "command.flag"),
    (["rg", "--pre-glob", "*", "x", "src"], "command.flag"),
    (["rg", "-z", "x", "src"], "command.flag"),
    (["rg", "-inz", "x", "src"], "command.flag"),
    (["rg", "--search-zip", "x", "src"], "command.flag"),
    (["rg", "--hostname-bin=sh", "x", "src"], "command.flag"),
    (["rg", "-L", "x", "src"], "command.flag"),
    (["rg", "--follow", "x", "src"], "command.flag"),
    (["rg", "-f=../outside/secret.txt", "src"], "command.flag"),
    (["rg", "-f", "../outside/secret.txt", "src"], "command.path"),
    (["rg", "-if../outside/secret.txt", "src"], "command.path"),
    (["rg", "--file=../outside/secret.txt", "src"], "command.path"),
    (["rg", "--ignore-file", "/etc/passwd", "x", "src"], "command.path"),
    (["rg", "x", "src", "/etc"], "command.path"),
    (["rg", "-e", "x", "/etc"], "command.path"),
    (["rg", "--files", "/etc"], "command.path"),
    (["rg", "x"], "command.path"),
    (["rg", "x", "."], "command.path"),
    (["rg", "x", "src/.."], "command.path"),
    (["grep", "root", "/etc/passwd"], "command.path"),
    (["grep", "-f/etc/passwd", "notes.txt"], "command.path"),
    (["grep", "--file=/etc/passwd", "notes.txt"], "command.path"),
    (["grep", "-r", "x", "/"], "command.path"),
    (["grep", "x", "vivarium.db"], "command.path"),
    (["grep", "x", "src/link_out"], "command.path"),
    (["tar", "-xzf../outside/secret.txt"], "command.path"),
    (["tar", "-cf", "../outside/new.tar", "src"], "command.path"),
    (["dd", "if=notes.txt", "of=../outside/new"], "command.path"),
]


def verdict(scene: Scene, argv: Sequence[str], *, cwd: str = ".", roots: Sequence[Path] = ()) -> str | None:
    refused = check(argv, cwd=Path(cwd), village=scene.village, read_roots=roots, allowed=ALLOWED)
    if refused is not None:
        assert refused.message
        assert refused.next_step
    return None if refused is None else refused.rule


@pytest.mark.parametrize("argv", ACCEPTED, ids=repr)
def test_ordinary_use_is_accepted(read_only_scene: Scene, argv: list[str]) -> None:
    assert verdict(read_only_scene, argv) is None


@pytest.mark.promise("confined-commands")
@pytest.mark.parametrize(("argv", "rule"), REFUSED, ids=lambda value: repr(value)[:60])
def test_what_leads_out_is_refused_by_its_rule(read_only_scene: Scene, argv: list[str], rule: str) -> None:
    assert verdict(read_only_scene, argv) == rule


@pytest.mark.parametrize("cwd", ["/", "..", "src/folder_out", "keys", "notes.txt", "nowhere"])
def test_the_working_directory_is_a_folder_of_the_village(read_only_scene: Scene, cwd: str) -> None:
    assert verdict(read_only_scene, ["pwd"], cwd=cwd) == "command.cwd"


def test_paths_count_from_the_working_directory(read_only_scene: Scene) -> None:
    assert verdict(read_only_scene, ["cat", "../notes.txt"], cwd="src") is None
    assert verdict(read_only_scene, ["cat", "../../outside/secret.txt"], cwd="src") == "command.path"
    assert verdict(read_only_scene, ["rg", "x"], cwd="src") is None


def test_a_read_root_may_be_read_and_nothing_beside_it(read_only_scene: Scene) -> None:
    roots = [read_only_scene.outside]
    assert verdict(read_only_scene, ["cat", "src/link_out"], roots=roots) is None
    assert verdict(read_only_scene, ["cat", str(read_only_scene.outside / "secret.txt")], roots=roots) is None
    assert verdict(read_only_scene, ["cat", "../elsewhere"], roots=roots) == "command.path"


def test_a_read_root_around_the_village_does_not_open_its_keys(read_only_scene: Scene) -> None:
    roots = [read_only_scene.village.parent]
    assert verdict(read_only_scene, ["cat", "keys/ada"], roots=roots) == "command.path"
    assert verdict(read_only_scene, ["rg", "x", ".."], roots=roots) == "command.path"


def test_a_program_below_files_is_refused(scene: Scene) -> None:
    tool = scene.files / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    allowed = {"tool": Allowed("tool", tool, shipped=False)}
    refused = check(["tool"], cwd=Path(), village=scene.village, read_roots=[], allowed=allowed)
    assert refused is not None
    assert refused.rule == "command.program"


def test_shipped_commands_are_absolute_and_missing_ones_are_absent() -> None:
    found = shipped()
    assert {"ls", "cat", "echo"} <= set(found) <= set(SHIPPED)
    assert all(command.path.is_absolute() and command.shipped for command in found.values())
    assert ("rg" in found) == os.access("/usr/bin/rg", os.X_OK)


def test_the_operators_commands_join_the_shipped_ones() -> None:
    allowed = resolve_allowed({"sort": "sort", "bourne": "/bin/sh"})
    assert set(allowed) == {*shipped(), "sort", "bourne"}
    assert allowed["sort"] == Allowed("sort", Path("/usr/bin/sort"), shipped=False)
    assert allowed["bourne"].path == Path("/bin/sh")


def test_a_shipped_name_keeps_its_argument_rules() -> None:
    assert resolve_allowed({"cat": "/usr/bin/sort"})["cat"].shipped


def test_all_bad_entries_are_named_at_once() -> None:
    with pytest.raises(BadAllow) as caught:
        resolve_allowed({"one": "no-such-program", "two": "/etc/passwd", "a/b": "sort", "three": "", "four": "./sort"})
    assert len(caught.value.faults) == 5
    assert 'commands.allow.one = "no-such-program"' in caught.value.faults[0]


PATHS = st.sampled_from(
    [
        ".", "..", "-", "/", "", "src", "files", "keys", "notes.txt", "vivarium.db", "vivarium.db-wal", "host.key",
        ".secrets.toml", "keys/ada", "files/hard_link", "src/link_out", "src/link_db", "src/folder_out",
        "src/folder_out/secret.txt", "../outside/secret.txt", "../outside", "src/../../outside/secret.txt",
    ]
)  # fmt: skip
FLAGS = st.sampled_from(
    [
        "-a", "-n", "-c", "-l", "-q", "-L", "-R", "-H", "-f", "-e", "-z", "-5", "--", "-A", "-w", "-T", "-I", "-n1",
        "--lines", "--bytes=9", "--files0-from", "--total", "--recursive", "--color", "--follow", "--retry", "--null",
    ]
)  # fmt: skip
ARGUMENTS = st.lists(
    PATHS
    | FLAGS
    | st.builds(str.__add__, st.sampled_from(["-f", "-n", "-I", "--file=", "--files0-from=", "--lines="]), PATHS)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4),
    max_size=4,
)


@settings(max_examples=250)
@given(
    name=st.sampled_from([name for name in SHIPPED if name != "rg"]), rest=ARGUMENTS, cwd=st.sampled_from([".", "src"])
)
@example(name="cat", rest=["-n", "--", "-"], cwd=".")
@example(name="ls", rest=["-L", "-R", "src"], cwd=".")
@example(name="wc", rest=["--files0-from", "../outside/secret.txt"], cwd=".")
def test_no_accepted_command_shows_a_secret_even_unconfined(
    read_only_scene: Scene, name: str, rest: list[str], cwd: str
) -> None:
    """The rule is checked against the real programs: what they print, not what we believe they would open."""
    argv = [name, *rest]
    if verdict(read_only_scene, argv, cwd=cwd) is not None:
        return
    ran = subprocess.run(
        [f"/usr/bin/{name}", *rest],
        cwd=read_only_scene.village / cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
        check=False,
        env={},
    )
    shown = (ran.stdout + ran.stderr).decode(errors="replace")
    assert MARK not in shown
    assert UNLISTED not in shown
    assert not {str(LINES), str(LINES * (len(MARK) + 1))} & set(shown.split())


@settings(max_examples=300)
@given(
    rest=ARGUMENTS,
    where=st.integers(0, 4),
    spelling=st.sampled_from(["--pre", "--pre=sh", "-z", "-iz", "--search-zip", "--hostname-bin"]),
)
def test_no_company_makes_a_dangerous_flag_of_rg_acceptable(
    read_only_scene: Scene, rest: list[str], where: int, spelling: str
) -> None:
    before = [argument for argument in rest[:where] if not argument.startswith("-")]
    assert verdict(read_only_scene, ["rg", *before, spelling, *rest[where:]]) is not None
