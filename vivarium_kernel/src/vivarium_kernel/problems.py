"""The room of bad input: what is wrong with what a person wrote, all of it at once.

A :class:`Problem` is data; :class:`InputError` carries every problem of one input. Who shows them (the CLI, the API)
decides how: ``str(error)`` is one line a problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from vivarium_kernel.errors import Invalid

SHOWN_PROBLEMS = 50


@frozen
class Problem:
    """One thing that is wrong: where in the input, with which value, and the next step to take.

    ``path`` is empty when the whole input is meant. ``value`` is already short and safe to print.
    ``where`` names the file (with line or task) or the environment variable that the value came from.
    """

    path: str
    value: str
    message: str
    next_step: str
    where: str = ""

    def __str__(self) -> str:
        place = "".join(f"{part}: " for part in (self.where, self.path) if part)
        return f"{place}{self.message}" + (f" ({self.next_step})" if self.next_step else "")

    def below(self, prefix: str, where: str = "") -> Problem:
        """The same problem seen from further out: ``prefix`` goes before its path."""
        return attrs.evolve(self, path=joined(prefix, self.path), where=self.where or where)


class InputError(Invalid):
    """Input that was refused, with everything that is wrong with it. Nothing was changed."""

    RULE = "input"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(self.RULE, lines_of(self.problems), first.next_step, field=first.path or None)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


def lines_of(problems: Sequence[Problem]) -> str:
    """One line a problem; past :data:`SHOWN_PROBLEMS` only how many more there are."""
    lines = [str(problem) for problem in problems[:SHOWN_PROBLEMS]]
    more = len(problems) - len(lines)
    return "\n".join([*lines, f"and {more} more problems"] if more else lines)


def joined(prefix: str, path: str) -> str:
    """Two paths as one: ``commands`` and ``allow`` are ``commands.allow``, ``tasks`` and ``[1]`` are ``tasks[1]``."""
    if not prefix or not path:
        return prefix or path
    return f"{prefix}{path}" if path.startswith("[") else f"{prefix}.{path}"


def key_path(key: object) -> str:
    """One key as a piece of a path, quoted if it is not a plain word."""
    word = str(key)
    return word if word and len(word) <= 80 and word.replace("_", "").replace("-", "").isalnum() else quoted(word)


def quoted(value: object, depth: int = 0) -> str:  # noqa: PLR0911 - one line a type
    """A value as one short line that is safe on any terminal: no control characters, no endless text."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() if abs(value) >= 10**24:
            return f"a number of {value.bit_length():,} bits"
        case int() | float():
            return str(getattr(value, "text", repr(value).removesuffix(".0")))[:60]
        case str():
            cut = value[:60].replace("\\", "\\\\").replace('"', '\\"')
            text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
            return f'"{text}"' if len(value) <= 60 else f'"{text}…" ({len(value):,} characters)'
        case Mapping() if depth < 2:
            inside = [f"{key_path(key)} = {quoted(item, depth + 1)}" for key, item in [*value.items()][:3]]
            return "{" + ", ".join(inside) + (", …" if len(value) > 3 else "") + "}"
        case list() | tuple() if depth < 2:
            inside = [quoted(item, depth + 1) for item in value[:3]]
            return "[" + ", ".join(inside) + (", …" if len(value) > 3 else "") + "]"
        case Mapping() | list() | tuple():
            return "…"
        case _:
            moment = getattr(value, "isoformat", None)  # the dates and times of TOML
            return str(moment()) if callable(moment) else f"a {type(value).__name__}"


def listed(words: Iterable[str]) -> str:
    """``a, b or c``."""
    *most, last = [str(word) for word in words]
    return f"{', '.join(most)} or {last}" if most else last


def near(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None: one spelt nearly so, or else the first that it begins."""
    from difflib import get_close_matches

    words = list(known)
    found = get_close_matches(word[:100], words, n=1, cutoff=0.6)
    begun = (other for other in words if other.startswith(f"{word}_"))
    return found[0] if found else next(begun, None)


def unknown(raw: Mapping[Any, Any], known: Sequence[str], what: str = "key") -> Iterator[Problem]:
    """A problem for each key of ``raw`` that is not among the ``known``, with the one that was probably meant."""
    for key in raw:
        if key not in known:
            meant = near(str(key), known)
            next_step = f'did you mean "{meant}"?' if meant else f"there are: {', '.join(sorted(known))}"
            yield Problem(key_path(key), quoted(raw[key]), f"unknown {what}", next_step)
