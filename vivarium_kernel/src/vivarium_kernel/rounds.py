"""The room of the rounds: residents who wait are matched to tasks together, so that they take different ones.

A round reads one snapshot, lets each resident weigh its slice of the window, and claims in one transaction.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from attrs import frozen
from msgspec import Struct

from vivarium_kernel import board, budgets, claiming, people, village_time
from vivarium_kernel.budgets import Span
from vivarium_kernel.calls import Hooks
from vivarium_kernel.claiming import DAY_MICROS, Claimed, Line, NotClaimed, Pick, Round, Window
from vivarium_kernel.errors import StoreError
from vivarium_kernel.records import Claim, Entitlement, NewTask, Resident, Section, Step, Task
from vivarium_kernel.store import Tx, View, json_list
from vivarium_kernel.village import Village
from vivarium_kernel.weighing import Weighed, judged, weigh

LARGEST_ROUND = 64
SUBJECTS = ("task", "command", "prompt", "tool_call", "outcome", "message")
MOST_GUARDS = 3  # times in a row that a run waits for a check that can't judge
MOST_REFUSALS = 10_000
FREE_IN_A_ROW = 6  # free cycles before a resident rests a village hour


class Won(Struct, frozen=True):
    """A claim, the plugins that its cycle is lived with, what the resident may use, sections, and steps to replay."""

    claimed: Claimed
    hooks: Hooks
    entitlement: Entitlement
    sections: Sequence[tuple[str, Section]] = ()
    recorded: Sequence[Step] = ()


@frozen
class Seat:
    """How a resident of another machine waits: its worker's number, the digest of its job's own token, that job's
    lease, and what the worker can do.
    """

    worker: int
    token: bytes
    lease_seconds: float
    fits: Callable[[Task, Resident], bool]


class _Waiting:
    """A resident who waits for a task, or who will in a moment: ``early``, its last attempt is about to be settled."""

    __slots__ = (
        "answer", "began", "cursor", "dear", "early", "name", "page", "passed_at", "refused", "refused_at", "rests",
        "rests_at", "returns", "seat", "wide",
    )  # fmt: skip

    def __init__(self, name: str, answer: asyncio.Future[Won], seat: Seat | None, *, early: bool = False) -> None:
        self.name = name
        self.seat = seat
        self.answer = answer
        self.early = early
        self.began = -1  # the look at which it began to look through the board
        self.cursor: tuple[int, int] | None = None
        self.page: tuple[int, int] | None = None  # where what it weighed last begins
        self.wide = claiming.WEIGHED
        self.dear: tuple[int, int] | None = None  # a task that its day may have no room for, and that room
        self.refused: set[int] = set()  # what it was refused in a transaction at the look `refused_at`
        self.refused_at = -1
        self.returns = False  # to the page at `page`, of which it has tried a part
        self.rests = False  # at the look `rests_at`, or it may want later what it was not offered then
        self.rests_at = -1
        self.passed_at = -1  # the look at which it had seen the whole board and could take nothing


class Pages:
    """The open tasks of one snapshot but those that stand in line for a cap; residents who look as far share a page."""

    def __init__(self, window: Window, view: View, limit: int, in_line: Line) -> None:
        self._window, self._view, self._in_line = window, view, in_line
        self._pages: dict[tuple[int, tuple[int, int] | None], list[Task]] = {}
        self.limit = limit
        self.front = window.read(view, limit, without=in_line)

    def read(self, limit: int, after: tuple[int, int] | None) -> list[Task]:
        found = self._pages.get((limit, after))
        if found is None:
            found = self._pages[limit, after] = self._window.read(self._view, limit, after, without=self._in_line)
        return found


class Rounds:
    """Gives waiting residents their tasks. ``free_hours`` lets those without one live a free cycle."""

    def __init__(
        self,
        village: Village,
        process: int,
        give_back: Callable[[Claimed], None],
        *,
        free_hours: bool,
        on_lapsed: Callable[[], None] = lambda: None,
    ) -> None:
        self._village = village
        self.process = process
        self._give_back = give_back  # what to do with a claim whose resident has gone meanwhile
        self._free_hours = free_hours
        self._on_lapsed = on_lapsed
        self._lapsed: int | None = None  # the process number whose lease was found to have lapsed
        self._waiting: dict[str, _Waiting] = {}
        self._early: dict[str, _Waiting] = {}  # of those, and of those who were served: who has not come yet
        self._pace_seconds = village.times().pace_seconds
        self._look = 0  # counts the reasons to look at the board again
        self._window = Window()
        self._room: int | None = None  # under the caps, at the last round; None where nothing was set aside
        self._short: dict[str, int] = {}  # resident -> what was left of its day when it asked for more in vain
        self._kicked = asyncio.Event()
        self._free: dict[str, tuple[int, int]] = {}  # resident -> (free cycles in a row, rests until this hour)
        self._guards = 0  # how often in a row a check could not judge
        self._guarded: dict[str, float] = {}  # kind of subject -> until when tasks that need it judged are left alone
        self.refusals: dict[str, str] = {}  # task -> why nobody took it, as far as this process has seen

    async def claim(self, resident: str, seat: Seat | None = None) -> Won:
        """Wait until this resident has a task. Cancelling it takes the resident out of the rounds."""
        waiting = self._early.pop(resident, None) if seat is None else None
        if waiting is None:
            waiting = self._waiting[resident] = _Waiting(resident, asyncio.get_running_loop().create_future(), seat)
        if not waiting.answer.done():
            waiting.early, waiting.passed_at = False, -1
            self._kicked.set()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            self._leave(waiting)
            raise

    def claim_early(self, resident: str) -> None:
        """This resident's attempt is about to be settled, and it will :meth:`claim` again: one commit serves both.

        Not where a plugin reads tables to say who may take what: it would not see what the settlement writes. Nor
        where more wait to be written than one commit takes: then others are to have their tasks first.
        """
        if not self._village.hooks.reads_to_claim and not self._village.store.crowded:
            answer: asyncio.Future[Won] = asyncio.get_running_loop().create_future()
            self._waiting[resident] = self._early[resident] = _Waiting(resident, answer, None, early=True)
            self._kicked.set()

    def forgo(self, resident: str) -> None:
        """This resident will not claim again after all: what it may have won meanwhile is given back."""
        waiting = self._early.pop(resident, None)
        if waiting is not None:
            self._leave(waiting)

    def _leave(self, waiting: _Waiting) -> None:
        if self._waiting.get(waiting.name) is waiting:
            del self._waiting[waiting.name]
        elif waiting.answer.done() and not waiting.answer.cancelled():
            self._give_back(waiting.answer.result().claimed)  # it was won at the very moment of leaving

    async def claim_now(self, resident: str, task: Task) -> Won | NotClaimed:
        """Claim this task for this resident at once, outside the rounds and under the same rules."""
        with self._village.store.view() as view:
            found = {r.name: r for r in people.residents(view) if r.name == resident and r.state == "active"}
            if resident not in found:
                return NotClaimed("resident.busy", f"{resident} is not free to begin a cycle")
            hooks = self._village.hooks
            weighed = self._wishes(view, found[resident], [task])
        if not weighed.wishes:
            return NotClaimed("claim.refused", self.refusals.get(task.id, f"{resident} may not take it"))
        with hooks.in_use():
            asked = Round([Pick(resident, weighed.wishes, why=weighed.why)], self.process, _reserve(hooks))
            writing = asyncio.ensure_future(self._village.store.write(claiming.claim, asked))
            (answer,) = await asyncio.shield(writing)
            if isinstance(answer, NotClaimed):
                return answer
            with self._village.store.view() as view:
                return self._won(view, answer, hooks, weighed.right)

    def go_on(self) -> None:
        """This process's lease stands, whatever was found of it before."""
        if self._lapsed == self.process:
            self._lapsed = None
            self.kick()

    def kick(self) -> None:
        """The board changed: everybody who waits looks again."""
        self._look += 1
        self._kicked.set()

    def guard(self, kinds: Sequence[str] | None, seconds: float) -> None:
        """A safety check can't judge these kinds of subject, None all: tasks that need it wait a while."""
        loop = asyncio.get_running_loop()
        self._guards += not self._guarded  # many may find it out at once
        for kind in SUBJECTS if kinds is None else kinds:
            self._guarded[kind] = loop.time() + seconds
        loop.call_later(seconds, self._unguard)

    def judged(self) -> None:
        """The checks could judge."""
        self._guards = 0

    def _unguard(self) -> None:
        now = asyncio.get_running_loop().time() + 0.001  # a timer may fire a trifle early, and there is no other
        self._guarded = {kind: until for kind, until in self._guarded.items() if until > now}
        self.kick()

    def _is_guarded(self, task: Task) -> bool:
        """Whether a task needs a judgement that can't be had now."""
        return any(kind in self._guarded for kind in judged(task))

    @property
    def idle(self) -> bool:
        """Whether everybody who waits has seen the whole board and may take nothing of it."""
        return all(waiting.passed_at == self._look for waiting in self._waiting.values())

    @property
    def resting(self) -> bool:
        """Whether somebody may take later what nobody takes now: who rests, wants a model that is left alone, or what
        a check could not judge a moment ago. One that can't judge time and again is waited for no longer.
        """
        if self._guarded and self._guards <= MOST_GUARDS:
            return True
        return any(waiting.rests and waiting.rests_at == self._look for waiting in self._waiting.values())

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def serve(self) -> None:
        """Hold rounds for ever: at once when somebody comes or the board changes, else after the village's pace."""
        while True:
            try:
                async with asyncio.timeout(max(self._pace_seconds, 0.05) if self._waiting else None):
                    await self._kicked.wait()
            except TimeoutError:
                self._look += 1
            self._kicked.clear()
            while self._waiting:
                try:
                    won = await self._round()
                except StoreError:
                    await asyncio.sleep(1.0)  # a full or locked disk: the residents wait until it is mended
                    self._kicked.set()
                    break
                if not won and (self.idle or self._lapsed == self.process):
                    break
                if not won:
                    await asyncio.sleep(0)  # however long a board is, a halt is heard while it is looked through

    async def _round(self) -> int:
        """One round; returns how many residents got a task."""
        hooks, store = self._village.hooks, self._village.store
        openings = store.share.openings
        with store.view() as view:
            spans = self._spans(view)
            self._look += self._made_room(spans)  # who found none looks again, before others take it
            look = self._look  # what happens from here on is a reason to look again
            looking = [w for w in self._waiting.values() if w.passed_at != look]
            if hooks.reads_to_claim:  # it may have been switched on since they asked
                self._pass(w for w in looking if w.early)
                looking = [w for w in looking if not w.early]
            if not looking:
                return 0
            times = village_time.read_times(view)
            self._pace_seconds = times.pace_seconds
            if times.paused or times.halted:
                self._pass(looking)
                return 0
            looking = self._with_something_to_see(view, looking)[:LARGEST_ROUND]
            if not looking:
                return 0
            residents, resting = _residents(view, looking, times.hour(view.now))
            for waiting in looking:
                waiting.rests = waiting.name in resting or (waiting.rests and waiting.rests_at == look)
                waiting.rests_at = look
            picks, rights, free = self._weigh(view, looking, residents, spans)
        if free:
            await store.write(board.post, self._village.posting(free, "system:free_hour"))
            return 0
        if not picks:
            return 0
        with hooks.in_use():
            return await self._claimed(Round(picks, self.process, _reserve(hooks), openings), hooks, rights, look)

    async def _claimed(self, asked: Round, hooks: Hooks, rights: dict[str, Entitlement], look: int) -> int:
        """Claim for a round and hand out what was won; returns how many residents got a task."""
        # A round that has begun is carried to its end: its claims must reach their residents.
        # It goes first, but not before the settlements that early picks wait for.
        store, early = self._village.store, any(pick.early for pick in asked.picks)
        writing = store.write(claiming.claim, asked, now=store.crowded or not early)
        answers: Sequence[Claimed | NotClaimed] = await asyncio.shield(asyncio.ensure_future(writing))
        handed: list[Claimed | NotClaimed] = []
        try:
            with self._village.store.view() as view:
                for pick, answer in zip(asked.picks, answers, strict=True):
                    if isinstance(answer, NotClaimed):
                        self._refused(pick, answer, look)
                    elif self._hand_out(view, pick, answer, hooks, rights[pick.resident]):
                        handed.append(answer)
        except BaseException:
            # The claims stand, and nobody would live them.
            for answer in answers:
                if isinstance(answer, Claimed) and answer not in handed:
                    self._give_back(answer)
            raise
        return len(handed)

    def _pass(self, waiting: Iterable[_Waiting], look: int | None = None) -> None:
        for each in waiting:
            each.passed_at = self._look if look is None else look

    def _with_something_to_see(self, view: View, looking: list[_Waiting]) -> list[_Waiting]:
        """Of many who look at a board without tasks for all, those for whom one is held, or who live freely."""
        if len(looking) <= LARGEST_ROUND or self._free_hours or self._window.read(view, 1):
            return looking
        held = self._window.held_for(view, {waiting.name: 1 for waiting in looking})
        self._pass(waiting for waiting in looking if waiting.name not in held)
        return [waiting for waiting in looking if waiting.name in held]

    def _hand_out(self, view: View, pick: Pick, answer: Claimed, hooks: Hooks, right: Entitlement) -> bool:
        """Tell a resident what it got, with its prompt's sections read from the one snapshot of all of the round."""
        waiting = self._waiting.get(pick.resident)
        task = answer.task
        self._window.forget(task)
        self.refusals.pop(task.id, None)
        token = None if waiting is None or waiting.seat is None else waiting.seat.token
        if waiting is None or waiting.answer.done() or token != answer.holder.token:
            self._give_back(answer)
            return False
        waiting.answer.set_result(self._won(view, answer, hooks, right))
        del self._waiting[pick.resident]
        if "free" not in task.labels:
            self._free.pop(pick.resident, None)
        return True

    def _won(self, view: View, claimed: Claimed, hooks: Hooks, right: Entitlement) -> Won:
        task = claimed.task
        sections = hooks.enrich_prompt(claimed.resident, task, view) if task.mode != "command" else ()
        recorded = steps_to_replay(view, claimed) if task.continues is not None else ()
        return Won(claimed, hooks, right, sections, recorded)

    def _refused(self, pick: Pick, answer: NotClaimed, look: int) -> None:
        """A resident got none of its wishes: it looks further, unless others were merely quicker."""
        if answer.rule == "process.lapsed":
            self._lapsed = self.process  # nothing can be claimed before this process has joined again
            self._on_lapsed()
            return
        waiting = self._waiting.get(pick.resident)
        if answer.rule == "taken":
            if waiting is not None:
                waiting.returns = False
            return
        for task in pick.wishes[:1]:
            self._note(task.id, f"{pick.resident}: {answer.reason}")
        if waiting is None:
            return
        if answer.rule in ("resident.busy", "village.paused", "village.halted"):
            self._pass((waiting,), look)
            return
        if waiting.refused_at != look and not waiting.returns:
            waiting.refused = set()
        waiting.refused_at = look
        waiting.refused |= answer.tried
        if waiting.dear is not None and waiting.dear[0] in answer.tried:
            self._short[waiting.name] = waiting.dear[1]
        waiting.returns = len(answer.tried) < len(pick.wishes)
        if waiting.returns:
            waiting.cursor = waiting.page  # the others are tried at the next round, whatever opens meanwhile

    def _weigh(
        self, view: View, looking: Sequence[_Waiting], residents: dict[str, Resident], spans: Sequence[Span]
    ) -> tuple[list[Pick], dict[str, Entitlement], list[NewTask]]:
        limit = max(claiming.WEIGHED, claiming.WINDOW_EACH * len(looking))
        in_line = self._in_line(view, spans)
        pages = Pages(self._window, view, limit, in_line)
        held = self._window.held_for(view, {w.name: w.wide for w in looking}, without=in_line)
        picks: list[Pick] = []
        rights: dict[str, Entitlement] = {}
        free: list[NewTask] = []
        room_of = self._room_of(view, looking)
        for waiting, start in zip(looking, _starts(pages.front, len(looking)), strict=True):
            resident = residents.get(waiting.name)
            if resident is None:
                self._pass((waiting,))
                continue
            tasks, more = self._slice(pages, waiting, start)
            mine = held.get(waiting.name)
            if mine:
                tasks = [*mine, *tasks]
                more = more or len(mine) == waiting.wide < claiming.WIDEST
            seat = waiting.seat
            if seat is not None:
                tasks = [task for task in tasks if seat.fits(task, resident)]
            if waiting.refused_at == self._look or waiting.returns:
                tasks = [task for task in tasks if task.seq not in waiting.refused]
            if room_of is not None:
                tasks = self._affordable(waiting, tasks, room_of(waiting.name))
            weighed = self._wishes(view, resident, tasks, here=seat is None) if tasks else None
            if weighed is not None and weighed.wishes:
                picks.append(_pick(waiting, weighed))
                rights[waiting.name] = weighed.right
            elif waiting.early:
                self._pass((waiting,))  # it will look for itself in a moment, and at more
            elif more:
                waiting.returns, waiting.wide = False, min(claiming.WIDEST, waiting.wide * 4)
            else:
                waiting.returns, waiting.cursor, waiting.wide = False, None, claiming.WEIGHED
                self._pass((waiting,), waiting.began)
                if self._free_hours:
                    free += self._activity(view, resident, here=seat is None)
        picks.sort(key=lambda pick: -pick.wishes[0].priority)  # what is urgent has its room first
        return picks, rights, free

    def _spans(self, view: View) -> list[Span]:
        """What does not fit under the village's caps for as long as others are at work, though it may later."""
        caps = self._village.settings.budgets
        if caps.village_usd_micros is None and caps.village_day_usd_micros is None:
            return []
        scopes = ("village", f"village-day:{view.now // DAY_MICROS}")
        found = [budgets.budget(view, scope) for scope in scopes]
        return [each.in_line for each in found if each is not None and each.in_line.above < each.in_line.upto]

    def _room_of(self, view: View, looking: Sequence[_Waiting]) -> Callable[[str], int] | None:
        """What is left to each resident of its day, in millionths; None where no cap is set."""
        cap = self._village.settings.budgets.resident_day_usd_micros
        if cap is None:
            return None
        day = view.now // DAY_MICROS
        rows = view.rows(
            "SELECT scope, cap - reserved - spent FROM budgets WHERE currency = 'usd' "
            "AND scope IN (SELECT 'resident-day:' || value || ':' || ? FROM json_each(?))",
            (day, json_list([waiting.name for waiting in looking])),
        )
        left: dict[str, int] = dict(rows)
        return lambda name: left.get(f"resident-day:{name}:{day}", cap)

    def _affordable(self, waiting: _Waiting, tasks: list[Task], room: int) -> list[Task]:
        """Tasks but those that a resident's day has no room for. The first it asks for, and its log says so."""
        waiting.dear = None
        dear = {task.seq: None for task in tasks if not task.attempts and task.max_micros > room}
        if not dear:
            return tasks
        for task in tasks:
            if task.seq in dear:
                self._note(task.id, f"{waiting.name}: more than is left of what a resident may spend in a day")
        if self._short.get(waiting.name) != room:
            first = next(iter(dear))
            waiting.dear = (first, room)
            del dear[first]
        return [task for task in tasks if task.seq not in dear]

    def _made_room(self, spans: Sequence[Span]) -> bool:
        """Whether there is more room under the caps than at the last round."""
        before, self._room = self._room, min([span.above for span in spans], default=None)
        return before is not None and (self._room is None or self._room > before)

    def _in_line(self, view: View, spans: Sequence[Span]) -> Line:
        """Who waits for room under the caps."""
        line = Line(tuple(spans))
        first = self._window.in_line(view, line, list(self._waiting)) if spans else []
        for task in first:
            self._note(task.id, "the village's cap, all of which others have set aside for now")
        return line._replace(priority=self._most_urgent(view, first))

    def _most_urgent(self, view: View, first: Sequence[Task]) -> int | None:
        """The priority of the most urgent of these tasks that one of all who wait might take."""
        urgent: int | None = None
        hour = village_time.read_times(view).hour(view.now)
        residents = _residents(view, list(self._waiting.values()), hour)[0] if first else {}
        for name, resident in residents.items():
            seat = self._waiting[name].seat
            theirs = [
                task
                for task in first
                if (urgent is None or task.priority > urgent)
                and task.wanted in (None, name)
                and (seat is None or seat.fits(task, resident))
            ]
            if theirs:
                wishes = self._wishes(view, resident, theirs, here=seat is None).wishes
                urgent = max([task.priority for task in wishes], default=urgent)
        return urgent

    def _note(self, task: str, why: str) -> None:
        """Keep why nobody takes a task, for the end of a run: of a large board not of all."""
        if task in self.refusals or len(self.refusals) < MOST_REFUSALS:
            self.refusals[task] = why

    def _slice(self, pages: Pages, waiting: _Waiting, start: int) -> tuple[list[Task], bool]:
        """The tasks that this resident weighs now, and whether there are more behind them."""
        waiting.page = waiting.cursor
        if waiting.cursor is None and waiting.wide == claiming.WEIGHED:
            waiting.began = self._look
            window = pages.front
            if not window:
                return [], False
            # What is more urgent than where it begins, too: those who begin there may not be allowed to take it.
            urgent = bisect_left(window, -window[start].priority, key=lambda task: -task.priority)
            ahead = min(urgent, claiming.WEIGHED)
            tasks = window[:ahead] + window[start : start + claiming.WEIGHED]
            if len(tasks) < claiming.WEIGHED:
                tasks += window[ahead : min(start, ahead + claiming.WEIGHED - len(tasks))]
            # All refused: the next look begins at the front and is wider.
            return tasks, len(window) > len(tasks) or len(window) >= pages.limit
        tasks = pages.read(waiting.wide, waiting.cursor)
        if tasks:
            waiting.cursor = (tasks[-1].priority, tasks[-1].seq)
        return tasks, len(tasks) == waiting.wide

    def _wishes(self, view: View, resident: Resident, tasks: Sequence[Task], *, here: bool = True) -> Weighed:
        """What a resident may take, best first. Who works elsewhere, not ``here``, has model providers of its own."""
        name = resident.name
        tasks = [t for t in tasks if not (t.declined and name in t.declined)]
        if self._guarded:
            tasks = [t for t in tasks if not self._is_guarded(t)]
        alone = self._village.left_alone()
        if alone:
            tasks = self._with_a_model(resident, tasks, alone)
        village = self._village
        absent = village.why_absent if here else None
        weighed = weigh(village.hooks, view, resident, tasks, village.settings, self.refusals, absent)
        for task_id, reasons in weighed.refused.items():
            self._note(task_id, "; ".join(f"{name}: {plugin}: {reason}" for plugin, reason in reasons))
        return weighed

    def _with_a_model(
        self, resident: Resident, tasks: list[Task], alone: Mapping[str, tuple[float, str]]
    ) -> list[Task]:
        """Tasks but those of models that are left alone for a while: to claim them would only put them back."""
        default = self._village.settings.model
        kept = []
        for task in tasks:
            model = task.model or resident.model or default
            if task.mode == "llm" and model in alone:
                seconds, reason = alone[model]
                self._note(task.id, f"{model} is tried again in {max(seconds, 0):.0f} s: {reason}")
            else:
                kept.append(task)
        waiting = self._waiting.get(resident.name)
        if waiting is not None and len(kept) < len(tasks):
            waiting.rests = True
        return kept

    def _activity(self, view: View, resident: Resident, *, here: bool) -> list[NewTask]:
        """A free-time task for a resident who found nothing, chosen by the same filter and scores."""
        if not self._village.hooks.has("propose_activity"):
            return []
        times = village_time.read_times(view)
        hour = times.hour(view.now)
        lived, rests_until = self._free.get(resident.name, (0, 0))
        if lived >= FREE_IN_A_ROW:
            if rests_until == 0:
                self._free[resident.name] = (lived, hour + 1)
                return []
            if hour < rests_until:
                return []
            lived = 0
        posting = self._village.posting((), "system:free_hour")
        proposed = [new for _, new in self._village.hooks.propose_activity(resident, view)]
        if not proposed:
            return []
        records = [board.record_of(new, place + 1, posting, view.now) for place, new in enumerate(proposed)]
        wishes = self._wishes(view, resident, records, here=here).wishes
        if not wishes:
            return []
        self._free[resident.name] = (lived + 1, 0)
        return [board.free_task(proposed[wishes[0].seq - 1], resident.name)]


def _starts(window: Sequence[Task], count: int) -> list[int]:
    """Where in the window each of so many residents begins to weigh: apart, but behind no task of higher priority
    that nobody else begins at."""
    if not window or window[0].priority == window[-1].priority:
        step = max(1, len(window) // count)
        return [place * step % max(1, len(window)) for place in range(count)]
    starts: list[int] = []
    first = 0
    for _, group in groupby(window, key=lambda task: task.priority):
        size = sum(1 for _ in group)
        here = min(size, count - len(starts))
        starts += [first + place * (size // here) for place in range(here)]
        first += size
        if len(starts) == count:
            return starts
    return starts + [place % len(window) for place in range(count - len(starts))]


def _pick(waiting: _Waiting, weighed: Weighed) -> Pick:
    seat = waiting.seat
    if seat is None:
        return Pick(waiting.name, weighed.wishes, why=weighed.why, early=waiting.early)
    return Pick(waiting.name, weighed.wishes, seat.token, seat.lease_seconds, weighed.why, worker=seat.worker)


def _reserve(hooks: Hooks) -> Callable[[Claim, Tx], None] | None:
    return hooks.claim_reserve if hooks.has("claim_reserve") else None


def steps_to_replay(view: View, claimed: Claimed) -> list[Step]:
    """The recorded steps of the attempts that this one continues, the newest of each number.

    Another resident's are replayed only where one of them must not be done twice; else a new resident begins afresh.
    """
    steps: dict[int, Step] = {}
    number, same = claimed.task.continues, True
    while number is not None:
        before = board.attempt(view, number)
        same = same and before.resident == claimed.resident.name
        older = {step.number: step for step in board.steps_as_they_were(view, number) if step.state == "done"}
        if any(_went_another_way(steps[each], older[each]) for each in steps.keys() & older.keys()):
            break  # what the older one did behind that is no part of this
        steps = older | steps
        number = before.continues  # it may have ended before it had copied what it replayed
    if not same and not any(step.effect == "once" for step in steps.values()):
        return []
    return [steps[number] for number in sorted(steps)]


def _went_another_way(step: Step, older: Step) -> bool:
    return (step.kind, step.name, step.result) != (older.kind, older.name, older.result)


def _residents(view: View, looking: Sequence[_Waiting], hour: int) -> tuple[dict[str, Resident], set[str]]:
    """Those who are up, and the names of those who rest until a later hour."""
    rows = view.rows(
        "SELECT name, state, cycles, model, reason, created_at, coalesce(rests_until_hour, 0) > ? FROM residents "
        "WHERE state = 'active' AND name IN (SELECT value FROM json_each(?))",
        (hour, json_list([w.name for w in looking])),
    )
    return {row[0]: Resident(*row[:-1]) for row in rows if not row[-1]}, {row[0] for row in rows if row[-1]}
