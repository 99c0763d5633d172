"""The room of inspection: what can be said of a plugin by looking at its class, its distribution and its import."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from vivarium_kernel.fitting import of, slip
from vivarium_kernel.inspecting import neighbours
from vivarium_kernel.installed import GROUP, Found
from vivarium_kernel.offering import hooks_with
from vivarium_kernel.plugins import (
    Plugin,
    PluginError,
    _declaration_errors,
    discover,
    hook_errors,
    load,
    waiting_for,
)
from vivarium_kernel.problems import InputError
from vivarium_kernel.structuring import structure

IMPORT_SECONDS = 0.2
# What no plugin needs before it is used. What the kernel has loaded anyway is not counted.
HEAVY = frozenset({
    "numpy", "pandas", "scipy", "torch", "tensorflow", "jax", "transformers", "sklearn", "matplotlib", "PIL", "cv2",
    "sqlalchemy", "django", "flask", "fastapi", "pydantic", "requests", "httpx", "aiohttp", "openai", "anthropic",
    "boto3", "botocore", "google", "starlette", "uvicorn", "jinja2", "rich", "pytest", "hypothesis", "IPython",
    "networkx", "playwright", "selenium", "setuptools", "pkg_resources", "pip", "mypy",
})  # fmt: skip
_TIMING = """
import importlib, json, sys, time
import sqlite_utils
from vivarium_kernel import *
before = set(sys.modules)
began = time.perf_counter()
importlib.import_module(sys.argv[1])
print(json.dumps([time.perf_counter() - began, sorted(set(sys.modules) - before)]))
"""


def entry_point_problems(cls: type[Plugin] | None, found: Found | None) -> Iterator[str]:
    """Whether one installed distribution, and only one, leads to this class under its name."""
    name = found.name if found is not None else cls.name if cls is not None else ""
    points, clashes = discover()
    yield from (str(error) for clash in clashes if clash.name == name for error in clash.errors)
    if found is None and name not in points:
        if not any(clash.name == name for clash in clashes):
            yield (
                f'no installed distribution has an entry point {name!r} in the group "{GROUP}": '
                f'write [project.entry-points."{GROUP}"] in pyproject.toml and install it'
            )
        return
    point = found or points[name]
    try:
        loaded = load(point)
    except PluginError as error:
        yield str(error)
        return
    if cls is not None and loaded is not cls:
        yield f"the entry point {name!r} of {point.distribution} leads to {loaded!r}, not to {cls!r}"
    if point.distribution != "unknown" and not point.entry_point.value.partition(":")[2]:
        yield f"{point.entry_point.value}: name the class too: MODULE:CLASS"


def name_problems(cls: type[Plugin], name: str) -> Iterator[str]:
    """Whether the declaration can be, and the plugin's parts bear its name."""
    yield from (str(error) for error in _declaration_errors(name, cls))
    if name in cls.requires or name in cls.after:
        yield f"{cls.__name__} requires itself, or comes after itself: take {name!r} out of requires and after"


def config_problems(cls: type[Plugin], name: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Whether the plugin lives without a word in vivarium.toml, and its own defaults pass its own checks."""
    wanted = cls.Config
    if wanted is None:
        return
    for field in attrs.fields(wanted):
        if field.default is attrs.NOTHING and field.alias not in config:
            yield f"plugins.{name}.{field.name} has no default: a village that sets nothing could not have the plugin"
        if field.type is None:
            yield f"plugins.{name}.{field.name} has no type: it could be anything"
    try:
        made: Any = structure(wanted, config, f"plugins.{name}")
        structure(wanted, _as_written(made), f"plugins.{name}")
    except InputError as refused:
        yield from (f"{problem.path}: {problem.message}" for problem in refused.problems)
    try:
        structure(wanted, {**config, "no_such_key": 1}, f"plugins.{name}")
        yield f"{wanted.__name__} takes the unknown key plugins.{name}.no_such_key: a slip of the pen would go unseen"
    except InputError:
        pass


def _as_written(config: Any) -> dict[str, Any]:
    """A config as its table would say it; what TOML can't say is left out."""
    said = attrs.asdict(config)
    return {key: value for key, value in said.items() if isinstance(value, (str, int, float, bool, list, tuple))}


def hook_problems(cls: type[Plugin], name: str, given: Mapping[str, type[Plugin]] | None = None) -> Iterator[str]:
    """Whether each marked method fits its hook, and none that was meant to is left unmarked.

    Hooks are the kernel's and those of the plugins that it names, of those that are ``given`` or installed.
    """
    others = {**neighbours(cls), **(given or {})}
    yield from (str(error) for error in hook_errors(name, cls, others))
    hooks = hooks_with({**others, name: cls})
    for method in dir(cls):
        function = inspect.getattr_static(cls, method)
        if method.startswith("_") or not inspect.isfunction(function) or hasattr(function, "vivarium_impl"):
            continue
        close = slip(method, list(hooks))
        if close and method not in hooks:
            meant = f"{close}{of(hooks[close])}"
            yield f"{cls.__name__}.{method}: did you mean {meant}? Mark it with @hookimpl, or give it another name"
    for hook, why in waiting_for(cls, others).items():
        if "did you mean" in why:
            yield f"{cls.__name__}.{hook} waits {why}"


def import_problems(module: str) -> Iterator[str]:
    """Whether the module loads in less than 200 ms on top of the kernel, and without heavy modules."""
    best, loaded = 1e9, []
    for _ in range(3):  # the first run may have to compile, or the machine may be busy
        done = subprocess.run(  # noqa: S603 - the author's own module
            [sys.executable, "-c", _TIMING, module], capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )  # fmt: skip
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["it ended the process"]
            yield f"import {module} in a process of its own: {last[0]}"
            return
        seconds, loaded = json.loads(done.stdout.splitlines()[-1])
        best = min(best, seconds)
        if best < IMPORT_SECONDS:
            break
    heavy = sorted({name.partition(".")[0] for name in loaded} & HEAVY)
    if heavy:
        yield f"import {module} loads {', '.join(heavy)}: import that inside the function that needs it"
    if best >= IMPORT_SECONDS:
        allowed = f"{IMPORT_SECONDS * 1000:.0f}"
        yield f"import {module} takes {best * 1000:.0f} ms, more than {allowed}: import what is slow where it is used"


def documentation_problems(cls: type[Plugin], name: str, found: Found | None) -> Iterator[str]:
    """Whether the plugin says what it is for, and each of its settings what it does."""
    if not _says(cls):
        yield f"{cls.__name__} has no docstring: its first line is what `vivarium plugins list` shows"
    module = sys.modules.get(cls.__module__)
    if module is not None and not _says(module):
        yield f"the module {cls.__module__} has no docstring"
    for what in (cls.Config, cls.Physics):
        if what is None:
            continue
        text = what.__doc__ or ""
        for field in attrs.fields(what):
            if not field.metadata.get("doc") and field.name not in text:
                yield (
                    f"{what.__name__}.{field.name} is not explained: field(…, metadata={{'doc': \"…\"}}), "
                    f"or name it in the docstring of {what.__name__}"
                )
    yield from _service_documentation(cls.provides)
    if found is not None and found.distribution != "unknown":
        yield from _page_problems(found.distribution)


def _service_documentation(provides: Any) -> Iterator[str]:
    if provides is not None and not _says(provides):
        yield f"{provides!r}, which the plugin provides, has no docstring"
    for method, function in _public(provides):
        if not _says(function):
            yield f"{method} of the service has no docstring"


def _page_problems(distribution: str) -> Iterator[str]:
    described: Any = importlib.metadata.metadata(distribution)
    if not described.get("Summary"):
        yield f"{distribution} has no description in pyproject.toml"
    if not (described.get("Description") or str(described.get_payload() or "")).strip():
        yield f'{distribution} has no README: write readme = "README.md" in pyproject.toml'


def service_problems(cls: type[Plugin]) -> Iterator[str]:
    """Whether the methods of the plugin's service take the ``tx`` or ``view`` of whoever asks."""
    if cls.provides is None:
        return
    for method, function in _public(cls.provides):
        taken = inspect.signature(function).parameters.values()
        if not any(each.name in ("tx", "view") or "PluginTx" in str(each.annotation) for each in taken):
            yield f"{method} of the service takes neither tx nor view: it could only answer from memory or from outside"


def _public(provides: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(provides, type):
        for name, function in inspect.getmembers(provides, inspect.isfunction):
            if not name.startswith("_"):
                yield f"{provides.__name__}.{name}", function


def _says(what: Any) -> bool:
    own = vars(what).get("__doc__") if isinstance(what, type) else what.__doc__
    return bool((own or "").strip())
