"""Promises about the check against the intent: figures and quoted words are checked, and what is not is said."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivarium_plugins_intent.checking import check, count

TEXT = "One two three. Four five.\nSix seven eight."


@pytest.mark.parametrize(
    ("constraint", "is_kept"),
    [
        ("At most 8 words", True),
        ("at most 7 words", False),
        ("at least 8 words", True),
        ("at least 9 words", False),
        ("exactly 3 sentences", True),
        ("exactly 2 sentences", False),
        ("no more than 2 lines", True),
        ("up to 1 line", False),
        ("at most 1,000 characters", True),
        ("at most 5 characters", False),
        ('it says "four FIVE"', True),
        ('it says "nine"', False),
        ("it says “seven eight”", True),
        ('at least 1 word and "nine"', False),
    ],
)
def test_a_constraint_of_figures_or_quotes_is_held(constraint: str, is_kept: bool) -> None:
    found = check(TEXT, [constraint], [])
    assert (len(found.kept), len(found.broken), found.unchecked) == (int(is_kept), int(not is_kept), ())


@pytest.mark.parametrize(
    ("anti_goal", "is_kept"),
    [
        ('Never say "nine"', True),
        ('Never say "FIVE"', False),
        ("Not more than 8 words, never longer than 8 words", True),
        ("never more than 7 words", False),
        ("never fewer than 9 words", False),
    ],
)
def test_an_anti_goal_of_figures_or_quotes_is_held(anti_goal: str, is_kept: bool) -> None:
    found = check(TEXT, [], [anti_goal])
    assert (len(found.kept), len(found.broken)) == (int(is_kept), int(not is_kept))


def test_what_words_cannot_tell_is_left_open_and_said() -> None:
    found = check(TEXT, ["It is kind", "at most , words"], ["Never bore anybody"])
    assert found.unchecked == ("It is kind", "at most , words", "Never bore anybody")
    assert not found.broken


def test_a_broken_limit_is_named_with_what_was_found() -> None:
    assert check(TEXT, ["at most 7 words"], []).broken == ("'at most 7 words': it has 8 words",)
    assert check(TEXT, [], ['no "six"']).broken == ("'no \"six\"': it has 'six'",)


@given(st.text(alphabet=".!? \na", max_size=60))
def test_a_sentence_ends_where_its_marks_do(text: str) -> None:
    parts = re.split(r"[.!?]+(?:\s|$)", text)  # the rule, as it is written
    assert count(text, "sentences") == sum(bool(part.strip()) for part in parts)


def test_a_million_marks_are_gone_through_once() -> None:
    began = time.process_time()
    assert count("." * 1_000_000 + "x", "sentences") == 1
    assert time.process_time() - began < 20.0  # a fraction of a second, or hours
