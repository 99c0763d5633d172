"""The room of annotations: whether the types that one function names agree with those of another.

Only what surely contradicts is told: what is not annotated, ``Any``, and types of which nothing can be known without
running code (protocols, callables, type variables) agree with everything. A name that can't be resolved, because it is
imported for type checkers alone, is compared by its text.
"""

from __future__ import annotations

import builtins
import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, ForwardRef, Literal, TypeVar, get_args, get_origin

MISSING = inspect.Parameter.empty
_UNIONS = (typing.Union, types.UnionType)


def annotation_of(function: Callable[..., Any], name: str) -> Any:
    """What a function's definition says of a parameter, or of ``return``; :data:`MISSING` where it says nothing."""
    return getattr(function, "__annotations__", {}).get(name, MISSING)


def text_of(annotation: Any) -> str:
    """An annotation as its author wrote it, or nearly so."""
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    return annotation.__qualname__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def resolved(function: Callable[..., Any], annotation: Any) -> Any:
    """The type that an annotation names where the function was written; its text where that can't be found."""
    try:
        names = _Names(inspect.unwrap(function))
        carrier = types.SimpleNamespace(__annotations__={"it": annotation})
        return typing.get_type_hints(carrier, names.globals, names)["it"]
    except Exception:  # whatever evaluating a stranger's text may raise: it stays a text
        return annotation


class _Names(dict[str, Any]):
    """The names that a function's annotations may mean: its surroundings', then what plugin authors import."""

    def __init__(self, function: Callable[..., Any]) -> None:
        code = getattr(function, "__code__", None)
        super().__init__(inspect.getclosurevars(function).nonlocals if code is not None else {})
        self.globals = dict(getattr(function, "__globals__", {}))

    def __missing__(self, name: str) -> Any:
        for known in (self.globals, vars(builtins)):
            if name in known:
                return known[name]
        try:
            return getattr(sys.modules[__package__], name)  # our specs name some of it for type checkers alone
        except AttributeError:
            raise KeyError(name) from None


def agrees(narrow: Any, wide: Any) -> bool:  # noqa: PLR0911 - one line a form
    """Whether a value of ``narrow`` may stand where ``wide`` is asked for; True where nobody can tell."""
    narrow, wide = _plain(narrow), _plain(wide)
    if narrow is Any or wide in (Any, object) or narrow == wide:
        return True
    if any(isinstance(each, (str, ForwardRef)) for each in (narrow, wide)):
        return _agrees_by_text(narrow, wide)
    if get_origin(narrow) in _UNIONS:
        return all(agrees(each, wide) for each in get_args(narrow))
    if get_origin(wide) in _UNIONS:
        return any(agrees(narrow, each) for each in get_args(wide))
    if get_origin(narrow) is Literal:
        known = get_args(wide) if get_origin(wide) is Literal else None
        return all(each in known if known is not None else agrees(type(each), wide) for each in get_args(narrow))
    one, other = get_origin(narrow) or narrow, get_origin(wide) or wide
    if not (isinstance(one, type) and isinstance(other, type)) or _is_protocol(one) or _is_protocol(other):
        return get_origin(wide) is not Literal or not isinstance(one, type) or one in _kinds(wide)
    if not (issubclass(one, other) or (one is int and other is float)):
        return False
    return _insides_agree(one, get_args(narrow), get_args(wide))


def _insides_agree(one: type, narrow: tuple[Any, ...], wide: tuple[Any, ...]) -> bool:
    """Whether what two generic types hold agrees: position by position, and all of a tuple with a sequence's one."""
    if one is tuple and len(wide) == 1:
        return all(agrees(each, wide[0]) for each in narrow if each is not Ellipsis)
    if len(narrow) != len(wide):
        return True
    pairs = zip(narrow, wide, strict=True)
    return all(agrees(each, other) for each, other in pairs if Ellipsis not in (each, other))


def _kinds(literal: Any) -> set[type]:
    return {type(each) for each in get_args(literal)}


def _plain(annotation: Any) -> Any:
    """Without ``Annotated``, ``NewType`` and the like; None as the type of None."""
    if annotation is None:
        return type(None)
    if annotation is MISSING or isinstance(annotation, TypeVar) or annotation in (typing.NoReturn, typing.Never):
        return Any
    if get_origin(annotation) is typing.Annotated:
        return _plain(get_args(annotation)[0])
    return _plain(annotation.__supertype__) if isinstance(annotation, typing.NewType) else annotation


def _is_protocol(cls: type) -> bool:
    """Whether a class is a Protocol of somebody's own; those of the standard library are as good as classes."""
    return bool(getattr(cls, "_is_protocol", False)) and cls.__module__ not in ("typing", "collections.abc")


def _agrees_by_text(narrow: Any, wide: Any) -> bool:
    """Where one is only a name: the same names in the same places, whichever module they come from."""
    if any(isinstance(each, type) and _is_protocol(each) for each in (narrow, wide)):
        return True
    return _bare(text_of(narrow)) == _bare(text_of(wide))


def _bare(text: str) -> str:
    """A text without modules, quotes and spaces: ``typing.Sequence["a.Task"]`` is ``Sequence[Task]``."""
    words = "".join(character if character.isalnum() or character in "_." else f" {character} " for character in text)
    return "".join(word.rpartition(".")[2] for word in words.split() if word not in ('"', "'"))
