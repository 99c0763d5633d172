"""The room of the rule that splits a request without a model: its signs, its pieces, and what its sentences ask for.

Rules: docs/rules.md, "Intent and decomposition". All of it is pure and reads English words; nothing is understood.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from attrs import frozen

MOST_SUBTASKS = 5
LONG_CHARACTERS, MANY_NEWLINES, MANY_MARKS, SIGNS_NEEDED = 220, 2, 2, 2
CLAUSE_WORDS = 3  # a clause has at least so many words
MANY_PIECES = 100
HEAD_WORDS = 4  # a sentence that says "must" among its first words is a limit, and no step

Kind = Literal["step", "constraint", "preference", "anti_goal"]

_SEQUENCE = re.compile(
    r"\b(?:first(?:ly)?|then|next|after that|afterwards|second(?:ly)?|third(?:ly)?|finally|lastly|step \d+)\b", re.I
)
_JOINS = re.compile(r"\b(?:and|but|while|plus|as well as)\b", re.I)
# White space is taken whole and from its beginning alone, so that a run of it is gone through once: this is done in a
# transaction that others wait for.
_BLANK = r"(?<!\s)\s++"
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_CUT = re.compile(
    r"(?<=[.!?;])\s++|\n++\s*+|,\s++(?=(?:and\s++)?(?:then|next|after that|afterwards|finally|lastly)\b)|"
    rf"{_BLANK}(?=(?:and\s++then|after that|afterwards)\b)",
    re.I,
)
_CLAUSE_CUT = re.compile(rf",\s++(?=\w)|{_BLANK}(?=(?:and|as well as)\s)", re.I)
_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("anti_goal", re.compile(r"\b(?:do not|don't|never|must not|mustn't|should not|shouldn't|avoid)\b", re.I)),
    ("preference", re.compile(r"\b(?:prefer|preferably|ideally|if possible|if you can)\b", re.I)),
    (
        "constraint",
        re.compile(r"\b(?:must|has to|have to|only|at most|at least|no more than|up to|exactly|within)\b", re.I),
    ),
)


@frozen
class Sentences:
    """What the sentences of a request say, each as it was written."""

    goal: str
    constraints: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ()
    anti_goals: tuple[str, ...] = ()


def signs(text: str) -> tuple[str, ...]:
    """The signs of a long or compound request that a text has."""
    found = (
        (len(text) >= LONG_CHARACTERS, f"{LONG_CHARACTERS} characters or more"),
        (text.count("\n") >= MANY_NEWLINES, f"{MANY_NEWLINES} line breaks or more"),
        (_SEQUENCE.search(text) is not None, "words of sequence"),
        (text.count(",") + text.count(";") >= MANY_MARKS, f"{MANY_MARKS} commas or semicolons or more"),
        (any(_is_compound(sentence) for sentence in _SENTENCE.split(text)), "compound clauses"),
    )
    return tuple(words for there, words in found if there)


def is_to_be_split(text: str) -> bool:
    """Whether a request is long or compound by the rule."""
    return len(signs(text)) >= SIGNS_NEEDED


def pieces(text: str) -> list[str]:
    """A text in at most five parts, in its order; nothing of it but white space is lost."""
    found = _joined(_cut(text, _CUT))
    if len(found) < 2:
        found = _joined(_cut(text, _CLAUSE_CUT))
    while len(found) > MANY_PIECES:  # to look for the shortest of thousands, time and again, takes seconds
        found = [" ".join(found[at : at + 2]) for at in range(0, len(found), 2)]
    while len(found) > MOST_SUBTASKS:
        place = min(range(len(found) - 1), key=lambda at: len(found[at]) + len(found[at + 1]))
        found[place : place + 2] = [f"{found[place]} {found[place + 1]}"]
    return found


def steps(text: str) -> list[str]:
    """The parts of a request that are to be done one after the other; none where there are not two of them.

    Sentences that only set limits are no steps: they are in the intent, which every step is told.
    """
    doing = " ".join(part for part in _cut(text, _CUT) if kind_of(part) == "step")
    found = pieces(doing)
    return found if len(found) >= 2 else []


def kind_of(sentence: str) -> Kind:
    """What a sentence is for, by the first of its words; a step unless they say otherwise."""
    head = " ".join(sentence.split()[:HEAD_WORDS])
    return next((kind for kind, words in _KINDS if words.search(head)), "step")


def said(text: str) -> Sentences:
    """Goal and limits of a request. A sentence in which a limit is said further on counts as a limit, too."""
    sentences = [part.strip(" \t-*•") for part in _SENTENCE.split(text) if part.strip(" \t-*•")]
    limits: dict[Kind, list[str]] = {"constraint": [], "preference": [], "anti_goal": []}
    for sentence in sentences:
        kind = kind_of(sentence)
        if kind == "step":
            kind = next((other for other, words in _KINDS if words.search(sentence)), "step")
        if kind != "step":
            limits[kind].append(sentence)
    goal = next((sentence for sentence in sentences if kind_of(sentence) == "step"), "".join(sentences[:1]))
    return Sentences(goal, *(tuple(limits[kind]) for kind in ("constraint", "preference", "anti_goal")))


def title_of(text: str, most: int = 80) -> str:
    """The beginning of a text in one line, cut with a mark."""
    line = " ".join(text.split()).strip("-*• ")
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _is_compound(sentence: str) -> bool:
    return sum(len(part.split()) >= CLAUSE_WORDS for part in _JOINS.split(sentence)) >= 2


def _cut(text: str, places: re.Pattern[str]) -> list[str]:
    ends = [0, *(match.end() for match in places.finditer(text)), len(text)]
    found = [text[start:end].strip() for start, end in pairwise(ends)]
    return [part for part in found if part]


def _joined(parts: Sequence[str]) -> list[str]:
    """Parts of a few words belong to the one before them, or to the one behind if they are the first."""
    found: list[list[str]] = []
    words = 0  # of the last one
    for part in parts:
        count = len(part.split())
        if found and min(count, words) < CLAUSE_WORDS:
            found[-1].append(part)
            words += count
        else:
            found.append([part])
            words = count
    return [" ".join(each) for each in found]
