"""Promises about journals: what they cost, who votes, when it ends, and that they are paid once for ever."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.clock import SimulatedClock, run_simulated
from vivarium_kernel.problems import InputError
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.testing.simulation import NEVER, Fuse, PowerCut
from vivarium_plugins_social.journals import Journals

from vivarium_kernel import Conflict, Forbidden, Invalid, NotFound, PluginTx, control
from vivarium_plugins_social import journals

from .scene import AID, PRIVATE, TEXT, Counts, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path / "village") as found:
        yield found
        found.check_books()


# What it costs


def test_an_attempt_costs_ten_from_free_where_there_is_no_journal_account(scene: Scene) -> None:
    assert scene.do("ada", "write", text=TEXT, type="idea") == {"journal": 1, "cost_micros": 10 * AID}
    assert scene.aid("ada") == 90


def test_the_journal_account_pays_first(scene: Scene) -> None:
    scene.give("ada", 25)
    for account, free in ((15, 100), (5, 100), (0, 95), (0, 85)):
        scene.write()
        assert (scene.aid("ada:journal"), scene.aid("ada")) == (account, free)


def test_who_can_not_pay_writes_nothing(scene: Scene) -> None:
    scene.give("ada", 4)
    for _ in range(10):
        scene.write()
    assert (scene.aid("ada:journal"), scene.aid("ada")) == (0, 4)
    with pytest.raises(Conflict, match="holds 4000000"):
        scene.write()
    assert (scene.aid("ada:journal"), scene.aid("ada")) == (0, 4)
    assert scene.rows("SELECT count(*) FROM journals_entries") == [(10,)]


def test_what_returns_goes_back_as_if_less_had_been_asked_for(scene: Scene) -> None:
    scene.give("ada", 3)
    journal = scene.write()
    assert (scene.aid("ada:journal"), scene.aid("ada")) == (0, 93)
    scene.vote(journal, ben="accept", cyn="accept", dov="accept")
    scene.tick()  # 5 return: an attempt that cost 5 would have taken 3 and 2
    assert (scene.aid("ada:journal"), scene.aid("ada"), scene.aid("commons")) == (0, 98, 5)
    scene.give("ada", 9)
    journal = scene.write()
    scene.vote(journal, ben="accept", cyn="accept", dov="accept")
    scene.tick()
    assert (scene.aid("ada:journal"), scene.aid("ada"), scene.aid("commons")) == (4, 98, 10)


def test_bad_input_is_refused_with_its_field_and_nothing_changes(scene: Scene) -> None:
    for body, path in (
        ({"text": "", "type": "idea"}, "text"),
        ({"text": "x" * 20_001, "type": "idea"}, "text"),
        ({"text": TEXT}, "type"),
        ({"text": TEXT, "type": "idea", "author": "ben"}, "author"),
    ):
        with pytest.raises(InputError) as wrong:
            scene.do("ada", "write", **body)
        assert [problem.path for problem in wrong.value.problems] == [path]
    for body, path in (({"text": " \n ", "type": "idea"}, "text"), ({"text": TEXT, "type": "poem"}, "type")):
        with pytest.raises(Invalid) as refused:
            scene.do("ada", "write", **body)
        assert refused.value.field == path
    assert scene.aid("ada") == 100
    assert scene.rows("SELECT 1 FROM journals_entries") == []


def test_a_request_that_is_repeated_under_its_key_writes_and_pays_once(scene: Scene) -> None:
    first = scene.do("ada", "write", "k", text=TEXT, type="idea")
    assert scene.do("ada", "write", "k", text=TEXT, type="idea") == first
    assert scene.aid("ada") == 90


# Who votes, and what a voter sees


@pytest.mark.promise("voters see an excerpt and never the author, and nobody a count before the end")
def test_a_ballot_shows_an_excerpt_and_never_the_author(scene: Scene) -> None:
    scene.write(text="a  b\n" * 300)
    (ballot,) = scene.do("ben", "ballots")
    assert ballot == {
        "journal": 1, "excerpt": ("a b " * 300)[:280], "words": 600, "type": "idea", "cost_micros": 10 * AID,
        "hours_left": 24,
    }  # fmt: skip
    assert scene.do("ada", "ballots") == []


@pytest.mark.promise("a journal's author has no vote, and everybody else one")
def test_the_author_has_no_vote_and_everybody_else_one(scene: Scene) -> None:
    journal = scene.write()
    with pytest.raises(Forbidden, match="their own"):
        scene.vote(journal, ada="exceptional")
    scene.vote(journal, ben="accept")
    with pytest.raises(Conflict, match="You have voted"):
        scene.vote(journal, ben="exceptional")
    assert scene.do("ben", "ballots") == []
    with pytest.raises(NotFound):
        scene.vote(2, ben="accept")
    assert scene.rows("SELECT voter, choice FROM journals_ballots") == [("ben", "accept")]


@pytest.mark.parametrize("reason", ["", "no", "  x  ", "\t\n a"])
def test_a_vote_needs_a_reason_of_three_characters(scene: Scene, reason: str) -> None:
    journal = scene.write()
    with pytest.raises((Invalid, InputError), match="reason"):
        scene.do("ben", "vote", journal=journal, choice="accept", reason=reason)
    scene.do("ben", "vote", journal=journal, choice="accept", reason="yes")
    with pytest.raises(InputError, match="choice"):
        scene.do("cyn", "vote", journal=journal, choice="superb", reason="it is")


@pytest.mark.promise("voters see an excerpt and never the author, and nobody a count before the end")
def test_nothing_tells_the_count_before_the_end(scene: Scene) -> None:
    journal = scene.write()
    before = {who: scene.do(who, "ballots") for who in ("dov", "eli")}
    (own,) = scene.do("ada", "mine")
    told = [scene.do(who, "vote", journal=journal, choice=choice, reason="so it seems")
            for who, choice in (("ben", "reject"), ("cyn", "gaming"))]  # fmt: skip
    scene.tick()
    assert told == [{"journal": journal}, {"journal": journal}]
    assert {who: scene.do(who, "ballots") for who in ("dov", "eli")} == before
    assert scene.do("ada", "mine") == [own]
    assert scene.count("ada") == 0
    # The log says who did an action; which journal a ballot is for stands nowhere in it.
    since = scene.rows(
        "SELECT kind, resident, data FROM events WHERE kind GLOB 'journals.*' OR actor GLOB 'resident:*'"
    )
    assert [json.loads(data) for kind, who, data in since if who in ("ben", "cyn")] == 2 * [{"action": "journals.vote"}]
    scene.vote(journal, dov="reject")
    assert scene.do("eli", "ballots") == []
    scene.tick()
    (end,) = scene.events("journals.decided")
    assert (end["journal"], end["result"], end["votes"]) == (journal, "rejected", 3)


# When it ends


@pytest.mark.promise("a vote is final at three votes, or at the deadline with those that are in")
def test_the_third_vote_ends_it(scene: Scene) -> None:
    journal = scene.write()
    scene.vote(journal, ben="exceptional", cyn="exceptional")
    scene.pass_hours(23)
    assert scene.state(journal) == "open"
    scene.vote(journal, dov="exceptional")
    with pytest.raises(Conflict, match="is over"):
        scene.vote(journal, eli="gaming")
    scene.tick()
    assert scene.state(journal) == "accepted"
    assert scene.aid("ada") == 110
    with pytest.raises(Conflict, match="is over"):
        scene.vote(journal, eli="gaming")


@pytest.mark.promise("a vote is final at three votes, or at the deadline with those that are in")
@pytest.mark.parametrize(
    ("votes", "state", "free", "commons"),
    [
        ({}, "returned", 100, 0),
        ({"ben": "accept"}, "accepted", 95, 5),
        ({"ben": "exceptional"}, "accepted", 110, 0),
        ({"ben": "accept", "cyn": "exceptional"}, "accepted", 101, 2),
        ({"ben": "reject", "cyn": "accept"}, "rejected", 90, 10),
        ({"ben": "gaming", "cyn": "exceptional"}, "gaming", 90, 10),
    ],
)
def test_at_the_deadline_those_count_who_have_voted(
    scene: Scene, votes: dict[str, str], state: str, free: int, commons: int
) -> None:
    journal = scene.write()
    scene.vote(journal, **votes)
    scene.pass_hours(23.9)
    assert scene.state(journal) == "open"
    scene.clock.advance(2.0)
    with pytest.raises(Conflict, match="is over"):  # also before the host has looked
        scene.vote(journal, eli="exceptional")
    assert scene.do("eli", "ballots") == []
    scene.tick()
    assert (scene.state(journal), scene.aid("ada"), scene.aid("commons")) == (state, free, commons)


def test_a_halted_village_lets_no_deadline_pass(scene: Scene) -> None:
    journal = scene.write()
    scene.pass_hours(20)
    scene.call(control.switch, control.Switch("halted", True, "test", "for a while"))
    scene.pass_hours(100)
    scene.call(control.switch, control.Switch("halted", False, "test"))
    scene.pass_hours(3)
    assert scene.state(journal) == "open"
    scene.pass_hours(1)
    assert scene.state(journal) == "returned"


@pytest.mark.promise("deadlines pass on the host by the village's clock")
def test_a_real_village_decides_by_itself_when_the_day_is_over(tmp_path: Path) -> None:
    """A real runtime: the host ticks, and village hours pass because it lives."""
    clock = SimulatedClock(3)
    scene = Scene(tmp_path / "village", clock=clock)
    journal = scene.write()
    scene.vote(journal, ben="accept", cyn="exceptional")

    async def live(hours: float) -> None:
        async with Runtime(scene.village, 0, kind="work"):
            await asyncio.sleep(hours * 10.0)

    run_simulated(clock, live(23.5))
    clock.advance(100_000.0)  # nobody lives here: the village's time stands still
    assert scene.state(journal) == "open"
    run_simulated(clock, live(1.0))
    assert (scene.state(journal), scene.aid("ada")) == ("accepted", 101)
    scene.check_books()
    scene.close()


# Gaming


@pytest.mark.promise("gaming makes the next attempts dearer for two village days")
def test_gaming_makes_attempts_dearer_for_two_days(scene: Scene) -> None:
    journal = scene.write()
    scene.vote(journal, ben="gaming", cyn="gaming", dov="exceptional")
    scene.tick()
    assert (scene.state(journal), scene.aid("ada")) == ("gaming", 90)
    assert scene.do("ada", "write", text=TEXT, type="idea")["cost_micros"] == 13 * AID
    assert scene.do("ben", "write", text=TEXT, type="idea")["cost_micros"] == 10 * AID
    scene.vote(2, ben="accept", cyn="exceptional", dov="exceptional")
    scene.tick()  # of 13: 11 return, and 7 are new
    assert scene.aid("ada") == 90 - 13 + 11 + 7
    scene.pass_hours(47)
    assert scene.do("ada", "write", text=TEXT, type="idea")["cost_micros"] == 13 * AID
    scene.pass_hours(1)
    assert scene.do("ada", "write", text=TEXT, type="idea")["cost_micros"] == 10 * AID


# Paid once


@pytest.mark.promise("a journal is paid once for ever")
def test_a_journal_is_paid_once_through_ticks_and_restarts(tmp_path: Path) -> None:
    with Scene(tmp_path / "village") as scene:
        journal = scene.write()
        scene.vote(journal, ben="exceptional", cyn="exceptional", dov="accept")
        scene.tick()
        scene.tick()
        clock = scene.clock
    for _ in range(2):
        with Scene(tmp_path / "village", clock=clock) as scene:
            scene.pass_hours(30)
            scene.tick()
            assert scene.aid("ada") == 104
            assert len(scene.events("journals.decided")) == 1
            scene.check_books()


def test_a_vote_goes_on_after_a_restart(tmp_path: Path) -> None:
    with Scene(tmp_path / "village") as scene:
        scene.give("ada", 4)
        journal = scene.write()
        scene.vote(journal, ben="exceptional")
        scene.pass_hours(10)
        clock = scene.clock
    with Scene(tmp_path / "village", clock=clock) as scene:
        with pytest.raises(Conflict, match="You have voted"):
            scene.vote(journal, ben="gaming")
        scene.pass_hours(13)
        assert scene.state(journal) == "open"
        scene.pass_hours(1)
        assert (scene.aid("ada:journal"), scene.aid("ada")) == (4, 110)
        scene.check_books()


@pytest.mark.promise("a journal is paid once for ever")
@pytest.mark.parametrize("breaks", ["mint", "settle_hold", "emit"])
def test_a_fault_while_deciding_leaves_all_out_and_the_next_tick_does_it_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    journal = scene.write()
    scene.vote(journal, ben="exceptional", cyn="exceptional", dov="accept")
    with monkeypatch.context() as patch:
        patch.setattr(PluginTx, breaks, broken)
        scene.tick()
    assert (scene.state(journal), scene.aid("ada"), scene.aid("commons")) == ("open", 90, 0)
    assert scene.village.health.tally("journals", "on_tick").errors == 1
    for _ in range(3):
        scene.tick()
    assert (scene.state(journal), scene.aid("ada"), scene.aid("commons")) == ("accepted", 104, 1)


def broken(*_: Any, **__: Any) -> None:
    raise RuntimeError("a fault of the plugin")


@pytest.mark.promise("a journal is paid once for ever")
@pytest.mark.parametrize("after_commit", [False, True])
def test_a_power_cut_at_any_statement_of_deciding_pays_once(tmp_path: Path, after_commit: bool) -> None:
    statements = NEVER - decide_in_the_dark(tmp_path / "whole", Fuse()).left
    places = {*range(0, statements, 3), *range(statements - 4, statements)}
    for place in sorted(places)[-4 if after_commit else 0 :]:
        fuse = Fuse(left=NEVER, after_commit=after_commit)
        decide_in_the_dark(tmp_path / str(place), fuse, place)
        assert fuse.burned.is_set()


def decide_in_the_dark(folder: Path, fuse: Fuse, statements: int = NEVER) -> Fuse:
    """Decide a journal in a process whose power is cut after so many statements, then look in another one."""
    with Scene(folder) as scene:
        scene.give("ada", 4)
        journal = scene.write()
        scene.vote(journal, ben="exceptional", cyn="exceptional", dov="accept")
        clock = scene.clock
    dark = Scene(folder, clock=clock, connection=fuse.connection())
    fuse.left = statements
    with contextlib.suppress(PowerCut):
        dark.tick()
    left = fuse.left
    fuse.cut()
    fuse.left = left
    with Scene(folder, clock=clock) as scene:
        scene.tick()
        scene.tick()
        assert scene.state(journal) == "accepted"
        assert (scene.aid("ada:journal"), scene.aid("ada"), scene.aid("commons")) == (3, 105, 1)
        scene.check_books()
    return fuse


def test_a_bonus_beyond_the_days_cap_is_owed_until_another_day(tmp_path: Path) -> None:
    with Scene(tmp_path / "village", "[plugins.journals]\nbonus_cap_aid = 13\n") as scene:
        for author in ("ada", "ben"):
            journal = scene.write(author)
            scene.vote(journal, cyn="exceptional", dov="exceptional", eli="exceptional")
        for _ in range(3):
            scene.tick()
        assert (scene.aid("ada"), scene.aid("ben")) == (110, 100)
        assert scene.events("journals.bonus_waits") == [{"journal": 2, "micros": 10 * AID}]
        scene.pass_hours(24)
        scene.tick()
        assert (scene.aid("ada"), scene.aid("ben")) == (110, 110)
        scene.check_books()


@pytest.mark.parametrize(
    ("line", "path"),
    [("cost_aid = 0", "cost_aid"), ("votes = 0", "votes"), ("bonus_cap_aid = 12", "bonus_cap_aid"),
     ("excerpt_characters = 281", "excerpt_characters"), ("vote_hour = 3", "vote_hour")],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_path(tmp_path: Path, line: str, path: str) -> None:
    with pytest.raises(AssertionError, match=f"plugins.journals.{path}"):
        Scene(tmp_path / "village", f"[plugins.journals]\n{line}\n")


def test_settings_shape_the_vote(tmp_path: Path) -> None:
    settings = "[plugins.journals]\ncost_aid = 20\nvotes = 1\nexcerpt_characters = 3\n"
    with Scene(tmp_path / "village", settings) as scene:
        journal = scene.write()
        assert scene.do("ben", "ballots")[0]["excerpt"] == TEXT[:3]
        scene.vote(journal, ben="exceptional")
        scene.tick()
        assert scene.aid("ada") == 120


# What the others may know


def test_the_service_counts_what_is_decided_and_says_nothing_else(scene: Scene) -> None:
    scene.write()
    assert scene.count("ada") == 0
    scene.pass_hours(24)
    assert (scene.count("ada"), scene.count("ben"), scene.count("nobody")) == (1, 0, 0)
    service = scene.village.service("journals", Counts)
    assert [name for name in dir(service) if not name.startswith("_")] == ["count"]


def test_the_author_lists_and_reads_its_own(scene: Scene) -> None:
    journal = scene.write()
    scene.vote(journal, ben="exceptional", cyn="exceptional", dov="exceptional")
    scene.tick()
    assert scene.do("ada", "mine") == [
        {"journal": 1, "type": "idea", "words": 82, "state": "accepted", "cost_micros": 10 * AID,
         "refund_micros": 10 * AID, "bonus_micros": 10 * AID}
    ]  # fmt: skip
    assert scene.do("ada", "read", journal=journal)["text"] == TEXT
    assert scene.do("ben", "mine") == []
    with pytest.raises(NotFound) as others:
        scene.do("ben", "read", journal=journal)
    with pytest.raises(NotFound) as none:
        scene.do("ben", "read", journal=99)
    assert str(others.value).replace("1", "99") == str(none.value)
    assert PRIVATE not in str(others.value)


def test_the_physics_are_noted_when_the_plugin_is_first_enabled(scene: Scene) -> None:
    (noted,) = [event for event in scene.events("plugin.physics") if event["plugin"] == Journals.name]
    assert json.loads(noted["constants"])["penalty_percent"] == journals.PHYSICS.penalty_percent == 125
