"""The room of the runtime: keeps N residents cycling in this process, and keeps this process's place in the village.

Leases, pause, halt, pace, quarantine and cancellations reach a running act within a beat.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable
from typing import Any, cast

from attrs import define

from vivarium_kernel import audit, board, cycle, processes, settling, village_time
from vivarium_kernel.claiming import Claimed
from vivarium_kernel.clock import Jumps
from vivarium_kernel.committing import GONE
from vivarium_kernel.cycle import Rules, Stopped
from vivarium_kernel.errors import LeaseLapsed, StoreError, VivariumError
from vivarium_kernel.hosting import Hosting
from vivarium_kernel.jobs import Ready
from vivarium_kernel.keeping import Keeper
from vivarium_kernel.links import LocalLink
from vivarium_kernel.rounds import Rounds, Won
from vivarium_kernel.settling import Settled, Settlement, wake_all_for_keys
from vivarium_kernel.stepping import Holder
from vivarium_kernel.store import Tx, View
from vivarium_kernel.switching import Switching
from vivarium_kernel.village import Village

BEAT_SECONDS = 0.25  # how soon a halt, a quarantine or a cancelled task ends a running act
GUARD_SECONDS = 5.0  # how long claims pause when a safety check can't judge
log = logging.getLogger("vivarium")


def tune_process() -> None:
    """Settings of the whole process that suit a runtime: call it where the process is ours, never in a library.

    A cycle makes many short-lived objects and hardly any circles, so the collector may look a hundred times less.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(70_000, 20, 20)


@define
class Figures:
    """What this process has done since it started."""

    cycles: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0


class Runtime:
    """Residents at work in this process. Use ``async with``: entering joins the village, leaving gives back all.

    ``until_done`` ends :meth:`run` when nothing is claimed, open or in backoff, and lives no free hours.
    """

    def __init__(
        self,
        village: Village,
        residents: int | None = None,
        *,
        kind: str = "run",
        until_done: bool = False,
        on_settled: Callable[[Settled], None] | None = None,
    ) -> None:
        self.village = village
        self.figures = Figures()
        self._kind = kind
        self._asked = residents
        self._told: int | None = None  # the number of residents that the village was told to keep at work
        self._until_done = until_done
        self._began_at_rest = False  # the village was paused or halted when this began, and has been so ever since
        self._on_settled = on_settled
        self._link = LocalLink(village)
        self._lease = village.settings.lease_seconds
        settings = village.settings
        self.rules = Rules(
            settings.auto_approve, settings.human_review, settings.model, settings.models, village.retries()
        )
        self._me = processes.this_process()
        self.process = 0
        self._address: str | None = None
        self.rounds: Rounds
        self._residents: dict[str, asyncio.Task[None]] = {}
        self._dismissed: set[str] = set()  # residents of ours who leave once they are done with what they do
        self._running: dict[int, str] = {}  # attempt -> resident
        self._acting: dict[int, asyncio.Task[Any]] = {}  # attempt -> who runs it
        self._interrupted: set[int] = set()
        self._services: list[asyncio.Task[None]] = []
        self._settling: set[asyncio.Task[None]] = set()  # attempts that are given back: each leaves it when it is done
        self._left_over: tuple[int, ...] | None = None  # what was open when nobody wanted it
        self._draining = asyncio.Event()
        self._done = asyncio.Event()
        self._lapsed = asyncio.Event()  # somebody found that this process's lease has lapsed
        self._renewed = 0.0  # when it was begun or renewed, by the clock that does not jump
        self._on_opened: Callable[[], None]
        self._switching = Switching(village)
        self._hosting: Hosting
        self._keeper: Keeper
        self.fault: BaseException | None = None

    async def __aenter__(self) -> Runtime:
        await self._join()
        self.rounds = Rounds(
            self.village, self.process, self._give_back, free_hours=not self._until_done, on_lapsed=self._lapsed.set
        )
        loop = asyncio.get_running_loop()
        self._hosting = Hosting(self.village, self._me, self.rules.retries, lambda: self.process, self.rounds.kick)
        self._keeper = Keeper(self.village, lambda: self.process, self.rounds.kick)

        def opened() -> None:
            loop.call_soon_threadsafe(self.rounds.kick)

        self._on_opened = opened
        self.village.store.share.on_opened.append(opened)
        try:
            await self._begin()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _begin(self) -> None:
        await self._keeper.begin()
        await self._switching.begin()
        # Held tasks stay held until this process drives the residents that it takes over.
        await self._hosting.reap(release=False)
        await self._hosting.take()
        if self._kind in ("run", "up", "work"):
            await wake_all_for_keys(self.village.store, "system:kernel")  # who begins may have the key
        times = self.village.times()
        self._told, self._began_at_rest = times.residents, times.paused or times.halted
        await self._drive()
        if self._until_done:  # who lives on does it within a second; this one may be done by then
            await self._hosting.reap()
        for service in (
            *(self.rounds.serve, self._renew, self._beat, self._switch),
            *(self._hosting.tick, self._hosting.tell, self._keeper.serve),
        ):
            self._services.append(asyncio.create_task(self._watch(service), name=service.__name__))

    async def __aexit__(self, *_: object) -> None:
        """Stop everything; what still runs is given back, and nothing is lost."""
        self.village.store.share.on_opened.remove(self._on_opened)
        tasks = [*self._services, *self._settling, *self._residents.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            with contextlib.suppress(StoreError):
                await self._write(processes.leave, (self.process, self.village.hooks.end_attempt))
        finally:
            try:
                await self._switching.end()
            finally:
                await self._keeper.end()  # what shutting down cost is counted, too
                await self.village.close_providers()

    async def feel_jump(self) -> None:
        """See whether the clock has jumped, before a lease of a worker elsewhere is judged by it."""
        await self._hosting.feel_jump()

    async def open_at(self, address: str) -> None:
        """This process serves the API at this URL: others of the village are told."""
        self._address = address
        await self._write(processes.open_at, (self.process, address))

    async def run(self) -> None:
        """Until drained or, with ``until_done``, until the board is. Raises what ended a service of the runtime."""
        await self._done.wait()
        if self.fault is not None:
            raise self.fault

    def drain(self) -> None:
        """Take no new tasks, finish what is running, then end. Called again: end at once."""
        if self._draining.is_set():
            self._done.set()
            return
        self._draining.set()
        running = set(self._running.values())
        for name, resident in self._residents.items():
            if name in running:
                self.rounds.forgo(name)
            else:
                resident.cancel()  # it waits for a task, and must not begin another
        if not self._running:
            self._done.set()

    @property
    def draining(self) -> bool:
        """Whether it was asked to end."""
        return self._draining.is_set()

    @property
    def running(self) -> dict[int, str]:
        """The attempts that run now: their residents, by attempt."""
        return dict(self._running)

    @property
    def residents(self) -> list[str]:
        """The residents that this process drives."""
        return sorted(self._residents)

    # Joining

    async def _join(self) -> None:
        self._renewed = self.village.clock.monotonic()
        asked = processes.Register(self._me, self._kind, self._lease, self._address)
        self.process = await self._write(processes.register, asked)

    async def _drive(self, least: int = 1) -> None:
        """Begin or stop driving residents, so that there are as many as are asked for now: without a number, all that
        are active and free, and ``least`` where nobody lives yet and in a run that has something to do."""
        count = self._number()
        with self.village.store.view() as view:
            # A run that drove nobody could not tell whether what is open is done; others wait until somebody is free.
            has_to_do = self._until_done and any(board.left(view))
            if not has_to_do and view.row("SELECT 1 FROM residents WHERE state = 'active'"):
                least = 0
            if count is None:
                staff = processes.staff(view, self.process, main=self._follows)
                count = max(least, staff.driven + staff.free)
        start_micros = self.village.settings.budgets.start_aid_micros
        asked = processes.Drive(self.process, count, start_micros, main=self._follows, least=min(least, count))
        names: list[str] = []
        while True:
            driven = await self._write(processes.drive, asked)
            if driven is None:
                self._lapsed.set()
                return
            before, names = len(names), driven
            for name in [name for name in names if name not in self._residents]:
                self._residents[name] = asyncio.create_task(self._live(name), name=f"resident {name}")
            if len(names) >= count or len(names) == before or self._draining.is_set():
                break
        running = set(self._running.values())
        for name in self._residents.keys() - set(names):
            if name in running:
                self._dismissed.add(name)
                self.rounds.forgo(name)
            else:
                self._residents.pop(name).cancel()
        self._dismissed -= set(names)

    # A resident's life

    async def _live(self, name: str) -> None:
        try:
            while not self._leaves(name):
                won = await self.rounds.claim(name)
                await self.live(won)
        finally:
            self.rounds.forgo(name)
        if name in self._dismissed:
            self._dismissed.remove(name)
            self._residents.pop(name, None)

    async def live(self, won: Won) -> None:
        """One cycle from its claim to its end. Whatever goes wrong in it stays in it."""
        claimed = won.claimed
        attempt = claimed.attempt
        self._running[attempt] = claimed.resident.name
        self._acting[attempt] = cast("asyncio.Task[Any]", asyncio.current_task())
        try:
            with won.hooks.in_use():
                back = await self._lived(won)
                if back is not None:
                    await self._settle_later(back)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            # Both may have come at once, and are one exception then: the act was ended, and this process stops.
            if attempt not in self._interrupted or (task is not None and task.uncancel()):
                raise  # this process stops: leaving gives the attempt back
        finally:
            self._running.pop(attempt, None)
            self._acting.pop(attempt, None)
            self._interrupted.discard(attempt)
            if self._draining.is_set() and not self._running:
                self._done.set()

    async def _lived(self, won: Won) -> Settlement | None:
        """Go through a cycle; returns how its attempt is to be given back when it could not be settled."""
        attempt = won.claimed.attempt
        try:
            self.count(await self._through(won))
        except LeaseLapsed as error:
            log.info("attempt %s was ended by somebody else", attempt)
            # Or the clock jumped a moment ago, and the lease is about to be renewed: then nobody else ends it.
            self._settle_beside(self._back(won.claimed, str(error)))
        except StoreError as error:
            log.error("attempt %s could not be settled: %s", attempt, error)
            return self._back(won.claimed, str(error))
        except Exception as error:
            log.exception("attempt %s met a fault of the kernel", attempt)
            return self._back(won.claimed, f"fault: {error!r}")
        return None

    async def _through(self, won: Won) -> Settled:
        ready = await self.prepare(won)
        if isinstance(ready, Settled):
            return ready
        job, outcome = await cycle.execute(won.hooks, ready, self._link, self.rules, self.village.clock.monotonic)
        settlement = await cycle.judge(won.hooks, won.claimed, outcome, self.rules)
        name = won.claimed.resident.name
        if self._residents.get(name) is asyncio.current_task() and not self._leaves(name):
            self.rounds.claim_early(name)
        return await job.finish(settlement)

    def _leaves(self, name: str) -> bool:
        """Whether a resident begins nothing more here once it is done with what it does."""
        return self._draining.is_set() or name in self._dismissed

    async def prepare(self, won: Won) -> Ready | Settled:
        """Make a claim ready for its act, here or elsewhere; or end it, where safety says so."""
        tools = self.village.tools() if won.claimed.task.mode == "llm" else ()
        ready = await cycle.prepare(
            won.hooks, won.claimed, won.sections, won.entitlement, won.recorded, self.rules, tools
        )
        if not isinstance(ready, Stopped):
            self.rounds.judged()
            return ready
        if ready.culprit is not None:
            await self._guard(ready.culprit, ready.settlement.reason)
        return await self._link.settle(ready.settlement)

    def count(self, settled: Settled) -> None:
        self.figures.cycles += 1
        if settled.task_state == "done":
            self.figures.done += 1
        elif settled.task_state in board.LOST:
            self.figures.failed += 1
        else:
            self.figures.retried += 1
        if self._on_settled is not None:
            self._on_settled(settled)

    def _back(self, claimed: Claimed, reason: str) -> Settlement:
        return Settlement(
            claimed.attempt, claimed.holder, "lapsed", reason, actor="system:kernel",
            end_attempt=self.village.hooks.end_attempt, retries=self.rules.retries,
        )  # fmt: skip

    def _give_back(self, claimed: Claimed) -> None:
        """A claim whose resident has gone meanwhile: nothing was done, so the task is simply open again."""
        asked = Settlement(claimed.attempt, claimed.holder, "released", "its resident left",
                           end_attempt=self.village.hooks.end_attempt)  # fmt: skip
        self._settle_beside(asked)

    def _settle_beside(self, asked: Settlement) -> None:
        task = asyncio.create_task(self._settle_later(asked))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle_later(self, asked: Settlement) -> None:
        """Settle, and try again while the store can't: a full disk is mended or the lease lapses."""
        lapsed = 0
        while lapsed < 3:
            try:
                await self._link.settle(asked)
                return
            except LeaseLapsed:
                lapsed += 1
            except StoreError as error:
                if error.rule == GONE:
                    return
            except VivariumError:
                return
            await asyncio.sleep(1.0)

    # What runs beside the residents

    async def _watch(self, service: Callable[[], Any]) -> None:
        """A service that fails ends the runtime: a village without leases or ticks must not look alive."""
        try:
            await service()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            log.exception("%s failed", service.__name__)
            self.fault = error
            self._done.set()

    async def _renew(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease / 3):  # wait_for may swallow a cancellation before 3.12
                    await self._lapsed.wait()
            self._lapsed.clear()
            now = self.village.clock.monotonic()
            asked = processes.Renewal(self.process, self._lease, now - self._renewed < self._lease)
            try:
                stands = await self._write(processes.renew, asked)
            except StoreError as error:
                log.error("the lease could not be renewed: %s", error)
                if error.rule == GONE:  # nothing that is done here would be on record any more
                    self.fault = error
                    self._done.set()
                    return
                continue
            self._renewed = now
            if stands:
                self.rounds.go_on()
            else:
                # This process stood still, or was taken for dead: what ran here may run elsewhere by now.
                self._interrupt(list(self._running))
                # Its residents go on in its new place, so they must be free of the old one.
                await self._hosting.reap(release=False)
                await self._join()
                self.rounds.process = self.process
                await self._hosting.take()
                await self._drive()
                self.rounds.kick()

    async def _beat(self) -> None:
        """Look what others decided: halt, quarantine, cancelled tasks, number of residents; wake what is due."""
        seen: tuple[Any, ...] = ()
        missing: set[int] = set()
        clock = Jumps(self.village.clock)
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if clock.jumped():
                self._lapsed.set()  # by that clock it may have
            await self._hosting.feel_jump()
            try:
                with self.village.store.view() as view:
                    times = village_time.read_times(view)
                    due = view.row("SELECT min(wake_at) FROM tasks WHERE wake_at IS NOT NULL AND state = 'parked'")
                    mine = {
                        row[0]
                        for row in view.rows(
                            "SELECT id FROM attempts WHERE state = 'running' AND process = ?", (self.process,)
                        )
                    } if self._running else set()  # fmt: skip
                    now = (times.halted, times.paused, times.residents, times.pace_seconds)
                    stands = times.paused or times.halted
                    self._began_at_rest = self._began_at_rest and stands
                    finished = (
                        self._until_done and not self._draining.is_set() and self._is_finished(view, stands=stands)
                    )
            except StoreError as error:
                log.error("the village can't be read, which counts as a halt: %s", error)
                await self._halt()
                continue
            if due and due[0] is not None and due[0] <= self.village.clock.now():
                try:
                    await self._write(settling.wake_due, None)
                except StoreError as error:
                    log.error("what is due can't be woken: %s", error)
                self.rounds.kick()
            if times.halted:
                await self._halt()
            else:
                # Missing at two beats running: the answer to our own settlement may be on its way at one.
                missing, before = {attempt for attempt in self._running if attempt not in mine}, missing
                self._interrupt(sorted(missing & before))
            if now != seen:
                seen = now
                self.rounds.kick()
            await self._drive_if_changed(times.residents)
            if finished:
                self._done.set()

    async def _switch(self) -> None:
        """Take up what is switched on and off; apart from the beat, for starting a plugin may take long."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await self._switching.look()

    def _is_finished(self, view: View, *, stands: bool) -> bool:
        at_work = self._running or self.rounds.waiting < len(self._residents)
        is_open, is_moving = (True, True) if at_work else board.left(view)
        if is_moving:
            self._left_over = None
            return False
        if not is_open:
            return True
        if (stands and not self._began_at_rest) or not self.rounds.idle or self.rounds.resting:
            return False  # a look may take longer than a beat: what was seen before it began still counts
        # Some may have been opened since the last look, perhaps by another process: what is open is left over once
        # nobody takes it at a look that began after it was seen here.
        seen, self._left_over = self._left_over, board.openings(view)
        if seen != self._left_over:
            self.rounds.kick()
            return False
        return True

    async def _drive_if_changed(self, wanted: int | None) -> None:
        if wanted != self._told:
            self._told = wanted
            if self._follows:
                self._asked = wanted  # told since it began: stronger than what it began with
        if self._draining.is_set():
            return
        count = self._number()
        with self.village.store.view() as view:
            staff = processes.staff(view, self.process, main=self._follows)
        # Without a number, residents that were added or let back are taken in, and nobody is made for one that went.
        more = staff.free if count is None else min(staff.free, count - staff.driven) + staff.missing(count)
        if staff.driven != len(self._residents) or more:
            await self._drive(least=0)

    @property
    def _follows(self) -> bool:
        """Whether the village's own number of residents is meant for this process."""
        return self._kind not in ("work", "serve")

    def _number(self) -> int | None:
        return self._told if self._asked is None and self._follows else self._asked

    async def _halt(self) -> None:
        """End every running act at once: its children are killed, its task put back, unknown effects to review."""
        self._interrupt(list(self._running), end=True)

    def _interrupt(self, attempts: list[int], *, end: bool = False) -> None:
        for attempt in attempts:
            if attempt in self._interrupted:
                continue
            task = self._acting.get(attempt)
            if task is None:
                continue
            self._interrupted.add(attempt)
            task.cancel()
            if end:
                # As its holder: what meanwhile went to review or was ended is no act any more, and stays as it is.
                asked = Settlement(
                    attempt, Holder(self.process), "released", "the village was halted", actor="system:halt",
                    end_attempt=self.village.hooks.end_attempt,
                )  # fmt: skip
                self._settle_beside(asked)

    async def _guard(self, culprit: str, reason: str) -> None:
        """A safety check can't judge: claims pause, and the culprit is named, until it can."""
        kinds = type(self.village.plugins[culprit]).guards if culprit in self.village.plugins else None
        self.rounds.guard(kinds, GUARD_SECONDS)
        await self._write(_note_guard, (culprit, reason))

    def _write(self, fn: Callable[[Tx, Any], Any], item: Any) -> Any:
        return self.village.store.write(fn, item)


def _note_guard(tx: Tx, asked: tuple[str, str]) -> None:
    audit.emit(tx, "safety.cannot_judge", "system:kernel", plugin=asked[0], reason=asked[1])
