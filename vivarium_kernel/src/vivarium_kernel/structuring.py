"""The room of structuring: plain data to attrs records through cattrs, with every problem at once and its path.

cattrs does the types; this room adds what people need when they err: no silent conversion (``"5"`` is not 5, a text
is not a list of letters), unknown keys with the one that was probably meant, and the field also of what an attrs
validator refuses (cattrs' own ``transform_error`` loses it). Settings and each plugin's ``Config`` come through here.

Field metadata that counts: ``key`` is the name in the file when it is not the attribute's, ``parse`` makes the value of
a field from what is written there in place of its type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import attrs

from vivarium_kernel.checks import wrong
from vivarium_kernel.problems import InputError, Problem, key_path, listed, quoted, unknown

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]


def structure(cls: type[T], raw: object, path: str = "") -> T:
    """``raw`` as a ``cls``; an :class:`InputError` with every problem, whose paths begin with ``path``."""
    try:
        return make_converter().structure(raw, cls)
    except Exception as error:
        problems = tuple(problems_of(error, raw))
        raise InputError(problem.below(path) for problem in problems) from error


def make_converter() -> Converter:
    """A cattrs converter that converts nothing silently and names every problem."""
    from cattrs import Converter, cols

    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    for primitive, must in ((str, "text"), (bool, "true or false"), (int, "a whole number")):
        converter.register_structure_hook(primitive, _strict(primitive, must))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_factory(_is_literal, _literal)
    converter.register_structure_hook_factory(cols.is_mapping, _only((dict, Mapping), "a table", _mapping))
    converter.register_structure_hook_factory(
        lambda cls: cols.is_sequence(cls) or cols.is_any_set(cls), _only((list, tuple), "a list", _collection)
    )
    converter.register_structure_hook_factory(_is_fixed_tuple, _only((list, tuple), "a list", _fixed_tuple))
    converter.register_structure_hook_factory(attrs.has, _record)
    converter.register_structure_hook_factory(_is_choice, _choice)
    return converter


def problems_of(error: BaseException, value: object = None) -> Iterator[Problem]:
    """What is wrong, from any exception that structuring raised."""
    from cattrs import BaseValidationError

    if isinstance(error, InputError):
        yield from error.problems
    elif isinstance(error, BaseValidationError):
        for inner in error.exceptions:
            index = next((note.index for note in getattr(inner, "__notes__", ()) if hasattr(note, "index")), None)
            segment = "" if index is None else f"[{index}]" if isinstance(index, int) else key_path(index)
            item = None if index is None or not isinstance(value, (dict, list, tuple)) else value[index]
            yield from (problem.below(segment) for problem in problems_of(inner, item))
    else:
        # An attrs validator's first argument is its message; the others are the attribute and more.
        told = str(error.args[0]) if error.args else type(error).__name__
        yield Problem("", quoted(value), told, "")


def _strict(cls: type, must: str) -> Hook:
    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, cls) or (cls is int and isinstance(value, bool)):
            raise InputError([wrong(value, must, "write it in quotes" if cls is str else "")])
        return value

    return hook


def _number(value: Any, _: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise InputError([wrong(value, "a number")])
    if not (abs(value) < 10**300 if isinstance(value, int) else math.isfinite(value)):
        raise InputError([wrong(value, "a finite number")])
    return float(value)


def _is_literal(cls: Any) -> bool:
    origin: Any = get_origin(cls)
    return origin is Literal


def _literal(cls: Any) -> Hook:
    words = get_args(cls)

    def hook(value: Any, _: Any) -> Any:
        for word in words:
            if type(value) is type(word) and value == word:
                return word
        raise InputError([wrong(value, listed(words))])

    return hook


def _is_choice(cls: Any) -> bool:
    """A union of several types; one type or None is cattrs' own business."""
    kinds = get_args(cls)
    union = isinstance(cls, UnionType) or get_origin(cls) is Union
    return union and (len(kinds) > 2 or type(None) not in kinds)


def _choice(cls: Any, converter: Converter) -> Hook:
    kinds = get_args(cls)

    def hook(value: Any, _: Any) -> Any:
        problems: list[Problem] = []
        for kind in kinds:
            if kind is type(None):
                if value is None:
                    return None
                continue
            try:
                return converter.structure(value, kind)
            except Exception as error:
                problems += problems_of(error, value)
        raise InputError(problems)

    return hook


def _only(kinds: tuple[type, ...], must: str, factory: Callable[[Any, Converter], Hook]) -> Any:
    def guarded(cls: Any, converter: Converter) -> Hook:
        inner = factory(cls, converter)

        def hook(value: Any, target: Any) -> Any:
            if not isinstance(value, kinds):
                raise InputError([wrong(value, must)])
            return inner(value, target)

        return hook

    return guarded


def _mapping(cls: Any, converter: Converter) -> Hook:
    from cattrs.cols import mapping_structure_factory

    return mapping_structure_factory(cls, converter)


def _collection(cls: Any, converter: Converter) -> Hook:
    from cattrs import cols

    if get_origin(cls) is tuple or cls is tuple:
        return cols.homogenous_tuple_structure_factory(cls, converter)
    as_list = cols.list_structure_factory(cls, converter)
    if cols.is_frozenset(cls):
        return lambda value, target: frozenset(as_list(value, target))
    if cols.is_any_set(cls):
        return lambda value, target: set(as_list(value, target))
    return as_list


def _is_fixed_tuple(cls: Any) -> bool:
    return get_origin(cls) is tuple and Ellipsis not in get_args(cls)


def _fixed_tuple(cls: Any, converter: Converter) -> Hook:
    kinds = get_args(cls)

    def hook(value: Any, _: Any) -> Any:
        if len(value) != len(kinds):
            raise InputError([wrong(value, f"a list of {len(kinds)}")])
        items: list[Any] = []
        problems: list[Problem] = []
        for index, (item, kind) in enumerate(zip(value, kinds, strict=True)):
            try:
                items.append(converter.structure(item, kind))
            except Exception as error:
                problems += [problem.below(f"[{index}]") for problem in problems_of(error, item)]
        if problems:
            raise InputError(problems)
        return tuple(items)

    return hook


def _record(cls: Any, converter: Converter) -> Hook:
    """The hook of an attrs class: every key and every validator is asked, whatever the others say."""
    attrs.resolve_types(cls)
    fields = {a.metadata.get("key", a.alias or a.name): a for a in attrs.fields(cls) if a.init}

    def hook(raw: Any, _: Any) -> Any:
        if not isinstance(raw, Mapping):
            raise InputError([wrong(raw, "a table")])
        problems = list(unknown(raw, tuple(fields)))
        values: dict[str, Any] = {}
        for key, a in fields.items():
            try:
                if key in raw:
                    parse = a.metadata.get("parse")
                    values[a.name] = parse(raw[key]) if parse else converter.structure(raw[key], a.type)
                elif a.default is attrs.NOTHING:
                    problems.append(Problem(key, "", "is missing", f'write "{key}"'))
            except Exception as error:
                problems += [problem.below(key) for problem in problems_of(error, raw[key])]
        record = cls.__new__(cls)
        if problems:
            # Not to be built, yet what its other fields say must be heard as well.
            sound = {a: values[a.name] for a in fields.values() if a.name in values and a.converter is None}
            for a, value in sound.items():
                object.__setattr__(record, a.name, value)
            raise InputError(_by_field([*problems, *_refused(record, list(sound))], list(fields)))
        try:
            cls.__init__(record, **{a.alias or a.name: values[a.name] for a in fields.values() if a.name in values})
        except Exception as error:
            found = list(_refused(record, [a for a in fields.values() if hasattr(record, a.name)]))
            raise InputError(_by_field(found or problems_of(error, raw), list(fields))) from error
        return record

    return hook


def _refused(record: Any, fields: list[Any]) -> Iterator[Problem]:
    """What the validators of these fields say, each of them."""
    for a in fields:
        if a.validator is None:
            continue
        key = a.metadata.get("key", a.alias or a.name)
        value = getattr(record, a.name)
        try:
            a.validator(record, a, value)
        except InputError as error:
            for problem in error.problems:
                # A check names its field already; another's error does not.
                named = problem.path == key or problem.path.startswith((f"{key}.", f"{key}["))
                yield problem if named else problem.below(key)
        except AttributeError:
            if all(hasattr(record, other.name) for other in attrs.fields(type(record))):
                raise
            # It compares with a field that could not be read: that one's problem is told.
        except Exception as error:
            yield from (problem.below(key) for problem in problems_of(error, value))


def _by_field(problems: Any, keys: list[str]) -> list[Problem]:
    order = {key: index for index, key in enumerate(keys)}

    def place(problem: Problem) -> int:
        return order.get(problem.path.split(".")[0].split("[")[0], -1)

    return sorted(problems, key=place)
