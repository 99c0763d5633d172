"""The room of services: what plugins provide to others, and whether it is what an asker's Protocol says.

The Protocol is the asker's own, so that no import ties the two distributions; here the two sides meet. Compared are
the members by name, and of methods the arguments as they may be given, and whether they are coroutines.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from vivarium_kernel.errors import Invalid
from vivarium_kernel.fitting import place

S = TypeVar("S")


class Lack(NamedTuple):
    """What a service lacks of a Protocol: the member as the asker wants it, and the fault."""

    wanted: str
    fault: str


class Services:
    """The services of the plugins that are on, by the plugin's name."""

    def __init__(self, by_name: Mapping[str, Any]) -> None:
        self._by_name = by_name
        self._agreed: set[tuple[str, Any]] = set()

    def get(self, name: str, protocol: Callable[..., S]) -> S | None:
        """A service that is what ``protocol`` says, or None where there is none; raises Invalid for another one."""
        found = self._by_name.get(name)
        if found is None:
            return None
        if (name, protocol) not in self._agreed:
            for lack in lacking(found, protocol):
                raise Invalid(
                    "plugins.service",
                    f"{named(protocol)} wants {lack.wanted}: {fault_of(name, found, lack)}.",
                    cure(name),
                )
            self._agreed.add((name, protocol))
        service: S = found
        return service

    def lacking(self, name: str, protocol: Any) -> Iterator[tuple[str, str]]:
        """What the service of a plugin lacks of a Protocol: (member, fault); nothing without a service."""
        if name in self._by_name:
            found = self._by_name[name]
            for lack in lacking(found, protocol):
                yield lack.wanted, fault_of(name, found, lack)


def fault_of(name: str, service: Any, lack: Lack) -> str:
    return f"the service of {name}, {named(type(service))}, {lack.fault}"


def cure(name: str) -> str:
    """What to do when an asker and the service of ``name`` do not fit."""
    return f"mend the Protocol, or use a version of {name} that fits; without it: vivarium plugins disable {name}"


def named(cls: Any) -> str:
    """A class with where it is written, as far as that is known."""
    first = next((vars(cls)[name] for name in vars(cls) if inspect.isfunction(vars(cls)[name])), None)
    where = place(first) if first is not None else ""
    return f"{cls.__qualname__} ({where})" if where else f"{cls.__module__}.{cls.__qualname__}"


def lacking(service: Any, protocol: Any) -> Iterator[Lack]:
    """What an object lacks of what a Protocol says. Its code is not run: what is computed is not asked for."""
    nothing = object()
    for name, wanted in sorted(_members(protocol).items()):
        found = inspect.getattr_static(service, name, nothing)
        if not inspect.isroutine(wanted) or isinstance(wanted, property):
            if found is nothing:
                yield Lack(name, f"has no {name}")
            continue
        asked = _signature(wanted, bound=not isinstance(wanted, staticmethod))
        text = f"{name}{asked}"
        if found is nothing or not callable(getattr(service, name, None)):
            yield Lack(text, f"has no method {name}")
            continue
        method = getattr(service, name)
        given = _signature(method, bound=False)
        function = getattr(wanted, "__func__", wanted)
        if inspect.iscoroutinefunction(function) != inspect.iscoroutinefunction(method):
            yield Lack(
                text, f"has {name} as a {'coroutine' if inspect.iscoroutinefunction(method) else 'plain method'}"
            )
        else:
            yield from (Lack(text, f"has {name}{given}, {fault}") for fault in _call_faults(asked, given))


def _members(protocol: Any) -> dict[str, Any]:
    """The public members that a Protocol asks for, those that it inherits from other Protocols among them."""
    found: dict[str, Any] = {}
    for base in reversed(protocol.__mro__):
        if getattr(base, "_is_protocol", False) and base.__module__ != "typing":
            found |= dict.fromkeys(vars(base).get("__annotations__", ()))
            found |= {name: value for name, value in vars(base).items() if not name.startswith("__")}
    return {name: value for name, value in found.items() if not name.startswith("_")}


def _signature(function: Any, *, bound: bool) -> inspect.Signature:
    """A signature without annotations, and without ``self`` where the function is ``bound`` to be a method."""
    signature = inspect.signature(getattr(function, "__func__", function) if bound else function)
    parameters = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return signature.replace(parameters=parameters[1:] if bound else parameters, return_annotation=signature.empty)


def _call_faults(asked: inspect.Signature, given: inspect.Signature) -> Iterator[str]:
    """Why a call that ``asked`` allows is not one that ``given`` takes; at most one reason."""
    parameters = list(asked.parameters.values())
    by_place = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    by_name = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    needed = [each.name for each in parameters if each.default is each.empty]
    slots = [
        each for each in given.parameters.values() if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    for positions in ([name for name in by_place if name in needed], by_place):
        for names in ([name for name in by_name if name in needed], by_name):
            try:
                given.bind(*positions, **dict.fromkeys(names))
            except TypeError as error:
                yield f"which can't be called so: {error}"
                return
    takes_any = any(each.kind is each.VAR_KEYWORD for each in given.parameters.values())
    for index, name in enumerate(by_place):
        if asked.parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY or takes_any:
            continue
        other = slots[index] if index < len(slots) else None
        if other is None or other.name != name or other.kind is other.POSITIONAL_ONLY:
            meant = "" if other is None else f", in whose place it has {other.name}"
            yield f"which takes no {name} by name{meant}"
            return
    yield from _open_end(asked, given)


def _open_end(asked: inspect.Signature, given: inspect.Signature) -> Iterator[str]:
    for kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        for each in asked.parameters.values():
            if each.kind is kind and not any(other.kind is kind for other in given.parameters.values()):
                yield f"which takes no {each}"
                return
