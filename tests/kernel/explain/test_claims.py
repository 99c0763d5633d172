"""Why a resident would get a task, or not, asked of the real hooks; and why it was claimed, kept with the attempt."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kernel.cli.running import Here
from kernel.cli.running import village as small
from kernel.hooks.scene import too_deep
from vivarium_kernel.claiming import Pick, Round
from vivarium_kernel.control import Switch, switch
from vivarium_kernel.errors import NotFound
from vivarium_kernel.people import Change, change
from vivarium_kernel.records import Entitlement, NewTask, Reject
from vivarium_kernel.settling import Settlement
from vivarium_kernel.village import Village

from vivarium_kernel import board, breakers, claiming, explaining, processes, settling

from .scene import folder, opened, plugin, prompts, rows, run


def refuse_labelled(self: Any, resident: Any, tasks: Any) -> list[Reject]:
    return [Reject(task.id, f"not for {resident.name}") for task in tasks if "locked" in task.labels]


def only_ada(self: Any, resident: Any, tasks: Any) -> list[Reject]:
    return [Reject(task.id, "only ada may") for task in tasks if resident.name != "ada"]


def likes(name: str) -> Callable[..., list[float]]:
    return lambda self, tasks: [1.0 if task.id == name else 0.25 for task in tasks]


def leaves(self: Any, tasks: Any) -> None:
    raise SystemExit(3)


Gate = plugin("gate", claim_filter=refuse_labelled)
Members = plugin("members", claim_filter=only_ada)
Taste = plugin("taste", claim_score=likes("b"))


@pytest.mark.promise("explained-claims")
def test_every_filter_gives_its_verdict_and_every_scorer_its_score_weight_and_time(tmp_path: Path) -> None:
    slow = plugin("slow", claim_score=lambda self, tasks: time.sleep(0.02) or [0.5] * len(tasks))
    with opened(folder(tmp_path / "v"), Gate, Members, Taste, slow) as village:
        village.post(prompts("a", "b"))
        village.post(prompts("c", labels=("locked",)))
        b = explaining.explain(village, "b", "ada")
        c = explaining.explain(village, "c", "ben")
    assert b.may
    assert (b.place, b.wishes, b.weighed, b.first) == (1, 2, 3, "b")
    assert [(said.plugin, said.answer, said.refuses) for said in b.filters] == [
        ("gate", "lets it pass", False),
        ("members", "lets it pass", False),
    ]
    given = {each.plugin: each for each in b.scores}
    assert {name: each.score for name, each in given.items()} == {"oldest_first": 0.5, "slow": 0.5, "taste": 1.0}
    assert b.score == pytest.approx(2.0 / 3)
    assert {each.weight for each in b.scores} == {1.0}
    assert (given["slow"].milliseconds or 0) >= 20 > (given["taste"].milliseconds or 99)
    assert not c.may
    assert c.place is None
    assert c.first is None
    assert [said.answer for said in c.filters] == ["refuses: not for ben", "refuses: only ada may"]
    assert c.score is not None  # what it would be worth


@pytest.mark.promise("explained-claims")
@pytest.mark.parametrize("fault", ["raises", "exits", "never ends in words", "nonsense"])
def test_plugins_that_fail_are_named_and_the_others_still_speak(tmp_path: Path, fault: str) -> None:
    does: dict[str, Callable[..., Any]] = {
        "raises": lambda self, tasks: 1 / 0,
        "exits": leaves,
        "never ends in words": lambda self, tasks: too_deep(),
        "nonsense": lambda self, tasks: 7,
    }
    bad = plugin("bad", claim_filter=does[fault], claim_score=does[fault])
    worse = plugin("worse", entitle=lambda self: 1 / 0)
    with opened(folder(tmp_path / "v"), bad, Gate, worse) as village:
        village.post([NewTask(id="a", command=("ls",))])
        village.post([NewTask(id="needy", command=("ls",), plugins=("bad",))])
        before = rows(village, "SELECT count(*) FROM events")
        a = explaining.explain(village, "a", "ada")
        needy = explaining.explain(village, "needy", "ada")
        assert rows(village, "SELECT count(*) FROM events") == before
    assert a.may
    assert [said.answer.partition(":")[0] for said in a.filters] == ["failed, so it abstains", "lets it pass"]
    assert {each.plugin: each.score for each in a.scores} == {"bad": None, "oldest_first": 1.0}
    assert a.scores[0].note.startswith("failed, so it abstains: ")
    assert a.entitlement.tool_calls == 0
    assert "failed, which counts as the floor" in a.entitled[0].answer
    assert not needy.may
    assert needy.filters[0].refuses
    assert "the task needs this plugin" in needy.filters[0].answer


def test_what_is_off_is_said_to_be_off(tmp_path: Path) -> None:
    asked = plugin("asked", claim_filter=refuse_labelled, claim_score=likes("a"), entitle=lambda self: None)
    off = {("asked", hook): "5 failures in a row" for hook in ("claim_filter", "claim_score", "entitle")}
    with opened(folder(tmp_path / "v"), asked, switched_off=off) as village:
        village.post([NewTask(id="a", command=("ls",))])
        told = explaining.explain(village, "a", "ada")
    assert told.may
    assert told.filters[0].answer == "is off: 5 failures in a row"
    assert told.entitled[0].answer == "is off, which counts as the floor: 5 failures in a row"
    scored = {each.plugin: (each.score, each.milliseconds, each.note) for each in told.scores}
    assert scored["asked"] == (None, None, "is off: 5 failures in a row")


Meddling = Callable[[Village], object]
CAPS = "[budgets]\nvillage_usd = 0.5\nresident_day_usd = 0.25\n"


def call(fn: Any, item: Any) -> Meddling:
    return lambda village: village.store.call(fn, item)


def trip_check(village: Village) -> None:
    village.store.call(breakers.trip, breakers.Tripped("text_policy", "check_safety", "it broke", True, None))


def cannot_judge(village: Village) -> None:
    def note(tx: Any, _: None) -> None:
        tx.log.add("safety.cannot_judge", "system:kernel", {"plugin": "text_policy", "reason": "its model is away"})

    village.store.call(note, None)


def at_work(village: Village) -> None:
    village.post(prompts("other"))
    me = village.store.call(processes.register, processes.Register(processes.this_process(), "run", 30.0))
    with village.store.view() as view:
        pick = Pick("ada", (board.task(view, "other"),))
    village.store.call(claiming.claim, Round([pick], me))


@pytest.mark.promise("explained-claims")
@pytest.mark.parametrize(
    ("task", "meddle", "kind", "what"),
    [
        ({}, call(switch, Switch("paused", True, "operator:t")), "village", "the village is paused"),
        ({}, call(switch, Switch("halted", True, "operator:t", "fire")), "village", "the village is halted: fire"),
        ({}, call(change, Change("ada", "paused", "operator:t", "holiday")), "resident", "ada is paused: holiday"),
        ({}, at_work, "resident", "ada is at other"),
        ({"needs": ("first",)}, None, "needs", "it needs first, which is open"),
        ({"wanted": "ben"}, None, "held", "it is wanted from ben"),
        (
            {"not_before_at": 4_000_000_000_000_000},
            None,
            "state",
            "it is parked for time until 2096-10-02 07:06:40 UTC",
        ),
        ({"plugins": ("hats",)}, None, "plugin", "the task needs plugin 'hats', which is not enabled"),
        ({"model": "big:one"}, None, "entitlement", "ada: The resident may not use big:one."),
        ({"max_micros": 600_000}, None, "budget", "0.50 USD are left of village, and it sets 0.60 aside"),
        ({"max_micros": 300_000}, None, "budget", "0.25 USD are left of resident-day:ada:"),
        ({}, cannot_judge, "guarded", "the safety check text_policy can't judge it now: its model is away"),
        ({}, trip_check, "guarded", "the safety check text_policy can't judge it now: it broke"),
    ],
)
def test_what_stands_in_the_way_is_named(
    tmp_path: Path, task: dict[str, Any], meddle: Meddling | None, kind: str, what: str
) -> None:
    small_models = plugin("small", entitle=lambda self: Entitlement(models=("scripted:echo",)))
    with opened(folder(tmp_path / "v", CAPS), small_models) as village:
        village.post(prompts("first"))
        village.post(prompts("a", **task))
        if meddle is not None:
            meddle(village)
        told = explaining.explain(village, "a", "ada")
    assert not told.may
    assert [reason.kind for reason in told.reasons] == [kind] * len(told.reasons)
    assert told.reasons[0].what.startswith(what)


def test_what_somebody_declined_or_is_over_is_named(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "v")) as village:
        village.post([NewTask(id="a", command=("ls",))])
        me = village.store.call(processes.register, processes.Register(processes.this_process(), "run", 30.0))
        with village.store.view() as view:
            pick = Pick("ada", (board.task(view, "a"),))
        (claimed,) = village.store.call(claiming.claim, Round([pick], me))
        declined = Settlement(claimed.attempt, claimed.holder, "released", "not mine", declined=True)
        village.store.call(settling.settle, declined)
        assert [each.kind for each in explaining.explain(village, "a", "ada").reasons] == ["declined"]
        assert explaining.explain(village, "a", "ben").may
        run(village)
        (over,) = explaining.explain(village, "a", "ben").reasons
    assert over.what.startswith("it is done")


@pytest.mark.promise("explained-claims")
def test_what_is_explained_is_what_a_round_then_does(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "v"), Gate, Members, plugin("taste", claim_score=likes("t7"))) as village:
        village.post(prompts(*(f"t{number}" for number in range(10))))
        village.post(prompts("locked", priority=9, labels=("locked",)))
        told = explaining.explain(village, "t7", "ada")
        assert (told.first, told.place) == ("t7", 1)
        assert {explaining.explain(village, f"t{number}", "ada").first for number in range(10)} == {"t7"}
        village.store.call(change, Change("ben", "paused", "operator:t", ""))
        _one_cycle(village)
        assert rows(village, "SELECT task FROM attempts ORDER BY id LIMIT 1") == [("t7",)]
        (past,) = _past(village, "t7")
    assert past.kept is not None
    assert past.kept.score == pytest.approx(told.score or 0)
    assert (past.kept.place, past.kept.wishes, past.kept.weighed) == (told.place, told.wishes, told.weighed)


def _one_cycle(village: Village) -> None:
    import asyncio

    from kernel.faults import quick
    from vivarium_kernel.runtime import Runtime

    async def live() -> None:
        async with Runtime(village, 1, until_done=True) as runtime:
            while not runtime.figures.cycles:
                await asyncio.sleep(0.01)
            runtime.drain()
            await runtime.run()

    quick.run(live())


def _past(village: Village, task: str) -> list[explaining.Past]:
    with village.store.view() as view:
        return explaining.past(view, task)


@pytest.mark.promise("explained-claims")
def test_a_claim_keeps_the_scores_and_the_refusals_of_its_task(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "v"), Members, Taste) as village:
        village.store.call(change, Change("ada", "paused", "operator:t", ""))
        village.post(prompts("a"))
        run(village, 1)  # ben looks, and may not
        village.store.call(change, Change("ada", "active", "operator:t", ""))
        run(village)
        (past,) = _past(village, "a")
        assert rows(village, "SELECT count(*) FROM attempts WHERE weighed IS NULL") == [(0,)]
        village.store.call(lambda tx, _: tx.run("UPDATE attempts SET weighed = NULL"), None)
        (older,) = _past(village, "a")
    assert past.resident == "ada"
    assert past.kept is not None
    assert list(past.kept.scores) == [("oldest_first", 1.0, 1.0), ("taste", 0.25, 1.0)]
    assert past.kept.score == pytest.approx(0.625)
    assert past.kept.refused in ("", "ben: members: only ada may")  # as far as that process had heard
    assert older.kept is None


@pytest.mark.promise("explained-claims")
def test_a_refusal_by_another_resident_is_kept_with_the_claim(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "v"), Members) as village:
        village.post(prompts(*(f"t{number}" for number in range(40))))
        run(village)
        kept = [past.kept for number in range(40) for past in _past(village, f"t{number}")]
    refused = {each.refused for each in kept if each is not None}
    assert "ben: members: only ada may" in refused
    assert refused <= {"", "ben: members: only ada may"}


def test_one_who_was_too_late_for_its_first_wish_keeps_that(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "v"), plugin("taste", claim_score=likes("best"))) as village:
        village.post(prompts("best", "rest"))
        run(village)
        (best,), (rest,) = _past(village, "best"), _past(village, "rest")
    assert best.kept is not None
    assert rest.kept is not None
    assert best.kept.place == 1
    assert best.resident == rest.resident or rest.kept.place == 2


def test_who_or_what_is_not_there_is_told(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "v")) as village:
        village.post(prompts("a"))
        with pytest.raises(NotFound):
            explaining.explain(village, "b", "ada")
        with pytest.raises(NotFound):
            explaining.explain(village, "a", "nobody")
        with pytest.raises(NotFound):
            _past(village, "b")
        assert _past(village, "a") == []


def test_the_command_shows_residents_plugins_and_past_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here(
        small(tmp_path / "v", ['id = "a"\ncommand = ["ls"]', 'id = "b"\ncommand = ["ls"]\nneeds = ["a"]']), monkeypatch
    )
    assert here("task", "add", "--from", "tasks.toml").status == 0
    asked = here("explain", "claim", "b", "--resident", "ada")
    assert asked.status == 0
    assert "ada would not get b now" in asked.out
    assert "in the way  it needs a, which is open" in asked.out
    assert "would take b now" not in asked.out
    every = here("explain", "claim", "a").out
    assert "ada" in every
    assert "1 of 1" in every
    told = here("explain", "claim", "a", "-r", "ada", "--json").document
    assert told["now"][0]["scores"][0]["plugin"] == "oldest_first"
    assert told["now"][0]["scores"][0]["milliseconds"] > 0
    assert told["now"][0]["may"] is True
    assert told["past"] == []
    assert here("run").status == 0
    past = here("explain", "claim", "a", "--json").document
    assert past["now"] == []
    assert past["past"][0]["kept"]["scores"] == [["oldest_first", 1.0, 1.0]]
    assert "scores     oldest_first 1.000, weight 1" in here("explain", "claim", "a").out
    assert here("explain", "claim", "nothing").status == 2
    assert here("explain", "claim", "b", "-r", "nobody").status == 2


def test_what_safety_would_stop_is_told_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here(small(tmp_path / "v", ['id = "out"\ncommand = ["cat", "/etc/passwd"]']), monkeypatch)
    assert here("task", "add", "--from", "tasks.toml").status == 0
    rule = "command.path: "
    for more in ((), ("-r", "ada")):
        told = here("explain", "claim", "out", *more).out
        assert "safety" in told and f"refuses it: {rule}" in told
    found = here("explain", "claim", "out", "--json").document
    assert (found["safety"]["answer"], found["safety"]["rule"]) == ("deny", "command.path")
    assert found["now"][0]["may"] is True  # a resident may claim it; safety is asked once it has
    assert here("run").status == 1
    told = here("explain", "claim", "out").out
    assert told.startswith("out  blocked\n  reason") and rule in told
    assert here("explain", "claim", "out", "--json").document["safety"] is None
