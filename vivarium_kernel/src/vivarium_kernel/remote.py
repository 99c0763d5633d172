"""The room of the worker on another machine: it lives cycles of residents of a village that it reaches over HTTP.

The village claims, prepares, judges and settles; here is only the act. Commands run in a folder of this machine, under
this machine's own rules; models are called with this machine's providers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vivarium_kernel import cycle, keys
from vivarium_kernel.api import wire_shapes as wire
from vivarium_kernel.api.shapes import Nothing
from vivarium_kernel.builtin.commands import CommandExecution, CommandPolicy
from vivarium_kernel.builtin.model_execution import ModelExecution
from vivarium_kernel.builtin.scripted import Scripted
from vivarium_kernel.calls import Hooks
from vivarium_kernel.circuit import Circuit
from vivarium_kernel.claiming import Claimed
from vivarium_kernel.cycle import Rules
from vivarium_kernel.errors import Conflict, Forbidden, Invalid, LeaseLapsed, NotFound, StoreError, VivariumError
from vivarium_kernel.health import Health
from vivarium_kernel.jobs import Ready
from vivarium_kernel.models import Closing, Provider, Tool, unknown_provider
from vivarium_kernel.plugins import Plugin
from vivarium_kernel.records import Subject
from vivarium_kernel.remote_http import Server, Unreachable
from vivarium_kernel.remote_link import PAUSES_SECONDS, RemoteLink
from vivarium_kernel.replies import TooOften
from vivarium_kernel.routing import Route
from vivarium_kernel.settings import FILE_NAME, Settings, load
from vivarium_kernel.settling import Settled, Settlement
from vivarium_kernel.stepping import Holder
from vivarium_kernel.structuring import structure

C = TypeVar("C")
WAIT_SECONDS = 20.0  # how long one claim waits at the village
MOST_GIVEN_UP = 1_000  # tasks that a claim may leave out
log = logging.getLogger("vivarium.remote")
_HITCHES = (Unreachable, StoreError, TooOften)  # what passes by itself


class Place:
    """What plugins are handed here instead of a village: a folder, its settings, an environment."""

    hooks: Hooks  # of the plugins that work here: what they offer to each other

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        """Raises SettingsError for a ``vivarium.toml`` in the folder that is wrong; without one, defaults hold."""
        self.folder = folder.resolve()
        self.environ = dict(os.environ if environ is None else environ)
        has_file = (self.folder / FILE_NAME).exists()
        self.settings = load(self.folder, self.environ).settings if has_file else Settings()
        (self.folder / "files").mkdir(parents=True, exist_ok=True)
        self._points = {point.name: point for point in entry_points(group="vivarium.models")}
        self._providers: dict[str, Provider] = {Scripted.name: Scripted()}
        self.distrusted: dict[str, str] = {}  # those of them that are asked no more, and why

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(sorted({*self._points, *self._providers} - self.distrusted.keys()))

    def add_provider(self, provider: Provider) -> None:
        """Add one that is not installed: for tests and programs."""
        self._providers[provider.name] = provider

    def provider(self, name: str) -> Provider:
        if name not in self._providers:
            if name not in self._points:
                raise unknown_provider(name, self.providers)
            self._providers[name] = self._points[name].load()(self)
        return self._providers[name]

    def config(self, name: str, cls: type[C]) -> C:
        """The settings below ``[plugins.NAME]``. Raises InputError."""
        return structure(cls, dict(self.settings.plugins.get(name, {})), f"plugins.{name}")

    def key(self, name: str) -> str | None:
        """A provider's API key as it is now, on this machine."""
        found = keys.find(self.folder, self.environ, name)
        return None if found is None else found.secret

    async def close(self) -> None:
        for provider in self._providers.values():
            if isinstance(provider, Closing):
                await provider.close()

    def service(self, name: str, protocol: object) -> None:
        """No plugin's service is here: those live in the village."""


class Worker:
    """Residents of a village elsewhere, at work in this process. Use ``async with``; leaving gives everything back.

    ``plugins`` are classes beside the built-in ones whose ``execute_task`` is to run here, and ``modes`` what all of
    them execute. ``shares_folder`` says that ``folder`` is the village's own (a network folder).
    """

    def __init__(
        self,
        url: str,
        token: str,
        residents: int,
        folder: Path,
        *,
        plugins: Sequence[type[Plugin]] = (),
        modes: tuple[str, ...] = ("command", "llm"),
        shares_folder: bool = False,
        on_settled: Callable[[Settled], None] | None = None,
    ) -> None:
        self.place = Place(folder)
        self.done = 0
        self._server = Server(url, token)
        self._count = residents
        self._modes = modes
        self._shares_folder = shares_folder
        self._on_settled = on_settled
        classes: tuple[type[Plugin], ...] = (CommandPolicy, CommandExecution, ModelExecution, *plugins)
        self._hooks = Hooks([cls(self.place, None) for cls in classes], Health(monotonic=time.monotonic))
        self.place.hooks = self._hooks
        self._number = 0
        self._lease = 30.0
        self._names: tuple[str, ...] = ()
        self._acting: dict[int, tuple[RemoteLink, asyncio.Task[Any]]] = {}
        self._interrupted: set[int] = set()
        self._draining = asyncio.Event()
        self._ended = asyncio.Event()
        self._lapsed = asyncio.Event()
        self._circuits: dict[str, Circuit] = {}
        self._cannot: dict[str, None] = {}  # tasks whose commands may not be run here
        self._warned: set[str] = set()  # what was said since the village last answered

    @property
    def residents(self) -> tuple[str, ...]:
        """Whom this worker lives for."""
        return self._names

    @property
    def running(self) -> list[int]:
        """The attempts that run here now."""
        return sorted(self._acting)

    async def __aenter__(self) -> Worker:
        await self._hooks.startup(self.place)
        await self._join()
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(VivariumError):
            await self._server.post(f"/wire/workers/{self._number}/leave", {}, Nothing, seconds=5.0)
        self._server.close()
        await self._hooks.shutdown(self.place)
        await self.place.close()

    def drain(self) -> None:
        """Take no new tasks, finish what is running, then end. Called again: end at once."""
        if self._draining.is_set() or not self._acting:
            self._ended.set()
        self._draining.set()

    async def run(self) -> None:
        """Until drained. A lease that lapsed (this machine slept, or the village was away) is taken anew."""
        while not self._ended.is_set():
            self._lapsed.clear()
            lives = [asyncio.create_task(self._live(name), name=f"resident {name}") for name in self._names]
            services = [asyncio.create_task(each()) for each in (self._renew, self._listen)]
            ends = [asyncio.create_task(each.wait()) for each in (self._ended, self._lapsed)]
            try:
                done, _ = await asyncio.wait([*services, *lives, *ends], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in (*services, *lives, *ends):
                    task.cancel()
                await asyncio.gather(*services, *lives, *ends, return_exceptions=True)
            if not self._ended.is_set():
                await self._join_again()

    # Joining

    async def _join(self) -> None:
        joined = await self._server.post("/wire/workers", wire.Join(self._count, self._number or None), wire.Joined)
        self._number, self._names, self._lease = joined.worker, joined.residents, joined.lease_seconds
        self._warned.clear()

    async def _join_again(self) -> None:
        for tries in range(10**9):
            try:
                await self._join()
                return
            except _HITCHES as error:
                self._warn(error)
                await asyncio.sleep(PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)])

    def _warn(self, error: VivariumError) -> None:
        """Say what is wrong once until it is over: every resident and every renewal meets it by itself."""
        if str(error) not in self._warned:
            self._warned.add(str(error))
            log.warning("%s", error)

    # A resident's life

    async def _live(self, name: str) -> None:
        tries = 0
        while not self._draining.is_set():
            try:
                claim = await self._claim(name)
                tries = 0
                self._warned.clear()
            except _HITCHES as error:
                self._warn(error)
                await asyncio.sleep(PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)])
                tries += 1
                continue
            except (Conflict, NotFound) as error:
                self._warn(error)
                self._lapsed.set()
                return
            if claim is not None:
                await self._cycle(claim)
        await asyncio.Event().wait()  # until everybody is done

    async def _claim(self, name: str) -> wire.Claim | None:
        """A claim for one resident, or None when there is none; draining ends the wait."""
        asked = wire.ClaimRequest(
            self._number, name, WAIT_SECONDS, self._modes, self.place.providers, self._shares_folder,
            tuple(self._cannot),
        )  # fmt: skip
        asking = asyncio.ensure_future(
            self._server.post("/wire/claims", asked, wire.ClaimReply, seconds=asked.wait_seconds + 15.0)
        )
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait({asking, draining}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result().claim if asking.done() else None
        finally:
            asking.cancel()
            draining.cancel()

    async def _cycle(self, claim: wire.Claim) -> None:
        """One act from its claim to its end. Whatever goes wrong in it stays in it."""
        link = RemoteLink(self._server, claim, self.place.provider, self._circuits, self.place.distrusted)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a cycle runs in a task")
        self._acting[claim.attempt] = (link, task)
        try:
            settled = await self._act(link, claim)
            self.done += 1
            if self._on_settled is not None:
                self._on_settled(settled)
        except LeaseLapsed as error:
            log.info("%s", error)
        except asyncio.CancelledError:
            # Both may have come at once, and are one exception then: the act was ended, and this worker stops.
            if claim.attempt not in self._interrupted or task.uncancel():
                raise  # this worker stops: leaving gives the attempt back
        except Exception as error:
            log.exception("attempt %s met a fault of the worker", claim.attempt)
            with contextlib.suppress(VivariumError):
                await link.fail(f"fault of its worker: {error!r}"[:2000])
        finally:
            self._acting.pop(claim.attempt, None)
            self._interrupted.discard(claim.attempt)
            if self._draining.is_set() and not self._acting:
                self._ended.set()

    async def _act(self, link: RemoteLink, claim: wire.Claim) -> Settled:
        task = claim.task
        if task.command:
            # The village judged it for its own folder. Here the paths are this machine's, and so are the rules.
            subject = Subject("command", "", task.command, task, claim.resident.name, claim.attempt, task.cwd)
            safety = await self._hooks.check_safety(subject)
            if safety.verdict.answer != "allow":
                settled = await link.release(f"not on this worker: {safety.verdict}"[:2000])
                await self._give_up(task.id)
                return settled
        holder = Holder(None, b"")  # the wire tells the village who holds it
        claimed = Claimed(
            claim.attempt, task, claim.resident, claim.cycle, claim.number, holder, 0, claim.day, claim.hour
        )
        tools = [Tool(tool.name, tool.description, tool.parameters, tool.private) for tool in claim.tools]
        ready = Ready(claimed, claim.sections, None, claim.entitlement, claim.recorded, tools)
        rules, chosen = Rules(models=self.place.settings.models), Route(claim.model, claim.instead_of)
        job, outcome = await cycle.execute(self._hooks, ready, link, rules, time.monotonic, chosen)
        with contextlib.suppress(Conflict, Forbidden, Invalid):
            await job.recorded()  # the village knows what it refused, and judges the outcome by it
        return await job.finish(Settlement(claim.attempt, holder, "accepted", outcome=outcome))

    async def _give_up(self, task: str) -> None:
        """This worker may not run a task: it asks for it no more, which says nothing of the resident it lives for.

        Of very many it forgets the oldest, and takes its time before it meets them again.
        """
        self._cannot[task] = None
        if len(self._cannot) > MOST_GIVEN_UP:
            del self._cannot[next(iter(self._cannot))]
            await asyncio.sleep(1.0)

    # What runs beside the residents

    async def _renew(self) -> None:
        """Renew the worker's lease and each act's; an act whose lease is over is ended."""
        while True:
            await asyncio.sleep(self._lease / 4)
            try:
                renewing = self._server.post(f"/wire/workers/{self._number}/renew", {}, wire.Renewed, seconds=10.0)
                await asyncio.gather(renewing, *(self._renew_one(link) for link, _ in self._acting.values()))
                self._warned.clear()
            except _HITCHES as error:
                self._warn(error)
            except (Conflict, NotFound) as error:
                self._warn(error)
                self._lapsed.set()
            self._interrupt([attempt for attempt, (link, _) in self._acting.items() if link.has_lapsed])

    async def _renew_one(self, link: RemoteLink) -> None:
        try:
            await link.renew()
        except LeaseLapsed:
            self._interrupt([link.attempt])

    async def _listen(self) -> None:
        """Hear what the village ended (a halt, a quarantine, a cancelled task), and stop it here."""
        while True:
            try:
                async for name, data in self._server.events(f"/wire/workers/{self._number}/stops"):
                    if name == "running":
                        now = msgspec.json.decode(data, type=wire.Running)
                        self._interrupt([a for a in self._acting if a <= now.upto and a not in now.attempts])
            except _HITCHES:
                pass  # whoever claims says so
            except (Conflict, NotFound):
                self._lapsed.set()
            await asyncio.sleep(0.5)

    def _interrupt(self, attempts: list[int]) -> None:
        for attempt in attempts:
            found = self._acting.get(attempt)
            if found is None or attempt in self._interrupted or found[0].settling:
                continue
            self._interrupted.add(attempt)
            found[1].cancel()


async def work(url: str, token: str, residents: int, folder: Path, **more: Any) -> Worker:
    """Live for ``residents`` residents of the village at ``url`` until cancelled or drained; see :class:`Worker`."""
    async with Worker(url, token, residents, folder, **more) as worker:
        await worker.run()
    return worker
