"""The room of offered hooks: those that a plugin makes for others, declared and checked like the kernel's own.

    @hookspec("register")
    def register_hats() -> Sequence[Hat]:
        \"\"\"Give hats that residents may wear.\"\"\"
        raise NotImplementedError

A plugin lists them in ``hookspecs`` and calls them by ``self.call(register_hats)``; others implement them by
``@hookimpl``. How each kind is called, and what becomes of one that fails, is said in ``offers.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, get_args, get_origin, overload

import attrs

from vivarium_kernel import answers
from vivarium_kernel.annotations import MISSING, agrees, annotation_of, resolved
from vivarium_kernel.fitting import Hook, Misfit, kernel_hooks, place, slip
from vivarium_kernel.hookspecs import hookspec as mark

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
Kind = Literal["register", "collect", "first", "notify"]


@attrs.frozen(eq=False)
class HookSpec(Generic[P, R_co]):
    """A hook that a plugin offers. It is called with ``P``, and whoever calls it is given ``R_co``."""

    kind: str
    function: Callable[..., Any]

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def doc(self) -> str:
        """The first line of what it says of itself."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.function).parameters)

    @property
    def waits(self) -> bool:
        """Whether it is a coroutine."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def item(self) -> Any:
        """What each item of an answer must be an instance of, and of ``first`` the answer; ``object`` for anything."""
        answer = resolved(self.function, annotation_of(self.function, "return"))
        if self.kind == "first":
            kinds = [each for each in get_args(answer) or (answer,) if each is not type(None)]
        else:
            kinds = list(get_args(answer))
        kind = (get_origin(kinds[0]) or kinds[0]) if len(kinds) == 1 else object
        known = isinstance(kind, type) and not getattr(kind, "_is_protocol", False)
        return kind if known else object


class _Items(Protocol):
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, Sequence[T]]], /
    ) -> HookSpec[P, Awaitable[list[tuple[str, T]]]]: ...
    @overload
    def __call__(self, function: Callable[P, Sequence[T]], /) -> HookSpec[P, list[tuple[str, T]]]: ...


class _First(Protocol):
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, T | None]], /
    ) -> HookSpec[P, Awaitable[tuple[str, T] | None]]: ...
    @overload
    def __call__(self, function: Callable[P, T | None], /) -> HookSpec[P, tuple[str, T] | None]: ...


class _Notify(Protocol):
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, None]], /) -> HookSpec[P, Awaitable[None]]: ...
    @overload
    def __call__(self, function: Callable[P, None], /) -> HookSpec[P, None]: ...


@overload
def hookspec(kind: Literal["register", "collect"], /) -> _Items: ...
@overload
def hookspec(kind: Literal["first"], /) -> _First: ...
@overload
def hookspec(kind: Literal["notify"], /) -> _Notify: ...
def hookspec(kind: str, /) -> Any:
    """Make a hook of a function without a body: what others may implement. ``kind`` is how it is called.

    ``register``: items, asked for once whenever the plugins are composed. ``collect``: items, asked for at each call.
    ``first``: the first answer that is not None. ``notify``: no answer.
    """

    def made(function: Callable[..., Any]) -> HookSpec[..., Any]:
        return HookSpec(kind, mark(function))

    return made


def offered_by(cls: type) -> Sequence[HookSpec[..., Any]]:
    """The hooks that a class offers, those that are no hooks left out: they are told of by :func:`offer_faults`."""
    listed = getattr(cls, "hookspecs", ())
    return [each for each in listed if isinstance(each, HookSpec)] if isinstance(listed, (tuple, list)) else []


def hooks_with(classes: Mapping[str, type]) -> dict[str, Hook]:
    """The kernel's hooks and those that these plugins offer, by name. A name that is taken stays the first one's."""
    found = dict(kernel_hooks())
    for plugin, cls in sorted(classes.items()):
        for spec in offered_by(cls):
            found.setdefault(spec.name, Hook(spec.function, plugin))
    return found


def offer_faults(plugin: str, cls: type, others: Mapping[str, type]) -> Iterator[Misfit]:
    """What is wrong with the hooks that a class offers, alone and beside other plugins."""
    listed = getattr(cls, "hookspecs", ())
    if not isinstance(listed, tuple) or len(offered_by(cls)) < len(listed):
        cure = 'mark each with @hookspec("register") or another kind, and write hookspecs = (name,), with the comma'
        yield Misfit(f"{cls.__name__}.hookspecs = {listed!r:.200}", "is not a tuple of hook specs", cure)
    if not listed:
        return
    kernels = list(kernel_hooks())
    taken = {spec.name: name for name, other in others.items() if name != plugin for spec in offered_by(other)}
    seen: set[str] = set()
    for spec in offered_by(cls):
        what = f"{place(spec.function)}: {spec.name}({', '.join(spec.parameters)}) of {plugin}"
        close = spec.name if spec.name in kernels else slip(spec.name, kernels)
        if close is not None:
            like = "has the name of" if close == spec.name else "is nearly called like"
            yield Misfit(what, f"{like} the kernel's hook {close}", "give it another name, with the plugin's in it")
        elif spec.name in taken:
            both = f"{plugin} and {taken[spec.name]} both offer a hook {spec.name}; neither is taken"
            yield Misfit(what, both, f"rename it, or switch one off: vivarium plugins disable {plugin}")
        elif spec.name in seen:
            yield Misfit(what, "is offered twice", "list it once")
        seen.add(spec.name)
        yield from (Misfit(what, fault, cure) for fault, cure in _faults(spec))


def _faults(spec: HookSpec[..., Any]) -> Iterator[tuple[str, str]]:
    function = spec.function
    parameters = inspect.signature(function).parameters.values()
    if spec.kind not in get_args(Kind):
        yield f"is of kind {spec.kind!r}", f"the kinds are {', '.join(get_args(Kind))}"
    if not spec.doc:
        yield "says nothing about itself", "write a docstring: what an implementation achieves, and when it is called"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        yield "is a generator", "write no body: raise NotImplementedError"
    untyped = [each.name for each in parameters if each.annotation is MISSING]
    if annotation_of(function, "return") is MISSING:
        untyped.append("its answer")
    if untyped:
        yield f"has no annotation of {', '.join(untyped)}", "annotate it: implementations are checked against it"
    odd = [
        str(each) for each in parameters if each.kind is not each.POSITIONAL_OR_KEYWORD or each.default is not MISSING
    ]
    if odd:
        yield f"takes {', '.join(odd)}", "give each argument a name, no default and no *: all are always given"
    if "tx" in spec.parameters:
        yield "takes a tx", "hand over a view, and write what is answered in your own transaction"
    if spec.waits and "view" in spec.parameters:
        yield "may wait and takes a view", "write def, or hand over what is needed in place of the view"
    if spec.kind == "register" and (spec.parameters or spec.waits):
        yield "registers, and takes arguments or waits", "write def without arguments, or let it be of kind collect"
    answer = resolved(function, annotation_of(function, "return"))
    if spec.kind in ("register", "collect") and not isinstance(answer, str) and not agrees(answer, Sequence):
        yield f"is of kind {spec.kind} and answers no sequence", "annotate Sequence[…]: what its items are"
    if spec.kind == "notify" and answer not in (None, type(None), MISSING):
        yield "is of kind notify and has an answer", "annotate None, or choose collect or first"


def reader_of(spec: HookSpec[..., Any]) -> answers.Reader:
    """What takes an answer of an offered hook and returns it clean; what can't be used is the answerer's fault."""
    if spec.kind == "notify":
        return answers.nothing
    wanted = spec.item

    def items(value: Any, arguments: tuple[Any, ...]) -> Any:
        found = answers.items(value, arguments)
        for item in found:
            _check(item, wanted, "answered a list with a {}; every item is a {}")
        return found

    def first(value: Any, arguments: tuple[Any, ...]) -> Any:
        answers.nothing(value if inspect.isawaitable(value) else None, arguments)
        if value is not None:
            _check(value, wanted, "answered a {}; answer a {} or None")
        return value

    return first if spec.kind == "first" else items


def _check(value: Any, wanted: type, fault: str) -> None:
    if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
        raise answers.Nonsense(fault.format(type(value).__name__, wanted.__name__))
