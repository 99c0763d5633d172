"""Promises about the rule that splits a request without a model: what counts, and that nothing is lost."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivarium_plugins_intent import splitting
from vivarium_plugins_intent.splitting import (
    CLAUSE_WORDS,
    LONG_CHARACTERS,
    MOST_SUBTASKS,
    is_to_be_split,
    kind_of,
    pieces,
    said,
    signs,
    steps,
    title_of,
)

WORDS = (
    "read",
    "the notes",
    "Then",
    "finally",
    "and",
    "but",
    ",",
    ";",
    ".",
    "\n",
    "list every name",
    "first",
    "a",
    "!",
)
requests = st.one_of(st.text(max_size=600), st.lists(st.sampled_from(WORDS), max_size=120).map(" ".join))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Count the files.", ()),
        ("x" * (LONG_CHARACTERS - 1), ()),
        ("x" * LONG_CHARACTERS, ("220 characters or more",)),
        ("one\ntwo", ()),
        ("one\ntwo\nthree", ("2 line breaks or more",)),
        ("Wash up, then dry", ("words of sequence",)),
        ("Thenceforth", ()),
        ("red, green", ()),
        ("red, green; blue", ("2 commas or semicolons or more",)),
        ("read every note and count the words", ("compound clauses",)),
        ("bread and butter", ()),
        ("salt and pepper, bread but no butter", ()),
    ],
)
def test_each_sign_is_found_where_the_rule_has_it(text: str, found: tuple[str, ...]) -> None:
    assert signs(text) == found


def test_two_signs_split_a_request_and_one_does_not() -> None:
    assert not is_to_be_split("First wash up")
    assert is_to_be_split("First wash up all plates and then dry every one of them")


def test_steps_are_the_parts_in_their_order() -> None:
    text = "Read every note in the folder, then list the names in them; finally write a page about each name."
    assert steps(text) == [
        "Read every note in the folder,",
        "then list the names in them;",
        "finally write a page about each name.",
    ]


def test_limits_are_no_steps_but_stand_in_the_intent() -> None:
    text = (
        "Read every note in the folder. Write one page about it of at most 300 words. It must name its sources. "
        "Ideally it has a drawing. Never quote a whole note."
    )
    assert steps(text) == ["Read every note in the folder.", "Write one page about it of at most 300 words."]
    found = said(text)
    assert found.goal == "Read every note in the folder."
    assert found.constraints == ("Write one page about it of at most 300 words.", "It must name its sources.")
    assert found.preferences == ("Ideally it has a drawing.",)
    assert found.anti_goals == ("Never quote a whole note.",)


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [("Do not use figures.", "anti_goal"), ("If possible use ink.", "preference"), ("It must rhyme.", "constraint"),
     ("Write a poem that must rhyme.", "step"), ("", "step")],
)  # fmt: skip
def test_a_sentence_is_a_limit_by_its_first_words(sentence: str, kind: str) -> None:
    assert kind_of(sentence) == kind


def solid(text: str) -> str:
    return re.sub(r"\s", "", text)


@given(requests)
def test_nothing_of_a_request_is_lost_between_its_pieces(text: str) -> None:
    found = pieces(text)
    assert solid("".join(found)) == solid(text)
    assert len(found) <= MOST_SUBTASKS
    assert all(part.strip() for part in found)
    if len(found) > 1:
        assert all(len(part.split()) >= CLAUSE_WORDS for part in found)


@given(requests)
def test_steps_are_none_or_two_to_five_and_the_same_each_time(text: str) -> None:
    found = steps(text)
    assert len(found) == 0 or 2 <= len(found) <= MOST_SUBTASKS
    assert found == steps(text)


@given(requests)
def test_every_word_of_a_request_is_a_step_or_a_limit(text: str) -> None:
    found = steps(text)
    if found:
        limits = said(text)
        kept = solid(" ".join([*found, *limits.constraints, *limits.preferences, *limits.anti_goals]))
        for word in re.findall(r"\w+", text):
            assert word in kept


@given(requests)
def test_a_title_is_one_short_line(text: str) -> None:
    assert len(title_of(text)) <= 80
    assert len(title_of(text).splitlines()) <= 1


def blanks(text: str) -> re.Pattern[str]:
    """What a place to cut was before white space was taken whole."""
    return re.compile(text.replace(r"(?<!\s)", "").replace("++", "+").replace("*+", "*"), re.I)


@pytest.mark.parametrize("places", [splitting._CUT, splitting._CLAUSE_CUT])
@given(text=st.lists(st.sampled_from((*WORDS, "and then", "as well as", "  ", "\t", "\n ")), max_size=60).map("".join))
def test_a_run_of_white_space_is_cut_where_it_was_when_each_of_it_was_tried(places: re.Pattern[str], text: str) -> None:
    ends = [found.span() for found in blanks(places.pattern).finditer(text)]
    assert [found.span() for found in places.finditer(text)] == ends


LONG = [
    "go" + " " * 1_000_000 + "x",
    "go," + " " * 1_000_000 + "!",
    "go, and" + " " * 1_000_000 + "x",
    "a b c. " * 100_000,
    "a, " * 300_000,
    "one two three, " * 60_000,
    "\n \n" * 300_000,
    "step " + "1" * 1_000_000 + "x",
]


@pytest.mark.parametrize("text", LONG, ids=lambda text: repr(text[:12]))
def test_a_request_is_gone_through_once_whatever_is_in_it(text: str) -> None:
    began = time.process_time()
    is_to_be_split(text)
    steps(text)
    pieces(text)
    said(text)
    assert time.process_time() - began < 60.0  # a few seconds at the most, or hours


def test_of_thousands_of_pieces_none_is_lost() -> None:
    text = "".join(f"Do part number {number}. " for number in range(1_001))
    found = pieces(text)
    assert len(found) == MOST_SUBTASKS and solid("".join(found)) == solid(text)
    assert max(map(len, found)) < 3 * min(map(len, found))
