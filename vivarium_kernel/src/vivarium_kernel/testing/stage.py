"""The room of the stage: real villages on temporary folders that a test opens, lets live for a while, and looks at.

A village lives only while a test says so (``run_cycles``, ``virtual_clock.pass_time``). In between its loop stands
still with everything on it, so that a plain test function may look, post and decide without anybody in its way.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from attrs import frozen

from vivarium_kernel import board, settling
from vivarium_kernel.actions import action_of, perform
from vivarium_kernel.clock import Clock, SimulatedClock, SimulatedLoop, SystemClock
from vivarium_kernel.errors import Invalid
from vivarium_kernel.models import Provider
from vivarium_kernel.plugins import Plugin
from vivarium_kernel.records import Attempt, NewTask
from vivarium_kernel.terms import Actor
from vivarium_kernel.testing.script import ScriptedModel
from vivarium_kernel.testing.stepping import Stepped
from vivarium_kernel.village import Village, With
from vivarium_kernel.village_time import HOURS_A_DAY, hour_length_seconds

T = TypeVar("T")
OPERATOR = Actor("operator", "operator:test")


class Unsound(AssertionError):
    """Plugins that a test asked for can't be: with everything that is wrong with them."""


class Unsynced(sqlite3.Connection):
    """No power fails in a test, so that waiting for the disk would prove nothing."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return super().execute("PRAGMA synchronous = OFF" if sql == "PRAGMA synchronous = FULL" else sql, *arguments)


@frozen
class Opening:
    """How a village is opened. ``config`` is by plugin: ``{"weather": {"city": "Bern"}}``; ``settings`` are further
    settings of vivarium.toml; ``models`` make further model providers; ``sound`` False lets unsound plugins be."""

    folder: Path
    plugins: Sequence[type[Plugin]] = ()
    config: Mapping[str, Mapping[str, Any]] = {}
    settings: Mapping[str, Any] = {}
    residents: Sequence[str] = ("ada", "ben")
    models: Sequence[Callable[[Village], Provider]] = ()
    sound: bool = True
    connection: type[sqlite3.Connection] = Unsynced


class StagedVillage(Village):
    """A village on a stage. Closing it ends its life first, with the plugins' ``shutdown``."""

    def __init__(self, stage: Stage, opening: Opening) -> None:
        self.stage = stage
        self.opening = opening
        self.is_open = True
        self._life: Stepped | None = None
        _write_settings(opening)
        how = With(
            installed=False, plugins=opening.plugins, timeouts=stage.real_time, connection=opening.connection
        )  # fmt: skip
        super().__init__(opening.folder, how, clock=stage.clock, environ={})
        self.add_provider(stage.model)
        for make in opening.models:
            self.add_provider(make(self))

    def do(
        self, action: str, body: Mapping[str, Any] | None = None, *, by: str | Actor = OPERATOR, key: str | None = None
    ) -> Any:
        """Do an action as whoever the API would let in: ``by`` is a resident's name or an Actor. Answers its reply."""
        actor = Actor("resident", by) if isinstance(by, str) else by
        done = self.stage.run(perform(self, action_of(self, action), actor, dict(body or {}), key))
        return json.loads(done.reply)

    def task(self, prompt: str = "", **fields: Any) -> str:
        """Post one task, by default for a model; returns its id. ``fields`` are those of NewTask."""
        if not prompt and not fields.get("command"):
            prompt = "Say something."
        return self.post([NewTask(prompt=prompt, **fields)])[0].id

    def state(self, task: str) -> str:
        """The state of a task."""
        with self.store.view() as view:
            return board.task(view, task).state

    def catch_up(self) -> int:
        """Run the plugins' parts of endings that failed, as ``vivarium missed retry`` does; how many failed again."""

        def again(plugin: str, task: Any, ending: Any, tx: Any) -> BaseException | None:
            call = self.hooks.end_attempt_of(plugin, task, ending, tx)
            return None if call is None else call.error

        with self.store.view() as view:
            numbers = [row[0] for row in view.rows("SELECT id FROM missed ORDER BY id")]
        done = [self.store.call(lambda tx, item: settling.run_missed(tx, item, again), number) for number in numbers]
        return done.count(False)

    def reopened(self) -> StagedVillage:
        """Close it and open its folder again, as a restart does."""
        self.close()
        return self.stage.open(self.opening)

    @property
    def hour_seconds(self) -> float:
        """How long a village hour lasts at its pace."""
        times = self.times()
        return hour_length_seconds(times.hour_seconds, times.pace_seconds)

    async def life(self) -> Stepped:
        """Its life, begun when it is first asked for: from then on the plugins' ``startup`` has run."""
        if self._life is None:
            life = Stepped(self, None)
            await life.__aenter__()
            self._life = life
        return self._life

    def close(self) -> None:
        life, self._life = self._life, None
        try:
            if life is not None:
                self.stage.run(life.__aexit__())
        finally:
            self.is_open = False
            super().close()


class VirtualClock(SimulatedClock):
    """The clock of a stage: it moves only while a village lives, and then as fast as it can."""

    def __init__(self, stage: Stage, seed: int) -> None:
        super().__init__(seed)
        self._stage = stage

    def pass_time(self, *, days: float = 0, hours: float = 0, seconds: float = 0) -> None:
        """Let so much village time pass, and ``seconds`` of the machine's: deadlines, ticks, events and wake-ups
        happen, and nobody claims. ``advance(seconds)`` jumps instead, as when the machine slept."""
        self._stage.pass_time(days * HOURS_A_DAY + hours, seconds)


class RunCycles(Protocol):
    """The fixture ``run_cycles``."""

    def __call__(
        self, count: int | None = None, *, within_seconds: float = ..., village: StagedVillage | None = None
    ) -> list[Attempt]: ...


class Stage:
    """The villages of one test, on one loop and one clock. ``real_time`` is for what waits for another process, a
    thread or a socket: there a second is a second."""

    def __init__(self, *, real_time: bool = False, seed: int = 1) -> None:
        self.real_time = real_time
        self.model = ScriptedModel()
        self.clock: Clock = SystemClock() if real_time else VirtualClock(self, seed)
        self.villages: list[StagedVillage] = []
        self._runner: asyncio.Runner | None = None

    def open(self, opening: Opening) -> StagedVillage:
        """Open a village; raises Unsound with all that is wrong with its plugins."""
        village = StagedVillage(self, opening)
        if village.failed and opening.sound:
            village.close()
            raise Unsound("\n".join(str(failed) for failed in village.failed))
        self.villages.append(village)
        return village

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the villages' loop to its end; those that live go on meanwhile."""
        if self._runner is None:
            clock = self.clock
            factory = (lambda: SimulatedLoop(clock)) if isinstance(clock, SimulatedClock) else None
            self._runner = asyncio.Runner(loop_factory=factory)
        return self._runner.run(work)

    def cycles(
        self, village: StagedVillage, count: int | None = None, *, within_seconds: float = 60.0
    ) -> list[Attempt]:
        """Let residents live ``count`` cycles, one after the other and taking turns; without a number all at once,
        until nothing is left to do. Returns the attempts in the order in which they began.

        Raises Shortage if nobody could begin one for ``within_seconds`` of the villages' clock.
        """

        async def live() -> list[int]:
            life = await village.life()
            return await (life.all_at_once(within_seconds) if count is None else life.one_by_one(count, within_seconds))

        attempts = self.run(live())
        with village.store.view() as view:
            return [board.attempt(view, number) for number in attempts]

    def pass_time(self, hours: float, seconds: float) -> None:
        """Let time pass in every open village: village hours of the first one, and seconds."""
        alive = [village for village in self.villages if village.is_open]
        if not alive:
            raise Invalid("testing.time", "No village is open in which time could pass.", "Ask for `village` too.")

        async def live() -> None:
            lives = [await village.life() for village in alive]
            await asyncio.sleep(hours * alive[0].hour_seconds + seconds)
            for life in lives:
                await life.quiet()

        self.run(live())

    def close(self) -> None:
        """Close every village, and the loop."""
        for village in reversed(self.villages):
            village.close()
        if self._runner is not None:
            self._runner.close()


def _write_settings(opening: Opening) -> None:
    opening.folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "name": "staged",
        "residents": list(opening.residents),
        "model": "scripted_model:m",
        "commands": {"sandbox": "auto"},
        "plugins": opening.config,
    }
    settings |= opening.settings
    text = "".join(f"{json.dumps(name)} = {_toml(value, name)}\n" for name, value in settings.items())
    (opening.folder / "vivarium.toml").write_text(text, encoding="utf-8")


def _toml(value: Any, path: str) -> str:
    """A value as TOML, tables in one line."""
    if isinstance(value, Mapping):
        pairs = [f"{json.dumps(str(key))} = {_toml(each, f'{path}.{key}')}" for key, each in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"[{', '.join(_toml(each, path) for each in value)}]"
    if isinstance(value, (bool, int, str)):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value)
    raise Invalid("testing.config", f"{path}: vivarium.toml can't say {value!r}.", "Leave the key out, or write text.")
