"""The room of the bounties: a reward is set aside, residents and guilds submit, a judge chooses, the escrow is paid.

open → claimed → completed, or cancelled while open. Rules: the README of this distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, ClassVar

from attrs import asdict

from vivarium_kernel import (
    Action,
    Actor,
    Conflict,
    Ending,
    Forbidden,
    Invalid,
    NotFound,
    Plugin,
    PluginTx,
    Task,
    hookimpl,
)
from vivarium_plugins_economy import bounty_tables as tables
from vivarium_plugins_economy.bounty_inputs import (
    LONGEST_TEXT,
    BountiesConfig,
    Complete,
    Enter,
    Guilds,
    Listing,
    Post,
    Submit,
    Which,
)
from vivarium_plugins_economy.bounty_tables import Bounty
from vivarium_plugins_economy.prizes import Payout, Slots, payouts, team

_CUT = "\n[cut here]"


class Bounties(Plugin):
    """Bounties with escrow, slots, a judge and two prizes."""

    name = "bounties"
    Config = BountiesConfig
    migrations = tables.migrations
    after = ("guilds",)
    asks: ClassVar = {"guilds": Guilds}

    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        return [
            Action(name="bounties.post", doc="Post a bounty; its prizes are set aside at once, an operator's from the "
                   "commons.", Input=Post, roles=("resident", "operator"), run=self._post, rate_per_minute=30),
            Action(name="bounties.cancel", doc="Cancel one's bounty while nobody is at it; the escrow returns.",
                   Input=Which, roles=("resident", "operator"), effect="idempotent", run=self._cancel),
            Action(name="bounties.claim", doc="Say that you work on a bounty: it takes the next place, and the poster "
                   "can't cancel meanwhile.", Input=Enter, roles=("resident",), effect="idempotent", run=self._claim,
                   rate_per_minute=30),
            Action(name="bounties.submit", doc="Submit what you made for a bounty, for yourself or for your guild.",
                   Input=Submit, roles=("resident",), run=self._submit, rate_per_minute=30),
            Action(name="bounties.complete", doc="Judge a bounty: name the winner and the runner-up, who are paid.",
                   Input=Complete, roles=("resident", "operator"), effect="idempotent", run=self._complete),
            Action(name="bounties.list", doc="List bounties.", Input=Listing,
                   roles=("resident", "human", "operator"), effect="pure", run=self._list),
            Action(name="bounties.show", doc="Show a bounty, and those of its submissions that you may see.",
                   Input=Which, roles=("resident", "human", "operator"), effect="pure", run=self._show),
        ]  # fmt: skip

    # Posting and cancelling

    def _post(self, tx: PluginTx, actor: Actor, asked: Post) -> dict[str, Any]:
        runner_up = asked.runner_up_micros or 0
        if asked.mode == "cooperation" and runner_up:
            raise Invalid(
                "bounties.runner_up", "In a cooperation all share one prize, there is no runner-up.",
                "Leave runner_up_micros out, or choose rivalry or both.", field="runner_up_micros",
            )  # fmt: skip
        judge = str(actor)
        if asked.judge is not None:
            judge = f"resident:{tx.resident(asked.judge).name}"
        self._check_task(tx, asked.task)
        (alive,) = tx.read(
            "SELECT count(*) FROM bounties_posted WHERE poster = ? AND state IN ('open', 'claimed')", (str(actor),)
        )[0]
        if actor.role == "resident" and alive >= self.config.most_alive:
            raise Conflict("bounties.many", f"You have {alive} bounties that are not over.", "End one of them first.")
        (number,) = tx.read("SELECT coalesce(max(id), 0) + 1 FROM bounties_posted")[0]
        payer = f"resident:{actor.name}:free" if actor.role == "resident" else "commons"
        hold = tx.hold(payer, asked.prize_micros + runner_up, key=f"escrow:{number}", ref=f"bounty:{number}")
        tables.add(
            tx, number,
            (asked.title, asked.text, asked.mode, asked.slots, asked.prize_micros, runner_up, str(actor), judge,
             asked.task, hold),
        )  # fmt: skip
        tx.emit("posted", task=asked.task, bounty=number, mode=asked.mode, escrow_micros=asked.prize_micros + runner_up)
        return {"bounty": number, "escrow_micros": asked.prize_micros + runner_up}

    def _check_task(self, tx: PluginTx, task: str | None) -> None:
        if task is None:
            return
        rows = tx.read("SELECT state FROM tasks WHERE id = ?", (task,))
        if not rows:
            raise NotFound("bounties.task", f"There is no task {task!r}.", "Name one on the board.", field="task")
        if rows[0][0] in ("done", "failed", "cancelled", "blocked"):
            raise Conflict("bounties.task", f"Task {task} is {rows[0][0]}.", "Name one that is to be done.")

    def _cancel(self, tx: PluginTx, actor: Actor, asked: Which) -> dict[str, Any]:
        found = self._current(tx, asked.bounty)
        if actor.role != "operator" and found.poster != str(actor):
            raise Forbidden("bounties.poster", f"Bounty {found.id} is {found.poster}'s.", "Its poster may cancel it.")
        if found.state != "cancelled":
            if found.state != "open" or self._busy(tx, found.task):
                state = "being worked on" if found.state == "open" else found.state
                raise Conflict("bounties.state", f"Bounty {found.id} is {state}.", "Only an open one can be cancelled.")
            if not tx.release_hold(found.hold):
                raise Conflict(
                    "bounties.escrow", f"The escrow of bounty {found.id} has ended.", "Run `vivarium doctor`."
                )
            tables.move(tx, found.id, "cancelled")
            tx.emit("cancelled", task=found.task, bounty=found.id)
        return {"bounty": found.id, "returned_micros": found.prize_micros + found.runner_up_micros}

    def _busy(self, tx: PluginTx, task: str | None) -> bool:
        """Whether somebody is at the task of a bounty, or what that one submitted by doing it is yet to be written."""
        return task is not None and bool(
            tx.read(
                "SELECT 1 FROM attempts WHERE task = ?1 AND state <> 'ended' UNION ALL "
                "SELECT 1 FROM missed WHERE task = ?1 AND plugin = 'bounties' LIMIT 1",
                (task,),
            )
        )

    # Claiming and submitting

    def _claim(self, tx: PluginTx, actor: Actor, asked: Enter) -> dict[str, Any]:
        found = self._alive(tx, asked.bounty)
        entrant, _ = self._entrant(tx, found, actor.name, asked.as_guild)
        self._enter(tx, found, entrant, actor.name)
        place = tables.places(tx, found.id)[entrant]
        return {"bounty": found.id, "place": place, "multiplier": float(self._slots(found).multiplier(place))}

    def _submit(self, tx: PluginTx, actor: Actor, asked: Submit) -> dict[str, Any]:
        found = self._alive(tx, asked.bounty)
        entrant, shares = self._entrant(tx, found, actor.name, asked.as_guild)
        least = self.config.least_text
        if len(asked.text.strip()) < least and not asked.artifacts:
            raise Invalid("bounties.text", f"A submission has a text of {least} characters at least, or artifacts.",
                          "Say more, or name files.", field="text")  # fmt: skip
        for path in map(PurePosixPath, asked.artifacts):
            if path.is_absolute() or ".." in path.parts:
                raise Invalid("bounties.artifact", f"{path} does not lie in the village.",
                              "Name files by their path from the village's folder.", field="artifacts")  # fmt: skip
        if tables.submitted(tx, found.id, tables.digest_of(asked.text, asked.artifacts)):
            raise Conflict("bounties.same", "The very same was submitted before.", "Submit something of your own.")
        (mine,) = tx.read(
            "SELECT count(*) FROM bounties_submissions WHERE bounty = ? AND resident = ?", (found.id, actor.name)
        )[0]
        if mine >= self.config.most_submissions:
            raise Conflict("bounties.often", f"You submitted {mine} times to bounty {found.id}.", "Wait for the judge.")
        number = self._write(tx, found, entrant, actor.name, shares, asked.text, asked.artifacts, actor.attempt)
        return {"bounty": found.id, "submission": number, "place": tables.places(tx, found.id)[entrant]}

    @hookimpl
    def end_attempt(self, task: Task, ending: Ending, tx: PluginTx) -> None:
        """What a resident did for a task that has a bounty is submitted for it, once it is accepted."""
        if ending.kind != "accepted" or ending.resident is None:
            return
        for found in tables.of_task(tx, task.id):
            if f"resident:{ending.resident}" in (found.poster, found.judge):
                continue
            said = "" if ending.outcome is None else ending.outcome.answer or ending.outcome.stdout
            text = f"Attempt {ending.attempt} at task {task.id} was accepted.\n{said}"
            if len(text) > LONGEST_TEXT:
                text = text[: LONGEST_TEXT - len(_CUT)] + _CUT
            if not tables.submitted(tx, found.id, tables.digest_of(text, task.files)):
                self._write(tx, found, f"resident:{ending.resident}", ending.resident, (ending.resident,), text,
                            task.files, ending.attempt)  # fmt: skip

    def _write(
        self, tx: PluginTx, found: Bounty, entrant: str, resident: str, shares: Sequence[str], text: str,
        artifacts: Sequence[str], attempt: int | None,
    ) -> int:  # fmt: skip
        self._enter(tx, found, entrant, resident)
        number = tables.submit(tx, found.id, entrant, resident, shares, text, artifacts, attempt)
        tx.emit("submitted", resident=resident, task=found.task, attempt=attempt, bounty=found.id, submission=number)
        return number

    def _enter(self, tx: PluginTx, found: Bounty, entrant: str, resident: str) -> None:
        if tables.enter(tx, found.id, entrant):
            tables.move(tx, found.id, "claimed")
            tx.emit("claimed", resident=resident, task=found.task, bounty=found.id, entrant=entrant)

    def _entrant(self, tx: PluginTx, found: Bounty, resident: str, as_guild: bool) -> tuple[str, tuple[str, ...]]:
        """Who enters, and who shares: the resident, or its guild with the members that it has now."""
        entrant, shares = f"resident:{resident}", tuple([resident])
        if as_guild:
            guilds: Guilds | None = self.village.service("guilds", Guilds)
            if guilds is None:
                raise Conflict("bounties.guilds", "There are no guilds here.", "Enter for yourself: as_guild = false.")
            guild = guilds.guild_of(tx, resident)
            if guild is None:
                raise Conflict("bounties.guild", "You are in no guild.", "Enter for yourself: as_guild = false.")
            entrant, shares = f"guild:{guild.name}", team(guild.members, guild.founder)
        for name in shares:
            if f"resident:{name}" in (found.poster, found.judge):
                raise Forbidden("bounties.own", f"{name} posted or judges bounty {found.id}.", "Others may enter it.")
        return entrant, shares

    # Judging

    def _complete(self, tx: PluginTx, actor: Actor, asked: Complete) -> dict[str, Any]:
        found = tables.bounty(tx, asked.bounty)
        if actor.role != "operator" and found.judge != str(actor):
            raise Forbidden("bounties.judge", f"{found.judge} judges bounty {found.id}.", "Leave it to the judge.")
        if found.state == "completed":
            before = tables.paid(tx, found.id)
            if [{each.submission for each in before if each.prize == prize} for prize in (1, 2)] != [
                set(asked.winner), set(asked.runner_up)
            ]:  # fmt: skip
                raise Conflict("bounties.state", f"Bounty {found.id} was judged otherwise.", "That stands.")
            return _reply(found, before)
        if not found.alive:
            raise Conflict("bounties.state", f"Bounty {found.id} is {found.state}.", "It is over.")
        self._check_choice(found, actor, asked)
        shares = self._payouts(tx, found, asked)
        payees = [(f"resident:{each.resident}:free", each.micros) for each in shares]
        if not tx.settle_hold(found.hold, payees, reason="bounty"):
            raise Conflict("bounties.escrow", f"The escrow of bounty {found.id} has ended.", "Run `vivarium doctor`.")
        for each in shares:
            tables.keep_payout(tx, found.id, each)
            tx.emit("paid", resident=each.resident, task=found.task, bounty=found.id, submission=each.submission,
                    micros=each.micros)  # fmt: skip
        tables.move(tx, found.id, "completed")
        tx.emit("completed", task=found.task, bounty=found.id, winner=asked.winner, runner_up=asked.runner_up)
        return _reply(found, tables.paid(tx, found.id))

    def _check_choice(self, found: Bounty, actor: Actor, asked: Complete) -> None:
        both = (*asked.winner, *asked.runner_up)
        most = 1 if found.mode == "rivalry" else 50
        faults = [
            (not asked.winner and (actor.role != "operator" or asked.runner_up), "winner", "It needs a winner."),
            (len(set(both)) < len(both), "runner_up", "A submission is named twice."),
            (max(len(asked.winner), len(asked.runner_up)) > most, "winner", "In a rivalry one wins, and one is next."),
            (asked.runner_up and not found.runner_up_micros, "runner_up", "It has no prize for a runner-up."),
        ]
        for wrong, where, fault in faults:
            if wrong:
                raise Invalid("bounties.choice", f"Bounty {found.id}: {fault}", "Choose again.", field=where)

    def _payouts(self, tx: PluginTx, found: Bounty, asked: Complete) -> list[Payout]:
        places = ((found.prize_micros, asked.winner), (found.runner_up_micros, asked.runner_up))
        prizes = [(micros, tables.works(tx, found.id, named)) for micros, named in places]
        shares = payouts(prizes, self._slots(found))
        for name in {*asked.winner, *asked.runner_up} - {each.submission for each in shares}:
            raise Conflict("bounties.nothing", f"Nobody would be paid for submission {name}: its residents are "
                           "rewarded for another, or its share is nothing.", "Leave it out.")  # fmt: skip
        return shares

    def _slots(self, found: Bounty) -> Slots:
        factor, least = self.config.overflow_factor, self.config.least_multiplier
        return Slots(found.slots, Fraction(str(factor)), Fraction(str(least)))

    # Reading

    def _current(self, tx: PluginTx, number: int) -> Bounty:
        """A bounty as it is once idle claims are dropped; one that nobody is at any more is open again."""
        found = tables.bounty(tx, number)
        if found.state == "claimed" and tables.drop_idle(tx, number, self.config.claim_days):
            if not tables.places(tx, number):
                tables.move(tx, number, "open")
                tx.emit("reopened", task=found.task, bounty=number)
            found = tables.bounty(tx, number)
        return found

    def _alive(self, tx: PluginTx, number: int) -> Bounty:
        found = self._current(tx, number)
        if not found.alive:
            raise Conflict("bounties.state", f"Bounty {number} is {found.state}.", "See bounties.list for others.")
        return found

    def _list(self, tx: PluginTx, actor: Actor, asked: Listing) -> list[dict[str, Any]]:
        return [asdict(each) for each in tables.bounties(tx, asked.state, asked.after, asked.limit)]

    def _show(self, tx: PluginTx, actor: Actor, asked: Which) -> dict[str, Any]:
        found = tables.bounty(tx, asked.bounty)
        places = tables.places(tx, found.id)
        all_of_them = tables.submissions(tx, found.id)
        mine = [each for each in all_of_them if actor.role == "resident" and actor.name in (each.resident, *each.team)]
        sees_all = actor.role == "operator" or str(actor) in (found.poster, found.judge)
        joined = bool(mine) or str(actor) in places
        seen = all_of_them if sees_all or (found.mode == "cooperation" and joined) else mine
        shown = [asdict(each) | {"place": places[each.entrant]} for each in seen]
        return asdict(found) | {"entrants": len(places), "submissions": shown, "paid": _paid(tables.paid(tx, found.id))}


def _reply(found: Bounty, paid: Sequence[Payout]) -> dict[str, Any]:
    left = found.prize_micros + found.runner_up_micros - sum(each.micros for each in paid)
    return {"bounty": found.id, "paid": _paid(paid), "returned_micros": left}


def _paid(paid: Sequence[Payout]) -> list[dict[str, Any]]:
    return [asdict(each) for each in paid]
