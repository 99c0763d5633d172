"""The room of requests: JSON text to attrs records, with every problem at once.

Types are ``structuring``'s business. Here are the limits that a type's annotation states
(``Annotated[int, msgspec.Meta(ge=1)]``: what OpenAPI shows is what is enforced), and what no database can store.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import attrs
import msgspec

from vivarium_kernel.amounts import LARGEST_MICROS
from vivarium_kernel.checks import wrong
from vivarium_kernel.documents import json_of, plain
from vivarium_kernel.problems import InputError, Problem, key_path, quoted
from vivarium_kernel.structuring import make_converter, problems_of

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")
_SURROGATE = re.compile("[\ud800-\udfff]")


def from_json(raw: bytes, where: str = "body") -> Any:
    """The value of a JSON body; :class:`InputError` for what is not UTF-8 or not JSON."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = Problem("", f"byte 0x{raw[error.start]:02x}", "is not UTF-8", "send JSON in UTF-8", where)
        raise InputError([problem]) from None
    return plain(json_of(text, where))


def read(cls: type[T], raw: object) -> T:
    """``raw`` as a ``cls``, within the limits that its annotations state, and nothing that can't be stored."""
    if problems := list(_unstorable(raw)):
        raise InputError(problems)
    try:
        record = _converter().structure(raw, cls)
    except Exception as error:
        raise InputError(problems_of(error, raw)) from error
    if problems := list(limits(record)):
        raise InputError(problems)
    return record


def limits(record: Any) -> Iterator[Problem]:
    """Where a record is outside the limits of its annotations."""
    cls: Any = type(record)
    for name, hint in _hints(cls).items():
        yield from (problem.below(name) for problem in _outside(getattr(record, name), hint))


def positive_amounts(record: Any) -> Iterator[Problem]:
    """Amounts from outside are positive: every whole number whose name ends in ``_micros``."""
    if isinstance(record, (list, tuple)):
        for index, item in enumerate(record):
            yield from (problem.below(f"[{index}]") for problem in positive_amounts(item))
    elif attrs.has(type(record)):
        for name, value in attrs.asdict(record, recurse=False).items():
            yield from (problem.below(name) for problem in positive_amounts(value))
            fits = type(value) is int and 1 <= value <= LARGEST_MICROS
            if name.endswith("_micros") and value is not None and not fits:
                yield wrong(value, f"a whole number of millionths from 1 to {LARGEST_MICROS:,}", "", name)


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a record, with its path."""
    if isinstance(value, str):
        yield path, value
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from texts(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(str(key), f"{path}.{key_path(key)}")
            yield from texts(item, f"{path}.{key_path(key)}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            yield from texts(item, f"{path}[{index}]")


@cache
def _converter() -> Converter:
    return make_converter()  # making one, and its hooks for each type, takes milliseconds


@cache
def _hints(cls: Any) -> Mapping[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {name: hint for name, hint in hints.items() if name in attrs.fields_dict(cls)}


def _outside(value: Any, hint: Any) -> Iterator[Problem]:
    if value is None:
        return
    if get_origin(hint) is Annotated:
        for meta in get_args(hint)[1:]:
            if isinstance(meta, msgspec.Meta):
                yield from _beyond(value, meta)
        yield from _outside(value, get_args(hint)[0])
    elif attrs.has(type(value)):
        yield from limits(value)
    elif isinstance(value, (list, tuple)) and get_args(hint):
        inner = [kind for kind in get_args(hint) if kind is not Ellipsis]
        for index, item in enumerate(value):
            yield from (problem.below(f"[{index}]") for problem in _outside(item, inner[0]))
    else:
        for kind in get_args(hint):
            if get_origin(kind) is Annotated:  # of ``Limited | None``
                yield from _outside(value, kind)


def _beyond(value: Any, meta: msgspec.Meta) -> Iterator[Problem]:
    if isinstance(value, (int, float)):
        if meta.ge is not None and value < meta.ge:
            yield wrong(value, f"at least {meta.ge:,}")
        if meta.gt is not None and value <= meta.gt:
            yield wrong(value, f"more than {meta.gt:,}")
        if meta.le is not None and value > meta.le:
            yield wrong(value, f"at most {meta.le:,}")
        return
    size = len(value)
    what = "characters" if isinstance(value, str) else "entries"
    if meta.min_length is not None and size < meta.min_length:
        yield Problem("", quoted(value), f"must have at least {meta.min_length:,} {what}, not {size:,}", "")
    if meta.max_length is not None and size > meta.max_length:
        yield Problem("", quoted(value), f"must have at most {meta.max_length:,} {what}, not {size:,}", "shorten it")
    if meta.pattern is not None and not re.search(meta.pattern, value):
        yield wrong(value, meta.description or f"text like {meta.pattern}")


def _unstorable(value: Any) -> Iterator[Problem]:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            yield Problem("", quoted(value), f"holds half a character: {quoted(value)}", "send whole characters")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _unstorable(key)
            yield from (problem.below(key_path(key)) for problem in _unstorable(item))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from (problem.below(f"[{index}]") for problem in _unstorable(item))
    elif isinstance(value, (int, float)) and not -(2**63) <= value < 2**63:
        yield wrong(value, "a number of at most 64 bits")
