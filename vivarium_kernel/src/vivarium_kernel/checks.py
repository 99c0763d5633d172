"""The room of small rules: what one value must be like, whoever wrote it.

A check is a function that is given a value and yields what is wrong with it, with paths that begin at that value.
Settings use them as attrs validators, posts run them on each field; neither states a rule twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vivarium_kernel.problems import InputError, Problem, listed, quoted

Check = Callable[[Any], Iterable[Problem]]

TASK_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
RESIDENT_NAME = r"[a-z][a-z0-9_-]{0,39}"
MODE_NAME = r"[a-z][a-z0-9_]{0,39}"
PLUGIN_NAME = r"[a-z][a-z0-9_]{0,39}"


def wrong(value: object, must: str, next_step: str = "", path: str = "") -> Problem:
    """The usual problem: what the value must be, and what it is."""
    return Problem(path, quoted(value), f"must be {must}, not {quoted(value)}", next_step)


def between(low: float, high: float, unit: str = "", *, above: bool = False, whole: bool = False) -> Check:
    """A finite number from ``low`` to ``high``; ``above`` leaves ``low`` itself out, ``whole`` allows integers only."""
    measure = f" {unit}" if unit else ""
    least, most = (f"{end:,d}" if isinstance(end, int) else f"{end:,.15g}" for end in (low, high))
    span = f"more than {least} and at most {most}" if above else f"from {least} to {most}"
    must = f"a {'whole number' if whole else 'number'} {span}{measure}"

    def check(value: Any) -> Iterator[Problem]:
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        # An integer compares exactly however large it is; math.isfinite would overflow on it.
        finite = fits and (isinstance(value, int) or math.isfinite(value))
        if not finite or not low <= value <= high or (above and value == low):
            yield wrong(value, must)

    return check


def one_of(*words: str) -> Check:
    """One of a few words."""

    def check(value: Any) -> Iterator[Problem]:
        if not isinstance(value, str) or value not in words:
            yield wrong(value, listed(words))

    return check


def matching(pattern: str, what: str, next_step: str) -> Check:
    """Text that matches the whole of a pattern; ``what`` says it in words."""

    def check(value: Any) -> Iterator[Problem]:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            yield wrong(value, what, next_step)

    return check


def text(limit: int, *, lines: bool = False, empty: bool = False) -> Check:
    """Text of at most ``limit`` characters that can be stored and shown: no stray control characters or surrogates."""

    def check(value: Any) -> Iterator[Problem]:
        if not isinstance(value, str):
            yield wrong(value, "text", "write it in quotes")
        elif len(value) > limit:
            next_step = "shorten it; long material belongs in a file that the task names"
            yield Problem("", quoted(value), f"must have at most {limit:,} characters, not {len(value):,}", next_step)
        elif not empty and not value.strip():
            yield wrong(value, "text that is not blank")
        elif (bad := _unstorable(value, "\n\r\t" if lines else "")) is not None:
            message = f"must not hold the character U+{ord(value[bad]):04X} (at {bad}): {quoted(value)}"
            yield Problem("", quoted(value), message, "remove that character")

    return check


def in_brackets(value: object) -> str:
    """How what should be a list is written; words of one text are probably its entries."""
    if not isinstance(value, str) or not value.strip() or "\n" in value or len(value) > 200:
        return "write it in square brackets"
    return f"write [{', '.join(quoted(word) for word in value.split())}]"


def each(check: Check, most: int, *, unique: bool = True) -> Check:
    """A list of at most ``most`` items, each of which holds the check; ``unique`` refuses the same one twice."""

    def check_all(value: Any) -> Iterator[Problem]:
        if not isinstance(value, (list, tuple)):
            yield wrong(value, "a list", in_brackets(value))
            return
        if len(value) > most:
            message = f"must have at most {most:,} entries, not {len(value):,}"
            yield Problem("", quoted(value), message, "remove some")
            return
        seen: set[str] = set()
        for index, item in enumerate(value):
            found = [problem.below(f"[{index}]") for problem in check(item)]
            yield from found
            if unique and not found and item in seen:
                yield Problem(f"[{index}]", quoted(item), f"{quoted(item)} stands here twice", "remove one")
            elif not found:
                seen.add(item)

    return check_all


def inside_path(value: Any) -> Iterator[Problem]:
    """A path below the village folder: relative, without ``..``."""
    found = list(text(1_000)(value))
    yield from found
    if not found and (value.startswith("/") or ".." in value.split("/")):
        yield wrong(value, 'a path inside the village, relative and without ".."', "write it from the village folder")


def task_id(value: Any) -> Iterator[Problem]:
    """The id of a task."""
    must = 'a task id: 1 to 80 of A-Z a-z 0-9 . _ - without "..", first a letter or digit'
    if not isinstance(value, str) or not re.fullmatch(TASK_ID, value, re.ASCII) or ".." in value:
        yield wrong(value, must, "choose another id")


resident_name = matching(RESIDENT_NAME, "a resident's name: a-z, then a-z 0-9 _ -, at most 40", "choose another name")
mode_name = matching(MODE_NAME, "a mode: a-z, then a-z 0-9 _, at most 40", "command and llm are built in")
plugin_name = matching(PLUGIN_NAME, "a plugin's name: a-z, then a-z 0-9 _, at most 40", "write its entry-point name")


def validator(check: Check, key: str = "") -> Callable[[Any, Any, Any], None]:
    """The check as an attrs validator, which raises :class:`InputError` with all that is wrong with its field."""

    def validate(instance: Any, attribute: Any, value: Any) -> None:
        if problems := [problem.below(key or attribute.name) for problem in check(value)]:
            raise InputError(problems)

    return validate


def _unstorable(value: str, allowed: str) -> int | None:
    """Where the first character stands that SQLite, a terminal or a process could not take."""
    for found in re.finditer(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", value):
        if found[0] not in allowed:
            return found.start()
    return None


CLASSES = ("small", "medium", "large")
_NAMED = r"[a-z][a-z0-9_-]*:[!-~]{1,200}"
_WISH = matching(_NAMED, "PROVIDER:NAME, small, medium, large or auto", 'such as "scripted:echo"')
model_name = matching(_NAMED, "PROVIDER:NAME", 'such as "scripted:echo"')


def model_wish(value: Any) -> Any:
    """A model, a class, ``auto``, or several with commas between them."""
    if not isinstance(value, str):
        return _WISH(value)
    named = [name.strip() for name in value.split(",")]
    return [problem for name in named if name not in (*CLASSES, "auto") for problem in _WISH(name)]
