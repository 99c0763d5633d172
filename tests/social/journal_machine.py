"""A model of journals, small enough to be seen through, and a machine that lives both and compares them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from attrs import define, field
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from vivarium_kernel import VivariumError

from .scene import RESIDENTS, Scene
from .test_journal_rules import by_the_book

VOTERS = 3
residents = st.sampled_from(RESIDENTS)


@define
class Written:
    """A journal, as the model has it."""

    author: str
    cost: int
    from_journal: int
    until: int
    votes: dict[str, str] = field(factory=dict)
    state: str = "open"


class Journaling(RuleBasedStateMachine):
    """Residents write, vote and live; the process goes and comes back; after each step all is as the model says."""

    @initialize()
    def found(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="vivarium-")
        self.scene = Scene(Path(self.folder.name)).__enter__()
        self.hour = 0
        self.money = {name: {"free": 100, "journal": 0} for name in RESIDENTS}
        self.commons = 0
        self.penalty = dict.fromkeys(RESIDENTS, 0)
        self.journals: list[Written] = []

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            self.scene.close()
            self.folder.cleanup()

    @rule(who=residents, aid=st.integers(1, 30))
    def grant(self, who: str, aid: int) -> None:
        self.scene.give(who, aid)
        self.money[who]["journal"] += aid

    @rule(who=residents)
    def write(self, who: str) -> None:
        purse = self.money[who]
        cost = 13 if self.penalty[who] > self.hour else 10
        from_journal = min(cost, purse["journal"])
        try:
            self.scene.write(who)
        except VivariumError as refused:
            assert refused.rule == "ledger.floor"
            assert purse["journal"] + purse["free"] < cost
            return
        purse["journal"] -= from_journal
        purse["free"] -= cost - from_journal
        self.journals.append(Written(who, cost, from_journal, self.hour + 24))

    def _vote(self, journal: int, who: str, choice: str) -> None:
        """The newest journals are voted on most."""
        if not self.journals:
            return
        number = max(0, len(self.journals) - 1 - journal)
        written = self.journals[number]
        may = (
            written.state == "open" and who != written.author and who not in written.votes
            and len(written.votes) < VOTERS and written.until > self.hour
        )  # fmt: skip
        shown = [ballot["journal"] for ballot in self.scene.do(who, "ballots")]
        assert (number + 1 in shown) == may
        try:
            self.scene.vote(number + 1, **{who: choice})
        except VivariumError as refused:
            assert refused.rule in ("journals.closed", "journals.voted", "journals.author")
            assert not may
            return
        assert may
        written.votes[who] = choice

    choices = st.sampled_from(["accept", "exceptional", "reject", "gaming"])

    @rule(journal=st.integers(0, 2), who=residents, choice=choices)
    def vote(self, journal: int, who: str, choice: str) -> None:
        self._vote(journal, who, choice)

    @rule(author=residents, kind=st.sampled_from(["exceptional", "accept", "gaming"]), other=choices)
    def one_from_its_beginning_to_its_end(self, author: str, kind: str, other: str) -> None:
        """What chance alone would seldom come to: all votes on one journal, and its decision."""
        self.write(author)
        for place, who in enumerate(RESIDENTS):
            self._vote(0, who, other if place == 2 else kind)
        self.live(0)

    @rule(hours=st.sampled_from([0, 0, 0, 1, 5, 24, 48]))
    def live(self, hours: int) -> None:
        self.scene.pass_hours(hours)
        self.hour += hours
        for journal in self.journals:
            if journal.state == "open" and (len(journal.votes) >= VOTERS or journal.until <= self.hour):
                self._decide(journal)

    def _decide(self, journal: Written) -> None:
        found = by_the_book([*journal.votes.values()], journal.cost)
        purse = self.money[journal.author]
        to_free = min(found.refund, journal.cost - journal.from_journal)
        purse["free"] += to_free + found.bonus
        purse["journal"] += found.refund - to_free
        self.commons += journal.cost - found.refund
        journal.state = found.result
        if found.result == "gaming":
            self.penalty[journal.author] = self.hour + 48

    @rule(place=st.integers(0, 3))
    def restart(self, place: int) -> None:
        if place:
            return  # opening a village takes as long as a hundred votes
        clock = self.scene.clock
        self.scene.__exit__()
        self.scene = Scene(Path(self.folder.name), clock=clock).__enter__()

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "scene"):
            return
        self.scene.check_books()
        for name, purse in self.money.items():
            assert {which: self.scene.aid(f"{name}:{which}") for which in purse} == purse, name
        assert self.scene.aid("commons") == self.commons
        states = [row[0] for row in self.scene.rows("SELECT state FROM journals_entries ORDER BY id")]
        assert states == [journal.state for journal in self.journals]


def run(examples: int, steps: int, *, shrink: bool = True) -> None:
    """Let the machine live so many lives."""
    phases: Any = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    run_state_machine_as_test(
        Journaling,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, database=None, derandomize=not shrink,
            report_multiple_bugs=False, suppress_health_check=list(HealthCheck), phases=phases,
        ),
    )  # fmt: skip
