"""The room of the trial: a plugin's whole life in a village, and what it leaves behind when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import re
import signal
import sqlite3
import sys
import threading
import types
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from attrs import evolve, frozen

from vivarium_kernel import deciding
from vivarium_kernel.actions import ActionFailed, actions_of, input_schema, perform
from vivarium_kernel.api.panels_hosting import panels_of
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.health import describe, where
from vivarium_kernel.migrating import migrations_of
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Outcome
from vivarium_kernel.terms import Actor, Role
from vivarium_kernel.testing.panels import draw_panel
from vivarium_kernel.testing.samples import sample
from vivarium_kernel.testing.soundness import problems
from vivarium_kernel.testing.stage import Opening, Stage, StagedVillage, Unsynced
from vivarium_kernel.testing.stepping import Shortage
from vivarium_kernel.transaction import migrated, owns

if TYPE_CHECKING:
    from vivarium_kernel import Job

# Whoever may do something: each action is tried as the first of these that it is for.
_ACTORS = tuple(Actor(role, "ada" if role == "resident" else f"{role}:trial") for role in get_args(Role))
_WRITES = re.compile(r"(/\*.*?\*/|\s)*(INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|ALTER)\b", re.IGNORECASE)
# The rooms through which every statement passes, whoever asked for it.
_STORE = (
    *(f"vivarium_kernel.{room}" for room in ("transaction", "committing", "writer", "store")),
    *("sqlite_utils", "sqlite3"),
)


def live(stage: Stage, village: StagedVillage) -> None:
    """Everything that happens to a plugin in a life: good tasks and bad ones, a decision, a day, the listeners."""
    village.task("Say something.")
    village.task("Say it for money.", max_micros=100_000)
    human = village.task("A person looks at this.", human=True)
    stage.model.fails("the trial's outage")
    cancelled = village.task("Never begun.", not_before_at=village.clock.now() + 10**13)
    with contextlib.suppress(Shortage):
        stage.cycles(village)
    for task, what in ((human, "approve"), (cancelled, "cancel")):
        with contextlib.suppress(VivariumError):  # the plugin may have decided otherwise
            asked = deciding.Decision(task, what, "operator:trial", "the trial", village.hooks.end_attempt)  # type: ignore[arg-type]
            village.store.call(deciding.decide, asked)
    stage.pass_time(0 if stage.real_time else 25, 1.5)


def faults(village: StagedVillage, name: str) -> Iterator[str]:
    """What a plugin did wrong in its life, as the village recorded it."""
    panels, unfit = panels_of(village, set())
    _, refused = actions_of(village)
    yield from (each for each in (*refused, *unfit) if each.startswith(f"{name} "))
    for panel in panels.values():
        if panel.plugin == name:
            try:
                draw_panel(village, panel.name)
            except Exception as error:
                yield f"the panel {panel.name}: {type(error).__name__}: {error}"
    for fault in village.health.recent:
        if fault.plugin == name and not fault.what.startswith("slow"):
            yield f"{fault.hook}: {fault.what}" + (f" ({fault.where})" if fault.where else "")
    yield from problems(village.store)


class Trier(Plugin):
    """Uses slow tools as a resident at work does. It takes tasks of its own mode alone."""

    name = "trial_of_tools"
    modes = ("trial_of_tools",)

    @hookimpl(tryfirst=True)
    async def execute_task(self, job: Job) -> Outcome | None:
        if job.task.mode != self.name:
            return None
        try:
            await job.act(job.task.data["action"], job.task.data["input"])
        except ActionFailed as error:
            return Outcome(answer=_told(error))
        except VivariumError:
            pass  # a refusal is an answer too
        return Outcome(answer="")


def action_problems(stage: Stage, opening: Opening, name: str) -> Iterator[str]:
    """What happens when each action of a plugin is done once with an input made from its schema.

    A refusal is an answer too. Slow tools are used by a resident at work.
    """
    village = stage.open(evolve(opening, plugins=(*opening.plugins, Trier)))
    for action in (each for each in actions_of(village)[0].values() if each.plugin == name):
        body = sample(input_schema(action))
        actor = next(each for each in _ACTORS if each.role in action.roles)
        try:
            if action.run is not None:
                stage.run(perform(village, action, actor, body))
                continue
            data = {"action": action.name, "input": body}
            task = village.task("Use it.", mode=Trier.name, data=data, effect="pure", max_attempts=1)
            with contextlib.suppress(Shortage):
                stage.cycles(village)
            with village.store.view() as view:
                rows = view.rows("SELECT answer FROM attempts WHERE task = ? AND answer <> ''", (task,))
            fault = rows[0][0] if rows else ""
        except ActionFailed as error:
            fault = _told(error)
        except VivariumError:
            continue
        except Exception as error:
            fault = f"{describe(error)} ({where(error)})"
        if fault:
            yield f"{action.name}, done by {actor} with {json.dumps(body)[:300]}: {fault}"


def _told(error: ActionFailed) -> str:
    cause = error.__cause__
    return describe(cause) + (f" ({where(cause)})" if cause is not None else "")


def own_rows(village: StagedVillage, name: str) -> dict[str, int]:
    """How many rows each of the plugin's tables has."""
    with village.store.view() as view:
        known = migrated(view.connection)
        there = view.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        tables = [row[0] for row in there if owns(name, row[0], known)]
        return {table: view.rows(f'SELECT count(*) FROM "{table}"')[0][0] for table in tables}


# Migrations


def migration_problems(opening: Opening, cls: type[Plugin]) -> Iterator[str]:
    """Whether the migrations make the plugin's own tables alone, and change nothing when they run again."""
    from sqlite_utils import Database

    bare = evolve(opening, plugins=tuple(each for each in opening.plugins if each is not cls))
    stage = Stage()
    try:
        village = stage.open(evolve(bare, sound=False))
        with village.store.exclusive() as connection:
            before, held = _schema(connection), _contents(connection)
            try:
                migrations_of(cls).apply(Database(connection))
            except Exception as error:
                yield f"from scratch: {type(error).__name__}: {error}"
                return
            once = _schema(connection)
            yield from _strangers(cls.name, before, once)
            if _contents(connection) != held:
                yield "the migrations change rows of tables that are not the plugin's"
            own = _contents(connection, cls.name)
            try:
                migrations_of(cls).apply(Database(connection))
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                yield f"a second time: {what}; note what has run, as sqlite_utils.Migrations does"
                return
            if _schema(connection) != once or _contents(connection, cls.name) != own:
                yield "a second time the migrations change what they made the first time"
    finally:
        stage.close()


def _schema(connection: sqlite3.Connection) -> dict[tuple[str, str], tuple[str, str]]:
    rows = connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master").fetchall()
    return {(kind, name): (table, sql) for kind, name, table, sql in rows if not name.startswith("sqlite_")}


def _contents(connection: sqlite3.Connection, plugin: str | None = None) -> dict[str, list[Any]]:
    """The rows of the plugin's tables, or of the kernel's."""
    tables = [name for kind, name in _schema(connection) if kind == "table" and not name.startswith("_sqlite_")]
    if plugin is not None:
        known = migrated(connection)
        tables = [table for table in tables if owns(plugin, table, known)]
    else:
        from vivarium_kernel.schema import table_names

        tables = [table for table in tables if table in table_names()]
    return {table: connection.execute(f'SELECT * FROM "{table}"').fetchall() for table in tables}


def _strangers(
    name: str, before: dict[tuple[str, str], tuple[str, str]], after: dict[tuple[str, str], tuple[str, str]]
) -> Iterator[str]:
    for (kind, made), (table, sql) in after.items():
        if made.startswith("_sqlite_"):
            continue
        if (kind, made) not in before:
            if not table.startswith(f"{name}_"):
                yield f"the migrations make the {kind} {made} on {table}: the plugin's tables begin with {name}_"
            elif kind == "trigger" and re.search(rf"(INTO|UPDATE|FROM)\s+\"?(?!{name}_)\w+", sql.partition("BEGIN")[2]):
                yield f"the trigger {made} touches tables that are not the plugin's"
        elif before[kind, made] != (table, sql):
            yield f"the migrations change the {kind} {made}, which is not the plugin's"
    yield from (f"the migrations drop the {kind} {gone}" for kind, gone in before.keys() - after.keys())


# Writes


def watched(found: list[str]) -> type[sqlite3.Connection]:
    """Connections that note who writes to the database past what plugins are handed."""

    class Watched(Unsynced):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            _note_stranger(found, sql)
            return super().execute(sql, *arguments)

        def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            _note_stranger(found, sql)
            return super().executemany(sql, *arguments)

        def executescript(self, sql_script: str) -> sqlite3.Cursor:
            _note_stranger(found, sql_script)
            return super().executescript(sql_script)

    return Watched


def _note_stranger(found: list[str], sql: str) -> None:
    if not _WRITES.match(sql):
        return
    frame: types.FrameType | None = sys._getframe(2)
    asker: types.FrameType | None = None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == "sqlite_utils.migrations" or frame.f_code.co_name == "_guarded":
            return  # a migration, or a statement that the plugin's own tx guards
        if asker is None and not module.startswith(_STORE):
            asker = frame
        frame = frame.f_back
    if asker is not None and not asker.f_globals.get("__name__", "").startswith("vivarium_kernel."):
        found.append(f"{asker.f_code.co_filename}:{asker.f_lineno} writes past its tx: {' '.join(sql.split())[:80]}")


@contextlib.contextmanager
def watching_connections(found: list[str], database: Path) -> Iterator[None]:
    """Note who opens the village's database on a connection of its own while the block runs."""
    real: Any = sqlite3.connect

    def connect(path: Any, *arguments: Any, **more: Any) -> sqlite3.Connection:
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__", "").startswith("sqlite_utils"):
            frame = frame.f_back
        asker = "" if frame is None else frame.f_globals.get("__name__", "")
        if str(path).startswith(str(database)) and frame is not None and not asker.startswith("vivarium_kernel."):
            found.append(f"{frame.f_code.co_filename}:{frame.f_lineno} opens the village's database by itself")
        made: sqlite3.Connection = real(path, *arguments, **more)
        return made

    sqlite3.connect = connect  # type: ignore[assignment]
    try:
        yield
    finally:
        sqlite3.connect = real


# Leaving


@frozen
class Traces:
    """What a plugin could leave behind in its process."""

    threads: frozenset[str]
    files: frozenset[str]
    signals: tuple[Any, ...]
    handlers: tuple[Any, ...]
    variables: frozenset[tuple[str, str]]

    def left_since(self, before: Traces) -> Iterator[str]:
        yield from (f"the thread {name} still runs: join it in shutdown" for name in self.threads - before.threads)
        yield from (f"{name} is still open: close it in shutdown" for name in self.files - before.files)
        if self.signals != before.signals:
            yield "a signal's handler is another one: those are the process's, not a plugin's"
        if self.handlers != before.handlers:
            yield "the root logger has other handlers: log to a logger of your own"
        changed = sorted(name for name, _ in self.variables ^ before.variables)
        if changed:
            yield f"environment variables are others: {', '.join(dict.fromkeys(changed))}"


def traces() -> Traces:
    """What there is now."""
    gc.collect()
    files = set()
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            files.add(f"{number.readlink()} (file {number.name})")
    return Traces(
        frozenset(f"{thread.name} ({thread.ident})" for thread in threading.enumerate()),
        frozenset(file for file in files if "/proc/" not in file),
        tuple(signal.getsignal(each) for each in sorted(signal.valid_signals())),
        tuple(logging.getLogger().handlers),
        frozenset((name, value) for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"),
    )


def leaving_problems(opening: Opening, cls: type[Plugin], *, real_time: bool) -> Iterator[str]:
    """Whether nothing of the plugin is left when its village is closed, and the village lives on without it."""
    _one_life(evolve(opening, folder=opening.folder / "first"), cls, real_time)  # what is loaded late is loaded now
    before = traces()
    alive, tasks = _one_life(opening, cls, real_time)
    yield from (f"the task {name} still runs: cancel it in shutdown and wait for it" for name in tasks)
    yield from traces().left_since(before)
    if alive() is not None:
        yield "something outside the village still holds the plugin: a module's variable, a thread, a callback"
    stage = Stage(real_time=real_time)
    try:
        others = tuple(each for each in opening.plugins if each is not cls and cls.name not in each.requires)
        without = stage.open(evolve(opening, plugins=others, config={}, sound=False))
        without.task("Life goes on.")
        stage.cycles(without, 1)
    except Shortage as error:
        yield f"without the plugin its village does not live on: {error}"
    finally:
        stage.close()


def _one_life(opening: Opening, cls: type[Plugin], real_time: bool) -> tuple[weakref.ref[Plugin], list[str]]:
    stage = Stage(real_time=real_time)
    try:
        village = stage.open(opening)
        alive = weakref.ref(village.plugins[cls.name])
        live(stage, village)
        before = stage.run(_tasks())
        village.close()
        after = stage.run(_tasks())
    finally:
        stage.close()
    left = [name for name in after if name in before or not name.startswith("Task-")]
    return alive, left


async def _tasks() -> list[str]:
    """The names of the tasks on this loop, without those that a moment ends."""
    await asyncio.sleep(0.01)
    mine = asyncio.current_task()
    return [task.get_name() for task in asyncio.all_tasks() if task is not mine]
