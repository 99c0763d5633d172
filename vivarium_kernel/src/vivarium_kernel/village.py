"""The room of the open village: its folder, settings, store and plugins, handed to everything that acts in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from attrs import frozen

from vivarium_kernel import board, ledger, people, village_time
from vivarium_kernel.audit import Log, emit
from vivarium_kernel.board import Posting
from vivarium_kernel.clock import Clock, SystemClock
from vivarium_kernel.errors import Forbidden, Invalid, StoreError, VivariumError
from vivarium_kernel.ledger import LARGEST_MICROS, Books
from vivarium_kernel.records import Actor, NewTask, Task
from vivarium_kernel.settings import Loaded, load
from vivarium_kernel.settling import Retries
from vivarium_kernel.store import Share, Store, Tx
from vivarium_kernel.village_time import Times

if TYPE_CHECKING:
    import sqlite3

    from vivarium_kernel.calls import Hooks
    from vivarium_kernel.health import Health
    from vivarium_kernel.models import Provider
    from vivarium_kernel.plugins import Failed, Found, Plugin
    from vivarium_kernel.watchdog import Mark


@frozen
class With:
    """How a village is opened. The defaults serve a command that looks and leaves.

    ``plugins`` are classes besides those that are installed; ``timeouts`` False is for simulations; ``switched_off``
    maps (plugin, hook) to why the watchdog switched it off.
    """

    threaded: bool = False
    load_plugins: bool = True
    installed: bool = True
    plugins: Sequence[type[Plugin]] = ()
    timeouts: bool = True
    mark: Mark | None = None
    switched_off: Mapping[tuple[str, str], str] = {}
    connection: type[sqlite3.Connection] | None = None


class Village:
    """One open village. Close it, or use it as a context manager."""

    def __init__(
        self,
        folder: Path,
        how: With | None = None,
        *,
        clock: Clock | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Open the village in ``folder``; makes its database at the first time.

        Raises SettingsError, StoreError, or a refusal that names what is missing.
        """
        how = how or With()
        self.folder = folder.resolve()
        self.environ = dict(os.environ if environ is None else environ)
        self.loaded: Loaded = load(self.folder, self.environ)
        self.settings = self.loaded.settings
        self.clock: Clock = clock or SystemClock()
        self.failed: list[Failed] = []
        self.plugins: dict[str, Plugin] = {}
        self.distrusted: dict[str, str] = {}
        self._providers: dict[str, Provider] = {}
        self._services: dict[str, Any] = {}
        self._hooks: Hooks | None = None
        self._health: Health | None = None
        extra = {} if how.connection is None else {"connection": how.connection}
        share = Share(join, _grant_tx, _grant_view)
        self.store = Store(self.folder, self.clock, threaded=how.threaded, share=share, **extra)
        try:
            self.store.call(_found, self)
            (self.folder / "files").mkdir(exist_ok=True)
            if how.load_plugins:
                self._load(how)
        except BaseException:
            self.store.close()
            raise

    def __enter__(self) -> Village:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.store.close()

    @property
    def hooks(self) -> Hooks:
        """The plugins that are on now, ready to be called."""
        if self._hooks is None:
            raise StoreError("village.plugins", "This village was opened without its plugins.")
        return self._hooks

    @property
    def health(self) -> Health:
        """Breakers and figures of every hook implementation."""
        if self._health is None:
            raise StoreError("village.plugins", "This village was opened without its plugins.")
        return self._health

    def retries(self) -> Retries:
        asked = self.settings.retries
        return Retries(asked.backoff_seconds, asked.backoff_max_seconds, asked.jitter)

    def times(self) -> Times:
        """Pause, halt, pace and the village's clock, as they are now."""
        with self.store.view() as view:
            return village_time.read_times(view)

    def posting(self, tasks: Sequence[NewTask], actor: Actor | str) -> Posting:
        """Tasks as the village's settings complete them."""
        return Posting(tasks, actor, self.settings.budgets.task_usd_micros, self.settings.retries.deadline_seconds)

    def post(self, tasks: Sequence[NewTask], actor: Actor | str = "operator:cli") -> list[Task]:
        """Post tasks now, for code without an event loop."""
        posted: list[Task] = self.store.call(board.post, self.posting(tasks, actor))
        return posted

    def provider(self, name: str) -> Provider:
        """A model provider by name. Raises NotFound, or Forbidden for one that an operator has to look at first."""
        from vivarium_kernel import models
        from vivarium_kernel.builtin.scripted import builtin_provider

        if name in self.distrusted:
            raise Forbidden(
                "model.distrusted", f"{name} is refused: {self.distrusted[name]}.", "An operator has to look at it."
            )
        found = self._providers.get(name)
        if found is None:
            found = builtin_provider(name)
            points = _provider_points() if found is None else {}
            if found is None and name not in points:
                raise models.unknown_provider(name, [*points, "scripted"])
            made: Provider = points[name].load()(self) if found is None else found
            found = self._providers[name] = made
        return found

    def add_provider(self, provider: Provider) -> None:
        """Give the village a model provider that is not installed: for tests and programs."""
        self._providers[provider.name] = provider

    def service(self, name: str) -> Any | None:
        """What the plugin ``name`` provides, or None when it is off or absent: the asker must handle that."""
        return self._services.get(name)

    def check_modes(self, tasks: Sequence[NewTask]) -> None:
        """Refuse tasks that nobody could execute, whatever happens; raises InputError with every problem.

        A mode that is not the kernel's own is refused when no plugin beside the built-in ones executes tasks.
        """
        from vivarium_kernel import posting

        problems = [
            problem.below("", f"task {posting.quoted(task.id)}" if task.id else "")
            for task in tasks
            for problem in posting.validate(
                task, modes=self.modes(), task_micros=self.settings.budgets.task_usd_micros
            )
        ]
        if problems:
            raise posting.TaskError(problems)

    def modes(self) -> Sequence[str] | None:
        """The modes that are executed here; None when a plugin may have its own, which only it knows."""
        from vivarium_kernel import posting

        if self._hooks is not None:
            others = set(self._hooks.names("execute_task")) - {"command_execution", "model_execution"}
        else:
            from importlib.metadata import entry_points

            others = {point.name for point in entry_points(group="vivarium.plugins")} - self.disabled()
        return None if others else posting.BUILT_IN_MODES

    def _load(self, how: With) -> None:
        from vivarium_kernel.builtin import builtin_plugins
        from vivarium_kernel.calls import Hooks
        from vivarium_kernel.health import Health
        from vivarium_kernel.plugins import build

        classes = builtin_plugins()
        if how.installed:
            classes |= self._installed()
        classes |= {plugin.name: plugin for plugin in how.plugins}
        classes = {name: plugin for name, plugin in classes.items() if name not in self.disabled()}
        for name, plugin in classes.items():
            self._migrate(name, plugin)
        plugins, failed = build(self, classes, self.settings.plugins)
        self.failed += failed
        self._compare_physics(plugins)
        self._health = Health(monotonic=self.clock.monotonic)
        for (plugin_name, hook), cause in how.switched_off.items():
            self._health.off(plugin_name, hook, cause)
        self._hooks = Hooks(plugins, self._health, timeouts=how.timeouts, mark=how.mark)
        self.plugins = {plugin.name: plugin for plugin in self._hooks.plugins}
        self._services = {name: p.provides(p) for name, p in self.plugins.items() if p.provides is not None}
        missing = [name for name in self.settings.safety_required if name not in self.plugins]
        if missing:
            raise Invalid(
                "safety.required",
                f"These required safety checks are not on: {', '.join(missing)}.",
                "Switch them on, or take them off safety_required in vivarium.toml.",
                field="safety_required",
            )
        declare = getattr(self.plugins.get("task_reward"), "declare", None)
        if declare is not None:
            self.store.call(_declare_reward, (declare, self.settings.budgets.reward_cap_aid_micros))

    def disabled(self) -> set[str]:
        """The plugins that ``plugins.json`` switches off, by name, before anything of theirs is imported."""
        only = self.environ.get("VIVARIUM_PLUGINS")
        path = self.folder / "plugins.json"
        off = set(json.loads(path.read_text(encoding="utf-8")).get("disabled", [])) if path.exists() else set()
        if only is not None:
            from vivarium_kernel.plugins import discover

            off |= set(discover()[0]) - {name.strip() for name in only.split(",")}
        return off

    def _installed(self) -> dict[str, type[Plugin]]:
        from vivarium_kernel.plugins import Failed, PluginError, discover, load

        found, clashes = discover()
        self.failed += clashes
        classes = {}
        off = self.disabled()
        each: Found
        for name, each in found.items():
            if name in off:
                continue
            try:
                classes[name] = load(each)
            except PluginError as error:
                self.failed.append(Failed(name, (error,)))
        return classes

    def _migrate(self, name: str, plugin: type[Plugin]) -> None:
        if plugin.migrations is None:
            return
        from sqlite_utils import Database

        with self.store.exclusive() as connection:
            plugin.migrations.apply(Database(connection))
        self.store.share.plugins_with_tables.add(name)

    def _compare_physics(self, plugins: Sequence[Plugin]) -> None:
        for plugin in plugins:
            if plugin.Physics is not None:
                constants = msgspec.json.encode(plugin.Physics(), order="sorted").decode()
                self.store.call(_keep_physics, (plugin.name, constants))


def join(tx: Tx) -> None:
    """Give a transaction its clock, log and books."""
    times = village_time.read_times(tx)
    tx.times = times
    tx.now = max(tx.now, times.last_event_at)
    tx.hour = times.hour(tx.now)
    tx.day = tx.hour // village_time.HOURS_A_DAY
    tx.log = Log(tx, tx.day, tx.hour)
    tx.books = Books(tx)
    tx.participants = (tx.books, tx.log)


def _grant_tx(tx: Tx, plugin: str) -> Any:
    from vivarium_kernel.grants import PluginTx

    return PluginTx(tx, plugin)


def _grant_view(view: Any, plugin: str) -> Any:
    from vivarium_kernel.grants import PluginView

    return PluginView(view, plugin)


def _found(tx: Tx, village: Village) -> None:
    """Found the village at its first opening, and bring its caps in line with its settings at every one."""
    settings = village.settings
    new = tx.row("SELECT 1 FROM village") is None
    if new:
        tx.insert(
            "village", "id, created_at, pace_seconds, hour_seconds, since_at",
            [(1, tx.now, settings.pace_seconds, settings.hour_seconds, tx.now)],
        )  # fmt: skip
        tx.insert(
            "accounts", "name, currency, balance, floor",
            [(name, currency, 0, None) for name in ("treasury", "operator") for currency in ledger.CURRENCIES],
        )  # fmt: skip
        emit(tx, "village.founded", "system:kernel", name=settings.name)
        ledger.declare_policy(tx, "start", LARGEST_MICROS)
    caps = {
        "resident-day": settings.budgets.resident_day_usd_micros,
        "village-day": settings.budgets.village_day_usd_micros,
        "village": settings.budgets.village_usd_micros,
    }
    for scope, cap in caps.items():
        if cap is not None:
            tx.books.make_budget(scope, "usd", cap)
    if new:
        for name in settings.residents:
            people.add(tx, people.NewResident(name, "system:settings", start_micros=settings.budgets.start_aid_micros))


def _declare_reward(tx: Tx, asked: tuple[Any, int | None]) -> None:
    declare, cap = asked
    declare(tx.plugin("task_reward"), cap)


def _keep_physics(tx: Tx, asked: tuple[str, str]) -> None:
    """Note a plugin's constants when it is first enabled; refuse others ever after."""
    name, constants = asked
    digest = sha256(constants.encode()).hexdigest()
    row = tx.row("SELECT physics FROM plugins WHERE name = ?", (name,))
    if row is None or row[0] is None:
        tx.run(
            "INSERT INTO plugins (name, physics) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET physics = ?2",
            (name, digest),
        )
        emit(tx, "plugin.physics", "system:kernel", plugin=name, digest=digest, constants=constants)
    elif row[0] != digest:
        raise Invalid(
            "plugins.physics",
            f"The physics of {name} are not those that this village was founded with.",
            "Use the version of the plugin that has them, or found a new village.",
        )


def _provider_points() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group="vivarium.models")}


def refusal(error: VivariumError) -> str:
    """A refusal in one line, with its next step."""
    return str(error)
