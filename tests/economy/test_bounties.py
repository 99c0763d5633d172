"""Promises about bounties: what is set aside is paid once or returns, and nobody gets what is not theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.problems import InputError
from vivarium_plugins_economy.bounties import Bounties

from vivarium_kernel import Actor, Conflict, Forbidden, Invalid, NotFound, VivariumError

from .scene import AID, HUMAN, OPERATOR, WORK, Guilds, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path / "village") as found:
        yield found
        found.check()


def refused(rule: str, kind: type[VivariumError] = Conflict) -> Any:
    """The block is refused by this rule."""
    return pytest.raises(kind, check=lambda error: error.rule == rule)


def test_the_reward_is_set_aside_when_it_is_posted(scene: Scene) -> None:
    bounty = scene.post("hal", 40, 10)
    assert scene.free("hal") == 50 * AID
    assert scene.state(bounty) == "open"
    assert scene.rows("SELECT owner, micros, state, ref FROM holds") == [("bounties", 50 * AID, "held", "bounty:1")]
    with refused("ledger.floor"):
        scene.post("hal", 51)
    assert scene.rows("SELECT count(*) FROM bounties_posted") == [(1,)]


def test_an_operators_bounty_is_paid_by_the_commons(scene: Scene) -> None:
    with refused("ledger.floor"):
        scene.post(OPERATOR, 30)
    scene.endow(100)
    bounty = scene.post(OPERATOR, 30)
    assert scene.account("commons") == 70 * AID
    scene.do("complete", OPERATOR, bounty=bounty, winner=[scene.submit(bounty, "ada")])
    assert scene.free("ada") == 130 * AID


def test_a_cancelled_bounty_returns_its_escrow_once(scene: Scene) -> None:
    bounty = scene.post("hal", 40, 10)
    with refused("bounties.poster", Forbidden):
        scene.do("cancel", "ada", bounty=bounty)
    first = scene.do("cancel", "hal", bounty=bounty)
    assert first == scene.do("cancel", "hal", bounty=bounty) == {"bounty": bounty, "returned_micros": 50 * AID}
    assert scene.free("hal") == 100 * AID
    assert len(scene.events("bounties.cancelled")) == 1
    for act, body in (("claim", {}), ("submit", {"text": WORK})):
        with refused("bounties.state"):
            scene.do(act, "ada", bounty=bounty, **body)
    with refused("bounties.state"):
        scene.do("complete", "hal", bounty=bounty, winner=[1])


def test_a_claimed_bounty_is_not_cancelled_until_idle_claims_lapse(scene: Scene) -> None:
    bounty = scene.post("hal", 40, slots=1)
    assert scene.do("claim", "ada", bounty=bounty) == {"bounty": bounty, "place": 1, "multiplier": 1.0}
    assert scene.do("claim", "ben", bounty=bounty)["multiplier"] == 0.5
    assert scene.do("claim", "ada", bounty=bounty)["place"] == 1, "a second claim takes no second place"
    for who in ("hal", OPERATOR):
        with refused("bounties.state"):
            scene.do("cancel", who, bounty=bounty)
    two_days_on(scene)
    assert scene.do("cancel", "hal", bounty=bounty)["returned_micros"] == 40 * AID


def test_a_claim_that_led_to_something_does_not_lapse(scene: Scene) -> None:
    bounty = scene.post("hal", 40)
    scene.do("claim", "ada", bounty=bounty)
    scene.submit(bounty, "ben")
    two_days_on(scene)
    assert scene.do("claim", "cyn", bounty=bounty)["place"] == 2, "ada's place is free again"
    with refused("bounties.state"):
        scene.do("cancel", "hal", bounty=bounty)


def two_days_on(scene: Scene) -> None:
    """Village time moves with the clock while somebody hosts the village; here it is moved by hand."""
    scene.village.store.call(lambda tx, _: tx.run("UPDATE village SET hours_micros = hours_micros + 48000000"), None)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"text": "too short"}, "bounties.text"),
        ({"text": "   too short            "}, "bounties.text"),
        ({"artifacts": ["/etc/passwd"]}, "bounties.artifact"),
        ({"artifacts": ["files/../../secret"]}, "bounties.artifact"),
    ],
)
def test_a_submission_says_something_or_names_files_of_the_village(
    scene: Scene, body: dict[str, Any], rule: str
) -> None:
    bounty = scene.post()
    with refused(rule, Invalid):
        scene.do("submit", "ada", bounty=bounty, **body)
    assert scene.state(bounty) == "open"
    scene.do("submit", "ada", bounty=bounty, artifacts=["files/bridge.txt"])
    assert scene.state(bounty) == "claimed"


def test_the_very_same_is_refused_whoever_submits_it(scene: Scene) -> None:
    bounty = scene.post()
    scene.submit(bounty, "ada", WORK, artifacts=["files/a", "files/b"])
    for who in ("ada", "ben"):
        with refused("bounties.same"):
            scene.submit(bounty, who, f"  {WORK}\n", artifacts=["files/b", "files/a"])
    scene.submit(bounty, "ben", WORK)
    scene.submit(scene.post(), "ben", WORK)
    assert scene.rows("SELECT count(*) FROM bounties_submissions") == [(3,)]


def test_nobody_is_paid_for_a_bounty_of_their_own_or_that_they_judge(scene: Scene) -> None:
    bounty = scene.post("ada", judge="dov")
    for who in ("ada", "dov"):
        for act in ("claim", "submit"):
            with refused("bounties.own", Forbidden):
                scene.do(act, who, bounty=bounty, **({"text": WORK} if act == "submit" else {}))
    with refused("bounties.own", Forbidden):
        scene.submit(bounty, "ben", as_guild=True)  # ada is a mason
    with refused("bounties.judge", Forbidden):
        scene.do("complete", "ada", bounty=bounty, winner=[1])


def test_the_judge_pays_a_winner_and_a_runner_up_once(scene: Scene) -> None:
    bounty = scene.post("hal", 40, 10, slots=2, judge="gus")
    second, first = scene.submit(bounty, "ada"), scene.submit(bounty, "ben")
    done = scene.do("complete", "gus", bounty=bounty, winner=[first], runner_up=[second])
    assert [(each["resident"], each["micros"]) for each in done["paid"]] == [("ben", 40 * AID), ("ada", 10 * AID)]
    assert done["returned_micros"] == 0
    assert scene.do("complete", "gus", bounty=bounty, winner=[first], runner_up=[second]) == done
    assert scene.do("complete", OPERATOR, bounty=bounty, winner=[first], runner_up=[second]) == done
    with refused("bounties.state"):
        scene.do("complete", "gus", bounty=bounty, winner=[second], runner_up=[first])
    assert (scene.free("ben"), scene.free("ada"), scene.free("hal")) == (140 * AID, 110 * AID, 50 * AID)
    assert len(scene.events("bounties.paid")) == 2
    assert len(scene.events("bounties.completed")) == 1


@pytest.mark.parametrize(("place", "share"), [(1, 40), (2, 40), (3, 20), (4, 10), (6, 2.5), (7, 2)])
def test_a_winner_past_the_slots_gets_less_and_the_rest_returns(tmp_path: Path, place: int, share: float) -> None:
    with Scene(tmp_path / "village") as scene:
        bounty = scene.post("hal", 40, slots=2)
        numbers = [scene.submit(bounty, who) for who in ("ada", "ben", "cyn", "dov", "eli", "fay", "gus")]
        done = scene.do("complete", "hal", bounty=bounty, winner=[numbers[place - 1]])
        assert done["paid"][0]["micros"] == share * AID
        assert scene.free("hal") == (100 - share) * AID
        scene.check()


def test_in_a_rivalry_one_wins_and_rivals_see_only_their_own(scene: Scene) -> None:
    bounty = scene.post("hal", 40, 10)
    mine, other = scene.submit(bounty, "ada"), scene.submit(bounty, "ben")
    for choice in (
        {"winner": [mine, other]},
        {"winner": [mine], "runner_up": [mine]},
        {"winner": [mine, mine]},
        {"runner_up": [mine]},
        {},
    ):
        with refused("bounties.choice", Invalid):
            scene.do("complete", "hal", bounty=bounty, **choice)
    with refused("bounties.submission", NotFound):
        scene.do("complete", "hal", bounty=bounty, winner=[99])
    assert seen(scene, bounty, "ada") == [mine]
    assert seen(scene, bounty, "cyn") == seen(scene, bounty, HUMAN) == []
    assert seen(scene, bounty, OPERATOR) == seen(scene, bounty, "hal") == [mine, other]


def seen(scene: Scene, bounty: int, who: str | Actor) -> list[int]:
    return [each["id"] for each in scene.do("show", who, bounty=bounty)["submissions"]]


def test_in_a_cooperation_all_who_entered_see_everything_and_share_one_prize(scene: Scene) -> None:
    with refused("bounties.runner_up", Invalid):
        scene.post("hal", 40, 10, mode="cooperation")
    bounty = scene.post("hal", 40, mode="cooperation", slots=3)
    numbers = [scene.submit(bounty, who) for who in ("ada", "ben", "cyn")]
    assert seen(scene, bounty, "ada") == numbers
    assert seen(scene, bounty, "dov") == []
    scene.do("claim", "dov", bounty=bounty)
    assert seen(scene, bounty, "dov") == numbers
    scene.do("complete", "hal", bounty=bounty, winner=list(reversed(numbers)))
    assert [scene.free(who) - 100 * AID for who in ("ada", "ben", "cyn")] == [13_333_334, 13_333_333, 13_333_333]


def test_with_both_modes_several_share_each_prize_and_rivals_stay_unseen(scene: Scene) -> None:
    bounty = scene.post("hal", 40, 20, mode="both", slots=9)
    one, two, three, four = (scene.submit(bounty, who) for who in ("ada", "ben", "cyn", "dov"))
    assert seen(scene, bounty, "ada") == [one]
    scene.do("complete", "hal", bounty=bounty, winner=[one, three], runner_up=[two, four])
    assert [scene.free(who) // AID for who in ("ada", "ben", "cyn", "dov")] == [120, 110, 120, 110]


def test_two_guilds_of_three_share_the_prizes_and_not_a_prize_each(scene: Scene) -> None:
    """Two teams of three were once paid 420 for 100 and 40, and again on the second press."""
    scene.endow(140)
    bounty = scene.post(OPERATOR, 100, 40, slots=2)
    one, two = scene.submit(bounty, "ben", as_guild=True), scene.submit(bounty, "dov", as_guild=True)
    for _ in range(2):
        scene.do("complete", OPERATOR, bounty=bounty, winner=[one], runner_up=[two])
    gains = {who: scene.free(who) - 100 * AID for who in ("ada", "ben", "cyn", "eli", "dov", "fay")}
    assert gains == {
        "ada": 33_333_334, "ben": 33_333_333, "cyn": 33_333_333,
        "eli": 13_333_334, "dov": 13_333_333, "fay": 13_333_333,
    }  # fmt: skip
    assert scene.account("commons") == 0


def test_a_resident_is_rewarded_for_one_submission(scene: Scene) -> None:
    bounty = scene.post("hal", 60, 30, slots=9)
    alone, again = scene.submit(bounty, "ben"), scene.submit(bounty, "ben", f"{WORK} more")
    guild = scene.submit(bounty, "ada", as_guild=True)
    with refused("bounties.nothing"):
        scene.do("complete", "hal", bounty=bounty, winner=[alone], runner_up=[again])
    done = scene.do("complete", "hal", bounty=bounty, winner=[alone], runner_up=[guild])
    assert {each["resident"]: each["micros"] // AID for each in done["paid"]} == {"ben": 60, "ada": 10, "cyn": 10}
    assert done["returned_micros"] == 10 * AID


def test_a_guild_shares_among_those_who_were_in_it_when_it_submitted(scene: Scene) -> None:
    bounty = scene.post("hal", 30)
    number = scene.submit(bounty, "ada", as_guild=True)
    scene.village.store.call(lambda tx, _: tx.run("DELETE FROM guilds_members WHERE resident <> 'ben'"), None)
    scene.do("complete", "hal", bounty=bounty, winner=[number])
    assert [scene.free(who) // AID for who in ("ada", "ben", "cyn")] == [110, 110, 110]


def test_without_guilds_residents_enter_alone_and_what_a_guild_submitted_is_still_paid(tmp_path: Path) -> None:
    with Scene(tmp_path / "village") as scene:
        bounty = scene.post("hal", 30)
        number = scene.submit(bounty, "ada", as_guild=True)
        with refused("bounties.guild"):
            scene.submit(bounty, "gus", as_guild=True)
    with Scene(tmp_path / "village", (Bounties,)) as scene:
        with refused("bounties.guilds"):
            scene.submit(bounty, "dov", as_guild=True)
        scene.submit(bounty, "dov")
        scene.do("complete", "hal", bounty=bounty, winner=[number])
        assert [scene.free(who) // AID for who in ("ada", "ben", "cyn")] == [110, 110, 110]
        scene.check()


def test_an_operator_may_find_nothing_worth_the_prize_and_nobody_else(scene: Scene) -> None:
    bounty = scene.post("hal", 40)
    scene.submit(bounty, "ada")
    with refused("bounties.choice", Invalid):
        scene.do("complete", "hal", bounty=bounty)
    assert scene.do("complete", OPERATOR, bounty=bounty)["returned_micros"] == 40 * AID
    assert (scene.state(bounty), scene.free("hal")) == ("completed", 100 * AID)


@pytest.mark.promise("actor-is-the-credential")
def test_each_role_does_its_own_part() -> None:
    found = {action.name.partition(".")[2]: action.roles for action in Bounties(None, None).register_actions()}
    assert found == {
        "post": ("resident", "operator"), "cancel": ("resident", "operator"), "claim": ("resident",),
        "submit": ("resident",), "complete": ("resident", "operator"), "list": ("resident", "human", "operator"),
        "show": ("resident", "human", "operator"),
    }  # fmt: skip


@pytest.mark.promise("amounts-are-positive")
@pytest.mark.parametrize("amount", [0, -1, 1.5, "5", True, 10**15 + 1])
def test_a_prize_is_a_positive_whole_number_of_millionths(scene: Scene, amount: Any) -> None:
    for field in ("prize_micros", "runner_up_micros"):
        body = {"title": "x", "text": "", "prize_micros": AID} | {field: amount}
        with pytest.raises(InputError):
            scene.do("post", "hal", **body)
    assert scene.free("hal") == 100 * AID


def test_a_repeated_request_posts_one_bounty(scene: Scene) -> None:
    body = {"title": "x", "text": "", "prize_micros": 5 * AID}
    assert scene.do("post", "hal", key="k", **body) == scene.do("post", "hal", key="k", **body)
    assert scene.free("hal") == 95 * AID


def test_a_resident_has_so_many_bounties_and_submits_so_often(tmp_path: Path) -> None:
    settings = "[plugins.bounties]\nmost_alive = 2\nmost_submissions = 1\n"
    with Scene(tmp_path / "village", settings=settings) as scene:
        bounty = scene.post("hal", 1)
        scene.post("hal", 1)
        with refused("bounties.many"):
            scene.post("hal", 1)
        scene.submit(bounty, "ada")
        with refused("bounties.often"):
            scene.submit(bounty, "ada", f"{WORK} again")
        scene.check()


def test_lists_and_tools_say_what_there_is(scene: Scene) -> None:
    first, second = scene.post("hal", 5), scene.post("gus", 5)
    scene.do("cancel", "hal", bounty=first)
    assert [each["id"] for each in scene.do("list", HUMAN)] == [first, second]
    assert [each["id"] for each in scene.do("list", "ada", state="open")] == [second]
    assert [each["id"] for each in scene.do("list", "ada", after=first, limit=1)] == [second]
    with refused("bounties.unknown", NotFound):
        scene.do("show", "ada", bounty=9)
    tools = {tool.name: tool for tool in scene.village.tools()}
    assert tools["bounties__post"].parameters["properties"]["prize_micros"]["minimum"] == 1


@pytest.mark.promise("hidden-values")
def test_events_and_rivals_never_hold_what_was_submitted(scene: Scene) -> None:
    bounty = scene.post("hal", 5)
    scene.submit(bounty, "ada", "a secret way to build it, at last")
    assert [row for row in scene.rows("SELECT data FROM events") if "secret way" in row[0]] == []
    assert "secret way" not in str(scene.do("show", "ben", bounty=bounty))


def test_a_village_opened_again_goes_on_where_its_bounties_were(tmp_path: Path) -> None:
    with Scene(tmp_path / "village") as scene:
        bounty = scene.post("hal", 40)
        number = scene.submit(bounty, "ada")
    with Scene(tmp_path / "village", (Bounties, Guilds)) as scene:
        assert scene.post("gus", 1) == bounty + 1
        scene.do("complete", "hal", bounty=bounty, winner=[number])
        assert scene.free("ada") == 140 * AID
        scene.check()
