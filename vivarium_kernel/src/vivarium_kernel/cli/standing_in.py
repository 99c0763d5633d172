"""The room of a run without a model: it is refused with the ways to get one, or a scripted model stands in for all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vivarium_kernel.errors import Conflict

if TYPE_CHECKING:
    from vivarium_kernel.records import NewTask
    from vivarium_kernel.settings import Settings

_WAYS = """\
Configure one in vivarium.toml (docs/models.md has the whole of it):
      vLLM, your own machine:  vivarium plugins install vivarium-plugins-vllm    model = "vllm:MODEL"
      Groq, with a key:        vivarium plugins install vivarium-plugins-groq    model = "groq:MODEL"
      any OpenAI-compatible:   vivarium plugins install vivarium-plugins-openai  model = "openai:MODEL"
      In a clone: ./plugins/vivarium_plugins_groq, ./plugins/vivarium_plugins_openai; ..._vllm wants ..._openai first.
  Or see the machinery run without any, by a fixed script that understands nothing:
      vivarium run {folder} --scripted"""


def refuse_without_model(given: Path, folder: Path, settings: Settings, tasks: Sequence[NewTask]) -> None:
    """Refuse a run whose tasks need a model where the village has none; nothing was opened yet. Raises Conflict.

    A village has none when its ``model`` names no model itself but a class, or ``auto``, and no class is set; or when
    nobody has installed the provider of what it names: its tasks would all fail at once, and for good.
    """
    from vivarium_kernel.routing import providers_named

    providers = providers_named(settings.model, settings.models)
    needing = [task.id for task in tasks if _thinks(task) and ":" not in (task.model or "")]
    if not needing or _residents_models(folder):
        return
    if providers:
        _refuse_uninstalled(providers)
        return
    raise Conflict(
        "model.none",
        f'No model is configured: model = "{settings.model}", and no class of [models] is set. '
        f"{len(needing)} of {len(tasks)} tasks need one ({', '.join(str(name) for name in needing[:3])}"
        f"{', ...' if len(needing) > 3 else ''}).",
        _WAYS.format(folder=given),
        field="model",
    )


def _refuse_uninstalled(providers: Collection[str]) -> None:
    from vivarium_kernel.catalog import providers as installed
    from vivarium_kernel.models import how_to_get

    missing = sorted(set(providers) - set(installed()))
    if missing:
        raise Conflict(
            "model.provider",
            f"The settings name models of {', '.join(missing)}, and no such provider is installed.",
            how_to_get(missing[0], installed()),
            field="model",
        )


def refuse_named(folder: Path, tasks: Sequence[NewTask]) -> None:
    """Refuse to let the scripted model stand in where a task or resident names another model itself: its word counts
    more than the village's. Raises Conflict."""
    named = [(f"task {task.id}", task.model) for task in tasks if _thinks(task) and task.model]
    named += [(f"task {name}", model) for name, model in _tasks_models(folder)]
    named += [(f"resident {name}", model) for name, model in _residents_models(folder)]
    others = [(who, model) for who, model in named if any(_is_other(part) for part in model.split(","))]
    if others:
        who, model = others[0]
        raise Conflict(
            "model.scripted",
            f"--scripted stands in for the village's own models, and {who} names {model} itself"
            f"{f' ({len(others) - 1} more do)' if len(others) > 1 else ''}.",
            "Take the name out of there, or run without --scripted.",
            field="--scripted",
        )


def scripted(settings: Settings) -> Settings:
    """The settings of a run in which the scripted model stands in for the village's model and for each class."""
    from attrs import evolve

    from vivarium_kernel.builtin.scripted import TOOLS

    models = evolve(settings.models, allow=("scripted:*",), small=TOOLS, medium=TOOLS, large=TOOLS)
    limits = {name: evolve(limit, models=None) for name, limit in settings.limits.items()}
    return evolve(settings, model=TOOLS, models=models, limits=limits)


def _thinks(task: NewTask) -> bool:
    from vivarium_kernel.posting import mode_of

    return mode_of(task) == "llm"


def _is_other(name: str) -> bool:
    return ":" in name and not name.strip().startswith("scripted:")


def _residents_models(folder: Path) -> list[tuple[str, str]]:
    sql = "SELECT name, model FROM residents WHERE model IS NOT NULL AND state NOT IN ('retired', 'banned')"
    return list(_rows(folder, sql))


def _tasks_models(folder: Path) -> Iterator[tuple[str, str]]:
    """The models that tasks on the board name which have not ended."""
    sql = "SELECT id, spec FROM tasks WHERE mode = 'llm' AND state NOT IN ('done', 'failed', 'cancelled', 'blocked')"
    for name, spec in _rows(folder, sql):
        model = json.loads(spec).get("model")
        if model:
            yield name, model


def _rows(folder: Path, sql: str) -> list[tuple[str, str]]:
    """What a village's database has of it; nothing where no village has lived yet, which looking at must not found."""
    import sqlite3

    from vivarium_kernel.cli.opening import read_only

    path = folder / "vivarium.db"
    if not path.exists():
        return []
    with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(read_only(path)) as connection:
        return connection.execute(sql).fetchall()
    return []  # a database that can't be read is refused in better words when it is opened
