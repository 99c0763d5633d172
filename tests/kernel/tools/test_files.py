"""What the file tools show and write: lines with their numbers, cuts that are marked, whole files, a quota each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
from vivarium_kernel.clock import SystemClock
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage, rows

from .scene import Hand, heard, use, use_all

OWN = "files/workspaces/ada"
SMALL = {
    "files": {"read_bytes": 1_000, "write_bytes": 400, "resident_bytes": 1_000, "search_bytes": 2_000, "search_hits": 3}
}
pytestmark = pytest.mark.village(settings={"write_policy": "work"}, residents=["ada", "ben"])


@pytest.fixture
def hand(village: StagedVillage) -> Hand:
    return Hand(village)


@pytest.fixture
def small(make_village: Callable[..., StagedVillage]) -> StagedVillage:
    return make_village(config=SMALL)


def test_a_resident_writes_reads_lists_and_searches_in_one_thought(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(
        use("files.write", path="~/a/list.md", text="eggs\nflour\n"),
        use_all(
            ("files.read", {"path": "~/a/list.md"}),
            ("files.list", {}),
            ("files.list", {"path": f"{OWN}/a"}),
            ("files.search", {"text": "FLO"}),
        ),
        "Done.",
    )
    village.task(wanted="ada")
    (attempt,) = run_cycles()
    assert (attempt.ending, attempt.answer) == ("accepted", "Done.")
    wrote, read, top, inner, found = heard(scripted_model)
    assert all("<untrusted" in text for text in (wrote, read, top, inner, found))
    assert f"{OWN}/a/list.md" in wrote
    assert "1: eggs\n2: flour\n" in read
    assert f"{OWN}/\nfiles/library/" in top
    assert "list.md 11" in inner
    assert f"{OWN}/a/list.md:2: flour" in found
    assert (village.folder / OWN / "a" / "list.md").read_text() == "eggs\nflour\n"


def test_a_refusal_is_told_to_the_model_and_the_thought_goes_on(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(use("files.write", path="vivarium.toml", text="x"), "Then not.")
    village.task()
    (attempt,) = run_cycles()
    (told,) = heard(scripted_model)
    assert told.startswith("Refused (files.write_policy): 'vivarium.toml' may not be written")
    assert attempt.ending == "accepted"


def test_reads_are_pure_steps_and_writes_idempotent_ones(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(use("files.write", path="~/n.md", text="x"), use("files.read", path="~/n.md"), "Done.")
    village.task()
    run_cycles()
    steps = rows(village, "SELECT name, effect, state FROM steps WHERE kind = 'tool' ORDER BY number")
    assert [tuple(step) for step in steps] == [("files.write", "idempotent", "done"), ("files.read", "pure", "done")]


# What is shown


def test_lines_keep_their_numbers_from_any_offset(hand: Hand) -> None:
    hand.do("write", path="~/n.md", text="\n".join(f"line {n}" for n in range(1, 8)) + "\r\n")
    assert (
        hand.do("read", path="~/n.md", offset=2, lines=2)
        == "3: line 3\n4: line 4\n[cut: lines 5 to 7 follow, from offset 4]"
    )
    assert hand.do("read", path="~/n.md", offset=6) == "7: line 7"
    assert hand.do("read", path="~/n.md", offset=7) == "[it has 7 lines]"
    for words in ({"offset": -1}, {"lines": 0}):
        with pytest.raises(VivariumError, match="at least"):
            hand.do("read", path="~/n.md", **words)


def test_a_file_over_the_limit_is_cut_and_marked_between_characters(small: StagedVillage) -> None:
    (small.folder / OWN).mkdir(parents=True)
    (small.folder / OWN / "long.md").write_text("a" * 999 + "é" + "b" * 500)
    read = Hand(small).do("read", path="~/long.md")
    assert read == "1: " + "a" * 999 + "\n[cut: 1,501 bytes, of which 1,000 are read]"


def test_a_line_and_a_page_that_are_too_long_are_cut_and_marked(hand: Hand) -> None:
    hand.do("write", path="~/wide.md", text="x" * 1_500 + "\nshort")
    assert hand.do("read", path="~/wide.md").endswith("x [cut: 500 more]\n2: short")
    hand.do("write", path="~/high.md", text=("y" * 900 + "\n") * 40)
    page = hand.do("read", path="~/high.md")
    assert len(page) < 20_000, "the loop of thought would cut it elsewhere"
    assert "[cut: lines 19 to 40 follow, from offset 18]" in page


def test_a_folder_with_very_many_files_is_cut_and_marked(village: StagedVillage, hand: Hand) -> None:
    (village.folder / OWN).mkdir(parents=True)
    for number in range(503):
        (village.folder / OWN / f"{number:03}").touch()
    lines = hand.do("list", path="~").split("\n")
    assert (lines[0], lines[499], lines[500:]) == ("000 0", "499 0", ["[cut: 3 more]"])


def test_an_empty_folder_and_a_missing_one_are_told_apart(village: StagedVillage, hand: Hand) -> None:
    (village.folder / OWN).mkdir(parents=True)
    assert hand.do("list", path="~") == "[empty]"
    with pytest.raises(VivariumError, match=r"There is no 'files/library/none'\."):
        hand.do("list", path="files/library/none")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("flour", [2, 3]),
        ("FLOUR", [2, 3]),
        ("two*flour", [3]),
        ("flour*two", []),
        ("*eggs*", [1]),
        ("4*5", [4, 5]),
        (".", [6]),
        ("(", [6]),
        ("naïve", [7]),
    ],
)
def test_a_search_is_for_plain_text_and_a_star_is_anything_between(hand: Hand, text: str, lines: list[int]) -> None:
    hand.do("write", path="~/list.md", text="Eggs\none flour\ntwo of flour\n4*5\n4 + 5\nf(x).\nNAÏVE")
    found = hand.do("search", text=text)
    said = [int(line.split(":")[1]) for line in found.split("\n")] if found != "[nothing found]" else []
    assert said == lines


def test_a_search_of_nothing_but_stars_is_refused(hand: Hand) -> None:
    with pytest.raises(VivariumError, match=r"more than \*"):
        hand.do("search", text="**")


def test_a_search_stays_in_its_folder_or_file_and_out_of_hidden_ones(village: StagedVillage, hand: Hand) -> None:
    for name in ("a/one.md", "a/two.md", "b/one.md", "a/.git/one.md", "a/.env"):
        hand.do("write", path=f"~/{name}", text="flour")
    assert hand.do("search", text="flour", path="~/a") == f"{OWN}/a/one.md:1: flour\n{OWN}/a/two.md:1: flour"
    assert hand.do("search", text="flour", path="~/b/one.md") == f"{OWN}/b/one.md:1: flour"
    with pytest.raises(VivariumError, match="There is no"):
        hand.do("search", text="flour", path="~/c")


def test_a_search_is_cut_at_its_hits_and_at_its_bytes_and_says_so(small: StagedVillage) -> None:
    hand = Hand(small)
    hand.do("write", path="~/many.md", text="flour\n" * 9)
    found = hand.do("search", text="flour").split("\n")
    assert (len(found), found[3]) == (4, "[cut: there may be more]")
    for number in range(5):
        (small.folder / OWN / f"{number}.md").write_text("x" * 900)
    assert hand.do("search", text="nowhere") == "[cut: only 2,000 bytes were searched; name a folder]"


# Writing


@pytest.mark.parametrize("text", ["", "one", "é\n" * 50, "\ufeff bom", "a\u2028b", "x" * 400])
def test_what_is_written_is_what_is_there(small: StagedVillage, text: str) -> None:
    Hand(small).do("write", path="~/n.md", text=text)
    assert (small.folder / OWN / "n.md").read_bytes() == text.encode()


def test_a_text_that_is_too_large_or_none_is_refused(small: StagedVillage) -> None:
    hand = Hand(small)
    with pytest.raises(VivariumError, match=r"401 bytes, more than 400 \(plugins.files.write_bytes\)"):
        hand.do("write", path="~/n.md", text="x" * 401)
    with pytest.raises(VivariumError, match="NUL"):
        hand.do("write", path="~/n.md", text="a\0b")
    assert not (small.folder / OWN).exists()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    village: StagedVillage, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.do("write", path="~/n.md", text="old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(VivariumError, match="No space left"):
        hand.do("write", path="~/n.md", text="new")
    assert [(each.name, each.read_text()) for each in (village.folder / OWN).iterdir()] == [("n.md", "old")]


@pytest.mark.village(settings={"write_policy": "work"}, real_time=True)
def test_of_many_who_write_one_file_the_last_wins_and_no_reader_sees_half_of_it(village: StagedVillage) -> None:
    assert isinstance(village.clock, SystemClock), "with threads, as in a real village"
    texts = {f"{letter}" * 50_000 for letter in "abcdefgh"}
    hands = [Hand(village, "ada"), Hand(village, "ben")]
    place = "files/library/shared.md"
    seen = set()

    async def all_at_once() -> None:
        await hands[0].does("write", path=place, text=min(texts))
        writing = [asyncio.ensure_future(hands[n % 2].does("write", path=place, text=t)) for n, t in enumerate(texts)]
        while not all(each.done() for each in writing):
            seen.add((village.folder / place).read_text())
            await asyncio.sleep(0)
        await asyncio.gather(*writing)

    village.stage.run(all_at_once())
    assert seen | {(village.folder / place).read_text()} <= texts
    assert [each.name for each in (village.folder / "files" / "library").iterdir()] == ["shared.md"]


# The quota


def test_a_resident_has_so_many_bytes_wherever_it_wrote_them(small: StagedVillage) -> None:
    ada, ben = Hand(small, "ada"), Hand(small, "ben")
    ada.do("write", path="~/a.md", text="x" * 400)
    ada.do("write", path="files/library/b.md", text="x" * 400)
    with pytest.raises(VivariumError, match=r"more than 1,000 \(plugins.files.resident_bytes\)") as found:
        ada.do("write", path="~/c.md", text="x" * 201)
    assert found.value.rule == "files.quota"
    assert not (small.folder / OWN / "c.md").exists()
    ben.do("write", path="~/c.md", text="x" * 400)
    ada.do("write", path="~/c.md", text="x" * 200)


def test_writing_over_a_file_counts_it_once_and_for_who_wrote_it_last(small: StagedVillage) -> None:
    ada, ben = Hand(small, "ada"), Hand(small, "ben")
    for _ in range(5):
        ada.do("write", path="files/library/a.md", text="x" * 400)
    ben.do("write", path="files/library/a.md", text="x" * 300)
    assert rows(small, "SELECT resident, bytes FROM files_written") == [("ben", 300)]


def test_files_that_are_gone_count_no_longer(small: StagedVillage) -> None:
    hand = Hand(small)
    for name in "ab":
        hand.do("write", path=f"~/{name}.md", text="x" * 400)
    (small.folder / OWN / "a.md").unlink()
    hand.do("write", path="~/c.md", text="x" * 400)
    assert {row[0] for row in rows(small, "SELECT path FROM files_written")} == {f"{OWN}/b.md", f"{OWN}/c.md"}
