"""Where residents' file tools may reach: no path, link or trick leads out of the places that docs/tools.md names."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.testing import StagedVillage

from .scene import HIDDEN, Hand

OWN, OTHER = "files/workspaces/ada", "files/workspaces/ben"
DOCS = "files/library/community_library/swarm_docs"
WORK = {"write_policy": "work", "commands": {"sandbox": "auto", "read_roots": ["docs"]}}


def furnish(folder: Path) -> None:
    """A village with something in every place, and what nobody may read beside it."""
    for place in (OWN, OTHER, DOCS, "docs/deep", "plans", "keys", "files/elsewhere"):
        (folder / place).mkdir(parents=True)
    for place in (OTHER, "plans", "keys", "files/elsewhere"):
        (folder / place / "secret.md").write_text(HIDDEN)
    for place in (OWN, DOCS, "docs", "docs/deep"):
        (folder / place / "open.md").write_text("open\n")
    (folder.parent / "outside.md").write_text(HIDDEN)


@pytest.fixture
def make(make_village: Callable[..., StagedVillage], tmp_path: Path) -> Callable[..., StagedVillage]:
    def made(**asked: object) -> StagedVillage:
        furnish(tmp_path / "v")
        return make_village(folder=tmp_path / "v", **{"settings": WORK, **asked})

    return made


@pytest.fixture
def furnished(make: Callable[..., StagedVillage]) -> StagedVillage:
    return make()


def refused(hand: Hand, action: str, path: str) -> str:
    """The rule that refuses a path."""
    words = {"text": "x"} if action in ("search", "write") else {}
    with pytest.raises(VivariumError) as found:
        hand.do(action, path=path, **words)
    assert HIDDEN not in str(found.value)
    return found.value.rule


def everything(folder: Path) -> dict[str, bytes]:
    """What lies outside of what a resident may write under `work`, by its path."""
    places = (folder / OWN, folder / "files" / "library")
    return {
        str(path): path.read_bytes()
        for path in folder.parent.rglob("*")
        if path.is_file() and not path.name.startswith("vivarium.db") and not any(map(path.is_relative_to, places))
    }


# Words of a path


@pytest.mark.parametrize("action", ["list", "read", "search", "write"])
@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("../outside.md", "files.path"),
        ("docs/../docs/open.md", "files.path"),
        ("~/../ben/secret.md", "files.path"),
        ("files/workspaces/ada/../ben/secret.md", "files.path"),
        (f"{OTHER}/secret.md", "files.workspace"),
        ("files//workspaces/./ben/secret.md", "files.workspace"),
        ("/etc/passwd", "place"),
        ("/proc/self/environ", "place"),
        ("/proc/self/cwd/docs/open.md", "place"),
        ("/dev/zero", "place"),
        ("//etc/passwd", "place"),
        ("plans/secret.md", "place"),
        ("keys/secret.md", "place"),
        ("vivarium.db", "place"),
        ("vivarium.toml", "place"),
        ("files/elsewhere/secret.md", "place"),
        ("Files/workspaces/ada/open.md", "place"),
        ("files/Workspaces/ben/secret.md", "place"),
        ("docs\\..\\plans\\secret.md", "place"),
        ("~ben/secret.md", "place"),
        ("%2e%2e/outside.md", "place"),
        ("docs/open.md\0.txt", "files.path"),
        ("docs/open\n.md", "files.path"),
        ("docs/" + "a" * 300, "files.path"),
        ("docs/" + "a/" * 2_000, "files.path"),
        ("docs/" + "é" * 150, "files.path"),
    ],
)
def test_a_path_that_leads_out_is_refused_by_its_rule(
    furnished: StagedVillage, action: str, path: str, rule: str
) -> None:
    rules = {"place": "files.write_policy" if action == "write" else "files.place"}
    assert refused(Hand(furnished), action, path) == rules.get(rule, rule)


def test_a_refusal_names_the_places_and_the_setting(furnished: StagedVillage) -> None:
    hand = Hand(furnished)
    with pytest.raises(VivariumError, match="no place that you may read") as found:
        hand.do("read", path="plans/secret.md")
    assert f"{OWN}/, files/library/, docs/" in found.value.next_step
    assert "commands.read_roots" in found.value.next_step
    with pytest.raises(VivariumError, match="write_policy = 'work'") as found:
        hand.do("write", path="docs/new.md", text="x")
    assert OWN in found.value.next_step


@pytest.mark.parametrize(
    "path", ["~/open.md", f"{OWN}/open.md", f"./{OWN}//open.md", "docs/open.md", "docs/deep/open.md"]
)
def test_a_file_has_one_name_from_the_village_and_one_from_home(furnished: StagedVillage, path: str) -> None:
    assert Hand(furnished).do("read", path=path) == "1: open"


def test_an_absolute_path_is_right_where_it_leads_into_a_place(
    make: Callable[..., StagedVillage], tmp_path: Path
) -> None:
    far = tmp_path / "far"
    far.mkdir()
    (far / "open.md").write_text("far away\n")
    roots = [str(far), "../far", str(tmp_path / "v" / "docs")]
    village = make(settings={"commands": {"sandbox": "auto", "read_roots": roots}})
    hand = Hand(village)
    assert hand.do("read", path=str(far / "open.md")) == "1: far away"
    assert hand.do("read", path=str(village.folder / "docs" / "open.md")) == "1: open"
    assert hand.do("read", path=str(village.folder / OWN / "open.md")) == "1: open"
    assert refused(hand, "read", str(tmp_path / "farther.md")) == "files.place"


@pytest.mark.parametrize("root", [".", "..", "/", "keys", "vivarium.db", "files", "files/workspaces", OTHER])
def test_no_root_opens_what_is_protected_or_another_s(
    make: Callable[..., StagedVillage], root: str, tmp_path: Path
) -> None:
    village = make(settings={"commands": {"sandbox": "auto", "read_roots": [root]}}, sound=False)
    hand = Hand(village)
    for path in (
        f"{OTHER}/secret.md",
        "keys/secret.md",
        "vivarium.db",
        "plans/secret.md",
        str(tmp_path / "outside.md"),
    ):
        refused(hand, "read", path)
    assert HIDDEN not in hand.do("search", text=HIDDEN) or root == "files"
    assert "ben" not in hand.do("search", text=HIDDEN)


def test_a_root_with_all_files_still_hides_the_workspaces_of_others(make: Callable[..., StagedVillage]) -> None:
    village = make(settings={"commands": {"sandbox": "auto", "read_roots": ["files"]}})
    hand = Hand(village)
    assert hand.do("read", path="files/elsewhere/secret.md") == f"1: {HIDDEN}"
    assert hand.do("list", path="files/workspaces") == "ada/"
    assert hand.do("search", text=HIDDEN) == f"files/elsewhere/secret.md:1: {HIDDEN}"


# What is planted on the disk


def test_no_link_is_followed_wherever_it_lies_and_leads(furnished: StagedVillage) -> None:
    folder, hand = furnished.folder, Hand(furnished)
    (folder / OWN / "file.md").symlink_to(folder.parent / "outside.md")
    (folder / OWN / "inner.md").symlink_to("open.md")
    (folder / OWN / "folder").symlink_to(folder / OTHER)
    (folder / DOCS / "loop").symlink_to(".")
    (folder / "docs" / "db.md").symlink_to(folder / "vivarium.db")
    before = everything(folder)
    for path in ("~/file.md", "~/inner.md", "~/folder/secret.md", f"{DOCS}/loop/open.md", "docs/db.md"):
        assert refused(hand, "read", path) in ("files.kind", "files.link")
    for path in ("~/file.md", "~/folder/secret.md", f"{DOCS}/loop/new.md"):
        assert refused(hand, "write", path) in ("files.kind", "files.link")
    assert refused(hand, "list", "~/folder") == "files.link"
    assert hand.do("list", path="~") == "open.md 5"
    assert hand.do("search", text=HIDDEN) == "[nothing found]"
    assert everything(folder) == before


@pytest.mark.parametrize("place", ["files/workspaces", OWN, "files/library"])
def test_a_place_that_was_replaced_by_a_link_is_no_place(furnished: StagedVillage, place: str) -> None:
    folder, hand = furnished.folder, Hand(furnished)
    target = folder / place
    target.rename(folder / "moved")
    target.symlink_to(folder / "plans")
    path = f"{place}/ada" if place == "files/workspaces" else place
    refused(hand, "read", f"{path}/secret.md")
    refused(hand, "list", path)
    refused(hand, "write", f"{path}/new.md")
    assert [each.name for each in (folder / "plans").iterdir()] == ["secret.md"]


def test_a_root_below_files_that_was_replaced_by_a_link_is_no_root(make: Callable[..., StagedVillage]) -> None:
    village = make(settings={"commands": {"sandbox": "auto", "read_roots": ["files/elsewhere"]}})
    hand, place = Hand(village), village.folder / "files" / "elsewhere"
    assert hand.do("read", path="files/elsewhere/secret.md") == f"1: {HIDDEN}"
    place.rename(village.folder / "gone")
    place.symlink_to(village.folder / "keys")
    refused(hand, "read", "files/elsewhere/secret.md")
    assert hand.do("search", text=HIDDEN) == "[nothing found]"


@pytest.mark.parametrize(("path", "swapped"), [("~/open.md", "open.md"), ("~/deep/open.md", "deep")])
def test_what_becomes_a_link_between_look_and_opening_is_not_followed(
    furnished: StagedVillage, monkeypatch: pytest.MonkeyPatch, path: str, swapped: str
) -> None:
    own, opening = furnished.folder / OWN, os.open
    (own / "deep").mkdir()
    (own / "deep" / "open.md").write_text("open\n")
    (furnished.folder / OTHER / "open.md").write_text(HIDDEN)
    meant = furnished.folder / OTHER / ("open.md" if swapped == "open.md" else "")

    def swap(name: str, *more: int, **words: int) -> int:
        if name == swapped and not (own / swapped).is_symlink():
            (own / swapped).rename(own / "moved")
            (own / swapped).symlink_to(meant)
        return opening(name, *more, **words)

    monkeypatch.setattr(os, "open", swap)
    assert refused(Hand(furnished), "read", path) == "files.link"
    assert (own / swapped).is_symlink(), "or nothing was tried"


def test_a_second_name_of_a_file_is_not_read_and_what_it_names_is_not_written(furnished: StagedVillage) -> None:
    folder, hand = furnished.folder, Hand(furnished)
    os.link(folder / OTHER / "secret.md", folder / OWN / "mine.md")
    os.link(folder / "vivarium.db", folder / DOCS / "db.md")
    assert refused(hand, "read", "~/mine.md") == "files.hard_link"
    assert refused(hand, "read", f"{DOCS}/db.md") == "files.hard_link"
    assert hand.do("search", text=HIDDEN) == "[nothing found]"
    hand.do("write", path="~/mine.md", text="mine")
    assert (folder / OTHER / "secret.md").read_text() == HIDDEN


def test_folders_pipes_sockets_and_binaries_are_refused_by_name(furnished: StagedVillage) -> None:
    folder, hand = furnished.folder, Hand(furnished)
    os.mkfifo(folder / OWN / "pipe")
    (folder / OWN / "image").write_bytes(b"\x89PNG\0\1")
    (folder / OWN / "latin").write_bytes("café".encode("latin-1"))
    with socket.socket(socket.AF_UNIX) as listening:
        before = Path.cwd()
        os.chdir(folder / OWN)  # the whole path may be too long for a socket
        try:
            listening.bind("socket")
        finally:
            os.chdir(before)
        for name in ("pipe", "socket", ""):
            assert refused(hand, "read", f"~/{name}") in ("files.kind", "files.place")
            assert refused(hand, "write", f"~/{name}") in ("files.kind", "files.write_policy")
    for name in ("image", "latin"):
        assert refused(hand, "read", f"~/{name}") == "files.binary"
    assert hand.do("search", text="PNG") == "[nothing found]"


# No input at all

_PART = st.one_of(
    st.sampled_from(
        [
            "..",
            ".",
            "~",
            "",
            "files",
            "workspaces",
            "ada",
            "ben",
            "library",
            "docs",
            "plans",
            "keys",
            "link",
            "up",
            "hard.md",
        ]
    ),
    st.sampled_from(
        ["secret.md", "open.md", "outside.md", "vivarium.db", "Files", "BEN", "proc", "self", "root", "deep"]
    ),
    st.text(max_size=8),
)
_PATHS = st.builds(
    lambda start, parts: start + "/".join(parts), st.sampled_from(["", "/", "~/", "//"]), st.lists(_PART, max_size=7)
)


@pytest.fixture
def trapped(furnished: StagedVillage) -> Iterator[tuple[Hand, StagedVillage]]:
    folder = furnished.folder
    for place in (OWN, DOCS, "docs"):
        (folder / place / "link").symlink_to(folder / OTHER)
        (folder / place / "up").symlink_to("../..")
    os.link(folder / OTHER / "secret.md", folder / OWN / "hard.md")
    yield Hand(furnished), furnished


@given(path=_PATHS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_path_reads_or_writes_outside_of_the_places(trapped: tuple[Hand, StagedVillage], path: str) -> None:
    hand, village = trapped
    before = everything(village.folder)
    for action, words in (("list", {}), ("read", {}), ("search", {"text": HIDDEN[:7]}), ("write", {"text": "new"})):
        try:
            said = hand.do(action, path=path, **words)
        except VivariumError as error:
            said = str(error)
        assert HIDDEN not in str(said)
        assert not (action == "list" and re.search(rf"secret\.md {len(HIDDEN)}\b", str(said)))
    assert everything(village.folder) == before
