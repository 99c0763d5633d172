"""Promises about the rule that splits a request without a model: what counts, and that nothing is lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
