"""The room of plugins: finds them, checks what they declare, orders them, and builds those that are sound.

One plugin's fault is its own: it is marked failed with everything that is wrong with it, it and what requires it are
left out, and the others live. Nothing here imports a plugin before :func:`load` is asked to.
"""

from __future__ import annotations

import heapq
import inspect
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, ParamSpec, TypeVar

import attrs

from vivarium_kernel import fitting, hookspecs, offering
from vivarium_kernel.errors import Forbidden, Invalid
from vivarium_kernel.health import describe
from vivarium_kernel.hookspecs import hookimpl
from vivarium_kernel.installed import GROUP, UNCLASH, Found, claimants, claims
from vivarium_kernel.offering import HookSpec
from vivarium_kernel.problems import InputError
from vivarium_kernel.structuring import structure

__all__ = ["API", "Failed", "Found", "Plugin", "PluginError", "build", "discover", "hookimpl", "load", "ordered"]

API = 1
P = ParamSpec("P")
R = TypeVar("R")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Plugin:
    """What a plugin is made from: declare, and mark methods with ``@hookimpl``.

    ``name`` is the entry point's name; the plugin's tables, event kinds and actions begin with it. ``requires`` are
    plugins without which it can't live, ``after`` those that come first where they are present. ``Config`` is an attrs
    class that ``[plugins.NAME]`` is read into, ``Physics`` a frozen attrs class of constants with defaults, and
    ``provides`` what ``village.service(NAME, Needs)`` gives to others. ``guards`` are the kinds of subject that its
    safety check judges, None all: a check that fails stops nothing of other kinds. ``modes`` are the modes of tasks
    that it executes beside the kernel's own; where a plugin executes tasks and names none, it may execute any.
    A method ``drain(tx)``, where there is one, gives back what the plugin holds before it is switched off by
    ``vivarium plugins disable NAME --drain``; what it leaves, the kernel gives back by a rule of its own.
    ``hookspecs`` are the hooks that it offers to others. ``asks`` has, by plugin, the Protocol that this one needs of
    the other's service: a service that lacks something of it is told when both are on.
    """

    name: ClassVar[str] = ""
    api: ClassVar[int] = API
    Config: ClassVar[type | None] = None
    Physics: ClassVar[type | None] = None
    migrations: ClassVar[Any] = None  # sqlite_utils.Migrations, or "module:attribute" of them
    requires: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[Callable[..., Any] | None] = None
    guards: ClassVar[tuple[str, ...] | None] = None
    modes: ClassVar[tuple[str, ...]] = ()
    hookspecs: ClassVar[tuple[HookSpec[..., Any], ...]] = ()
    asks: ClassVar[Mapping[str, type]] = {}

    def __init__(self, village: Any, config: Any) -> None:
        self.village = village
        self.config = config

    def __repr__(self) -> str:
        return f"<plugin {self.name}>"

    def call(self, hook: HookSpec[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a hook of this plugin's ``hookspecs`` in those that implement it; see its kind for what is given back.

        Whoever fails is left out and named in the village's health. Nothing is called, and no answer given, while this
        plugin is off. Not for while plugins are built and register: the others are not there yet.
        """
        if hook not in type(self).hookspecs:
            what = getattr(hook, "name", repr(hook))
            raise BadHook(self.name, f"{what} called by {self.name}", "is no hook of its own", "list it in hookspecs")
        found: R = self.village.hooks.offered.call(hook, args, kwargs)
        return found


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


class BadService(PluginError):
    """A plugin asks for more than another one's service can do; ``definition`` is the member of its Protocol."""

    RULE = "plugins.service"


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
        configs[name], wrong = examined(name, cls, config.get(name, {}), classes_by_name)
        if wrong:
            errors[name] = wrong
    for circle in list(_circles({name: cls for name, cls in classes_by_name.items() if name not in errors})):
        errors[circle.plugin] = [circle]
    built: dict[str, Plugin] = {}
    registry = fitting.Registry()
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
            _admitted[id(plugin)] = weakref.ref(plugin, partial(_forget, id(plugin))), name
        except BaseException as error:  # SystemExit too is the plugin's fault
            cure = f"mend it, or switch it off: {switch_off(name)}"
            errors[name] = [Broken(name, _named(cls), f"can't be built: {describe(error)}", cure)]
    return list(built.values()), [Failed(name, tuple(wrong)) for name, wrong in sorted(errors.items())]


# The plugins that were built here, by identity: what an object says of itself, or whom it equals, proves nothing.
_admitted: dict[int, tuple[weakref.ref[Plugin], str]] = {}


def _forget(number: int, _: weakref.ref[Plugin]) -> None:
    _admitted.pop(number, None)


def name_of(plugin: Plugin) -> str:
    """The name under which this very plugin was built. Raises Forbidden for anything else that calls itself one."""
    found = _admitted.get(id(plugin))
    if found is None or found[0]() is not plugin:
        raise Forbidden(
            "plugins.of", f"{plugin!r:.80} is no plugin of an open village.",
            "Hand over the plugin itself, as the service of another was made with.",
        )  # fmt: skip
    return found[1]


def examined(
    name: str, cls: type[Plugin], raw: Mapping[str, Any], others: Mapping[str, type[Plugin]] | None = None
) -> tuple[Any, list[PluginError]]:
    """A plugin's config, read from its table ``raw``, and everything that is wrong with it and with the class.

    ``others`` are the plugins that are on beside it.
    """
    wrong = list(_declaration_errors(name, cls))
    config = None
    if isinstance(cls, type):
        wrong += hook_errors(name, cls, others)
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
    return fitting.implemented(cls)


def hook_docs() -> dict[str, str]:
    """The first line of what each of the kernel's hooks says of itself, by its name."""
    return {
        name: (inspect.getdoc(hook.function) or "").partition("\n")[0] for name, hook in fitting.kernel_hooks().items()
    }


def hook_errors(plugin: str, cls: type[Plugin], others: Mapping[str, type[Plugin]] | None = None) -> Iterator[BadHook]:
    """What is wrong with a class's implementations of hooks, and with the hooks that it offers itself.

    ``others`` are the plugins that are on beside it: they may offer hooks too.
    """
    beside = {**(others or {}), plugin: cls}
    named = [other for field in ("requires", "after") for other in _names(cls, field)]
    absent = [name for name in named if name not in beside]
    found = fitting.misfits(cls, offering.hooks_with(beside), named, absent)
    yield from (BadHook(plugin, *misfit) for misfit in (*found, *offering.offer_faults(plugin, cls, beside)))


def _names(cls: type, field: str) -> tuple[str, ...]:
    """What a class says in ``requires`` or ``after``; nothing where that is no tuple, which is told elsewhere."""
    value = getattr(cls, field, ())
    return value if isinstance(value, tuple) else ()


def waiting_for(cls: type[Plugin], others: Mapping[str, type[Plugin]]) -> dict[str, str]:
    """The hooks that a class implements and nobody offers among ``others``, and what each waits for, in words."""
    hooks = offering.hooks_with({**others, cls.name: cls})
    absent = [name for name in sorted(_before(cls)) if name not in others]
    waits = f"for {' or '.join(absent)}, which is not on" if absent else "for a plugin that offers it"
    found = {}
    for hook in hooks_of(cls):
        if hook not in hooks:
            close = fitting.slip(hook, list(hooks))
            found[hook] = waits + (f"; did you mean {close}{fitting.of(hooks[close])}?" if close else "")
    return found


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
    migrations = getattr(cls.migrations, "name", name)
    if migrations != name:
        cure = f"write Migrations({name!r}): by it the village knows whose tables are whose"
        yield BadDeclaration(name, f"{what}.migrations", f"are called {migrations!r}", cure)
    for other, protocol in cls.asks.items() if isinstance(cls.asks, Mapping) else [("", None)]:
        if not (isinstance(other, str) and isinstance(protocol, type) and getattr(protocol, "_is_protocol", False)):
            cure = 'write asks = {"name": Needs}, with class Needs(Protocol)'
            yield BadDeclaration(name, f"{what}.asks = {cls.asks!r:.200}", "is not a Protocol by plugin", cure)
            break
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
