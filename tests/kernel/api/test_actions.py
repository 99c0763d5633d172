"""Promises about actions: one declared act is a tool, a route, a command and a page, and is checked once for all."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from click.testing import CliRunner
from vivarium_kernel.actions import Action
from vivarium_kernel.cli import root
from vivarium_kernel.errors import Conflict, Invalid
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import NewTask
from vivarium_kernel.replies import TooOften
from vivarium_kernel.stepping import Holder, Intent
from vivarium_kernel.terms import Actor
from vivarium_kernel.village import Village, With

from vivarium_kernel import actions, ledger, stepping

from .bakery import Bake, Bakery, Greedy, count
from .scene import HUMAN, OPERATOR, OTHER, RESIDENT, Reply, Served, claim, found_village, served, with_tokens

PLUGINS = (Bakery, Greedy)


@pytest.fixture
def scene(tmp_path: Path, closing: ExitStack) -> Iterator[Served]:
    with served(found_village(tmp_path / "village"), plugins=PLUGINS, closing=closing) as found:
        yield with_tokens(found)


def loaves(scene: Served) -> int:
    return int(scene.rows("SELECT count(*) FROM bakery_loaves")[0][0])


def money(scene: Served, account: str) -> int:
    with scene.village.store.view() as view:
        return ledger.balance(view, account)


@pytest.mark.promise("one declared act becomes a tool, a route, a command and an OpenAPI entry")
def test_an_action_is_a_tool_a_route_a_command_and_a_page(scene: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = {tool.name: tool for tool in scene.village.tools()}
    mine = [name for name in tools if name.startswith("bakery__")]
    assert mine == ["bakery__bake", "bakery__count", "bakery__knead", "bakery__taste"]
    schema = tools["bakery__bake"].parameters
    assert tools["bakery__bake"].description == "Bake loaves."
    assert schema["required"] == ["kind"]
    assert schema["properties"]["count"] == {"type": "integer", "minimum": 1, "maximum": 10, "default": 1}
    assert schema["properties"]["gift_micros"]["anyOf"][0] == {"type": "integer", "minimum": 1}
    assert schema["additionalProperties"] is False
    whole = scene.get("/openapi.json", None).ok()
    page = whole["paths"]["/actions/bakery.bake"]["post"]
    asked = page["requestBody"]["content"]["application/json"]["schema"]
    assert asked["properties"]["count"] == schema["properties"]["count"]
    assert asked["properties"]["toppings"]["items"] == {"$ref": "#/components/schemas/bakery.bake.Topping"}
    assert whole["components"]["schemas"]["bakery.bake.Topping"] == schema["$defs"]["Topping"]
    assert page["x-roles"] == ["resident", "operator"]
    assert scene.post("/actions/bakery.bake", {"kind": "rye"}, RESIDENT).ok() == {"baked": 1, "by": "ada"}
    with_bakery = lambda folder, how: Village(folder, With(plugins=PLUGINS, installed=False))  # noqa: E731
    monkeypatch.setattr("vivarium_kernel.village.Village", with_bakery)
    told = CliRunner().invoke(root(), ["do", "bakery.bake", "kind=oat", "count=1", "-v", str(scene.village.folder)])
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["baked"] == 1
    listed = CliRunner().invoke(root(), ["do", "-v", str(scene.village.folder)])
    assert "bakery.count" in listed.output
    assert "Count the loaves." in listed.output
    assert scene.rows("SELECT kind FROM bakery_loaves ORDER BY id") == [("rye",), ("oat",)]


@pytest.mark.promise("actor-is-the-credential")
def test_only_its_roles_and_scopes_do_an_action(scene: Served) -> None:
    scene.post("/actions/bakery.bake", {"kind": "rye"}, HUMAN).problem(403, "action.role")
    scene.post("/actions/bakery.bake", {"kind": "rye", "actor": "ada"}, OPERATOR).problem(422, "input")
    scene.token("resident", "ada", "counts", scope=("bakery.count",))
    assert scene.post("/actions/bakery.count", {}, "counts").ok() == 0
    scene.post("/actions/bakery.bake", {"kind": "rye"}, "counts").problem(403, "action.role")
    assert [a["name"] for a in scene.get("/actions", HUMAN).ok()["actions"]] == ["bakery.count", "desk.told"]
    page = scene.post("/actions/bakery.bak", {}, OPERATOR).problem(404, "action.unknown")
    assert "bakery.bake" in page["next_step"]
    assert loaves(scene) == 0


@pytest.mark.promise("amounts-are-positive")
def test_everything_wrong_with_an_input_is_told_at_its_path(scene: Served) -> None:
    bad = {"kind": "", "count": 11, "sort": "x"}
    page = scene.post("/actions/bakery.bake", bad, OPERATOR).problem(422, "input")
    assert [p["path"] for p in page["problems"]] == ["sort"]
    page = scene.post("/actions/bakery.bake", {"kind": "", "count": 11}, OPERATOR).problem(422, "input")
    assert [p["path"] for p in page["problems"]] == ["kind", "count"]
    for gift in (0, -1, 10**15 + 1):
        asked = {"kind": "rye", "gift_micros": gift, "toppings": [{"name": "salt", "price_micros": -5}]}
        page = scene.post("/actions/bakery.bake", asked, OPERATOR).problem(422, "input")
        assert [p["path"] for p in page["problems"]] == ["gift_micros", "toppings[0].price_micros"]
    for odd in (1.5, "5", True):
        scene.post("/actions/bakery.bake", {"kind": "rye", "gift_micros": odd}, OPERATOR).problem(422, "input")
    assert loaves(scene) == 0


@pytest.mark.promise("failed-check-is-no-allow")
def test_a_text_that_safety_denies_is_not_done(scene: Served) -> None:
    leak = {"kind": "rye", "toppings": [{"name": "AKIA" + "A" * 16}]}
    page = scene.post("/actions/bakery.bake", leak, OPERATOR).problem(403, "text_policy.secret")
    assert page["field"] == "toppings[0].name"
    assert loaves(scene) == 0


@pytest.mark.promise("a POST that is repeated under its key is done once and answered the same")
def test_a_key_does_an_action_once(scene: Served) -> None:
    first = scene.post("/actions/bakery.bake", {"kind": "rye"}, RESIDENT, key="k")
    again = scene.post("/actions/bakery.bake", {"kind": "rye"}, RESIDENT, key="k")
    assert first.ok() == again.ok()
    assert again.headers["idempotency-replayed"] == "true"
    scene.post("/actions/bakery.bake", {"kind": "oat"}, RESIDENT, key="k").problem(409, "request.key")
    scene.post("/actions/bakery.count", {}, RESIDENT, key="k")
    scene.post("/actions/bakery.bake", {"kind": "rye"}, OTHER, key="k").ok()
    assert loaves(scene) == 2
    assert money(scene, "commons") == 4_000_000
    assert [e["action"] for e in scene.events("action.performed")] == ["bakery.bake", "bakery.bake"]


@pytest.mark.promise("faults-stay-with-their-plugin")
@pytest.mark.parametrize(
    ("kind", "status", "rule"),
    [
        ("stone", 409, "bakery.stone"),
        ("brick", 500, "action.failed"),
        ("ghost", 500, "action.failed"),
        ("thief", 500, "action.failed"),
        ("riddle", 500, "action.failed"),
    ],
)
def test_an_action_that_fails_leaves_nothing_behind(scene: Served, kind: str, status: int, rule: str) -> None:
    before = scene.rows("SELECT count(*) FROM events")
    page = scene.post("/actions/bakery.bake", {"kind": kind}, RESIDENT, key="k").problem(status, rule)
    if status == 500:
        assert "'bakery'" in page["detail"]
    assert loaves(scene) == 0
    assert scene.rows("SELECT count(*) FROM replies") == [(0,)]
    assert scene.rows("SELECT count(*) FROM events") == before
    assert money(scene, "resident:ada:free") == 100_000_000
    scene.post("/actions/bakery.bake", {"kind": "rye"}, RESIDENT, key="k").ok()


def test_a_resident_pays_for_what_costs_and_nobody_else_does(scene: Served) -> None:
    scene.post("/actions/bakery.bake", {"kind": "rye"}, OPERATOR).ok()
    assert money(scene, "commons") == 0
    for _ in range(50):
        scene.post("/actions/bakery.bake", {"kind": "rye"}, RESIDENT).ok()
    scene.post("/actions/bakery.bake", {"kind": "rye"}, RESIDENT).problem(409, "ledger.floor")
    assert (money(scene, "resident:ada:free"), money(scene, "commons")) == (0, 100_000_000)
    assert loaves(scene) == 51
    assert scene.get("/ledger/verify").ok()["problems"] == []


def test_what_changes_nothing_is_not_kept(scene: Served) -> None:
    before = scene.rows("SELECT count(*) FROM events")
    assert scene.post("/actions/bakery.count", {}, HUMAN, key="k").ok() == 0
    scene.post("/actions/bakery.bake", {"kind": "rye"}, OPERATOR).ok()
    assert scene.post("/actions/bakery.count", {}, HUMAN, key="k").ok() == 1
    assert scene.rows("SELECT count(*) FROM events")[0][0] > before[0][0]
    assert len(scene.events("action.performed")) == 1


def test_a_rate_holds_across_processes_and_for_each_actor(scene: Served) -> None:
    for _ in range(2):
        scene.post("/actions/bakery.taste", {}, RESIDENT).ok()
    with Village(scene.village.folder, With(installed=False, plugins=PLUGINS)) as other:
        taste = actions.action_of(other, "bakery.taste")
        asyncio.run(actions.perform(other, taste, Actor("resident", "ada"), {}))
        with pytest.raises(TooOften, match="3 times a minute"):
            asyncio.run(actions.perform(other, taste, Actor("resident", "ada"), {}))
    answer = scene.post("/actions/bakery.taste", {}, RESIDENT)
    answer.problem(429, "action.rate")
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    scene.post("/actions/bakery.taste", {}, OTHER).ok()


def test_a_plugin_cannot_register_in_anothers_name(scene: Served) -> None:
    found, refused = actions.actions_of(scene.village)
    assert "bakery.steal" not in found
    assert len(refused) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "bake"}, "PLUGIN.VERB"),
        ({"doc": " "}, "says nothing"),
        ({"Input": dict}, "attrs class"),
        ({"roles": ()}, "roles"),
        ({"roles": ("king",)}, "roles"),
        ({"effect": "maybe"}, "effect"),
        ({"cost_micros": -1}, "cost"),
        ({"rate_per_minute": 0}, "rate"),
        ({"run": None}, "exactly one"),
    ],
)
def test_a_declaration_that_cannot_be_says_why(wrong: dict[str, Any], said: str) -> None:
    sound: dict[str, Any] = {"name": "a.b", "doc": "x", "Input": Bake, "run": count}
    Action(**sound)
    with pytest.raises(Invalid, match=said):
        Action(**{**sound, **wrong})


# For a resident at work


@frozen
class _Held:
    attempt: int
    token: str


@pytest.fixture
def held(scene: Served) -> _Held:
    found = claim(scene, NewTask(id="work", command=("echo",)))
    assert found["resident"]["name"] == "ada"
    return _Held(found["attempt"], found["token"])


@pytest.mark.promise("recorded-results-stand")
def test_an_action_of_an_attempt_is_a_step_of_it_and_done_once(scene: Served, held: _Held) -> None:
    asked = {"number": 1, "action": "bakery.bake", "input": {"kind": "rye"}}
    path = f"/wire/attempts/{held.attempt}/act"
    first = scene.post(path, asked, held.token).ok()
    assert first == {"reply": {"baked": 1, "by": "ada"}, "number": 1, "ended": False}
    assert scene.post(path, asked, held.token).ok() == first  # its answer was lost, and it asks again
    assert loaves(scene) == 1
    step = scene.get(f"/attempts/{held.attempt}").ok()["steps"][0]
    assert (step["kind"], step["name"], step["effect"], step["state"]) == ("tool", "bakery.bake", "once", "done")
    assert (step["arguments"], step["result"]) == ({"kind": "rye"}, {"baked": 1, "by": "ada"})
    scene.post(path, {**asked, "action": "bakery.count", "input": {}}, held.token).problem(409, "step.number")
    (performed,) = scene.rows("SELECT actor, resident, task, attempt FROM events WHERE kind = 'action.performed'")
    assert performed == ("resident:ada", "ada", "work", held.attempt)


@pytest.mark.promise("attempt-token")
def test_an_attempt_that_ended_does_no_action(scene: Served, held: _Held) -> None:
    scene.post("/actions/bakery.bake", {"kind": "rye"}, held.token).ok()
    scene.post("/tasks/work/cancel").ok()
    scene.post("/actions/bakery.bake", {"kind": "rye"}, held.token).problem(401, "auth.token")
    path = f"/wire/attempts/{held.attempt}/act"
    scene.post(path, {"number": 1, "action": "bakery.bake", "input": {"kind": "rye"}}, held.token).problem(
        401, "auth.token"
    )
    assert loaves(scene) == 1


def test_a_slow_action_is_a_step_whose_price_is_set_aside_first(scene: Served, held: _Held) -> None:
    path = f"/wire/attempts/{held.attempt}/act"
    scene.post("/actions/bakery.knead", {"kind": "rye"}, RESIDENT).problem(409, "action.job")
    found = scene.post(path, {"number": 1, "action": "bakery.knead", "input": {"kind": "rye"}}, held.token).ok()
    assert found == {"reply": {"kneaded": "rye", "for": "work"}, "number": 1, "ended": False}
    assert money(scene, "commons") == 1_000_000
    failed = {"number": 2, "action": "bakery.knead", "input": {"kind": "brick"}}
    scene.post(path, failed, held.token).problem(500, "action.failed")
    assert money(scene, "commons") == 1_000_000
    assert money(scene, "resident:ada:free") == 99_000_000
    steps = scene.get(f"/attempts/{held.attempt}").ok()["steps"]
    assert [(s["number"], s["state"], s["effect"]) for s in steps] == [(1, "done", "once"), (2, "done", "once")]
    assert "oven" in steps[1]["result"]["refused"]["message"]
    assert scene.get("/ledger/verify").ok()["problems"] == []


class Oven(Plugin):
    """Slow tools that take until the door is opened."""

    name = "oven"

    def __init__(self, *_: object) -> None:
        super().__init__(*_)
        self.begun: list[str] = []
        self.door = threading.Event()

    @hookimpl
    def register_actions(self) -> list[Action[Any]]:
        async def roast(job: Any, asked: Bake) -> str:
            self.begun.append(asked.kind)
            while not self.door.is_set():
                await asyncio.sleep(0.01)
            if asked.kind == "coal":
                raise Conflict("oven.coal", "It is coal already.", "Roast something else.")
            return f"roasted {asked.kind}"

        return [
            Action(name="oven.roast", doc="Roast.", Input=Bake, act=roast, cost_micros=1_000_000),
            Action(name="oven.look", doc="Look.", Input=Bake, effect="pure", act=roast),
        ]


@pytest.fixture
def slow(tmp_path: Path, closing: ExitStack) -> Iterator[tuple[Served, Oven, Callable[..., Reply]]]:
    """A village with an oven, and what a worker says to it of one attempt."""
    with served(found_village(tmp_path / "slow"), plugins=(Oven, Bakery), closing=closing) as scene:
        with_tokens(scene)
        found = claim(scene, NewTask(id="work", command=("echo",)))
        oven = scene.village.plugins["oven"]
        assert isinstance(oven, Oven)

        def act(number: int, name: str, kind: str = "rye") -> Reply:
            asked = {"number": number, "action": f"oven.{name}", "input": {"kind": kind}}
            return scene.post(f"/wire/attempts/{found['attempt']}/act", asked, found["token"])

        yield scene, oven, act


@pytest.mark.promise("recorded-results-stand")
@pytest.mark.parametrize("name", ["roast", "look"])
def test_a_slow_action_that_is_asked_for_again_while_it_runs_is_done_once(
    slow: tuple[Served, Oven, Callable[..., Reply]], name: str
) -> None:
    scene, oven, act = slow
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(act, 1, name) for _ in range(3)]  # each after it gave up waiting for the last
        while not oven.begun:
            time.sleep(0.01)
        act(1, name, "oat").problem(409, "step.number")
        oven.door.set()
        answers = [each.result().ok() for each in asked]
    expected = {"reply": "roasted rye", "number": 1, "ended": False}
    assert answers == [expected] * 3
    assert act(1, name).ok() == expected  # its last answer was lost
    assert oven.begun == ["rye"]
    assert scene.rows("SELECT number, state FROM steps") == [(1, "done")]
    assert scene.rows("SELECT state FROM holds") == ([("settled",)] if name == "roast" else [])


def test_a_slow_action_that_failed_is_refused_likewise_when_it_is_asked_for_again(
    slow: tuple[Served, Oven, Callable[..., Reply]],
) -> None:
    scene, oven, act = slow
    oven.door.set()
    for _ in range(2):
        page = act(1, "roast", "coal").problem(409, "oven.coal")
        assert (page["detail"], page["next_step"]) == ("It is coal already.", "Roast something else.")
    assert oven.begun == ["coal"]
    assert scene.rows("SELECT state FROM holds") == [("released",)]


def test_a_slow_action_at_a_number_that_is_taken_sets_nothing_aside(
    slow: tuple[Served, Oven, Callable[..., Reply]],
) -> None:
    scene, oven, act = slow
    oven.door.set()
    act(1, "look").ok()
    act(1, "roast").problem(409, "step.number")
    assert (oven.begun, scene.rows("SELECT state FROM holds")) == (["rye"], [])


@pytest.mark.promise("effects-unknown")
def test_a_slow_action_that_a_killed_village_had_begun_goes_to_people(
    slow: tuple[Served, Oven, Callable[..., Reply]],
) -> None:
    scene, oven, act = slow
    ((attempt, token),) = scene.rows("SELECT id, token FROM attempts")
    begun = Intent(attempt, 1, Holder(None, token), "tool", "oven.roast", "once", "{}", "ada", "work")
    scene.write(stepping.intend, begun)  # all that is left of it
    act(1, "roast").problem(409, "attempt.lapsed")
    assert oven.begun == []
    assert (scene.task("work").state, scene.rows("SELECT state FROM steps")) == ("review", [("unknown",)])
    assert "middle of step 1 (oven.roast)" in scene.task("work").reason
