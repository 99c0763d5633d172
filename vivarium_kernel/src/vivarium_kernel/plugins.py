"""The room of plugins: finds them, checks what they declare, orders them, and builds those that are sound.

One plugin's fault is its own: it is marked failed with everything that is wrong with it, it and what requires it are
left out, and the others live. Nothing here imports a plugin before :func:`load` is asked to.
"""

from __future__ import annotations

import heapq
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import attrs
import pluggy

from vivarium_kernel import hookspecs
from vivarium_kernel.errors import Invalid
from vivarium_kernel.health import describe
from vivarium_kernel.hookspecs import hookimpl
from vivarium_kernel.installed import GROUP, UNCLASH, Found, claimants, claims
from vivarium_kernel.problems import InputError, near
from vivarium_kernel.structuring import structure

__all__ = ["API", "Failed", "Found", "Plugin", "PluginError", "build", "discover", "hookimpl", "load", "ordered"]

API = 1
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Plugin:
    """What a plugin is made from: declare, and mark methods with ``@hookimpl``.

    ``name`` is the entry point's name; the plugin's tables, event kinds and actions begin with it. ``requires`` are
    plugins without which it can't live, ``after`` those that come first where they are present. ``Config`` is an attrs
    class that ``[plugins.NAME]`` is read into, ``Physics`` a frozen attrs class of constants with defaults, and
    ``provides`` what ``village.service(NAME)`` gives to others. ``guards`` are the kinds of subject that its
    safety check judges, None all: a check that fails stops nothing of other kinds. ``modes`` are the modes of tasks
    that it executes beside the kernel's own; where a plugin executes tasks and names none, any mode may be posted.
    A method ``drain(tx)``, where there is one, gives back what the plugin holds before it is switched off by
    ``vivarium plugins disable NAME --drain``; what it leaves, the kernel gives back by a rule of its own.
    """

    name: ClassVar[str] = ""
    api: ClassVar[int] = API
    Config: ClassVar[type | None] = None
    Physics: ClassVar[type | None] = None
    migrations: ClassVar[Any] = None
    requires: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[Callable[..., Any] | None] = None
    guards: ClassVar[tuple[str, ...] | None] = None
    modes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, village: Any, config: Any) -> None:
        self.village = village
        self.config = config

    def __repr__(self) -> str:
        return f"<plugin {self.name}>"


class PluginError(Invalid):
    """What is wrong with a plugin: what it defines, why that can't be, and the cure."""

    RULE = "plugins"

    def __init__(self, plugin: str, definition: str, fault: str, cure: str) -> None:
        super().__init__(self.RULE, f"{definition}: {fault}", cure)
        self.plugin, self.definition, self.fault, self.cure = plugin, definition, fault, cure

    def __str__(self) -> str:
        return f"{self.definition}: {self.fault}; {self.cure}"


class NameClash(PluginError):
    """Two distributions give a plugin of one name: neither is taken."""

    RULE = "plugins.clash"


class Changed(PluginError):
    """An installed plugin is not what was enabled, and plugins_allow lets only that load."""

    RULE = "plugins.changed"


class BadDeclaration(PluginError):
    """The class declares what can't be."""

    RULE = "plugins.declaration"


class BadConfig(PluginError):
    """A key of ``[plugins.NAME]`` is wrong; ``definition`` is its path."""

    RULE = "plugins.config"


class BadHook(PluginError):
    """A method marked ``@hookimpl`` does not fit any hook."""

    RULE = "plugins.hook"


class Missing(PluginError):
    """A plugin that this one requires is not there, or failed."""

    RULE = "plugins.missing"


class Circle(PluginError):
    """Plugins come after each other in a circle."""

    RULE = "plugins.circle"


class Broken(PluginError):
    """The plugin's own code failed while it was loaded or built."""

    RULE = "plugins.broken"


@attrs.frozen
class Failed:
    """A plugin that is left out, with everything that is wrong with it."""

    name: str
    errors: tuple[PluginError, ...]

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def switch_off(plugin: str) -> str:
    """The command that switches a plugin off."""
    return f"vivarium plugins disable {plugin}"


def discover(group: str = GROUP) -> tuple[dict[str, Found], list[Failed]]:
    """The installed plugins by name, and the names that more than one distribution claims."""
    found = claims(group)
    failed = [Failed(name, (_clash(name, each),)) for name, each in found.items() if len(each) > 1]
    return {name: each[0] for name, each in found.items() if len(each) == 1}, failed


def load(found: Found) -> type[Plugin]:
    """Import a plugin; :class:`Broken` whatever its module does instead."""
    where = f"{found.entry_point.value} of {found.distribution} {found.version}"
    try:
        loaded = found.entry_point.load()
    except BaseException as error:  # SystemExit at import too is the plugin's fault
        cure = f"mend it, or switch it off: {switch_off(found.name)}"
        raise Broken(found.name, where, f"can't be imported: {describe(error)}", cure) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Plugin)):
        fault = f"is {type(loaded).__name__} {loaded!r:.80}, not a subclass of Plugin"
        raise BadDeclaration(found.name, where, fault, "let the entry point name the plugin's class")
    return loaded


def build(
    village: Any,
    classes_by_name: Mapping[str, type[Plugin]],
    config: Mapping[str, Mapping[str, Any]],
    alive: Mapping[str, Plugin] | None = None,
) -> tuple[list[Plugin], list[Failed]]:
    """The sound plugins, built, in their order; and the others, each with all that is wrong with it.

    ``config`` has the ``[plugins.NAME]`` tables. A plugin whose requirement failed fails with it. Those that are
    ``alive`` are taken as they are.
    """
    errors: dict[str, list[PluginError]] = {}
    configs: dict[str, Any] = {}
    for name, cls in sorted(classes_by_name.items()):
        configs[name], wrong = examined(name, cls, config.get(name, {}))
        if wrong:
            errors[name] = wrong
    for circle in list(_circles({name: cls for name, cls in classes_by_name.items() if name not in errors})):
        errors[circle.plugin] = [circle]
    built: dict[str, Plugin] = {}
    registry = pluggy.PluginManager("vivarium")
    registry.add_hookspecs(hookspecs)
    for name in _order(classes_by_name, errors):
        cls = classes_by_name[name]
        missing = [_missing(name, other, errors) for other in cls.requires if other not in built]
        if missing:
            errors[name] = [*missing]
            continue
        try:
            known = (alive or {}).get(name)
            plugin = known if type(known) is cls else cls(village, configs[name])
            registry.register(plugin, name)
            built[name] = plugin
        except BaseException as error:  # SystemExit too is the plugin's fault
            cure = f"mend it, or switch it off: {switch_off(name)}"
            errors[name] = [Broken(name, _named(cls), f"can't be built: {describe(error)}", cure)]
    return list(built.values()), [Failed(name, tuple(wrong)) for name, wrong in sorted(errors.items())]


def examined(name: str, cls: type[Plugin], raw: Mapping[str, Any]) -> tuple[Any, list[PluginError]]:
    """A plugin's config, read from its table ``raw``, and everything that is wrong with it and with the class."""
    wrong = list(_declaration_errors(name, cls))
    config = None
    if isinstance(cls, type):
        wrong += hook_errors(name, cls)
        try:
            config = _configured(name, cls, raw)
        except InputError as refused:
            wrong += [
                BadConfig(name, problem.path, problem.message, problem.next_step or f"mend [plugins.{name}]")
                for problem in refused.problems
            ]
    return config, wrong


def ordered(plugins: Iterable[Plugin]) -> list[Plugin]:
    """In the order of ``requires`` and ``after``, names deciding between equals; :class:`Circle` if there is none."""
    by_name = {plugin.name: plugin for plugin in plugins}
    circle = next(_circles({name: type(plugin) for name, plugin in by_name.items()}), None)
    if circle is not None:
        raise circle
    return [by_name[name] for name in _sorted({name: _before(type(plugin)) for name, plugin in by_name.items()})]


def hooks_of(cls: type[Plugin]) -> list[str]:
    """The hooks that a class implements, by name."""
    registry = pluggy.PluginManager("vivarium")
    marked = {name: registry.parse_hookimpl_opts(cls, name) for name in dir(cls)}
    return sorted(str(options.get("specname") or name) for name, options in marked.items() if options is not None)


def hook_docs() -> dict[str, str]:
    """The first line of what each hook's spec says, by the hook's name."""
    registry = pluggy.PluginManager("vivarium")
    specs = {
        name: one for name, one in vars(hookspecs).items() if registry.parse_hookspec_opts(hookspecs, name) is not None
    }
    return {name: (inspect.getdoc(one) or "").partition("\n")[0] for name, one in specs.items()}


def hook_errors(plugin: str, cls: type[Plugin]) -> Iterator[BadHook]:
    """What is wrong with the methods that a class marks with ``@hookimpl``, and with those it forgot to mark."""
    registry = pluggy.PluginManager("vivarium")
    hooks = {
        name: function
        for name, function in vars(hookspecs).items()
        if registry.parse_hookspec_opts(hookspecs, name) is not None
    }
    for name in dir(cls):
        options = registry.parse_hookimpl_opts(cls, name)
        if options is None:
            if name in hooks and inspect.isroutine(inspect.getattr_static(cls, name)):
                fault = "has the name of a hook and is not marked, so that it would never be called"
                yield BadHook(plugin, f"{cls.__name__}.{name}", fault, "write @hookimpl above it")
            continue
        hook = options.get("specname") or name
        if hook in hooks:
            yield from _signature_errors(plugin, cls, name, hooks[hook], cast(Mapping[str, Any], options))
        elif not options.get("optionalhook"):
            close = near(hook, hooks)
            meant = f"did you mean {close}?" if close else f"the hooks are {', '.join(hooks)}"
            yield BadHook(plugin, _definition(cls, name), f"there is no hook {hook}", f"{hook}: {meant}")


def _signature_errors(
    plugin: str, cls: type[Plugin], name: str, spec: Callable[..., Any], options: Mapping[str, Any]
) -> Iterator[BadHook]:
    function, parameters = _function(cls, name)
    definition = _definition(cls, name)
    known = list(inspect.signature(spec).parameters)
    takes = f"{spec.__name__}({', '.join(known)})"

    def fault(what: str, cure: str) -> BadHook:
        return BadHook(plugin, definition, what, cure)

    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            yield fault(f"{parameter} takes whatever comes", f"name the arguments that it uses of {takes}")
        elif parameter.name not in known:
            close = near(parameter.name, known)
            cure = f"did you mean {close}?" if close else f"the hook is {takes}; leave out what it does not use"
            yield fault(f"the hook has no argument {parameter.name}", f"{parameter.name}: {cure}")
        elif parameter.kind is parameter.KEYWORD_ONLY:
            yield fault(f"argument {parameter.name} is keyword-only", "remove the * before it")
        elif parameter.default is not parameter.empty:
            yield fault(f"argument {parameter.name} has a default", f"write {parameter.name} alone: it is always given")
    if options.get("wrapper") or options.get("hookwrapper"):
        yield fault("hook wrappers are not run", "wrap a job with around_execution; leave the option out")
    if options.get("tryfirst") and options.get("trylast"):
        yield fault("is both tryfirst and trylast", "choose one")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        manager = spec.__name__ == "around_execution"
        cure = "write @contextlib.asynccontextmanager below @hookimpl" if manager else "return the answer, don't yield"
        yield fault("is a generator", cure)
    elif inspect.iscoroutinefunction(spec) and not inspect.iscoroutinefunction(function):
        yield fault("the hook is a coroutine and this is not", "write async def")
    elif inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(spec):
        yield fault("the hook is a plain function and this is a coroutine", "write def, and don't await in it")


def _function(cls: type, name: str) -> tuple[Callable[..., Any], Sequence[inspect.Parameter]]:
    """A method's function, and its parameters as the call loop sees them."""
    static = inspect.getattr_static(cls, name)
    function = getattr(static, "__func__", static)
    parameters = list(inspect.signature(function).parameters.values())
    return function, parameters if isinstance(static, staticmethod) else parameters[1:]


def _definition(cls: type, name: str) -> str:
    _, parameters = _function(cls, name)
    return f"{cls.__name__}.{name}({', '.join(parameter.name for parameter in parameters)})"


def _declaration_errors(name: str, cls: type[Plugin]) -> Iterator[PluginError]:
    what = _named(cls)
    if not (isinstance(cls, type) and issubclass(cls, Plugin)):
        yield BadDeclaration(name, what, "is not a subclass of Plugin", "write class …(Plugin)")
        return
    if cls.name != name:
        yield BadDeclaration(name, f"{what}.name = {cls.name!r}", f"the entry point is {name!r}", "give both one name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = "a name is a lower-case letter and up to 39 letters, digits and _"
        yield BadDeclaration(name, f"{what}.name = {name!r}", "is no name for a plugin", rule)
    if type(cls.api) is not int or cls.api != API:
        newer = type(cls.api) is int and cls.api > API
        cure = "upgrade vivarium-kernel" if newer else "upgrade the plugin, or write api = 1"
        yield BadDeclaration(name, f"{what}.api = {cls.api!r}", f"this kernel's hook API is {API}", cure)
    for field in ("requires", "after", "modes"):
        value = getattr(cls, field)
        if not isinstance(value, tuple) or not all(isinstance(other, str) for other in value):
            cure = f'write {field} = ("name",), with the comma'
            yield BadDeclaration(name, f"{what}.{field} = {value!r}", "is not a tuple of names", cure)
    for field in ("Config", "Physics"):
        value = getattr(cls, field)
        if value is not None and not (isinstance(value, type) and attrs.has(value)):
            definition = f"{what}.{field} = {value!r}"
            yield BadDeclaration(name, definition, "is not an attrs class", "decorate it with @attrs.frozen")
        elif field == "Physics" and value is not None:
            yield from _physics_errors(name, what, value)


def _physics_errors(name: str, what: str, physics: type) -> Iterator[PluginError]:
    definition = f"{what}.Physics = {physics.__name__}"
    try:
        constants = physics()
        for field in attrs.fields(physics)[:1]:
            setattr(constants, field.name, getattr(constants, field.name))
            yield BadDeclaration(name, definition, "can be changed", "decorate it with @attrs.frozen")
    except attrs.exceptions.FrozenInstanceError:
        return
    except Exception as error:
        yield BadDeclaration(name, definition, f"can't be made: {describe(error)}", "give each constant a default")


def _configured(name: str, cls: type[Plugin], raw: Mapping[str, Any]) -> Any:
    wanted = getattr(cls, "Config", None)
    path = f"plugins.{name}"
    if wanted is None:
        return structure(attrs.make_class("NoConfig", {}), raw, path) if raw else None
    return structure(wanted, raw, path) if isinstance(wanted, type) and attrs.has(wanted) else None


def _before(cls: type[Plugin]) -> frozenset[str]:
    return frozenset((*cls.requires, *cls.after))


def _order(classes: Mapping[str, type[Plugin]], errors: Mapping[str, Any]) -> list[str]:
    return _sorted({name: _before(cls) for name, cls in classes.items() if name not in errors})


def _sorted(before: Mapping[str, frozenset[str]]) -> list[str]:
    """Names so that each comes after those before it, the alphabet deciding; what lies in a circle is left out."""
    waits = {name: {other for other in others if other in before} for name, others in before.items()}
    ready = [name for name, others in waits.items() if not others]
    heapq.heapify(ready)
    found = []
    while ready:
        name = heapq.heappop(ready)
        found.append(name)
        for other, others in waits.items():
            if name in others:
                others.remove(name)
                if not others:
                    heapq.heappush(ready, other)
    return found


def _circles(classes: Mapping[str, type[Plugin]]) -> Iterator[Circle]:
    """One error for each plugin that lies in a circle (not for those that merely come after one)."""
    for name in sorted(classes):
        path = _path_back(name, classes)
        if path:
            what = f"{_named(classes[name])} comes after {path[1]}"
            yield Circle(name, what, f"that is a circle: {' → '.join(path)}", "take one name out of requires or after")


def _path_back(name: str, classes: Mapping[str, type[Plugin]]) -> list[str]:
    """The shortest way from a plugin through what comes before it back to itself."""
    paths = [[name]]
    seen: set[str] = set()
    for path in paths:
        for other in sorted(_before(classes[path[-1]])):
            if other == name:
                return [*path, name]
            if other in classes and other not in seen:
                seen.add(other)
                paths.append([*path, other])
    return []


def _missing(name: str, other: str, errors: Mapping[str, Sequence[PluginError]]) -> Missing:
    definition = f"plugin {name!r} requires {other!r}"
    if other in errors:
        return Missing(name, definition, f"which failed: {errors[other][0]}", f"mend {other!r}")
    return Missing(name, definition, "which is not enabled", f"install or enable it: vivarium plugins enable {other}")


def _clash(name: str, found: Sequence[Found]) -> NameClash:
    return NameClash(name, f"plugin {name!r}", f"is claimed by {claimants(found)}; neither is taken", UNCLASH)


def _named(cls: type) -> str:
    return getattr(cls, "__name__", repr(cls))
