"""The room of the call loop: every hook implementation is called here, under its hook's error policy.

pluggy keeps the specs, the registration and its validation; the loop is ours, because one implementation that fails
must neither lose the others' answers nor go unnamed. Everything that an implementation may do wrong is contained here
(any exception, ``SystemExit`` and ``KeyboardInterrupt`` among them, an answer of a wrong type, an endless await) and is
recorded under its plugin's name. Only a cancellation from outside passes through.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import chain
from typing import Any, Protocol

from msgspec import Struct

from vivarium_kernel import answers
from vivarium_kernel.answers import FLOOR
from vivarium_kernel.around import Around, HookFailed, OfTask
from vivarium_kernel.errors import Conflict
from vivarium_kernel.health import Call, Health, SwitchedOff, describe
from vivarium_kernel.offering import offered_by
from vivarium_kernel.offers import Offers
from vivarium_kernel.plugins import Plugin, ordered, switch_off
from vivarium_kernel.records import (
    Claim,
    Ending,
    Entitlement,
    Event,
    NewTask,
    Outcome,
    Resident,
    Review,
    Section,
    Subject,
    Task,
    Verdict,
)
from vivarium_kernel.runs import Implementation, Refuse, Runner, Tx, implementations
from vivarium_kernel.terms import BUILT_IN_MODES
from vivarium_kernel.watchdog import Mark

__all__ = ["FLOOR", "Call", "Health", "HookFailed", "Hooks", "Refuse", "Refused", "Safety", "Scores", "SwitchedOff"]


class Refused(Conflict):
    """A claim that a plugin refused, or whose needed plugin could not reserve."""

    def __init__(self, plugin: str, reason: str) -> None:
        super().__init__("claim.refused", f"{plugin}: {reason}")
        self.plugin, self.reason = plugin, reason


class Safety(Struct, frozen=True):
    """What all safety checks said. ``culprit`` is a plugin that could not judge: the task is reopened, uncounted.

    A denial by a verdict stands whatever the culprit would have said; then ``culprit`` is None.
    """

    verdict: Verdict
    by: Sequence[tuple[str, Verdict]] = ()
    culprit: str | None = None


class Scores(Struct, frozen=True):
    """What each plugin gave a batch of tasks, in the order of ``names`` (weight, one score a task), and their mean."""

    names: Sequence[str]
    rows: Sequence[tuple[float, list[float]]]
    mean: list[float]

    def of(self, place: int) -> list[tuple[str, float, float]]:
        """Who gave one task what: (plugin, score, weight)."""
        return [(name, row[place], weight) for name, (weight, row) in zip(self.names, self.rows, strict=True)]


class _InUse:
    """Counts one that uses a set of plugins, while its body runs."""

    __slots__ = ("_hooks",)

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def __enter__(self) -> None:
        self._hooks.users += 1

    def __exit__(self, *_: object) -> None:
        self._hooks.users -= 1


class View(Protocol):
    """What the loop needs of a read snapshot: each plugin's own view."""

    def plugin(self, name: str, /) -> Any: ...


class Hooks:
    """One set of plugins, ready to be called.

    ``timeouts=False`` is for simulations, where time is not real. ``weights`` are the scorers' by plugin (default 1).
    ``mark`` is where a call is noted while it holds its thread (see ``watchdog.py``).
    """

    def __init__(
        self,
        plugins: Sequence[Plugin],
        health: Health,
        *,
        timeouts: bool = True,
        timeout_seconds: float = 10.0,
        mark: Mark | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.plugins = tuple(ordered(plugins))
        self.failed: list[Call] = []  # registrations that failed: their plugins' items are withdrawn
        self._health = health
        self._runner = Runner(health, timeout_seconds if timeouts else None)
        self._names = frozenset(plugin.name for plugin in self.plugins)
        self._by_hook = implementations(self.plugins, health, mark, weights or {})
        self._registering = ["register_actions", "register_routes", "register_panels"]
        for plugin in self.plugins:
            self._registering += [spec.name for spec in offered_by(type(plugin)) if spec.kind == "register"]
        self.offered = Offers(self.plugins, self._runner, self._by_hook, lambda hook: self._registrations()[hook], mark)
        checks = self._by_hook["check_safety"]
        guards = {plugin.name: plugin.guards for plugin in self.plugins}
        kinds = {kind for guarded in guards.values() for kind in guarded or ()}
        # Whether what a plugin says of who may take what can depend on its tables.
        self.reads_to_claim = any(
            each.granted for hook in ("entitle", "claim_filter", "claim_score") for each in self._by_hook[hook]
        )
        # The modes that are executed here; None where a plugin of its own may execute any.
        self.modes: frozenset[str] | None = _modes(self.plugins, self.names("execute_task"))
        self._unguarded = tuple(each for each in checks if guards[each.plugin] is None)
        self._guards = {
            kind: tuple(each for each in checks if guards[each.plugin] is None or kind in (guards[each.plugin] or ()))
            for kind in kinds
        }
        self._registered: dict[str, list[tuple[str, Any]]] | None = None
        self.users = 0  # cycles that began with this set and have not ended

    def in_use(self) -> _InUse:
        """While a cycle that began with this set goes on: its plugins are not shut down."""
        return _InUse(self)

    def has(self, hook: str) -> bool:
        """Whether any plugin implements the hook, switched off or not."""
        return bool(self._by_hook[hook])

    def names(self, hook: str) -> list[str]:
        """The plugins that implement the hook, in the order in which they are called."""
        return [implementation.plugin for implementation in self._by_hook[hook]]

    def weights(self, hook: str) -> dict[str, float]:
        """What the word of each plugin that implements the hook weighs, in the order in which they are called."""
        return {implementation.plugin: implementation.weight for implementation in self._by_hook[hook]}

    # Opening, closing and registering

    async def startup(self, village: Any, only: Container[str] | None = None) -> list[Call]:
        """Every run, failed or not, of these plugins or of all."""
        return [
            await self._runner.wait(each, (village,), self._runner.limit)
            for each in self._on("startup")
            if only is None or each.plugin in only
        ]

    async def shutdown(self, village: Any, only: Container[str] | None = None) -> list[Call]:
        """Every run, failed or not, of these plugins or of all, in the reverse order of the start."""
        return [
            await self._runner.wait(each, (village,), self._runner.limit)
            for each in reversed(self._on("shutdown"))
            if only is None or each.plugin in only
        ]

    def register_actions(self) -> list[tuple[str, Any]]:
        return self._registrations()["register_actions"]

    def register_routes(self) -> list[tuple[str, Any]]:
        return self._registrations()["register_routes"]

    def register_panels(self) -> list[tuple[str, Any]]:
        return self._registrations()["register_panels"]

    def _registrations(self) -> dict[str, list[tuple[str, Any]]]:
        """All at once: a plugin that fails in one of them has its items of all withdrawn."""
        if self._registered is None:
            hooks = self._registering
            calls = [
                self._runner.run(each, ()) if each.tally.off is None else self._runner.skipped(each)
                for hook in hooks
                for each in self._by_hook[hook]
            ]
            self.failed = [call for call in calls if call.error is not None]
            withdrawn = {call.plugin for call in self.failed}
            self._registered = {
                hook: [
                    (call.plugin, item)
                    for call in calls
                    if call.hook == hook and call.plugin not in withdrawn
                    for item in call.value
                ]
                for hook in hooks
            }
        return self._registered

    # Claim

    def propose_activity(self, resident: Resident, view: View) -> list[tuple[str, NewTask]]:
        return self._collect("propose_activity", (resident,), view)

    def entitle(self, resident: Resident, view: View) -> Entitlement:
        """The smallest of each limit; who fails or is off says :data:`FLOOR`; no limits when nobody says any."""
        said = []
        for each in self._by_hook["entitle"]:
            if each.tally.off is not None and not self._health.probes(each.tally):
                said.append(FLOOR)
                continue
            call = self._runner.run(each, (resident, view.plugin(each.plugin) if each.granted else None))
            if call.error is not None:
                said.append(FLOOR)
            elif call.value is not None:
                said.append(call.value)
        return answers.smallest(said)

    def claim_filter(self, resident: Resident, tasks: Sequence[Task], view: View) -> dict[str, list[tuple[str, str]]]:
        """Who refused which tasks, and why. A task whose needed plugin is absent, off or failing is refused too."""
        tasks = tuple(tasks)
        refused: dict[str, list[tuple[str, str]]] = {}
        for each in self._by_hook["claim_filter"]:
            if each.tally.off is not None:
                continue
            call = self._runner.run(each, (resident, tasks, view.plugin(each.plugin) if each.granted else None))
            if call.error is None:
                for reject in call.value:
                    refused.setdefault(reject.task_id, []).append((each.plugin, reject.reason))
            else:
                for task in tasks:
                    if each.plugin in task.plugins:
                        refused.setdefault(task.id, []).append((each.plugin, _needed(call)))
        for task in tasks:
            for name in task.plugins:
                missing = self.missing(name)
                if missing:
                    refused.setdefault(task.id, []).append((name, missing))
        return refused

    def missing(self, plugin: str) -> str:
        """Why a task that needs this plugin can't run now; empty when it can."""
        if plugin not in self._names:
            return f"the task needs plugin {plugin!r}, which is not enabled"
        for hook, cause in self._health.switched_off.get(plugin, {}).items():
            return f"the task needs plugin {plugin!r}, which is off on {hook}: {cause}"
        return ""

    def claim_score(self, resident: Resident, tasks: Sequence[Task], view: View) -> list[float]:
        """One float from 0 to 1 a task; zeros when nobody scored. Scores out of range are clamped and recorded."""
        return self.claim_scores(resident, tasks, view).mean

    def claim_scores(self, resident: Resident, tasks: Sequence[Task], view: View) -> Scores:
        """The same with the row of each plugin that scored."""
        tasks = tuple(tasks)
        rows: list[tuple[float, list[float]]] = []
        names: list[str] = []
        for each in self._by_hook["claim_score"]:
            if each.tally.off is not None:
                continue
            call = self._runner.run(each, (resident, tasks, view.plugin(each.plugin) if each.granted else None))
            row = call.value
            if not row:
                continue
            if min(row) < 0.0 or max(row) > 1.0:
                what = f"scores from {min(row):g} to {max(row):g} were clamped to 0..1"
                self._health.note(each.tally, call.seconds, what)
                row = [min(1.0, max(0.0, score)) for score in row]
            rows.append((each.weight, row))
            names.append(each.plugin)
        return Scores(names, rows, answers.mean(rows, len(tasks)))

    def claim_reserve(self, claim: Claim, tx: Tx) -> None:
        """Let every plugin reserve; :class:`Refused` when one refuses, or one that the task needs fails or is off.

        What was reserved before the refusal stays in ``tx``: the caller undoes the claim as a whole.
        """
        for each in self._by_hook["claim_reserve"]:
            call = self._runner.in_part(each, (claim,), tx) if each.tally.off is None else self._runner.skipped(each)
            if call.error is None:
                continue
            if isinstance(call.error, Refuse):
                raise Refused(each.plugin, str(call.error))
            if each.plugin in claim.task.plugins:
                raise Refused(each.plugin, _needed(call)) from call.error

    # Prepare

    def enrich_prompt(self, resident: Resident, task: Task, view: View) -> list[tuple[str, Section]]:
        return self._collect("enrich_prompt", (resident, task), view)

    async def check_safety(self, subject: Subject) -> Safety:
        """The strictest verdict. A subject that nobody covers, or that one could not judge, is denied."""
        by: list[tuple[str, Verdict]] = []
        unjudged: Call | None = None
        for each in self._guards.get(subject.kind, self._unguarded):
            if each.tally.off is None or self._health.probes(each.tally):
                call = await self._runner.wait(each, (subject,), self._runner.limit)
            else:
                call = self._runner.skipped(each)
            if call.error is not None:
                unjudged = unjudged or call
            elif call.value is not None:
                by.append((each.plugin, call.value))
        verdict = answers.strictest_verdict(by)
        if unjudged is not None and (verdict is None or verdict.answer != "deny"):
            failed = Verdict(
                "deny",
                "safety.failed",
                f"the safety check of plugin {unjudged.plugin!r} failed: {describe(unjudged.error)}",
                f"mend it, or switch it off: {switch_off(unjudged.plugin)}",
            )
            return Safety(failed, by, unjudged.plugin)
        if verdict is None:
            reason = f"no enabled plugin checks a subject of kind {subject.kind!r}"
            verdict = Verdict("deny", "safety.uncovered", reason, "enable a plugin that checks it")
        return Safety(verdict, by)

    # Act

    def around_execution(self, job: OfTask) -> AbstractAsyncContextManager[None]:
        """Everything that wraps the job. :class:`HookFailed` from entering or leaving is the attempt's failure."""
        around = self._by_hook["around_execution"]
        return Around(self._runner, around, job) if around else contextlib.nullcontext()

    async def execute_task(self, job: OfTask) -> tuple[str, Outcome] | None:
        """The first outcome and whose it is; None if nobody took the job. Has no timeout: the job has one.

        Where one that is off might have taken it, that is its failure, and not a job that nobody can do.
        """
        off: Implementation | None = None
        for each in self._by_hook["execute_task"]:
            if each.tally.off is not None:
                off = off or each
                continue
            call = await self._runner.wait(each, (job,), None)
            if call.error is not None:
                raise HookFailed(call) from call.error
            if call.value is not None:
                return each.plugin, call.value
        if off is not None:
            raise HookFailed(self._runner.skipped(off))
        return None

    async def review_outcome(self, task: Task, outcome: Outcome) -> Review:
        """The strictest decision with the lowest confidence; a human is asked where a reviewer failed or none spoke."""
        reviews: list[Review] = []
        for each in self._by_hook["review_outcome"]:
            if each.tally.off is None or self._health.probes(each.tally):
                call = await self._runner.wait(each, (task, outcome), self._runner.limit)
            else:
                call = self._runner.skipped(each)
            if call.error is not None:
                reason = f"the review by plugin {each.plugin!r} failed: {describe(call.error)}"
                reviews.append(Review("human", 0.0, reason))
            elif call.value is not None:
                reviews.append(call.value)
        return answers.strictest_review(reviews) or Review("human", 0.0, "no enabled plugin reviewed the outcome")

    # Settle and keep

    def end_attempt(self, task: Task, ending: Ending, tx: Tx) -> list[Call]:
        """The calls that failed or could not be made, each left out of ``tx`` whole: they go to ``missed``."""
        calls = (
            self._runner.in_part(each, (task, ending), tx) if each.tally.off is None else self._runner.skipped(each)
            for each in self._by_hook["end_attempt"]
        )
        return [call for call in calls if call.error is not None]

    def end_attempt_of(self, plugin: str, task: Task, ending: Ending, tx: Tx) -> Call | None:
        """One plugin's part again, for ``missed``, also while it is off; None if it has no such part any more."""
        for each in self._by_hook["end_attempt"]:
            if each.plugin == plugin:
                return self._runner.in_part(each, (task, ending), tx)
        return None

    async def on_event(self, plugin: str, event: Event) -> Call | None:
        """Tell one plugin of one event; None if it does not listen or is off."""
        for each in self._on("on_event"):
            if each.plugin == plugin:
                return await self._runner.wait(each, (event,), self._runner.limit)
        return None

    def on_tick(self, now: int, tx: Tx) -> list[Call]:
        """Every run, failed or not; a failed one is left out of ``tx`` whole."""
        return [self._runner.in_part(each, (now,), tx) for each in self._on("on_tick")]

    # The loop itself

    def _on(self, hook: str) -> list[Implementation]:
        return [each for each in self._by_hook[hook] if each.tally.off is None]

    def _collect(self, hook: str, arguments: tuple[Any, ...], view: View) -> list[tuple[str, Any]]:
        found = []
        for each in self._by_hook[hook]:
            if each.tally.off is not None:
                continue
            call = self._runner.run(each, (*arguments, view.plugin(each.plugin) if each.granted else None))
            if call.error is None:
                for item in call.value:
                    found.append((each.plugin, item))
        return found


def _needed(call: Call) -> str:
    return f"the task needs plugin {call.plugin!r}, whose {call.hook} failed: {describe(call.error)}"


def _modes(plugins: Sequence[Plugin], executing: Container[str]) -> frozenset[str] | None:
    on = [plugin for plugin in plugins if plugin.name in executing]
    others = any(not type(plugin).__module__.startswith("vivarium_kernel.builtin.") for plugin in on)
    named = [plugin.modes for plugin in on] + ([BUILT_IN_MODES] if others else [])
    return frozenset(chain.from_iterable(named)) if all(named) else None
