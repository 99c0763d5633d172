"""The room of written files: their text as plain data, and what is wrong with it by line and column.

Floats come as :class:`~vivarium_kernel.amounts.WrittenFloat`, so that amounts stay what was typed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vivarium_kernel.amounts import WrittenFloat
from vivarium_kernel.problems import InputError, Problem, key_path, quoted

MOST_DEPTH = 100


def text_of(path: Path, next_step: str) -> str:
    """The file's text. ``next_step`` tells what to do when there is no such file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError([Problem("", str(path), "there is no such file", next_step, str(path))]) from None
    except (OSError, ValueError) as error:
        # A ValueError is a path that no system could hold, such as one with a null character.
        message = f"can't be read: {getattr(error, 'strerror', None) or error}"
        fix = "name a file" if path.is_dir() else "check its path and permissions"
        raise InputError([Problem("", str(path), message, fix, str(path))]) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"{path}, line {raw.count(10, 0, error.start) + 1}"
        shown = f"byte 0x{raw[error.start]:02x}"
        raise InputError([Problem("", shown, f"is not UTF-8 ({shown})", "save it as UTF-8", place)]) from None


def toml_of(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text."""
    import tomllib

    try:
        return tomllib.loads(text, parse_float=WrittenFloat)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error), re.DOTALL)
        message, line, column = found.groups() if found else (str(error), None, None)
        if line is None:
            last = text.split("\n")
            line, column = str(len(last)), str(len(last[-1]) + 1)
        place = f"{where}, line {line}, column {column}"
        shown = quoted(text.split("\n")[int(line) - 1].strip())
        mend = _as_table_before(message, text.split("\n")[: int(line) - 1]) or "mend that line"
        raise InputError([Problem("", shown, f"is not TOML: {message}: {shown}", mend, place)]) from None
    except (ValueError, RecursionError) as error:
        raise InputError([_unreadable(error, "TOML", where)]) from None


def _as_table_before(message: str, before: Sequence[str]) -> str:
    """The advice for a table that stands twice, as one does where lines of a page were pasted below it."""
    found = re.fullmatch(r"Cannot declare \((.*?),?\) twice", message)
    if found is None:
        return ""
    names = re.findall("'([^']*)'", found[1])
    header = f"[{'.'.join(names)}]"
    lines = [number for number, line in enumerate(before, 1) if line.split("#")[0].strip() == header]
    return f"{header} stands in line {lines[0]} already: put these keys there" if lines else ""


def json_of(text: str, where: str) -> Any:
    """The value of a JSON text. A key that stands twice, NaN and Infinity are refused."""
    import json

    try:
        return json.loads(text, parse_float=WrittenFloat, parse_constant=_no_constant, object_pairs_hook=_no_key_twice)
    except json.JSONDecodeError as error:
        place = f"{where}, column {error.colno}"
        problem = Problem("", quoted(text), f"is not JSON: {error.msg}: {quoted(text)}", "mend that line", place)
        raise InputError([problem]) from None
    except InputError as error:
        raise InputError(problem.below("", where) for problem in error.problems) from None
    except (ValueError, RecursionError) as error:
        raise InputError([_unreadable(error, "JSON", where)]) from None


def plain(value: Any, depth: int = 0) -> Any:
    """The same data with ordinary floats, for whoever stores it or hands it on; at most MOST_DEPTH deep."""
    if depth > MOST_DEPTH:
        raise InputError([Problem("", quoted(value), f"must be nested at most {MOST_DEPTH} deep", "flatten it")])
    if isinstance(value, WrittenFloat):
        return float(value)
    if isinstance(value, dict):
        return {key: plain(item, depth + 1) for key, item in value.items()}
    return [plain(item, depth + 1) for item in value] if isinstance(value, (list, tuple)) else value


def _unreadable(error: Exception, kind: str, where: str) -> Problem:
    if isinstance(error, RecursionError):
        return Problem("", "", f"is not {kind} that can be read: it is nested too deeply", "flatten it", where)
    return Problem("", "", f"is not {kind} that can be read: {error}", "mend that value", where)


def _no_constant(word: str) -> Any:
    raise InputError([Problem("", word, f"is not JSON: {word} is no number there", "write a number or leave it out")])


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        left = [key for key, _ in pairs]
        for key in found:
            left.remove(key)
        twice = sorted(set(left))
        raise InputError(Problem(key_path(key), "", "stands twice in one object", "remove one") for key in twice)
    return found
