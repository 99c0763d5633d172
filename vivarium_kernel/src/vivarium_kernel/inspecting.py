"""The room where a plugin is looked at: imported in a process of its own, which it may end or hang without harm.

What is found out is its hooks, settings, requirements, faults and how long its import took.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

TIMEOUT_SECONDS = 30.0
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from vivarium_kernel.inspecting import child; child()"
)


@frozen
class Setting:
    """One key of a plugin's table in ``vivarium.toml``, as text."""

    key: str
    type: str
    default: str
    doc: str = ""


@frozen
class Looked:
    """What a plugin is. ``faults`` has everything that is wrong with it, each as fault and cure."""

    name: str
    doc: str = ""
    place: str = ""
    api: int | None = None
    hooks: tuple[str, ...] = ()
    config: tuple[Setting, ...] = ()
    requires: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    provides: str = ""
    import_ms: float = 0.0
    faults: tuple[str, ...] = field(default=())
    offers: tuple[str, ...] = ()  # hooks of its own: "NAME: what it says of itself"
    waits: tuple[str, ...] = ()  # hooks that it implements and nobody offers: "NAME waits for …"
    asks: tuple[str, ...] = ()  # plugins whose service it uses where they are on

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Looked:
        lists = {key: tuple(raw[key]) for key in ("hooks", "requires", "after", "faults", "offers", "waits", "asks")}
        config = tuple(Setting(**one) for one in raw["config"])
        return cls(**{**raw, **lists, "config": config})


def look(
    names: Iterable[str], config: Mapping[str, Mapping[str, Any]] | None = None, *, alone: bool = False
) -> dict[str, Looked]:
    """Look at installed plugins, by name. ``config`` has the tables of ``vivarium.toml`` that theirs are checked with.

    One process serves them all, and a further one those that come after a plugin that ended it; with ``alone`` each
    has its own, so that none pays for another's import or profits from it.
    """
    left = list(dict.fromkeys(names))
    found: dict[str, Looked] = {}
    while left:
        batch = left[:1] if alone else left
        seen, why = _one_process(batch, config or {})
        found |= seen
        missed = [name for name in batch if name not in seen]
        if missed:
            found[missed[0]] = Looked(missed[0], faults=(f"{why} when it was imported; mend it",))
        left = [name for name in left if name not in found]
    return found


def _one_process(names: list[str], config: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Looked], str]:
    """What a child process told before it ended, and how it ended if it was not well."""
    asked = pickle.dumps((names, {name: config[name] for name in names if name in config}))
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path)]
    try:
        done = subprocess.run(  # noqa: S603 - this very Python
            command, input=asked, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
        )
        told, why = done.stdout, f"it ended the process with status {done.returncode}"
    except subprocess.TimeoutExpired as hung:
        told = hung.stdout or b""
        why = f"it took more than {TIMEOUT_SECONDS:g} s"
    looked = [Looked.from_json(json.loads(line)) for line in told.splitlines() if line.endswith(b"}")]
    return {one.name: one for one in looked}, why


def child() -> None:
    """The child's side: read what is asked from stdin, tell one JSON line a plugin. What plugins print is dropped."""
    names, config = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - from this program's own parent process
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for name in names:
            answers.write(_line(name, config.get(name, {})) + "\n")
            answers.flush()
        os._exit(0)  # threads that a plugin started must not keep this process


def _line(name: str, raw: Mapping[str, Any]) -> str:
    import attrs

    return json.dumps(attrs.asdict(_looked(name, raw)))


def _looked(name: str, raw: Mapping[str, Any]) -> Looked:
    import time

    from vivarium_kernel.builtin import builtin_plugins
    from vivarium_kernel.plugins import PluginError, discover, load

    found, clashes = discover()
    own = builtin_plugins()
    if name in own:
        return of_class(name, own[name], raw)
    for clash in clashes:
        if clash.name == name:
            return Looked(name, faults=tuple(map(str, clash.errors)))
    if name not in found:
        return Looked(name, faults=("it is not installed; vivarium plugins sync",))
    began = time.perf_counter()
    try:
        cls = load(found[name])
    except PluginError as error:
        return Looked(name, place=found[name].entry_point.value, faults=(str(error),))
    return of_class(name, cls, raw, (time.perf_counter() - began) * 1000)


def of_class(name: str, cls: Any, raw: Mapping[str, Any], import_ms: float = 0.0) -> Looked:
    """What a plugin's class says of itself."""
    import inspect

    from vivarium_kernel.offering import offered_by
    from vivarium_kernel.plugins import examined, hooks_of, waiting_for

    others = neighbours(cls)
    _, wrong = examined(name, cls, raw, others)
    provides = cls.provides
    return Looked(
        name,
        doc=(inspect.getdoc(cls) or "").partition("\n\n")[0] if "__doc__" in vars(cls) else "",
        place=f"{cls.__module__}:{cls.__qualname__}",
        api=cls.api if isinstance(cls.api, int) else None,
        hooks=tuple(hooks_of(cls)),
        config=tuple(settings_of(cls.Config)),
        requires=tuple(map(str, cls.requires)) if isinstance(cls.requires, tuple) else (),
        after=tuple(map(str, cls.after)) if isinstance(cls.after, tuple) else (),
        provides="" if provides is None else getattr(provides, "__qualname__", repr(provides)),
        import_ms=round(import_ms, 1),
        faults=tuple(map(str, wrong)),
        offers=tuple(f"{spec.name}: {spec.doc}" for spec in offered_by(cls)),
        waits=() if wrong else tuple(f"{hook} waits {why}" for hook, why in waiting_for(cls, others).items()),
        asks=tuple(map(str, cls.asks)) if isinstance(cls.asks, Mapping) else (),
    )


def neighbours(cls: Any) -> dict[str, Any]:
    """The plugins that a class names in ``requires`` and ``after``, of those that are installed and can be loaded."""
    from vivarium_kernel.builtin import builtin_places
    from vivarium_kernel.plugins import Plugin, PluginError, discover, load

    found: dict[str, Any] = dict.fromkeys(builtin_places(), Plugin)  # the kernel's own offer no hooks
    named = [other for each in (cls.requires, cls.after) if isinstance(each, tuple) for other in each]
    points = discover()[0] if set(named) - set(found) else {}
    for other in named:
        if other in points and other not in found:
            with contextlib.suppress(PluginError):  # it is told where that plugin itself is looked at
                found[other] = load(points[other])
    return found


def settings_of(config: Any) -> list[Setting]:
    """The keys of a plugin's config class."""
    import attrs

    if not (isinstance(config, type) and attrs.has(config)):
        return []
    return [
        Setting(
            str(one.metadata.get("key", one.name)),
            one.type if isinstance(one.type, str) else getattr(one.type, "__name__", str(one.type)),
            _default(one),
            str(one.metadata.get("doc", "")),
        )
        for one in attrs.fields(config)
    ]


def _default(one: Any) -> str:
    import attrs

    if one.default is attrs.NOTHING:
        return "(must be given)"
    if isinstance(one.default, attrs.Factory):  # type: ignore[arg-type]
        return repr(one.default.factory()) if not one.default.takes_self else "(depends)"
    return repr(one.default)
