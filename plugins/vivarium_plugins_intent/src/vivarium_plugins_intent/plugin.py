"""The room of the plugin ``intent``: plans are asked for, made within a budget, shown, and posted on approval.

Rules: docs/rules.md, "Intent and decomposition". Planning is a task of mode ``plan``: a resident thinks about it as
about any other, so its money goes by the ledger and its steps are recorded. Nothing is kept in tables of our own: the
planning task carries the request, its outcome the plan, and each posted task its intent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from attrs import asdict, evolve, field, frozen
from attrs.validators import ge, in_, le

from vivarium_kernel import (
    Action,
    Actor,
    Conflict,
    Forbidden,
    Invalid,
    Job,
    Meta,
    NewTask,
    NotFound,
    Outcome,
    Plugin,
    PluginTx,
    Review,
    Section,
    Task,
    hookimpl,
    think,
)
from vivarium_plugins_intent import checking, planning, reading, splitting, telling
from vivarium_plugins_intent.planning import RULE_LABEL, WHOLE, Plan, Wanted

MODE = "plan"
DROPPED = "intent.dropped"  # the event that says so of a plan: there is no table that could
ATTEMPTS = 2  # a plan that can't be is made once more, with what was wrong with it
PRIORITY = 1_000  # somebody waits for it
SURE = 0.95
_PEOPLE: tuple[Literal["operator", "human"], ...] = ("operator", "human")
_FILES_GOAL = "Do what these files ask for."
Limit = Annotated[str, Meta(min_length=1, max_length=1_000)]
Limits = Annotated[tuple[Limit, ...], Meta(max_length=10)]


@frozen
class IntentConfig:
    """``[plugins.intent]``."""

    unchecked: str = field(
        default="accept",
        validator=in_(("accept", "human")),
        metadata={"doc": "What a whole result comes to whose intent has limits that words can't check: accept, human."},
    )
    file_characters: int = field(
        default=1_500,
        validator=[ge(0), le(20_000)],
        metadata={"doc": "How much of each file a planner is shown."},
    )


@frozen
class PlanRequest:
    """A goal to be planned, or ``files`` (a glob in the village's folder, for operators) that say what there is to do.

    ``max_micros`` is the budget of all its tasks together, by default that of one task; ``min_micros`` is what each
    has at least.
    """

    goal: Annotated[str, Meta(max_length=20_000)] = ""
    files: Annotated[str, Meta(max_length=200)] = ""
    max_micros: int | None = None
    min_micros: int | None = None
    constraints: Limits = ()
    preferences: Limits = ()
    anti_goals: Limits = ()
    clarifications: Limits = ()
    model: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


@frozen
class Listing:
    """At most so many plans; ``waiting`` are only those that nobody has posted yet."""

    waiting: bool = False
    most: Annotated[int, Meta(ge=1, le=500)] = 50


@frozen
class PlanName:
    """A plan, by the id of its planning task."""

    plan: Annotated[str, Meta(min_length=1, max_length=80)]


@frozen
class Approval:
    """A plan, and the digest with which it was shown: what is posted is what was seen."""

    plan: Annotated[str, Meta(min_length=1, max_length=80)]
    digest: Annotated[str, Meta(min_length=1, max_length=64)]


class IntentPlugin(Plugin):
    """Turns a goal into tasks with dependencies and budgets, and holds their results to it."""

    name = "intent"
    Config = IntentConfig
    modes = (MODE,)

    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        return [
            Action(name="intent.plan", doc="Let a plan be made of a goal; it is shown, and posts nothing yet.",
                   Input=PlanRequest, roles=_PEOPLE, rate_per_minute=30, run=self._plan),
            Action(name="intent.list", doc="List plans: first those that wait to be posted, then the newest.",
                   Input=Listing, roles=_PEOPLE, effect="pure", run=self._list),
            Action(name="intent.show", doc="Show a plan: its tasks, their budgets, and the digest to approve it with.",
                   Input=PlanName, roles=_PEOPLE, effect="pure", run=self._show),
            Action(name="intent.approve", doc="Post the tasks of a plan as it was shown.", Input=Approval,
                   roles=_PEOPLE, effect="idempotent", run=self._approve),
            Action(name="intent.drop", doc="Drop a plan that is not to be posted: it can't be approved any more.",
                   Input=PlanName, roles=_PEOPLE, effect="idempotent", run=self._drop),
        ]  # fmt: skip

    # What people do

    def _plan(self, tx: PluginTx, actor: Actor, asked: PlanRequest) -> dict[str, Any]:
        self._refuse_by_policy()
        wanted = self._wanted(actor, asked)
        task = tx.post_task(
            NewTask(
                mode=MODE,
                title=f"Plan: {splitting.title_of(wanted.original)}",
                prompt=wanted.original,
                max_micros=self.village.settings.budgets.task_usd_micros,
                max_attempts=ATTEMPTS,
                priority=PRIORITY,
                model=asked.model,
                labels=("plan",),
                plugins=(self.name,),
                data={"wanted": msgspec.to_builtins(wanted)},
            )
        )
        tx.emit("asked", task=task.id, split=wanted.split, max_micros=wanted.max_micros, files=len(wanted.files))
        return {"plan": task.id, "split": wanted.split, "max_micros": wanted.max_micros}

    def _wanted(self, actor: Actor, asked: PlanRequest) -> Wanted:
        goal = asked.goal.strip()
        if not goal and not asked.files:
            raise Invalid("plan.goal", "There is nothing to plan: the goal is empty.", "Say what is to be done.",
                          field="goal")  # fmt: skip
        for path, text in _texts(asked):
            planning.refuse_unreadable(path, text)
        if asked.files and actor.role != "operator":
            raise Forbidden("plan.files", f"{actor} may not let a model read the village's files.",
                            "An operator may; or put what is to be done into the goal.", field="files")  # fmt: skip
        default = self.village.settings.budgets.task_usd_micros
        return Wanted(
            goal or _FILES_GOAL,
            bool(asked.files) or splitting.is_to_be_split(goal),
            default if asked.max_micros is None else asked.max_micros,
            asked.min_micros or 0,
            str(actor),
            asked.model,
            asked.constraints,
            asked.preferences,
            asked.anti_goals,
            asked.clarifications,
            tuple(reading.read(self.village.folder, asked.files, self.config.file_characters)) if asked.files else (),
        )

    def _list(self, tx: PluginTx, actor: Actor, asked: Listing) -> dict[str, Any]:
        rows = tx.read(
            "SELECT p.id, p.state, json_extract(p.spec, '$.prompt'), EXISTS (SELECT 1 FROM tasks t "
            "WHERE t.id = p.id || ? AND t.by = p.by) AS posted, EXISTS (SELECT 1 FROM events e WHERE e.task = p.id "
            "AND e.kind = ?) AS dropped FROM tasks p WHERE p.mode = ? AND p.by = ? AND (NOT ? "
            "OR (NOT posted AND NOT dropped AND p.state NOT IN ('failed', 'blocked', 'cancelled'))) "
            "ORDER BY posted OR dropped OR p.state IN ('failed', 'blocked', 'cancelled'), p.seq DESC LIMIT ?",
            (f"-{WHOLE}", DROPPED, MODE, f"plugin:{self.name}", asked.waiting, asked.most + 1),
        )
        return {
            "plans": [
                {
                    "plan": name,
                    "state": state,
                    "posted": bool(posted),
                    "dropped": bool(dropped),
                    "goal": splitting.title_of(goal),
                }
                for name, state, goal, posted, dropped in rows[: asked.most]
            ],
            "more": len(rows) > asked.most,
        }

    def _show(self, tx: PluginTx, actor: Actor, asked: PlanName) -> dict[str, Any]:
        state, reason, wanted = self._asked_for(tx, asked.plan)
        told = {"plan": asked.plan, "state": state, "reason": reason, "ready": state == "done"}
        if state != "done":
            return told
        plan = self._made(tx, asked.plan, wanted)
        return {
            **told,
            "made_by": plan.made_by,
            "digest": plan.digest,
            "posted": self._is_posted(tx, plan),
            "dropped": self._is_dropped(tx, asked.plan),
            "max_micros": wanted.max_micros,
            "intent": plan.intent,
            "tasks": [asdict(task) for task in plan.tasks],
        }

    def _approve(self, tx: PluginTx, actor: Actor, asked: Approval) -> dict[str, Any]:
        self._refuse_by_policy()
        state, reason, wanted = self._asked_for(tx, asked.plan)
        if state != "done":
            raise Conflict("plan.state", f"The plan {asked.plan} is not ready: its planning task is {state}"
                           f"{f' ({reason})' if reason else ''}.", "See intent.show.", field="plan")  # fmt: skip
        if self._is_dropped(tx, asked.plan):
            raise Conflict("plan.dropped", f"The plan {asked.plan} was dropped.", "Ask for another: vivarium plan GOAL",
                           field="plan")  # fmt: skip
        plan = self._made(tx, asked.plan, wanted)
        if asked.digest != plan.digest:
            raise Conflict(
                "plan.digest",
                f"The plan {asked.plan} has the digest {plan.digest}, not {asked.digest}: it is not what was seen.",
                "Look at it anew: intent.show.",
                field="digest",
            )
        fresh = not self._is_posted(tx, plan)
        posted = [tx.post_task(new).id for new in planning.new_tasks(plan, wanted, asked.plan)]
        if fresh:
            tx.emit("approved", task=asked.plan, digest=plan.digest, tasks=posted)
        return {"plan": asked.plan, "digest": plan.digest, "tasks": posted}

    def _drop(self, tx: PluginTx, actor: Actor, asked: PlanName) -> dict[str, Any]:
        state, _, wanted = self._asked_for(tx, asked.plan)
        if state != "done":
            raise Conflict("plan.state", f"There is no plan {asked.plan} to drop: its planning task is {state}.",
                           f"While it is being made: vivarium task cancel {asked.plan}", field="plan")  # fmt: skip
        if self._is_posted(tx, self._made(tx, asked.plan, wanted)):
            raise Conflict("plan.posted", f"The tasks of the plan {asked.plan} are on the board.",
                           "Cancel them: vivarium task cancel ID", field="plan")  # fmt: skip
        if not self._is_dropped(tx, asked.plan):
            tx.emit(DROPPED.partition(".")[2], task=asked.plan)
        return {"plan": asked.plan, "dropped": True}

    def _is_dropped(self, tx: PluginTx, name: str) -> bool:
        return bool(tx.read("SELECT 1 FROM events WHERE task = ? AND kind = ?", (name, DROPPED)))

    def _refuse_by_policy(self) -> None:
        policy = self.village.settings.write_policy
        if policy != "work":
            raise Forbidden(
                "plan.write_policy",
                f"write_policy is {policy!r}: in this village residents write documents, and no plans are posted.",
                'Set write_policy = "work" in vivarium.toml and start the village anew; `vivarium init --work` makes a '
                "village with it.",
                field="write_policy",
            )

    def _asked_for(self, tx: PluginTx, name: str) -> tuple[str, str, Wanted]:
        """State, reason and request of a planning task; raises NotFound."""
        rows = tx.read("SELECT state, reason, spec FROM tasks WHERE id = ? AND mode = ? AND by = ?",
                       (name, MODE, f"plugin:{self.name}"))  # fmt: skip
        if not rows:
            raise NotFound("plan.unknown", f"There is no plan {name!r}.", "A plan is named by its planning task's id.",
                           field="plan")  # fmt: skip
        state, reason, spec = rows[0]
        return state, reason or "", msgspec.convert(msgspec.json.decode(spec)["data"]["wanted"], Wanted)

    def _made(self, tx: PluginTx, name: str, wanted: Wanted) -> Plan:
        """The plan that a planning task brought; read by the same rules again, for a worker may have brought it."""
        rows = tx.read("SELECT answer, model FROM attempts WHERE task = ? AND ending = 'accepted' ORDER BY id DESC",
                       (name,))  # fmt: skip
        answer, model = rows[0] if rows else ("", None)
        return plan_from(name, answer or "", wanted, model)

    def _is_posted(self, tx: PluginTx, plan: Plan) -> bool:
        last = (plan.tasks[-1].id, f"plugin:{self.name}")
        return bool(tx.read("SELECT 1 FROM tasks WHERE id = ? AND by = ?", last))

    # What residents do

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        if job.task.mode != MODE:
            return None
        if not self._is_own(job.task):
            return Outcome(fault="invalid", reason="Tasks of mode plan are posted by the action intent.plan alone.")
        wanted = msgspec.convert(job.task.data["wanted"], Wanted)
        if job.model.partition(":")[0] == "scripted":
            answer = msgspec.json.encode(planning.by_rule(wanted)).decode()
            plan_from(job.task.id, answer, wanted, None)
            return Outcome(answer=answer)
        found = await think(job, schema=planning.schema(wanted))
        if found.fault is not None:
            return found
        try:
            plan_from(job.task.id, found.answer, wanted, found.model)
        except Invalid as error:
            # What no other plan can mend fails at once; the rest is made once more.
            fault: Any = "invalid" if error.rule == "plan.budget" else "task"
            return evolve(found, fault=fault, reason=str(error))
        return found

    @hookimpl
    def enrich_prompt(self, task: Task) -> Sequence[Section]:
        if not self._is_own(task):
            return []
        if task.mode == MODE:
            return telling.planning(msgspec.convert(task.data["wanted"], Wanted))
        return telling.working(task)

    @hookimpl
    async def review_outcome(self, task: Task, outcome: Outcome) -> Review | None:
        """Hold the whole result to the intent, as far as words and figures go; say what could not be checked."""
        if not self._is_own(task) or task.data.get("part") != WHOLE:
            return None
        intent = task.data["intent"]
        found = checking.check(outcome.answer or outcome.stdout, intent["constraints"], intent["anti_goals"])
        facts = {"intent": {name: list(lines) for name, lines in asdict(found).items()}}
        if found.broken:
            return Review("send_back", SURE, f"It does not keep to the intent: {'. '.join(found.broken)}", facts)
        if found.unchecked and self.config.unchecked == "human":
            reason = f"Words can't check these limits of the intent: {'; '.join(found.unchecked)}"
            return Review("human", SURE, reason[:2_000], facts)
        return Review("accept", SURE, "", facts)

    def _is_own(self, task: Task) -> bool:
        """Whether this plugin posted a task: what people write into the data of theirs makes no plan of it."""
        return task.by == f"plugin:{self.name}"


def _texts(asked: PlanRequest) -> Iterator[tuple[str, str]]:
    """The texts of a request that will stand in tasks."""
    if asked.goal:
        yield "goal", asked.goal
    for name in ("constraints", "preferences", "anti_goals", "clarifications"):
        yield from ((f"{name}[{place}]", line) for place, line in enumerate(getattr(asked, name)))


def plan_from(name: str, answer: str, wanted: Wanted, model: str | None) -> Plan:
    """The plan of an outcome's text; raises Invalid. Without a model it was the rule that split it."""
    try:
        raw = msgspec.json.decode(answer)
    except msgspec.DecodeError as error:
        raise Invalid("plan.answer", f"The plan is not JSON: {error}.", "Let it be planned again.") from error
    return planning.plan_of(name, planning.read(raw), wanted, model or RULE_LABEL)
