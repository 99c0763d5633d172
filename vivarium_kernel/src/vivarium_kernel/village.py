"""The room of the open village: its folder, settings, store and plugins, handed to everything that acts in it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

from vivarium_kernel import board, keys, ledger, models, people, registry, village_time
from vivarium_kernel.amounts import LARGEST_MICROS
from vivarium_kernel.audit import Log, emit
from vivarium_kernel.board import Posting
from vivarium_kernel.circuit import Circuit
from vivarium_kernel.claiming import DAY_MICROS
from vivarium_kernel.clock import Clock, SystemClock
from vivarium_kernel.errors import Distrusted, Invalid, StoreError, VivariumError
from vivarium_kernel.installed import claims
from vivarium_kernel.ledger import Books
from vivarium_kernel.records import NewTask, Task
from vivarium_kernel.registry import Choice
from vivarium_kernel.services import Services
from vivarium_kernel.settings import Loaded, Settings, load
from vivarium_kernel.settling import Retries, wake_for_room
from vivarium_kernel.store import Share, Store, Tx
from vivarium_kernel.structuring import structure
from vivarium_kernel.terms import BUILT_IN_MODES, Actor
from vivarium_kernel.village_time import Times

if TYPE_CHECKING:
    import sqlite3

    from vivarium_kernel.calls import Hooks
    from vivarium_kernel.health import Health
    from vivarium_kernel.models import Provider, Tool
    from vivarium_kernel.plugins import Failed, Plugin
    from vivarium_kernel.watchdog import Mark


C = TypeVar("C")
MOST_PROVIDERS = 1_000  # that are remembered: tasks name them, and people write tasks
CALLS = "complete"  # what a distrusted provider is off on, as a plugin is on a hook
ABSENT_SECONDS = 5.0  # after which a model provider that was not there is looked for again


@frozen
class Said:
    """A piece of text that a model is writing now, for an attempt."""

    attempt: int
    task: str
    resident: str
    text: str


@frozen
class With:
    """How a village is opened. The defaults serve a command that looks and leaves.

    ``plugins`` are classes besides those that are installed; ``without`` are left out by name, and of the installed
    ones all but those in ``only``; ``timeouts`` False is for simulations; ``switched_off`` maps (plugin, hook) to why
    the watchdog switched it off.
    """

    threaded: bool = False
    load_plugins: bool = True
    installed: bool = True
    plugins: Sequence[type[Plugin]] = ()
    without: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
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
        how = self._how = how or With()
        self.folder = folder.resolve()
        self.environ = dict(os.environ if environ is None else environ)
        self.loaded: Loaded = load(self.folder, self.environ)
        self.settings = self.loaded.settings
        self.clock: Clock = clock or SystemClock()
        self.failed: list[Failed] = []
        self.plugins: dict[str, Plugin] = {}
        self._providers: dict[str, Provider] = {}
        self._owned: set[str] = set()
        self._circuits: dict[str, Circuit] = {}
        self._tools: tuple[Hooks, tuple[Tool, ...]] | None = None
        self._looked: tuple[Hooks, dict[str, tuple[str, float]]] | None = None  # why providers are absent, until when
        self._listed: tuple[float, frozenset[str]] = (-math.inf, frozenset())  # when, and which are installed
        self.listeners: list[Callable[[Said], None]] = []
        self._services = Services({})
        self._hooks: Hooks | None = None
        self._health: Health | None = None
        extra = {} if how.connection is None else {"connection": how.connection}
        share = Share(join, _grant_tx, _grant_view)
        self.store = Store(self.folder, self.clock, threaded=how.threaded, share=share, **extra)
        try:
            self.store.call(_found, self)
            (self.folder / "files").mkdir(exist_ok=True)
            if how.load_plugins:
                self._compose(how)
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
        """A model provider by name.

        Raises NotFound; Distrusted for one that an operator has to look at first; ProviderFault if its plugin is off.
        """
        from vivarium_kernel.builtin.scripted import builtin_provider

        if why := self.distrusted(name):
            raise Distrusted(
                "model.distrusted", f"{name} is refused: {why}.",
                f"Look at it; if it is sound after all: vivarium plugins retry {name}",
            )  # fmt: skip
        found = self._providers.get(name)
        if found is None:
            found = builtin_provider(name)
            points = _provider_points() if found is None else {}
            if found is None and name not in points:
                raise models.unknown_provider(name, [*points, "scripted"])
            made: Provider = points[name].load()(self) if found is None else found
            found = self._providers[name] = made
            if name in claims():
                self._owned.add(name)  # the plugin of its name says whether it is on
        if name in self._owned and name not in self.plugins:
            reason = self._why_absent(name, self.clock.monotonic())
            raise models.ProviderFault(reason, started=False, kind="connection")
        return found

    def distrust(self, provider: str, reason: str) -> None:
        """Refuse a provider whose report can't be true, in every process, until somebody switches it on again."""
        self.health.off(provider, CALLS, reason)

    def distrusted(self, provider: str) -> str:
        """Why a provider is refused; empty where it is not."""
        return "" if self._health is None else self._health.cause(provider, CALLS) or ""

    def why_absent(self, provider: str) -> str:
        """Why a model provider can't be had here: it is not installed, or its plugin is not on. Empty when it can.

        Nothing of a plugin's is loaded for it. What is not there is looked for again after ``ABSENT_SECONDS``.
        """
        hooks, now = self.hooks, self.clock.monotonic()
        if self._looked is None or self._looked[0] is not hooks or len(self._looked[1]) > MOST_PROVIDERS:
            self._looked = (hooks, {})
        known = self._looked[1]
        why, until = known.get(provider, ("", 0.0))
        if until <= now:
            why = self._why_absent(provider, now)
            known[provider] = why, now + ABSENT_SECONDS if why else math.inf
        return why

    def _why_absent(self, provider: str, now: float) -> str:
        from vivarium_kernel.builtin.scripted import builtin_provider

        if builtin_provider(provider) is not None or (provider in self._providers and provider not in self._owned):
            return ""
        if now - self._listed[0] > ABSENT_SECONDS:
            self._listed = (now, frozenset(_provider_points()))
        points = self._listed[1]
        if provider not in points:
            return refusal(models.unknown_provider(provider, [*points, "scripted"]))
        if provider not in claims() or provider in self.plugins:
            return ""
        if why := self.choice().why_off(provider, installed=True):
            step = f": vivarium plugins enable {provider}" if why == "switched off" else ""
            return f"the plugin {provider}, which brings its model, is {why}{step}"
        return f"the plugin {provider}, which brings its model, is left out: see `vivarium plugins list`"

    def config(self, name: str, cls: type[C]) -> C:
        """The settings below ``[plugins.NAME]`` as ``cls``. Raises InputError with every problem at its path."""
        return structure(cls, dict(self.settings.plugins.get(name, {})), f"plugins.{name}")

    def key(self, name: str) -> str | None:
        """A provider's API key as it is now."""
        found = keys.find(self.folder, self.environ, name)
        return None if found is None else found.secret

    def circuit(self, model: str) -> Circuit:
        """The breaker of a model in this process."""
        return self._circuits.setdefault(model, Circuit())

    def left_alone(self) -> dict[str, tuple[float, str]]:
        """The models that are left alone now: the seconds until one call is tried, and how the last one failed."""
        now = self.clock.monotonic()
        return {
            model: (circuit.open_until - now, circuit.reason)
            for model, circuit in self._circuits.items()
            if circuit.is_open and (circuit.probing or circuit.open_until > now)
        }

    def tools(self) -> tuple[Tool, ...]:
        """What residents may use as tools now, in the order of their names."""
        from vivarium_kernel.actions import tools_of_residents

        hooks = self.hooks
        if self._tools is None or self._tools[0] is not hooks:
            self._tools = (hooks, tools_of_residents(self))
        return self._tools[1]

    def hear(self, said: Said) -> None:
        """Tell whoever listens in this process what is being written; nobody keeps it."""
        for listener in self.listeners:
            listener(said)

    async def close_providers(self) -> None:
        """Let the model providers close what they hold, where a loop that used them ends."""
        for provider in self._providers.values():
            if isinstance(provider, models.Closing):
                await provider.close()

    def add_provider(self, provider: Provider) -> None:
        """Give the village a model provider that is not installed: for tests and programs."""
        self._providers[provider.name] = provider
        self._looked = None

    def service(self, name: str, protocol: Callable[..., C]) -> C | None:
        """What the plugin ``name`` provides, None while it is off; raises Invalid where it is not as ``protocol``."""
        return self._services.get(name, protocol)

    def check_modes(self, tasks: Sequence[NewTask]) -> None:
        """Refuse tasks that nobody could execute, whatever happens; raises InputError with every problem.

        A mode that is not the kernel's own is refused when no plugin beside the built-in ones executes tasks.
        """
        from vivarium_kernel import posting
        from vivarium_kernel.problems import quoted

        problems = [
            problem.below("", f"task {quoted(task.id)}" if task.id else "")
            for task in tasks
            for problem in posting.validate(task, modes=self.modes(), task_micros=self.settings.budgets.task_usd_micros)
        ]
        if problems:
            raise posting.TaskError(problems)

    def modes(self) -> Sequence[str] | None:
        """The modes that a task may have here; None when a plugin may have its own, which only it knows."""
        if self._hooks is None:
            choice = self.choice()
            others = [name for name in claims() if not choice.why_off(name, installed=True)]
            return None if others else BUILT_IN_MODES
        executed = self._hooks.modes
        return None if executed is None else tuple(dict.fromkeys((*BUILT_IN_MODES, *sorted(executed))))

    def choice(self) -> Choice:
        """Which plugins are on and off by name, as ``plugins.json``, the settings and this opening have it."""
        how = self._how
        only = registry.only_of(self.environ) if how.only is None else how.only
        return Choice(
            registry.read(self.folder), self.settings.plugins_allow, how.without, only, tuple(self.settings.plugins)
        )

    def recompose(self, alive: Mapping[str, Plugin]) -> None:
        """Take up what is switched on now; those that are ``alive`` stay the same objects.

        Raises Invalid, having changed nothing, when a plugin that is required would be off.
        """
        self._compose(self._how, alive)

    def _compose(self, how: With, alive: Mapping[str, Plugin] | None = None) -> None:
        from vivarium_kernel import composing

        made = composing.compose(self, how, alive)
        plugins = {plugin.name: plugin for plugin in made.hooks.plugins}
        missing = [name for name in self.settings.safety_required if name not in plugins]
        if missing:
            why = "\n".join(str(failed) for failed in made.failed if failed.name in missing)
            raise Invalid(
                "safety.required",
                f"These plugins are required and not on: {', '.join(missing)}." + (f"\n{why}" if why else ""),
                "Mend what is named above."
                if why
                else "Switch them on, or take them off safety_required in vivarium.toml.",
                field="safety_required",
            )
        self._hooks, self._health = made.hooks, made.health
        self.failed, self._services, self.plugins = made.failed, made.services, plugins
        declare = getattr(plugins.get("task_reward"), "declare", None)
        if declare is not None:
            self.store.call(_declare_reward, (declare, self.settings.budgets.reward_cap_aid_micros))


def join(tx: Tx) -> None:
    """Give a transaction its clock, log and books."""
    times = village_time.read_times(tx)
    tx.times = times
    # Leases and pauses go by the clock as it is now: one that was set forward by mistake must not hold them for ever.
    tx.logged_at = max(tx.now, times.last_event_at)
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
    _set_caps(tx, settings)
    if new:
        for name in settings.residents:
            people.add(tx, people.NewResident(name, "system:settings", start_micros=settings.budgets.start_aid_micros))


def _set_caps(tx: Tx, settings: Settings) -> None:
    """Bring the caps on real money in line with the settings: those of today and of the days to come.

    A cap below what is used already stops all further spending; a cap that was taken out of the settings is lifted.
    What waits for a quota of the village goes on where there is more of it than before.
    """
    more = False
    today = tx.now // DAY_MICROS
    caps = {
        "resident-day": settings.budgets.resident_day_usd_micros,
        "village-day": settings.budgets.village_day_usd_micros,
        "village": settings.budgets.village_usd_micros,
    }
    for kind, cap in caps.items():
        scopes = tx.rows(
            "SELECT scope FROM budgets WHERE currency = 'usd' AND (scope = ?1 OR scope = ?1 || ':' || ?2 "
            "OR scope GLOB ?1 || ':*:' || ?2)",
            (kind, str(today)),
        )
        wanted = LARGEST_MICROS if cap is None else cap
        for scope in sorted({kind, *(row[0] for row in scopes)}) if cap is not None or scopes else ():
            before = tx.books.budget(scope, "usd")
            if before is not None and kind != "resident-day":
                more |= wanted > (before.cap if before.wanted is None else before.wanted)
            tx.books.make_budget(scope, "usd", wanted)
    if more:
        wake_for_room(tx)


def _declare_reward(tx: Tx, asked: tuple[Any, int | None]) -> None:
    declare, cap = asked
    declare(tx.plugin("task_reward"), cap)


def _provider_points() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group="vivarium.models")}


def refusal(error: VivariumError) -> str:
    """A refusal in one line, with its next step."""
    return str(error)
