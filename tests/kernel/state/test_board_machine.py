"""Promises about tasks, held against a small model under any sequence of calls, clocks and crashes."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from attrs import frozen
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from vivarium_kernel.claiming import Claimed, Pick, Round
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.records import Ending, NewTask, Outcome, Task, Verdict
from vivarium_kernel.settling import Retries, Settlement
from vivarium_kernel.stepping import Holder, Intent, Result
from vivarium_kernel.store import Tx

from vivarium_kernel import board, claiming, control, deciding, people, processes, settling, stepping

from .board_model import SECOND, Attempt, Board, Resident
from .scene import Scene

NAMES = ("ada", "ben", "cyn", "dov")
RETRIES = Retries(jitter=0.0)
CAPS = {"village": 1_500, "village-day": 700, "resident-day": 300}
SETTINGS = 'residents = ["ada", "ben", "cyn", "dov"]\n[budgets]\n' + "".join(
    f'{name}_usd = "0.{micros:06d}"\n'
    for name, micros in zip(("village", "village_day", "resident_day"), CAPS.values(), strict=True)
)
LEASE_SECONDS = 30.0
KINDS = st.sampled_from(["accepted", "accepted", "rejected", "failed", "released", "lapsed", "parked", "blocked"])
FAULTS = st.sampled_from([None, None, "task", "provider", "invalid"])
RARELY = st.integers(0, 5).map(lambda number: number == 1)
SOME = st.lists(st.integers(0, 3), min_size=1, max_size=4)  # residents
BUDGETS = [(0, 0), (100, 0), (250, 0), (250, 240)]  # most and least
PLACES = st.integers(0, 11)  # which of those that there are


@frozen
class Asked:
    """One request to the kernel, what its model says to it, and how the answer is read."""

    fn: Any
    item: Any
    model: Any
    read: Any = lambda answer: answer


def probe(task: Task, ending: Ending, tx: Tx) -> list[Any]:
    """Stands for the plugins' parts: an event that the transaction keeps or undoes."""
    tx.log.add("probe.ended", "plugin:probe", {}, task=task.id, attempt=ending.attempt)
    return []


def told(answer: Any) -> Any:
    """What the kernel answers, be it a refusal; raises what is neither."""
    if isinstance(answer, Exception) and not isinstance(answer, VivariumError):
        raise answer
    return answer


def ruled(answer: Any) -> Any:
    return answer.rule if isinstance(answer, VivariumError) else answer


class BoardMachine(RuleBasedStateMachine):
    """Every request goes to the board and to its model, and must be answered alike."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(SETTINGS)
        self.model = Board(self.scene.clock.now(), dict(CAPS))
        self.holders: dict[int, Holder] = {}
        self.records: dict[str, list[Task]] = {}  # of each task, also as it once was
        self.claimed: dict[int, Task] = {}
        self.states: dict[str, str] = {}
        self.ended: Counter[int] = Counter()
        self.probed: Counter[int] = Counter()
        self.done: set[str] = set()
        self.posted = self.tokens = 0

    def teardown(self) -> None:
        self.scene.close()

    @initialize()
    def found(self) -> None:
        self.model.residents = {name: Resident() for name in NAMES}
        for _ in range(2):
            self.join()
        self.renew(2, 2_000.0)
        for place, (budget, wanted) in enumerate(
            [((0, 0), None), ((100, 0), None), ((250, 240), "ada"), ((250, 0), None)]
        ):
            self.post([3 - place] if place > 1 else [], wanted, place, None, budget, 2, 100.0, False)

    # Asking both

    def ask(self, asked: Asked) -> None:
        self.model.now = self.scene.clock.now()
        (answer,) = self.scene.together([(asked.fn, asked.item)])
        assert asked.read(told(answer)) == asked.model(), asked.item

    def ask_together(self, requests: list[Asked], carefully: bool) -> None:
        """Requests that share a commit: records come first, then intents, endings, what stands alone, and claims."""
        self.model.now = self.scene.clock.now()
        answers = self.scene.together([(asked.fn, asked.item) for asked in requests], carefully=carefully)
        order = sorted(range(len(requests)), key=lambda place: getattr(requests[place].fn, "rank", 50))
        for place in order:
            asked = requests[place]
            assert asked.read(told(answers[place])) == asked.model(), asked.item

    def some(self, place: int, found: list[Any]) -> Any:
        return found[place % len(found)] if found else None

    # Processes and time

    @rule()
    def join(self) -> None:
        number = self.scene.call(
            processes.register, processes.Register(processes.Self("m", 1, "1"), "run", LEASE_SECONDS)
        )
        self.model.now = self.scene.clock.now()
        self.model.leases[number] = self.model.now + int(LEASE_SECONDS * SECOND)

    @rule(place=PLACES, seconds=st.sampled_from([5.0, LEASE_SECONDS, 2_000.0]))
    def renew(self, place: int, seconds: float) -> None:
        number = place % (max(self.model.leases, default=0) + 1)
        self.ask(Asked(processes.renew, processes.Renewal(number, seconds), lambda: self.model.renew(number, seconds)))

    @rule(place=PLACES, keep=st.booleans())
    def leave(self, place: int, keep: bool) -> None:
        number = self.some(place, list(self.model.leases))
        if number is not None and not keep:
            self.ask(Asked(processes.leave, (number, probe), lambda: self.model.leave(number)))

    @rule(
        seconds=st.sampled_from([0.3, 0.5, 1.0, 2.0, 19.0, 31.0, 400.0, 40_000.0]),
        reaps=st.booleans(),
        wakes=st.booleans(),
    )
    def time_passes(self, seconds: float, reaps: bool, wakes: bool) -> None:
        self.scene.clock.advance(seconds)
        if reaps:
            self.ask(Asked(processes.reap, processes.Reap(None, probe, RETRIES), self.model.reap))
        if wakes:
            self.ask(Asked(settling.wake_due, None, self.model.wake))

    @rule(place=PLACES, count=st.integers(0, 3))
    def drive(self, place: int, count: int) -> None:
        """A process asks for residents; which ones it gets is the kernel's choice among those that are free."""
        number = self.some(place, list(self.model.leases))
        residents = self.model.residents
        mine = {n for n, r in residents.items() if r.process == number and r.state == "active"}
        free = {n for n, r in residents.items() if r.process is None and r.state == "active"}
        if number is None or count > len(mine | free):
            return
        got = self.scene.call(processes.drive, processes.Drive(number, count, 0))
        assert len(got) == len(set(got)) == count
        assert set(got) <= mine | free
        assert set(got) >= mine or set(got) <= mine
        self.model.drive(number, got)

    # Tasks

    @rule(
        needs=st.lists(PLACES, max_size=2), wanted=st.none() | st.sampled_from(NAMES), priority=st.integers(0, 2),
        waits=st.sampled_from([None, None, -5, 3, 50]), budget=st.sampled_from(BUDGETS),
        max_attempts=st.integers(1, 3), retry=st.sampled_from([1.0, 100.0]), again=st.booleans(),
    )  # fmt: skip
    def post(
        self, needs: list[int], wanted: str | None, priority: int, waits: int | None, budget: tuple[int, int],
        max_attempts: int, retry: float, again: bool,
    ) -> None:  # fmt: skip
        self.posted += 1
        self.model.now = self.scene.clock.now()
        name = f"a{self.posted}"
        known = list(self.model.tasks)
        wants = tuple(dict.fromkeys(known[-1 - need % len(known)] for need in needs)) if known else ()
        start = None if waits is None else self.model.now + waits * SECOND
        new = NewTask(
            id=name, mode="llm", prompt="p", needs=wants, priority=priority, max_micros=budget[0], min_micros=budget[1],
            max_attempts=max_attempts, wanted=wanted, not_before_at=start, retry_seconds=retry,
        )  # fmt: skip
        posting = board.Posting((new,), "operator:test")
        for _ in range(1 + again):  # the second time gives back what the first has posted
            assert [task.id for task in self.scene.call(board.post, posting)] == [name]
        self.model.post(name, wants, wanted, start, *budget, max_attempts, retry)
        other = board.Posting((NewTask(id=name, mode="llm", prompt="q"),), "operator:test")
        assert ruled(self.scene.together([(board.post, other)])[0]) == "board.posted"

    def claim_of(self, place: int, who: list[int], wishes: list[int], old: bool, remote: bool) -> Asked | None:
        """A round of several residents, whose wishes are what the board showed them now, or showed them once."""
        with self.scene.store.view() as view:
            window = claiming.Window()
            shown = window.read(view, 64)
            held = window.held_for(view, dict.fromkeys(NAMES, claiming.WEIGHED))
        for task in [*shown, *(task for tasks in held.values() for task in tasks)]:
            self.records.setdefault(task.id, []).append(task)
        picks, asked = [], []
        for number in who:
            name = NAMES[number % len(NAMES)]
            mine = [*held.get(name, []), *shown]
            if old:
                mine = [task for tasks in self.records.values() for task in tasks[:1]]
            liked = [mine[wish % len(mine)] for wish in wishes] if mine else []
            token = None
            if remote:
                self.tokens += 1
                token = claiming.token_digest(f"token {self.tokens}")
            picks.append(Pick(name, tuple(liked), token, 20.0 if remote else None))
            asked.append((name, [(task.id, task.attempts) for task in liked], token))
        if not picks:
            return None
        alive = [number for number, lease in self.model.leases.items() if lease >= self.scene.clock.now()]
        process = self.some(place, alive) if place and alive else max(self.model.leases, default=0) % 3
        return Asked(claiming.claim, Round(picks, process), lambda: self.model.claim(process, asked), self.read_claims)

    def read_claims(self, answers: Any) -> Any:
        for answer in answers:
            if isinstance(answer, Claimed):
                self.holders[answer.attempt] = answer.holder
                self.claimed[answer.attempt] = answer.task
                assert answer.task.id not in self.done, "a done task never runs again"
        return [answer.attempt if isinstance(answer, Claimed) else answer.rule for answer in answers]

    @rule(
        place=PLACES, who=SOME, wishes=st.lists(PLACES, min_size=1, max_size=4),
        old=st.integers(0, 4).map(lambda n: n == 1), remote=st.integers(0, 3).map(lambda n: n == 1),
    )  # fmt: skip
    def claim(self, place: int, who: list[int], wishes: list[int], old: bool, remote: bool) -> None:
        asked = self.claim_of(place, who, wishes, old, remote)
        if asked is not None:
            self.ask(asked)

    def an_attempt(self, place: int, late: bool) -> Attempt | None:
        """Mostly one that runs; ``late`` any, also one that ended long ago."""
        running = [a for a in self.model.attempts.values() if late or a.state == "running"]
        found: Attempt | None = self.some(place, running)
        return found

    def holder_of(self, attempt: Attempt, stranger: bool) -> tuple[Holder, tuple[int | None, bytes | None]]:
        holder = Holder(7) if stranger else self.holders[attempt.id]
        return holder, (holder.process, holder.token)

    def intent_of(self, place: int, late: bool, stranger: bool, effect: str, worst: int, again: bool) -> Asked | None:
        attempt = self.an_attempt(place, late)
        if attempt is None:
            return None
        holder, held = self.holder_of(attempt, stranger)
        number = max(1, len(attempt.steps) + (not again))
        intent = Intent(attempt.id, number, holder, "tool", "t", effect, "{}", attempt.resident, attempt.task, worst)  # type: ignore[arg-type]
        return Asked(stepping.intend, intent, lambda: self.model.intend(attempt.id, number, held, effect, worst), ruled)

    def result_of(self, place: int, late: bool, stranger: bool, state: str, spent: int) -> Asked | None:
        attempt = self.an_attempt(place, late)
        if attempt is None or not attempt.steps:
            return None
        holder, held = self.holder_of(attempt, stranger)
        number = max(attempt.steps)
        spent = 0 if state == "void" else spent
        result = Result(attempt.id, number, holder, attempt.resident, attempt.task, state, "{}", spent, provider="p")
        return Asked(stepping.record, result, lambda: self.model.record(attempt.id, number, held, state, spent), ruled)

    def ending_of(
        self,
        place: int,
        late: bool,
        stranger: bool,
        kind: str,
        fault: str | None,
        flags: int,
        kernels: bool,
        wait: int | None,
    ) -> Asked | None:
        attempt = self.an_attempt(place, late)
        if attempt is None:
            return None
        holder, held = (None, None) if kernels else self.holder_of(attempt, stranger)
        declined, to_review, hold = (bool(flags & bit) for bit in (1, 2, 4))
        to_review = to_review and not kernels  # only a holder ends its act with people to judge it
        wake = None if wait is None else self.scene.clock.now() + wait * SECOND
        item = Settlement(
            attempt.id, holder, kind, "r", Outcome(fault=fault), None, "quota", wake, declined,  # type: ignore[arg-type]
            to_review, hold, end_attempt=probe, retries=RETRIES,
            task=self.claimed[attempt.id] if flags & 16 else None,
        )  # fmt: skip
        return Asked(
            settling.settle, item,
            lambda: self.model.settle(
                attempt.id, held, kind, fault=fault, declined=declined, to_review=to_review, hold=hold,
                parked_for="quota", wake_at=wake,
            ),
            lambda answer: answer.rule if isinstance(answer, VivariumError) else answer.task_state,
        )  # fmt: skip

    steps = st.tuples(
        PLACES, RARELY, RARELY, st.sampled_from(["idempotent", "once"]), st.sampled_from([0, 10, 60, 400]),
        RARELY,
    )  # fmt: skip
    results = st.tuples(
        PLACES,
        RARELY,
        RARELY,
        st.sampled_from(["done", "unknown", "void"]),
        st.sampled_from([0, 5, 60, 999]),
    )
    endings = st.tuples(
        PLACES, RARELY, RARELY, KINDS, FAULTS, st.integers(0, 31), RARELY,
        st.sampled_from([None, 0, 5]),
    )  # fmt: skip

    @rule(asked=steps)
    def intend(self, asked: Any) -> None:
        if found := self.intent_of(*asked):
            self.ask(found)

    @rule(first=steps, second=results)
    def step(self, first: Any, second: Any) -> None:
        """An intent and, after it, a result."""
        self.intend(first)
        if found := self.result_of(first[0], *second[1:]):
            self.ask(found)

    @rule(asked=endings)
    def settle(self, asked: Any) -> None:
        if found := self.ending_of(*asked):
            self.ask(found)

    @rule(
        who=SOME, asked=steps, effect=st.sampled_from(["once", "idempotent"]),
        ending=endings, seconds=st.sampled_from([0.0, 0.0, 1.0, 25.0, 31.0]), times=st.integers(1, 3),
    )  # fmt: skip
    def days(self, who: list[int], asked: Any, effect: str, ending: Any, seconds: float, times: int) -> None:
        """What residents do all day: claim, act for a while, settle."""
        for _ in range(times):
            self.claim(1, who, [0, 1, 2, 3], False, False)
            self.intend((asked[0], False, False, effect, asked[4], False))
            self.time_passes(seconds, seconds > 30, True)
            self.settle(ending)

    @rule(
        first=st.lists(results, max_size=2), second=st.lists(steps, max_size=2), third=st.lists(endings, max_size=3),
        claims=st.lists(st.tuples(PLACES, st.lists(st.integers(0, 3), min_size=1, max_size=3)), max_size=2),
        carefully=st.booleans(),
    )  # fmt: skip
    def many(self, first: Any, second: Any, third: Any, claims: Any, carefully: bool) -> None:
        """What waits at the same time shares a commit."""
        found = [self.result_of(*asked) for asked in first]
        found += [self.intent_of(*asked) for asked in second]
        # Of two words on one attempt in one commit the first stands, so that only holders speak here.
        found += [self.ending_of(*(*asked[:6], False, asked[7])) for asked in third]
        found += [self.claim_of(place, who, [0, 1, 2], False, False) for place, who in claims]
        self.ask_together([asked for asked in found if asked is not None], carefully)

    # People

    @rule(place=PLACES, what=st.sampled_from(["approve", "reject", "requeue", "cancel"]))
    def decide(self, place: int, what: Any) -> None:
        name = self.some(place, list(self.model.tasks))
        if name is not None:
            decision = deciding.Decision(name, what, "human:test", "because", probe, RETRIES)
            self.ask(Asked(deciding.decide, decision, lambda: self.model.decide(name, what),
                           lambda answer: answer.rule if isinstance(answer, VivariumError) else None))  # fmt: skip

    @rule(place=PLACES, name=st.sampled_from(NAMES), own=st.booleans())
    def decline(self, place: int, name: str, own: bool) -> None:
        task = self.some(place, list(self.model.tasks))
        if own and (attempt := self.model.running(name)):
            task = attempt.task
        if task is not None:
            asked = deciding.Declining(task, name, "no", probe)
            self.ask(Asked(deciding.decline, asked, lambda: self.model.decline(task, name),
                           lambda answer: answer.rule if isinstance(answer, VivariumError) else None))  # fmt: skip

    @rule(place=PLACES, ask=st.booleans())
    def safety_stops(self, place: int, ask: bool) -> None:
        name = self.some(place, list(self.model.tasks))
        if name is not None and ask:
            self.ask(Asked(deciding.ask_approval, (name, Verdict("ask", "r")), lambda: self.model.ask(name)))
        elif name is not None and place % 3 == 0:
            self.ask(Asked(deciding.block, (name, Verdict("deny", "r"), probe), lambda: self.model.block(name)))

    @rule(name=st.sampled_from(NAMES), state=st.sampled_from(["active", "active", "paused", "quarantined", "retired"]))
    def change(self, name: str, state: Any) -> None:
        if state != "retired" or name == "dov":
            asked = people.Change(name, state, "operator:test", "because", probe)
            self.ask(Asked(people.change, asked, lambda: self.model.change(name, state),
                           lambda answer: answer.rule if isinstance(answer, VivariumError) else None))  # fmt: skip

    @rule(what=st.sampled_from(["paused", "halted"]), on=st.integers(0, 3))
    def switch(self, what: str, on: int) -> None:
        self.scene.call(control.switch, control.Switch(what, on == 1, "operator:test"))
        setattr(self.model, what, on == 1)

    @rule(state=st.sampled_from(["done", "failed", "cancelled", "blocked"]))
    def clear(self, state: str) -> None:
        self.ask(Asked(deciding.clear, (state, "operator:test"), lambda: self.model.clear(state)))

    # What must hold after each step

    @invariant()
    def the_board_is_its_model(self) -> None:
        rows = self.scene.rows(
            "SELECT id, state, parked_for, wake_at, held_for, failures, faults, declined, continues, attempts, "
            "retry_until_at FROM tasks ORDER BY seq"
        )
        found = [(*row[:7], tuple(json.loads(row[7])) if row[7] else (), *row[8:]) for row in rows]
        for row, task in zip(found, self.model.tasks.values(), strict=True):
            assert row == task.shown()
        rows = self.scene.rows(
            "SELECT id, task, resident, state, ending, reserved_micros, spent_micros, pending_micros, continues "
            "FROM attempts ORDER BY id"
        )
        for row, attempt in zip(rows, self.model.attempts.values(), strict=True):
            assert row == attempt.shown()
        steps = self.scene.rows("SELECT attempt, number, state FROM steps ORDER BY attempt, number")
        assert steps == [
            (a.id, number, step[2]) for a in self.model.attempts.values() for number, step in sorted(a.steps.items())
        ]

    @invariant()
    def budgets_return(self) -> None:
        budgets = {row[0]: list(row[1:]) for row in self.scene.rows(
            "SELECT scope, cap, reserved, spent FROM budgets WHERE currency = 'usd'")}  # fmt: skip
        assert budgets == self.model.budgets
        running = [a for a in self.model.attempts.values() if a.state == "running"]
        assert budgets["village"][1] == sum(a.reserved for a in running)
        assert budgets["village"][2] == sum(a.spent for a in self.model.attempts.values() if a.state != "running")
        # What was charged is what went to the provider.
        paid = self.scene.rows("SELECT coalesce(sum(micros), 0) FROM transfers WHERE reason = 'model_call'")[0][0]
        assert paid == sum(a.spent for a in self.model.attempts.values())
        self.scene.check_books()

    @invariant()
    def nobody_does_two_things_at_once(self) -> None:
        running = Counter(row[0] for row in self.scene.rows("SELECT resident FROM attempts WHERE state = 'running'"))
        assert not running or max(running.values()) == 1
        claimed = self.scene.rows("SELECT id FROM tasks WHERE state = 'claimed' ORDER BY id")
        assert claimed == self.scene.rows("SELECT task FROM attempts WHERE state = 'running' ORDER BY task")
        reviewed = self.scene.rows("SELECT id FROM tasks WHERE state = 'review' ORDER BY id")
        assert reviewed == self.scene.rows("SELECT task FROM attempts WHERE state = 'review' ORDER BY task")

    @invariant()
    def dependencies_need_done(self) -> None:
        runs = self.scene.rows(
            "SELECT t.id FROM dependencies d JOIN tasks t ON t.id = d.task JOIN tasks n ON n.id = d.needs "
            "WHERE n.state <> 'done' AND t.state NOT IN ('waiting', 'failed', 'cancelled', 'blocked')"
        )
        assert runs == []

    @invariant()
    def every_change_has_its_event(self) -> None:
        told: set[str] = set()
        for _, kind, task, attempt, data in self.scene.new_events():
            told.add(task)
            self.probed[attempt] += kind == "probe.ended" and attempt is not None
            if kind == "attempt.ended":
                self.ended[attempt] += 1
                if json.loads(data)["task_state"] == "done":
                    assert task not in self.done, "a done task was done again"
                    self.done.add(task)
        now = {row[0]: row[1] for row in self.scene.rows("SELECT id, state FROM tasks")}
        changed = {name for name, state in now.items() if self.states.get(name) != state}
        changed |= set(self.states) - set(now)
        assert changed <= told, "these changed without an event"
        self.states = now
        ended = {a.id for a in self.model.attempts.values() if a.state == "ended"}
        assert ended == {number for number, times in self.ended.items() if times}
        assert set(self.ended.values()) | set(self.probed.values()) <= {0, 1}, "each attempt ends once"
        assert {number for number, times in self.probed.items() if times} == ended
        assert all(now[name] == "done" for name in self.done if name in now)


def run(examples: int, steps: int, *, shrink: bool = True) -> None:
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    run_state_machine_as_test(
        BoardMachine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, derandomize=not shrink, database=None,
            phases=phases, report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.promise(
    "board-model", "lapsed-lease", "one-cycle-at-a-time", "dependencies-need-done", "idempotent-post",
    "one-transaction-events", "budget-returns",
)  # fmt: skip
def test_the_board_agrees_with_its_model() -> None:
    run(60, 30)


@pytest.mark.long
@pytest.mark.promise("board-model")
def test_the_board_agrees_with_its_model_for_long() -> None:
    run(20_000, 80)
