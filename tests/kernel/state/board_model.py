"""The board as a small model: tasks, attempts, budgets and leases as plain objects, written from docs/rules.md.

Every function does what one request to the kernel should do, and answers what the kernel should answer: a value, or the
name of the rule that refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import define, field

ENDED = ("done", "failed", "cancelled", "blocked")
DAY = 86_400_000_000
SECOND = 1_000_000


@define
class Task:
    id: str
    seq: int
    needs: tuple[str, ...]
    wanted: str | None
    min_micros: int
    max_attempts: int
    posted_at: int
    retry_until_at: int
    state: str
    parked_for: str | None = None
    wake_at: int | None = None
    held_for: str | None = None
    failures: int = 0
    faults: int = 0
    declined: tuple[str, ...] = ()
    continues: int | None = None
    attempts: int = 0
    approved: bool = False
    lost_a_need: bool = False  # and failed for it

    def shown(self) -> tuple[Any, ...]:
        return (
            self.id, self.state, self.parked_for, self.wake_at, self.held_for, self.failures, self.faults,
            self.declined, self.continues, self.attempts, self.retry_until_at,
        )  # fmt: skip


@define
class Attempt:
    id: int
    task: str
    resident: str
    holder: tuple[int | None, bytes | None]  # process, or a remote job's token
    lease_until_at: int | None  # a remote job's own
    reserved: int
    day: int
    continues: int | None
    state: str = "running"
    ending: str | None = None
    spent: int = 0
    steps: dict[int, list[Any]] = field(factory=dict)  # number -> effect, worst case, state

    @property
    def open_steps(self) -> dict[int, list[Any]]:
        return {number: step for number, step in self.steps.items() if step[2] == "intended"}

    @property
    def pending(self) -> int:
        return sum(step[1] for step in self.open_steps.values()) if self.state == "running" else 0

    def shown(self) -> tuple[Any, ...]:
        return (self.id, self.task, self.resident, self.state, self.ending, self.reserved, self.spent, self.pending,
                self.continues)  # fmt: skip


@define
class Resident:
    state: str = "active"
    process: int | None = None
    cycles: int = 0


@define
class Board:
    now: int
    caps: dict[str, int]  # of village, resident-day and village-day, if there are any
    tasks: dict[str, Task] = field(factory=dict)
    attempts: dict[int, Attempt] = field(factory=dict)
    residents: dict[str, Resident] = field(factory=dict)
    leases: dict[int, int] = field(factory=dict)  # of processes that have not ended
    budgets: dict[str, list[int]] = field(factory=dict)  # cap, reserved, spent
    paused: bool = False
    halted: bool = False

    def __attrs_post_init__(self) -> None:
        self.budgets = {scope: [cap, 0, 0] for scope, cap in self.caps.items()}

    # Posting

    def post(
        self, name: str, needs: tuple[str, ...], wanted: str | None, not_before: int | None, max_micros: int,
        min_micros: int, max_attempts: int, retry_seconds: float,
    ) -> None:  # fmt: skip
        task = Task(
            name, max((t.seq for t in self.tasks.values()), default=0) + 1, needs, wanted, min_micros, max_attempts,
            self.now, self.now + int(retry_seconds * SECOND), "open", held_for=wanted,
        )  # fmt: skip
        self.tasks[name] = task
        if max_micros:
            self.budgets[f"task:{name}"] = [max_micros, 0, 0]
        if any(self.tasks[need].state != "done" for need in needs):
            task.state, task.wake_at = "waiting", not_before
            if any(self.tasks[need].state in ENDED[1:] for need in needs):
                task.lost_a_need = True
                self._end(task, "failed")
        elif not_before is not None and not_before > self.now:
            task.state, task.parked_for, task.wake_at = "parked", "time", not_before

    def _end(self, task: Task, state: str) -> None:
        """A task ends: those that wait for it open when all they need is done, or fail with it."""
        task.state, task.parked_for, task.wake_at = state, None, None
        for other in [t for t in self.tasks.values() if task.id in t.needs and t.state == "waiting"]:
            if state != "done":
                other.lost_a_need = True
                self._end(other, "failed")
            elif all(self.tasks[need].state == "done" for need in other.needs):
                if other.wake_at is not None and other.wake_at > self.now:
                    other.state, other.parked_for = "parked", "time"
                else:
                    self._open(other)

    def _open(self, task: Task) -> None:
        """People are asked about one that the only resident who may take it has declined."""
        stuck = task.wanted is not None and task.wanted in task.declined
        task.state, task.parked_for = ("parked", "answer") if stuck else ("open", None)
        task.wake_at = None

    # Claiming

    def running(self, resident: str) -> Attempt | None:
        return next((a for a in self.attempts.values() if a.resident == resident and a.state == "running"), None)

    def claim(self, process: int, picks: list[tuple[str, list[tuple[str, int]], bytes | None]]) -> list[Any]:
        """Picks are (resident, wishes as (task, how often it had been tried), token). Answers attempts or refusals."""
        if self.halted or self.paused:
            return ["village.halted" if self.halted else "village.paused"] * len(picks)
        if self.leases.get(process, -1) < self.now:
            return ["process.lapsed"] * len(picks)
        answers: list[Any] = [None] * len(picks)
        taken: list[Task] = []
        tried: dict[int, list[Task]] = {place: [] for place in range(len(picks))}
        free = {n for n, r in self.residents.items() if r.state == "active" and self.running(n) is None}
        looking = list(tried)
        while looking:  # who was refused a wish looks at its next ones, once all others have theirs
            winners = self._match(picks, looking, free, taken, tried, answers)
            looking = []
            for place, task in winners.items():
                refused = self._set_aside(task, picks[place][0])
                if isinstance(refused, str):
                    answers[place] = answers[place] or refused
                    tried[place].append(task)
                    looking.append(place)
                    continue
                taken.append(task)
                answers[place] = self._claimed(process, task, picks[place][0], picks[place][2], refused)
        return answers

    def _match(
        self,
        picks: list[tuple[str, list[tuple[str, int]], bytes | None]],
        looking: list[int],
        free: set[str],
        taken: list[Task],
        tried: dict[int, list[Task]],
        answers: list[Any],
    ) -> dict[int, Task]:
        """Each of those that look its best wish that is left; what there is none for is answered."""
        winners: dict[int, Task] = {}
        matched: set[str] = set()
        for place in looking:
            name, wishes, _ = picks[place]
            if name not in free or name in matched:
                answers[place] = answers[place] or "resident.busy"
                continue
            for wish, tries in wishes:
                task = self.tasks.get(wish)
                if task is None or (task.state, task.attempts) != ("open", tries):
                    continue
                if task not in taken and task not in winners.values() and task not in tried[place]:
                    winners[place] = task
                    matched.add(name)
                    break
            else:
                answers[place] = answers[place] or "taken"
        return winners

    def _claimed(self, process: int, task: Task, name: str, token: bytes | None, reserved: int) -> int:
        task.state, task.wake_at, task.attempts = "claimed", None, task.attempts + 1
        self.residents[name].cycles += 1
        number = len(self.attempts) + 1
        self.attempts[number] = Attempt(
            number, task.id, name, (None, token) if token else (process, None),
            self.now + 20 * SECOND if token else None, reserved, self.now // DAY, task.continues,
        )  # fmt: skip
        return number

    def scopes(self, task: str, resident: str, day: int) -> list[str]:
        found = [f"task:{task}", "village", f"resident-day:{resident}:{day}", f"village-day:{day}"]
        for scope in found[2:]:
            kind = scope.partition(":")[0]
            if kind in self.caps:
                self.budgets.setdefault(scope, [self.caps[kind], 0, 0])
        return [scope for scope in found if scope in self.budgets]

    def _set_aside(self, task: Task, resident: str) -> int | str:
        cap, reserved, spent = self.budgets.get(f"task:{task.id}", (0, 0, 0))
        left = cap - reserved - spent
        if not cap:
            return 0
        if left < task.min_micros:
            self._end(task, "failed")
            return "budget.min"
        if not left:
            return 0
        scopes = self.scopes(task.id, resident, self.now // DAY)
        for scope in scopes:
            if sum(self.budgets[scope][1:]) + left > self.budgets[scope][0]:
                cap, _, spent = self.budgets[scope]
                if spent + left <= cap:
                    return "budget.cap"  # it stays open: what is set aside comes back
                if scope.startswith("village"):
                    tomorrow = (self.now // DAY + 1) * DAY if scope != "village" else None
                    task.state, task.parked_for, task.wake_at = "parked", "quota", tomorrow
                return "budget.cap"
        for scope in scopes:
            self.budgets[scope][1] += left
        return left

    # Steps

    def holds(self, attempt: Attempt | None, holder: tuple[int | None, bytes | None]) -> bool:
        if attempt is None or attempt.state != "running" or attempt.holder != holder:
            return False
        lease = attempt.lease_until_at if attempt.lease_until_at is not None else self.leases.get(holder[0] or 0, -1)
        return lease >= self.now

    def intend(self, number: int, step: int, holder: Any, effect: str, worst: int) -> str | None:
        attempt = self.attempts.get(number)
        if attempt is None or not self.holds(attempt, holder):
            return "attempt.lapsed"
        if worst > attempt.reserved - attempt.spent - attempt.pending:
            return "budget.step"
        if step in attempt.steps:
            return "step.written"
        attempt.steps[step] = [effect, worst, "intended"]
        return None

    def record(self, number: int, step: int, holder: Any, state: str, spent: int) -> str | None:
        attempt = self.attempts.get(number)
        if attempt is None or not self.holds(attempt, holder) or step not in attempt.open_steps:
            return "attempt.lapsed"
        attempt.spent += min(spent, attempt.steps[step][1])
        attempt.steps[step][2] = state
        return None

    # Endings

    def settle(
        self, number: int, holder: Any, kind: str, *, fault: str | None = None, declined: bool = False,
        to_review: bool = False, hold: bool = False, parked_for: str | None = None, wake_at: int | None = None,
    ) -> str:  # fmt: skip
        """Answers the task's new state, or the rule that refuses. ``holder`` None is the kernel's own word."""
        attempt = self.attempts.get(number)
        if attempt is None or attempt.state == "ended" or (holder is not None and not self.holds(attempt, holder)):
            return "attempt.lapsed"
        task = self.tasks[attempt.task]
        if attempt.state == "running":
            for step in attempt.open_steps.values():
                step[2] = "unknown"
                attempt.spent += step[1]
                to_review |= step[0] == "once" and kind in ("lapsed", "released", "failed")
            if attempt.reserved:
                for scope in self.scopes(task.id, attempt.resident, attempt.day):
                    self.budgets[scope][1] -= attempt.reserved
                    self.budgets[scope][2] += attempt.spent
        acted = attempt.state == "running"
        attempt.state, attempt.ending = ("review", None) if to_review else ("ended", kind)
        if to_review:
            task.state = "review"
        else:
            self._after(task, attempt, kind, fault, declined, parked_for, wake_at)
        keeps = kind in ("parked", "lapsed", "released") and acted and not declined and task.state not in ENDED
        task.continues = number if keeps else None
        task.held_for = attempt.resident if keeps and hold else task.wanted
        return task.state

    def _after(
        self, task: Task, attempt: Attempt, kind: str, fault: str | None, declined: bool, parked_for: str | None,
        wake_at: int | None,
    ) -> None:  # fmt: skip
        task.parked_for = task.wake_at = None
        if kind in ("accepted", "cancelled", "blocked"):
            self._end(task, "done" if kind == "accepted" else kind)
        elif kind == "parked":
            task.state, task.parked_for, task.wake_at = "parked", parked_for or "answer", wake_at
        elif kind in ("failed", "rejected"):
            task.failures += fault != "invalid"
            if fault == "invalid" or task.failures >= task.max_attempts:
                self._end(task, "failed")
            else:
                self._back_off(task, task.failures)
        elif declined:
            task.declined = (*task.declined, attempt.resident)
            task.state = "open"
            if task.wanted == attempt.resident:
                task.state, task.parked_for = "parked", "answer"
        elif kind == "released" and fault is None:
            task.state = "open"
        else:
            task.faults += 1
            if self.now >= task.retry_until_at:
                self._end(task, "failed")
            elif kind == "lapsed" and task.faults == 1:
                task.state = "open"
            else:
                self._back_off(task, task.faults)

    def _back_off(self, task: Task, tries: int) -> None:
        pause = min(300 * SECOND, SECOND // 2 * 2 ** (tries - 1))
        task.state, task.parked_for, task.wake_at = "parked", "backoff", self.now + pause

    # Time and processes

    def wake(self) -> int:
        due = [
            t for t in self.tasks.values() if t.state == "parked" and t.wake_at is not None and t.wake_at <= self.now
        ]
        for task in due:
            self._open(task)
        return len(due)

    def renew(self, process: int, seconds: float) -> bool:
        if self.leases.get(process, -1) < self.now:
            return False
        self.leases[process] = self.now + int(seconds * SECOND)
        return True

    def leave(self, process: int) -> None:
        self._end_process(process, "released")

    def reap(self) -> int:
        gone = [number for number, lease in self.leases.items() if lease < self.now]
        ended = sum(self._end_process(number, "lapsed") for number in gone)
        for attempt in self.attempts.values():
            if attempt.state == "running" and attempt.lease_until_at is not None and attempt.lease_until_at < self.now:
                self.settle(attempt.id, None, "lapsed", hold=True)
                ended += 1
        for task in self.tasks.values():
            if task.state == "open" and task.held_for is not None and task.wanted is None:
                keeper = self.residents[task.held_for]
                if keeper.process is None or keeper.state != "active":
                    task.held_for = None
        return ended

    def _end_process(self, process: int, kind: str) -> int:
        self.leases.pop(process, None)
        for resident in self.residents.values():
            resident.process = None if resident.process == process else resident.process
        mine = [a for a in self.attempts.values() if a.state == "running" and a.holder[0] == process]
        for attempt in mine:
            self.settle(attempt.id, None, kind, hold=kind == "lapsed")
        return len(mine)

    # People

    def decide(self, name: str, what: str) -> str | None:
        task = self.tasks[name]
        awaited = task.state == "parked" and task.parked_for in ("approval", "answer", "key")
        attempt = next((a for a in self.attempts.values() if a.task == name and a.state != "ended"), None)
        if what in ("approve", "reject"):
            if task.state == "review" and attempt is not None:
                self.settle(attempt.id, None, "accepted" if what == "approve" else "rejected")
            elif awaited and what == "approve":
                task.approved = task.approved or task.parked_for == "approval"
                task.state, task.parked_for, task.wake_at, task.declined = "open", None, None, ()
            elif awaited:
                self._end(task, "blocked")
            else:
                return "board.state"
        elif what == "cancel":
            if task.state in ENDED:
                return "board.state"
            if attempt is not None:
                self.settle(attempt.id, None, "cancelled")
            else:
                self._end(task, "cancelled")
        else:
            return self._requeue(task, attempt)
        return None

    def _requeue(self, task: Task, attempt: Attempt | None) -> str | None:
        if task.state in ("claimed", "open", "waiting", "done"):
            return "board.state"
        if self._has_lost_a_need(task):
            return "board.needs"
        if attempt is not None:
            self.settle(attempt.id, None, "released")
        self._put_back(task)
        return None

    def _has_lost_a_need(self, task: Task) -> bool:
        return any(self.tasks[need].state in ENDED and self.tasks[need].state != "done" for need in task.needs)

    def _put_back(self, task: Task) -> None:
        lacks = any(self.tasks[need].state != "done" for need in task.needs)
        task.state, task.parked_for, task.wake_at = "waiting" if lacks else "open", None, None
        task.failures = task.faults = 0
        task.declined, task.continues, task.held_for = (), None, task.wanted
        task.retry_until_at = max(task.retry_until_at, self.now + task.retry_until_at - task.posted_at)
        task.lost_a_need = False
        for other in [t for t in self.tasks.values() if task.id in t.needs and t.lost_a_need]:
            if other.state == "failed" and not self._has_lost_a_need(other):
                self._put_back(other)

    def decline(self, name: str, resident: str) -> str | None:
        task, attempt = self.tasks[name], self.running(resident)
        if attempt is not None and attempt.task == name:
            self.settle(attempt.id, None, "released", declined=True)
        elif task.state in ("open", "waiting", "parked"):
            task.declined += () if resident in task.declined else (resident,)
            if task.wanted == resident and task.state == "open":
                task.state, task.parked_for = "parked", "answer"
        else:
            return "board.state"
        return None

    def block(self, name: str) -> bool:
        if self.tasks[name].state not in ("open", "waiting", "parked"):
            return False
        self._end(self.tasks[name], "blocked")
        return True

    def ask(self, name: str) -> bool:
        task = self.tasks[name]
        if task.state != "open" or task.approved:
            return False
        task.state, task.parked_for, task.wake_at = "parked", "approval", None
        return True

    def change(self, name: str, state: str) -> str | None:
        resident = self.residents[name]
        if resident.state == state:
            return None
        if resident.state in ("banned", "retired"):
            return "resident.for_good"
        resident.state = state
        attempt = self.running(name)
        if state in ("quarantined", "banned", "retired") and attempt is not None:
            self.settle(attempt.id, None, "released")
        if state != "active":
            for task in self.tasks.values():
                if task.held_for == name and task.wanted is None:
                    task.held_for = None
        return None

    def clear(self, state: str) -> int:
        tried = {attempt.task for attempt in self.attempts.values()}
        needed = {need for task in self.tasks.values() for need in task.needs}
        gone = [t.id for t in self.tasks.values() if t.state == state and t.id not in tried | needed]
        for name in gone:
            del self.tasks[name]
            self.budgets.pop(f"task:{name}", None)
        return len(gone)

    def drive(self, process: int, names: Iterable[str]) -> None:
        for name, resident in self.residents.items():
            if name in names:
                resident.process = process
            elif resident.process == process:
                resident.process = None
