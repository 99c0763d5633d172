"""The room of the check against the intent: what words and figures alone can tell of a result.

A quoted text in a constraint has to be in the result, one in an anti-goal must not be. A limit of words, characters,
lines or sentences is counted. Nothing else is checked, and what was not is said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

_UNITS = r"(words?|characters?|lines?|sentences?)"
_MOST = re.compile(rf"\b(?:at most|no more than|not more than|up to|maximum of)\s+([\d,]+)\s+{_UNITS}\b", re.I)
_LEAST = re.compile(rf"\b(?:at least|no fewer than|not fewer than|minimum of)\s+([\d,]+)\s+{_UNITS}\b", re.I)
_EXACTLY = re.compile(rf"\bexactly\s+([\d,]+)\s+{_UNITS}\b", re.I)
_MORE = re.compile(rf"\b(?:more|longer) than\s+([\d,]+)\s+{_UNITS}\b", re.I)
_FEWER = re.compile(rf"\b(?:fewer|less) than\s+([\d,]+)\s+{_UNITS}\b", re.I)
_END = re.compile(r"(?<![.!?])[.!?]++(?:\s|$)")  # from the first of its marks alone: a result may have a million
_QUOTED = re.compile(r"\"([^\"\n]{1,200})\"|“([^”\n]{1,200})”|«([^»\n]{1,200})»")


@frozen
class Checked:
    """What came of the check: limits that are kept, those that are not (with why), and those that nobody checked."""

    kept: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


def check(text: str, constraints: Sequence[str], anti_goals: Sequence[str]) -> Checked:
    """Hold a result against the limits of its intent."""
    kept, broken, unchecked = [], [], []
    for limit, faults in (
        *((limit, _of_constraint(limit, text)) for limit in constraints),
        *((limit, _of_anti_goal(limit, text)) for limit in anti_goals),
    ):
        if faults is None:
            unchecked.append(limit)
        elif faults:
            broken.append(f"{limit!r}: {'; '.join(faults)}")
        else:
            kept.append(limit)
    return Checked(tuple(kept), tuple(broken), tuple(unchecked))


def count(text: str, unit: str) -> int:
    """How many words, characters, lines or sentences a text has; blank lines don't count."""
    match unit.lower().rstrip("s"):
        case "word":
            return len(text.split())
        case "character":
            return len(text.strip())
        case "line":
            return sum(bool(line.strip()) for line in text.splitlines())
    return sum(bool(part.strip()) for part in _END.split(text))


def _of_constraint(limit: str, text: str) -> list[str] | None:
    """What is against a constraint; None where nothing of it can be checked."""
    faults, can = _counted(limit, text, ((_MOST, True, False), (_LEAST, False, True), (_EXACTLY, True, True)))
    for quoted in _quotes(limit):
        can = True
        if quoted.casefold() not in text.casefold():
            faults.append(f"it has not {quoted!r}")
    return faults if can else None


def _of_anti_goal(limit: str, text: str) -> list[str] | None:
    faults, can = _counted(limit, text, ((_MORE, True, False), (_FEWER, False, True)))
    for quoted in _quotes(limit):
        can = True
        if quoted.casefold() in text.casefold():
            faults.append(f"it has {quoted!r}")
    return faults if can else None


def _counted(limit: str, text: str, patterns: Sequence[tuple[re.Pattern[str], bool, bool]]) -> tuple[list[str], bool]:
    """Figures of a limit that the text is outside of, and whether the limit has any."""
    faults, can = [], False
    for pattern, too_many, too_few in patterns:
        for figure, unit in pattern.findall(limit):
            if not (number := figure.replace(",", "")):
                continue
            can = True
            there = count(text, unit)
            if (too_many and there > int(number)) or (too_few and there < int(number)):
                faults.append(f"it has {there:,} {unit.rstrip('s')}s")
    return faults, can


def _quotes(limit: str) -> list[str]:
    return [next(filter(None, groups)) for groups in _QUOTED.findall(limit)]
