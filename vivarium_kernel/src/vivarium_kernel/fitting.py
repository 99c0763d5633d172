"""The room of fitting: whether the methods of a plugin fit the hooks that they are to implement.

Looked at are name, arguments, sync or async, and the types that are annotated; nothing is called.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pluggy

from vivarium_kernel import hookspecs
from vivarium_kernel.annotations import MISSING, agrees, annotation_of, resolved, text_of
from vivarium_kernel.problems import near

CLOSE = 0.85  # from which likeness on a name is a slip of the pen, and not another name


class Hook(NamedTuple):
    """A hook that can be implemented: its spec, and the plugin that offers it; empty for one of the kernel's."""

    function: Callable[..., Any]
    owner: str = ""

    @property
    def takes(self) -> str:
        return f"{self.function.__name__}({', '.join(inspect.signature(self.function).parameters)})"


class Misfit(NamedTuple):
    """What a class defines, why that can't be, and the cure."""

    definition: str
    fault: str
    cure: str


class Registry(pluggy.PluginManager):
    """pluggy's registration, less the names that every object has and that can be no hook: they take half its time."""

    def __init__(self) -> None:
        super().__init__("vivarium")

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return None if name.startswith("__") else super().parse_hookimpl_opts(plugin, name)


@functools.cache
def kernel_hooks() -> Mapping[str, Hook]:
    """The kernel's own hooks by name, in the order in which a cycle meets them. They are asked for by every plugin."""
    registry = Registry()
    hooks = {
        name: Hook(function)
        for name, function in vars(hookspecs).items()
        if registry.parse_hookspec_opts(hookspecs, name) is not None
    }
    return types.MappingProxyType(hooks)


def marked(cls: type) -> dict[str, Mapping[str, Any] | None]:
    """Every attribute of a class by name, with what ``@hookimpl`` says of it; None where it is not marked."""
    registry = Registry()
    return {name: registry.parse_hookimpl_opts(cls, name) for name in dir(cls)}


def implemented(cls: type) -> list[str]:
    """The hooks that a class implements, by name."""
    return sorted(str(options.get("specname") or name) for name, options in marked(cls).items() if options is not None)


def slip(name: str, known: Iterator[str] | Sequence[str]) -> str | None:
    """The known name of which this one is probably a slip of the pen."""
    found = difflib.get_close_matches(name, list(known), 1, CLOSE)
    return found[0] if found else None


def misfits(cls: type, hooks: Mapping[str, Hook], named: Sequence[str], absent: Sequence[str]) -> Iterator[Misfit]:
    """What is wrong with the methods that a class marks with ``@hookimpl``, and with those that it forgot to mark.

    ``named`` are the plugins that it requires or comes after, ``absent`` those of them that are not on, whose hooks
    nobody knows: an implementation of one waits for its plugin.
    """
    for name, options in marked(cls).items():
        if options is None:
            if name in hooks and hooks[name].owner in ("", *named) and _is_method(cls, name):
                fault = "has the name of a hook and is not marked, so that it would never be called"
                yield Misfit(f"{cls.__name__}.{name}", fault, "write @hookimpl above it")
            continue
        hook = str(options.get("specname") or name)
        if hook in hooks:
            yield from _unlike(cls, name, hooks[hook], options)
            owner = hooks[hook].owner
            if owner and owner not in named and not options.get("optionalhook"):
                cure = f'write after = ("{owner}",), or @hookimpl(optionalhook=True): it then waits when {owner} is off'
                yield Misfit(definition(cls, name), f"{hook} is a hook of {owner}, which the class does not name", cure)
        elif not options.get("optionalhook") and not (absent and slip(hook, kernels(hooks)) is None):
            close = near(hook, hooks)
            meant = f"did you mean {close}{of(hooks[close])}?" if close else f"the hooks are {', '.join(hooks)}"
            yield Misfit(definition(cls, name), f"there is no hook {hook}", f"{hook}: {meant}")


def kernels(hooks: Mapping[str, Hook]) -> list[str]:
    """Those of the hooks that are the kernel's own."""
    return [name for name, hook in hooks.items() if not hook.owner]


def of(hook: Hook) -> str:
    """Whose a hook is, behind its name."""
    return f" (of {hook.owner})" if hook.owner else ""


def definition(cls: type, name: str) -> str:
    """A method as ``Class.method(arguments)``."""
    return f"{cls.__name__}.{name}({', '.join(parameter.name for parameter in _function(cls, name)[1])})"


def place(function: Callable[..., Any]) -> str:
    """Where a function is written, as ``file:line``; empty for one that is not Python."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def _is_method(cls: type, name: str) -> bool:
    return inspect.isroutine(inspect.getattr_static(cls, name))


def _function(cls: type, name: str) -> tuple[Callable[..., Any], Sequence[inspect.Parameter]]:
    """A method's function, and its parameters as the call loop sees them."""
    static = inspect.getattr_static(cls, name)
    function = getattr(static, "__func__", static)
    parameters = list(inspect.signature(function).parameters.values())
    return function, parameters if isinstance(static, staticmethod) else parameters[1:]


def _unlike(cls: type, name: str, hook: Hook, options: Mapping[str, Any]) -> Iterator[Misfit]:
    function, parameters = _function(cls, name)
    what, spec = definition(cls, name), hook.function
    known = list(inspect.signature(spec).parameters)
    fits = True
    for parameter in parameters:
        fault, cure = _parameter_fault(parameter, known, hook.takes)
        if fault:
            fits = False
            yield Misfit(what, fault, cure)
    if options.get("wrapper") or options.get("hookwrapper"):
        yield Misfit(what, "hook wrappers are not run", "wrap a job with around_execution; leave the option out")
    if options.get("tryfirst") and options.get("trylast"):
        yield Misfit(what, "is both tryfirst and trylast", "choose one")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        manager = spec.__name__ == "around_execution"
        cure = "write @contextlib.asynccontextmanager below @hookimpl" if manager else "return the answer, don't yield"
        yield Misfit(what, "is a generator", cure)
    elif inspect.iscoroutinefunction(spec) and not inspect.iscoroutinefunction(function):
        yield Misfit(what, "the hook is a coroutine and this is not", "write async def")
    elif inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(spec):
        yield Misfit(what, "the hook is a plain function and this is a coroutine", "write def, and don't await in it")
    elif fits:
        yield from _untrue(cls, name, function, [parameter.name for parameter in parameters], hook)


def _parameter_fault(parameter: inspect.Parameter, known: Sequence[str], takes: str) -> tuple[str, str]:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return f"{parameter} takes whatever comes", f"name the arguments that it uses of {takes}"
    if parameter.name not in known:
        close = near(parameter.name, known)
        cure = f"did you mean {close}?" if close else f"the hook is {takes}; leave out what it does not use"
        return f"the hook has no argument {parameter.name}", f"{parameter.name}: {cure}"
    if parameter.kind is parameter.KEYWORD_ONLY:
        return f"argument {parameter.name} is keyword-only", "remove the * before it"
    if parameter.default is not parameter.empty:
        return f"argument {parameter.name} has a default", f"write {parameter.name} alone: it is always given"
    return "", ""


def _untrue(
    cls: type, name: str, function: Callable[..., Any], parameters: Sequence[str], hook: Hook
) -> Iterator[Misfit]:
    """Annotations that contradict the hook's. Most have its very text, and cost one comparison."""
    spec = hook.function
    for each in (*parameters, "return"):
        said, wanted = annotation_of(function, each), annotation_of(spec, each)
        if MISSING in (said, wanted) or (isinstance(said, str) and said == wanted):
            continue
        if each == "return" and (said in (None, "None") or hasattr(function, "__wrapped__")):
            continue  # None answers nothing on every hook; a decorator may have made another answer of this one
        given, asked = resolved(function, said), resolved(spec, wanted)
        if agrees(given, asked) if each == "return" else agrees(asked, given):
            continue
        part = "its answer" if each == "return" else f"argument {each}"
        whose = f"the hook {spec.__name__}{of(hook)} has"
        untold = ", and is known to type checkers alone" if isinstance(given, str) else ""
        cure = f"write {text_of(wanted)}" + (", or import the name outside TYPE_CHECKING" if untold else "")
        where = f"{place(function)}: {cls.__name__}.{name}{_written(function)}"
        yield Misfit(where, f"{part} is annotated {text_of(said)}{untold}; {whose} {text_of(wanted)}", cure)


def _written(function: Callable[..., Any]) -> str:
    """A signature with its annotations as they were written."""
    hints = dict(getattr(function, "__annotations__", {}))
    words = [
        name + (f": {text_of(hints[name])}" if name in hints else "") for name in inspect.signature(function).parameters
    ]
    return f"({', '.join(words)})" + (f" -> {text_of(hints['return'])}" if "return" in hints else "")
