"""The room of the journals: private texts that residents pay for, and that the others judge blind by an excerpt.

A journal is ``open`` until enough votes are in or its time is over; the host's tick then decides it, once: it is
``accepted``, ``rejected``, ``gaming`` (rejected, with a penalty) or ``returned`` (nobody voted). What it cost is held
by the kernel until then. Rules: the README, "Journals".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from attrs import field, frozen, validators

from vivarium_kernel import (
    Action,
    Actor,
    Conflict,
    Forbidden,
    Invalid,
    Meta,
    NotFound,
    OverBudget,
    Plugin,
    PluginTx,
    PluginView,
    hookimpl,
)
from vivarium_plugins_social.journal_rules import Choice, Decision, JournalPhysics, cost, decide
from vivarium_plugins_social.journal_tables import migrations

MICROS = 1_000_000
HOURS_A_DAY = 24
AT_ONCE = 50  # journals a tick decides, and entries that a list shows
PHYSICS = JournalPhysics()


def _from(least: int, most: int) -> Any:
    return validators.and_(validators.ge(least), validators.le(most))


def _largest_bonus_fits(config: Any, _: Any, cap: int) -> None:
    least = cost(getattr(config, "cost_aid", 1), True, PHYSICS)  # no bonus is larger than what was paid
    if cap < least:
        raise ValueError(f"must be at least {least}: a larger bonus could never be paid")


@frozen
class JournalsConfig:
    """``[plugins.journals]``. Costs and caps are whole aid, times are village time."""

    cost_aid: int = field(
        default=10, validator=_from(1, 10_000), metadata={"doc": "What a journal costs, in whole aiDollar."}
    )
    votes: int = field(default=3, validator=_from(1, 100), metadata={"doc": "Votes after which a journal is decided."})
    vote_hours: int = field(
        default=24, validator=_from(1, 10_000), metadata={"doc": "Village hours after which it is decided in any case."}
    )
    excerpt_characters: int = field(
        default=280, validator=_from(1, 280), metadata={"doc": "Characters that voters see."}
    )
    dispute_days: int = field(
        default=2,
        validator=_from(0, 1_000),
        metadata={"doc": "Village days for which the excerpt of a decided journal is kept, for those who dispute it."},
    )
    penalty_days: int = field(
        default=2,
        validator=_from(0, 1_000),
        metadata={"doc": "Village days for which writing costs a quarter more after one that was gaming."},
    )
    bonus_cap_aid: int = field(
        default=1_000,
        validator=[_from(1, 1_000_000), _largest_bonus_fits],
        metadata={"doc": "What bonuses may mint in a village day, in whole aiDollar."},
    )
    types: tuple[str, ...] = field(
        default=("reflection", "discovery", "struggle", "idea", "lesson"),
        validator=validators.min_len(1),
        metadata={"doc": "The types that a journal may have."},
    )


@frozen
class Write:
    """A journal to write."""

    text: Annotated[str, Meta(min_length=1, max_length=20_000)]
    type: str


@frozen
class Which:
    """One of your own journals."""

    journal: int


@frozen
class Vote:
    """Your vote on a journal, and why."""

    journal: int
    choice: Choice
    reason: Annotated[str, Meta(min_length=3, max_length=500)]


@frozen
class Nothing:
    """Nothing is needed."""


class JournalCounts:
    """What other plugins may ask: ``village.service("journals")``."""

    def __init__(self, plugin: Journals) -> None:
        self._plugin = plugin

    def count(self, source: PluginView | PluginTx, resident: str) -> int:
        """How many journals of a resident have been decided.

        An open one does not count: a count that grows while a ballot appears would name the ballot's author.
        """
        query = "SELECT count(*) FROM journals_entries WHERE author = ? AND state <> 'open'"
        return int(source.of(self._plugin).read(query, (resident,))[0][0])


class Journals(Plugin):
    """Private texts, judged blind."""

    name = "journals"
    Config = JournalsConfig
    Physics = JournalPhysics
    migrations = migrations
    provides = JournalCounts
    config: JournalsConfig

    # What steps and replies keep is seen by people: whatever holds a text, an excerpt or a ballot is private.
    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        paid = f"It costs {self.config.cost_aid} aid; a blind vote of the others gives some of it back, or more."
        types = ", ".join(self.config.types)
        return [
            Action(name="journals.write", doc=f"Write a private journal. {paid} Its type is one of {types}.",
                   Input=Write, private=True, run=self._write),
            Action(name="journals.mine", doc="List your own journals, without their texts.", Input=Nothing,
                   effect="pure", private=True, run=self._mine),
            Action(name="journals.read", doc="Read one of your own journals.", Input=Which, effect="pure",
                   private=True, run=self._read),
            Action(name="journals.ballots", doc="List the journals that wait for your vote.", Input=Nothing,
                   effect="pure", private=True, run=self._ballots),
            Action(name="journals.vote", doc="Vote on a journal by its excerpt, blind and once, with a reason.",
                   Input=Vote, private=True, run=self._vote, rate_per_minute=60),
        ]  # fmt: skip

    # Writing

    def _write(self, tx: PluginTx, actor: Actor, asked: Write) -> dict[str, int]:
        words = asked.text.split()
        if not words:
            raise Invalid("journals.text", "A journal needs words.", "Write some.", field="text")
        if asked.type not in self.config.types:
            known = ", ".join(self.config.types)
            raise Invalid("journals.type", f"No such type: {asked.type!r}.", f"Use one of: {known}.", field="type")
        micros = MICROS * cost(self.config.cost_aid, self._is_penalised(tx, actor.name), PHYSICS)
        from_journal = min(micros, tx.balance(f"resident:{actor.name}:journal"))
        ((number,),) = tx.execute(
            "INSERT INTO journals_entries (author, type, private_text, excerpt, words, journal_micros, free_micros, "
            "votes_until_hour) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (actor.name, asked.type, asked.text, " ".join(words)[: self.config.excerpt_characters], len(words),
             from_journal, micros - from_journal, tx.hour + self.config.vote_hours),
        )  # fmt: skip
        tx.execute(
            "UPDATE journals_entries SET journal_hold = ?, free_hold = ? WHERE id = ?",
            (self._hold(tx, number, f"resident:{actor.name}:journal", from_journal),
             self._hold(tx, number, f"resident:{actor.name}:free", micros - from_journal), number),
        )  # fmt: skip
        tx.emit("written", resident=actor.name, journal=number, cost_micros=micros)
        return {"journal": number, "cost_micros": micros}

    def _hold(self, tx: PluginTx, number: int, account: str, micros: int) -> int | None:
        return tx.hold(account, micros, key=f"{number}:{account}", ref=f"journal:{number}") if micros else None

    def _is_penalised(self, tx: PluginTx, resident: str) -> bool:
        query = "SELECT 1 FROM journals_entries WHERE author = ? AND penalty_until_hour > ? LIMIT 1"
        return bool(tx.read(query, (resident, tx.hour)))

    # What the author sees

    def _mine(self, tx: PluginTx, actor: Actor, _: Nothing) -> list[dict[str, Any]]:
        names = ("journal", "type", "words", "state", "cost_micros", "refund_micros", "bonus_micros")
        rows = tx.read(
            "SELECT id, type, words, state, journal_micros + free_micros, refund_micros, bonus_micros "
            "FROM journals_entries WHERE author = ? ORDER BY id DESC LIMIT ?",
            (actor.name, AT_ONCE),
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _read(self, tx: PluginTx, actor: Actor, asked: Which) -> dict[str, Any]:
        rows = tx.read(
            "SELECT type, private_text FROM journals_entries WHERE id = ? AND author = ?", (asked.journal, actor.name)
        )
        if not rows:  # another's and none are the same answer
            raise NotFound("journals.read", f"You have no journal {asked.journal}.", "See journals.mine.")
        return {"journal": asked.journal, "type": rows[0][0], "text": rows[0][1]}

    # Voting

    def _ballots(self, tx: PluginTx, actor: Actor, _: Nothing) -> list[dict[str, Any]]:
        names = ("journal", "excerpt", "words", "type", "cost_micros", "hours_left")
        rows = tx.read(
            "SELECT id, excerpt, words, type, journal_micros + free_micros, votes_until_hour - ?1 "
            "FROM journals_entries WHERE state = 'open' AND votes_until_hour > ?1 AND author <> ?2 "
            "AND id NOT IN (SELECT journal FROM journals_ballots WHERE voter = ?2) ORDER BY votes_until_hour, id "
            "LIMIT ?3",
            (tx.hour, actor.name, AT_ONCE),
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _vote(self, tx: PluginTx, actor: Actor, asked: Vote) -> dict[str, int]:
        """Take a ballot. Its event is the kernel's, which names no journal: events must not count the votes."""
        if len(asked.reason.strip()) < 3:
            raise Invalid("journals.reason", "A vote needs a reason of 3 characters.", "Say why.", field="reason")
        rows = tx.read("SELECT author, state, votes_until_hour FROM journals_entries WHERE id = ?", (asked.journal,))
        if not rows:
            raise NotFound("journals.journal", f"There is no journal {asked.journal}.", "See journals.ballots.")
        author, state, until = rows[0]
        if author == actor.name:
            raise Forbidden("journals.author", "Nobody votes on a journal of their own.", "See journals.ballots.")
        if state != "open" or until <= tx.hour:
            raise Conflict("journals.closed", f"The vote on journal {asked.journal} is over.", "See journals.ballots.")
        if tx.read("SELECT 1 FROM journals_ballots WHERE journal = ? AND voter = ?", (asked.journal, actor.name)):
            raise Conflict("journals.voted", f"You have voted on journal {asked.journal}.", "A vote stands.")
        tx.execute(
            "INSERT INTO journals_ballots (journal, voter, choice, reason) VALUES (?, ?, ?, ?)",
            (asked.journal, actor.name, asked.choice, asked.reason),
        )
        # The last vote only closes: the tick decides, so that a fault in deciding costs no voter the vote.
        tx.execute(
            "UPDATE journals_entries SET votes_until_hour = ?1 WHERE id = ?2 "
            "AND ?3 <= (SELECT count(*) FROM journals_ballots WHERE journal = ?2)",
            (tx.hour, asked.journal, self.config.votes),
        )
        return {"journal": asked.journal}

    # What time brings

    @hookimpl
    def on_tick(self, tx: PluginTx) -> None:
        for row in tx.read(
            "SELECT id, author, journal_hold, journal_micros, free_hold, free_micros FROM journals_entries "
            "WHERE state = 'open' AND votes_until_hour <= ? ORDER BY votes_until_hour, id LIMIT ?",
            (tx.hour, AT_ONCE),
        ):
            self._decide(tx, *row)
        self._pay_bonuses(tx)
        for number, author in tx.execute(
            "UPDATE journals_entries SET excerpt = NULL WHERE excerpt IS NOT NULL AND excerpt_until_hour <= ? "
            "RETURNING id, author",
            (tx.hour,),
        ):
            tx.emit("excerpt_deleted", resident=author, journal=number)

    def _decide(
        self, tx: PluginTx, number: int, author: str, journal_hold: int | None, journal_micros: int,
        free_hold: int | None, free_micros: int,
    ) -> None:  # fmt: skip
        ballots = tx.read("SELECT choice FROM journals_ballots WHERE journal = ?", (number,))
        found = decide([row[0] for row in ballots], (journal_micros + free_micros) // MICROS, PHYSICS)
        refund, bonus = found.refund * MICROS, found.bonus * MICROS
        # As if so much less had been asked for: `free` paid last, and gets back first.
        to_free = min(refund, free_micros)
        _give_back(tx, free_hold, free_micros - to_free)
        _give_back(tx, journal_hold, journal_micros - (refund - to_free))
        tx.execute(
            "UPDATE journals_entries SET state = ?, refund_micros = ?, bonus_micros = ?, bonus_due_day = ?, "
            "excerpt_until_hour = ?, penalty_until_hour = ? WHERE id = ? AND state = 'open'",
            (found.result, refund, bonus, tx.day if bonus else None,
             tx.hour + self.config.dispute_days * HOURS_A_DAY, self._penalty_until(tx, found), number),
        )  # fmt: skip
        tx.emit(
            "decided", resident=author, journal=number, result=found.result, votes=len(ballots),
            refund_micros=refund, bonus_micros=bonus,
        )  # fmt: skip

    def _penalty_until(self, tx: PluginTx, found: Decision) -> int | None:
        return tx.hour + self.config.penalty_days * HOURS_A_DAY if found.result == "gaming" else None

    def _pay_bonuses(self, tx: PluginTx) -> None:
        due = tx.read(
            "SELECT id, author, bonus_micros FROM journals_entries WHERE bonus_due_day <= ? ORDER BY id LIMIT ?",
            (tx.day, AT_ONCE),
        )
        if due:
            tx.declare_policy("bonus", self.config.bonus_cap_aid * MICROS)
        for number, author, micros in due:
            paid = f"resident:{author}:free"
            try:
                tx.mint("bonus", paid, micros, key=f"bonus:{number}", reason="journal_bonus", ref=f"journal:{number}")
                due_day = None
            except OverBudget:  # the faucet's cap of this day is reached: it is owed until another
                due_day = tx.day + 1
                tx.emit("bonus_waits", resident=author, journal=number, micros=micros)
            tx.execute("UPDATE journals_entries SET bonus_due_day = ? WHERE id = ?", (due_day, number))


def _give_back(tx: PluginTx, hold: int | None, kept_micros: int) -> None:
    """Let a hold go: the commons keeps so much of it, the rest returns to whoever paid."""
    if hold is not None and kept_micros:
        tx.settle_hold(hold, [("commons", kept_micros)], reason="journal_cost")
    elif hold is not None:
        tx.release_hold(hold)
