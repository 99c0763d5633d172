"""Promises about the wire: any machine and language can be a worker, and none can do what a local one could not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from kernel.processes.jumping import JumpingClock
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.prompting import MARKING
from vivarium_kernel.records import Entitlement, NewTask, Resident, Section, Task

from vivarium_kernel import people

from .bakery import Bakery
from .scene import OPERATOR, WORKER, Reply, Served, claim, found_village, served, with_tokens


class Prices(Plugin):
    """A price in aid and limits, for one model, and a section that is private."""

    name = "prices"

    @hookimpl
    def entitle(self, resident: Resident) -> Entitlement:
        return Entitlement(models=("scripted:echo",), tokens_per_day=1000, aid_micros_per_1k={"scripted:echo": 500_000})

    @hookimpl
    def enrich_prompt(self, resident: Resident, task: Task) -> list[Section]:
        return [Section("identity", f"You are {resident.name}."), Section("memory", "what nobody knows", private=True)]


@pytest.fixture
def scene(tmp_path: Path, closing: ExitStack) -> Iterator[Served]:
    with served(found_village(tmp_path / "village"), plugins=(Prices,), closing=closing) as found:
        yield with_tokens(found)


class Work:
    """A claim, and what its worker says of it."""

    def __init__(self, scene: Served, task: NewTask, **asked: Any) -> None:
        self.scene = scene
        self.claim = claim(scene, task, **asked)
        self.path = f"/wire/attempts/{self.claim['attempt']}"

    def say(self, verb: str, **body: Any) -> Reply:
        return self.scene.post(f"{self.path}/{verb}", body, self.claim["token"])

    def settle(self, **outcome: Any) -> Reply:
        return self.say("settle", outcome=outcome)


ECHO = NewTask(id="t", command=("echo", "hi"), max_micros=1_000, effect="once")


@pytest.mark.promise("clock-jumps")
@pytest.mark.parametrize("off", [2.4, 7_200.0, -7_200.0])
def test_a_clock_that_jumps_ends_no_lease_of_a_worker_elsewhere(tmp_path: Path, off: float) -> None:
    """Nor does it lengthen one for long: a worker that has gone is found out as soon as without the jump."""
    clock = JumpingClock()
    with served(found_village(tmp_path / "village", lease=3.0), clock=clock) as scene:
        with_tokens(scene)
        work = Work(scene, ECHO)
        clock.off_seconds = off
        for _ in range(5):
            scene.post(f"/wire/workers/{work.claim['worker']}/renew", {}, WORKER).ok()
            work.say("renew").ok()
            time.sleep(0.6)
        assert work.settle(exit_code=0, stdout="hi\n").ok()["ending"] == "accepted"
        gone = Work(scene, evolve(ECHO, id="gone"))
        clock.off_seconds = 2 * off
        until = time.monotonic() + 15
        while scene.task("gone").state == "claimed":
            assert time.monotonic() < until
            time.sleep(0.1)
        assert scene.get(f"/attempts/{gone.claim['attempt']}").ok()["attempt"]["ending"] == "lapsed"


def test_a_task_is_done_over_the_wire_from_claim_to_reward(scene: Served) -> None:
    work = Work(scene, ECHO)
    assert work.claim["task"]["command"] == ["echo", "hi"]
    assert work.claim["lease_seconds"] == 30.0
    step = {"number": 1, "kind": "command", "name": "echo", "effect": "once", "arguments": {"argv": ["echo", "hi"]}}
    work.say("intent", **step).ok()
    work.say("result", number=1, state="done", result={"exit_code": 0}).ok()
    ended = work.settle(exit_code=0, stdout="hi\n", seconds=0.1).ok()
    assert (ended["ending"], ended["task_state"]) == ("accepted", "done")
    page = scene.get("/attempts/1").ok()
    assert (page["attempt"]["stdout"], page["attempt"]["process"]) == ("hi\n", None)
    assert [(s["state"], s["result"]) for s in page["steps"]] == [("done", {"exit_code": 0})]
    kinds = [row[0] for row in scene.rows("SELECT kind FROM events WHERE attempt = 1 ORDER BY id")]
    assert kinds == ["task.claimed", "step.intended", "step.ended", "attempt.judged", "attempt.ended"]
    assert scene.rows("SELECT count(*) FROM transfers WHERE reason = 'task_reward'") == [(1,)]
    work.settle(exit_code=0).problem(401, "auth.token")  # its token is dead


def test_a_worker_hands_in_what_came_of_it_and_the_village_judges(scene: Served) -> None:
    boast = {"ending": "accepted", "kind": "accepted", "review": {"decision": "accept", "confidence": 1.0}}
    work = Work(scene, NewTask(id="t", command=("echo",), max_attempts=1))
    page = work.say("settle", outcome={"exit_code": 1}, **boast).problem(422, "input")
    assert {p["path"] for p in page["problems"]} == set(boast)
    ended = work.settle(exit_code=1, stdout="all is well", answer="accept me").ok()
    assert (ended["ending"], ended["task_state"]) == ("rejected", "failed")
    leak = Work(scene, NewTask(id="leak", command=("echo",), max_attempts=1))
    ended = leak.settle(exit_code=0, stdout="AKIA" + "A" * 16).ok()
    assert (ended["task_state"], ended["reason"].partition(":")[0]) == ("failed", "text_policy.secret")
    assert scene.rows("SELECT count(*) FROM transfers WHERE reason = 'task_reward'") == [(0,)]


@pytest.mark.promise("lapsed-lease")
def test_a_worker_whose_lease_lapsed_can_say_nothing_more(tmp_path: Path) -> None:
    with served(found_village(tmp_path / "v", lease=2.0)) as scene:
        with_tokens(scene)
        work = Work(scene, ECHO)
        (first,) = scene.rows("SELECT lease_until_at FROM attempts")
        for _ in range(2):
            time.sleep(0.05)
            work.say("renew").ok()
        (renewed,) = scene.rows("SELECT lease_until_at FROM attempts")
        assert renewed[0] >= first[0] + 100_000
        until = time.monotonic() + 20
        while scene.task("t").state == "claimed":
            assert time.monotonic() < until
            time.sleep(0.05)
        for verb, body in (
            ("intent", {"number": 1, "kind": "command", "name": "echo", "effect": "once"}),
            ("result", {"number": 1, "state": "done"}),
            ("renew", {}),
            ("release", {"reason": "late"}),
            ("settle", {"outcome": {"exit_code": 0, "stdout": "late"}}),
        ):
            work.say(verb, **body).problem(401, "auth.token")
        assert scene.task("t").state != "done"
        attempt = scene.get("/attempts/1").ok()["attempt"]
        assert (attempt["ending"], attempt["stdout"]) == ("lapsed", None)


def test_what_was_said_and_whose_answer_was_lost_can_be_said_again(scene: Served) -> None:
    work = Work(scene, ECHO)
    step = {"number": 1, "kind": "command", "name": "echo", "effect": "once", "worst_micros": 400}
    for _ in range(2):
        work.say("intent", **step).ok()
    work.say("intent", **{**step, "name": "cat"}).problem(409, "step.number")
    for _ in range(2):
        work.say("result", number=1, state="done", result="x", spent_micros=300).ok()
    work.say("result", number=1, state="done", result="y").problem(409, "step.number")
    work.say("intent", **step).problem(409, "step.number")
    pure = {"number": 2, "kind": "tool", "name": "look", "effect": "pure"}
    for _ in range(2):
        work.say("result", number=2, state="done", result=1, intent=pure).ok()
    work.say("result", number=3, state="done").problem(409, "step.intent")
    assert scene.rows("SELECT count(*), sum(spent_micros) FROM steps") == [(2, 300)]
    assert scene.rows("SELECT micros FROM transfers WHERE reason = 'model_call'") == [(300,)]


@pytest.mark.promise("caps-hold")
def test_an_intent_that_does_not_fit_the_budget_is_refused(scene: Served) -> None:
    work = Work(scene, ECHO)
    step = {"number": 1, "kind": "tool", "name": "x", "effect": "once"}
    work.say("intent", **step, worst_micros=1_001).problem(409, "budget.step")
    work.say("intent", **step, worst_micros=10**15 + 1).problem(422, "input")
    work.say("intent", **step, worst_micros=1_000).ok()
    work.say("result", number=1, state="done", spent_micros=5_000).ok()
    assert scene.rows("SELECT spent_micros FROM steps") == [(1_000,)]  # at most what was set aside


def test_the_village_says_which_model_may_be_called_and_what_it_costs(scene: Served) -> None:
    work = Work(scene, NewTask(id="t", prompt="say it", max_micros=0))
    assert work.claim["model"] == "scripted:echo"
    assert work.claim["entitlement"]["aid_micros_per_1k"] == {"scripted:echo": 500_000}
    texts = [s["text"] for s in work.claim["sections"]]
    assert texts == [MARKING, "You are ada.", "what nobody knows", "say it"]
    call = {"number": 1, "kind": "model", "name": "scripted:echo", "effect": "idempotent", "worst_tokens": 600}
    work.say("intent", **{**call, "name": "openai:dear"}).problem(403, "model.entitlement")
    work.say("intent", **{**call, "worst_tokens": 1_001}).problem(429, "meter.tokens")
    work.say("result", number=1, state="done", intent={**call, "effect": "pure"}).problem(409, "wire.pure")
    work.say("intent", **call, aid_micros=1).ok()  # it is set aside at the village's price, whatever the worker says
    assert scene.rows("SELECT micros FROM holds") == [(300_000,)]
    work.say("result", number=1, state="done", result={"text": "it"}, tokens_in=100, tokens_out=100,
             aid_micros=100_000).ok()  # fmt: skip
    ended = work.settle(answer="it", model="scripted:echo").ok()
    assert ended["task_state"] == "done"
    page = scene.get("/attempts/1").ok()
    assert [s.get("text", "hidden") for s in page["prompt"]] == [MARKING, "You are ada.", "hidden", "say it"]
    assert "nobody knows" not in json.dumps(page)
    assert scene.get("/ledger/verify").ok()["problems"] == []


STRICT = """
[models]
allow = ["good:*", "scripted:*"]
small = "scripted:echo"

[limits.default]
models = ["small"]
tool_calls = 0
"""


@pytest.fixture
def strict(tmp_path: Path, closing: ExitStack) -> Iterator[Served]:
    """A village that allows some models, whose residents may use one class of them and no tools."""
    folder = found_village(tmp_path / "strict", more=STRICT)
    with served(folder, plugins=(Bakery,), closing=closing) as found:
        yield with_tokens(found)


def test_a_task_whose_model_the_village_forbids_is_ended_by_it_and_reaches_no_worker(tmp_path: Path) -> None:
    more = '\n[models]\nallow = ["scripted:*"]\n'
    with served(found_village(tmp_path / "village", more=more)) as scene:
        with_tokens(scene)
        scene.add(NewTask(id="evil", prompt="a secret", model="evil:m"))
        joined = scene.post("/wire/workers", {"residents": 1}, WORKER).ok()
        asked = {"worker": joined["worker"], "resident": joined["residents"][0], "wait_seconds": 1}
        assert scene.post("/wire/claims", {**asked, "providers": ["evil"]}, WORKER).ok() == {"claim": None}
        assert (scene.task("evil").state, scene.rows("SELECT ending FROM attempts")) == ("failed", [("failed",)])
        assert "does not allow evil:m" in scene.task("evil").reason


def test_an_outcome_that_stands_on_a_refused_call_is_not_accepted(strict: Served) -> None:
    work = Work(strict, NewTask(id="t", prompt="say it"))
    call = {"number": 1, "kind": "model", "name": "evil:m", "effect": "pure"}
    work.say("result", number=1, state="done", result={"text": "it"}, intent=call).problem(403, "model.allow")
    ended = work.settle(answer="it", model="evil:m").ok()
    assert (ended["ending"], ended["task_state"]) == ("failed", "failed")
    assert "does not allow evil:m" in ended["reason"]
    assert [event["number"] for event in strict.events("step.refused")] == [1]


def test_a_refused_step_that_is_said_as_it_should_be_is_no_fault(strict: Served) -> None:
    work = Work(strict, ECHO)
    work.say("result", number=1, state="done", result=1).problem(409, "step.intent")
    pure = {"number": 1, "kind": "tool", "name": "look", "effect": "pure"}
    work.say("result", number=1, state="done", result=1, intent=pure).ok()
    assert work.settle(exit_code=0).ok()["task_state"] == "done"


def test_classes_in_an_entitlement_are_given_by_the_names_that_they_have_in_the_village(strict: Served) -> None:
    work = Work(strict, NewTask(id="t", prompt="say it", model="small"))
    assert (work.claim["model"], work.claim["entitlement"]["models"]) == ("scripted:echo", ["scripted:echo"])


def test_a_resident_that_may_use_no_tools_uses_none_over_the_wire(strict: Served) -> None:
    work = Work(strict, ECHO)
    for name in ("bakery.bake", "bakery.knead"):
        work.say("act", number=1, action=name, input={"kind": "rye"}).problem(403, "tool.entitlement")
    assert strict.rows("SELECT count(*) FROM bakery_loaves") == [(0,)]
    assert strict.rows("SELECT count(*) FROM steps") == [(0,)]


@pytest.mark.promise("actor-is-the-credential")
@pytest.mark.parametrize("how", ["its token is revoked", "it leaves", "its lease lapses"])
def test_a_claim_that_waits_is_not_served_once_its_worker_has_ended(scene: Served, how: str) -> None:
    joined = scene.post("/wire/workers", {"residents": 1}, WORKER).ok()
    worker, answer = joined["worker"], []
    body = {"worker": worker, "resident": joined["residents"][0], "wait_seconds": 4}
    waiting = threading.Thread(target=lambda: answer.append(scene.post("/wire/claims", body, WORKER)))
    waiting.start()
    time.sleep(0.5)
    if how == "its token is revoked":
        ((number,),) = scene.rows("SELECT pid FROM processes WHERE id = ?", (worker,))
        scene.write(people.revoke_token, (number, "test"))
    elif how == "it leaves":
        scene.post(f"/wire/workers/{worker}/leave", {}, WORKER).ok()
    else:
        scene.write(_lapse, worker)
    scene.add(ECHO)
    waiting.join(10)
    assert [reply.ok() for reply in answer] == [{"claim": None}]
    assert scene.rows("SELECT count(*) FROM attempts") == [(0,)]


def _lapse(tx: Any, worker: int) -> None:
    tx.run("UPDATE processes SET lease_until_at = ? WHERE id = ?", (tx.now - 1, worker))


def test_a_worker_that_joins_again_leaves_nothing_of_its_old_self(scene: Served) -> None:
    work = Work(scene, ECHO)
    old = work.claim["worker"]
    other = scene.post("/wire/workers", {"residents": 1}, WORKER).ok()
    again = scene.post("/wire/workers", {"residents": 1, "before": old}, WORKER).ok()
    assert scene.task("t").state == "open"
    assert again["residents"] == [work.claim["resident"]["name"]]
    assert scene.rows("SELECT id FROM processes WHERE kind = 'remote' AND ended_at IS NULL ORDER BY id") == [
        (other["worker"],), (again["worker"],),
    ]  # fmt: skip
    scene.token("worker", "another", "another-secret")
    stranger = {"residents": 1, "before": again["worker"]}
    scene.post("/wire/workers", stranger, "another-secret").ok()  # that is nobody of its own, and stays
    assert scene.rows("SELECT ended_at FROM processes WHERE id = ?", (again["worker"],)) == [(None,)]


@pytest.mark.promise("declining-is-free")
def test_a_worker_gives_a_task_back_or_declines_it_for_its_resident(scene: Served) -> None:
    assert Work(scene, ECHO).say("release", reason="not now").ok()["task_state"] == "open"
    joined = scene.post("/wire/workers", {"residents": 1}, WORKER).ok()
    again = {"worker": joined["worker"], "resident": joined["residents"][0], "wait_seconds": 2}
    found = scene.post("/wire/claims", again, WORKER).ok()["claim"]
    path = f"/wire/attempts/{found['attempt']}/release"
    assert scene.post(path, {"reason": "never", "declined": True}, found["token"]).ok()["task_state"] == "open"
    assert scene.task("t").declined == (joined["residents"][0],)
    assert scene.post("/wire/claims", {**again, "wait_seconds": 0.5}, WORKER).ok() == {"claim": None}


@pytest.mark.promise("effects-unknown")
def test_a_release_with_an_effect_whose_end_nobody_knows_goes_to_review(scene: Served) -> None:
    work = Work(scene, ECHO)
    work.say("intent", number=1, kind="command", name="echo", effect="once", worst_micros=400).ok()
    assert work.say("release", reason="stopping").ok()["task_state"] == "review"
    assert scene.rows("SELECT state, spent_micros FROM steps") == [("unknown", 400)]


@pytest.mark.promise("recorded-results-stand")
def test_a_parked_task_is_continued_with_what_was_recorded(scene: Served) -> None:
    work = Work(scene, ECHO)
    work.say("intent", number=1, kind="tool", name="ask", effect="once").ok()
    work.say("result", number=1, state="done", result={"asked": True}).ok()
    work.say("park", waits_for="time", reason="later").problem(409, "wire.wake_at")
    assert work.say("park", waits_for="answer", reason="a person knows").ok()["task_state"] == "parked"
    scene.post("/tasks/t/approve", {"reason": "yes"}).ok()
    body = {"worker": work.claim["worker"], "resident": work.claim["resident"]["name"], "wait_seconds": 5}
    again = scene.post("/wire/claims", body, WORKER).ok()["claim"]
    assert again["attempt"] != work.claim["attempt"]
    assert [(s["number"], s["name"], s["result"]) for s in again["recorded"]] == [(1, "ask", {"asked": True})]
    path = f"/wire/attempts/{again['attempt']}/result"
    ask = {"number": 1, "kind": "tool", "name": "ask", "effect": "once"}
    other = {"number": 1, "state": "done", "result": {"asked": False}, "intent": ask}
    scene.post(path, other, again["token"]).problem(409, "step.intent")  # that was not recorded, so it is no replay
    scene.post(path, {**other, "result": {"asked": True}}, again["token"]).ok()
    assert scene.rows("SELECT attempt, replayed FROM steps ORDER BY attempt") == [
        (work.claim["attempt"], 0), (again["attempt"], 1),
    ]  # fmt: skip


def test_a_step_that_was_not_recorded_before_can_not_be_said_to_be_replayed(scene: Served) -> None:
    work = Work(scene, ECHO)
    step = {"number": 1, "kind": "tool", "name": "x", "effect": "idempotent"}
    work.say("result", number=1, state="done", result=1, intent=step).problem(409, "step.intent")
    work.say("intent", **step, replayed=True).problem(422, "input")
    work.say("result", number=1, state="done", result=1, intent=step | {"effect": "pure"}).ok()
    assert scene.rows("SELECT replayed FROM steps") == [(0,)]


@pytest.mark.parametrize("word", ["backoff", "quota", "zzz"])
def test_an_outcome_waits_for_people_or_for_nothing(scene: Served, word: str) -> None:
    work = Work(scene, ECHO)
    work.settle(fault="provider", reason="r", waits_for=word).problem(422, "input")
    assert work.settle(fault="provider", reason="r", waits_for="key").ok()["task_state"] == "parked"
    assert scene.rows("SELECT parked_for, wake_at FROM tasks") == [("key", None)]


def test_a_worker_is_given_only_what_it_can_do(scene: Served) -> None:
    scene.add(
        NewTask(id="files", command=("echo",), files=("out.txt",), priority=3),
        NewTask(id="llm", prompt="x", model="dear:one", priority=2),
        NewTask(id="mine", command=("echo",), priority=1),
    )
    joined = scene.post("/wire/workers", {"residents": 1}, WORKER).ok()
    asked = {"worker": joined["worker"], "resident": joined["residents"][0], "wait_seconds": 1}
    scene.post("/wire/claims", {**asked, "resident": "nobody"}, WORKER).problem(409, "wire.resident")
    scene.post("/wire/claims", {**asked, "worker": 999}, WORKER).problem(404, "wire.worker")
    found = scene.post("/wire/claims", asked, WORKER).ok()["claim"]
    assert found["task"]["id"] == "mine"
    scene.post(f"/wire/attempts/{found['attempt']}/settle", {"outcome": {"exit_code": 0}}, found["token"]).ok()
    assert scene.post("/wire/claims", {**asked, "wait_seconds": 0.3}, WORKER).ok() == {"claim": None}
    sharing = scene.post("/wire/claims", {**asked, "shares_folder": True}, WORKER).ok()["claim"]
    assert sharing["task"]["id"] == "files"


def test_a_worker_that_hangs_up_while_it_waits_is_given_nothing(scene: Served) -> None:
    joined = scene.post("/wire/workers", {"residents": 1}, WORKER).ok()
    body = json.dumps({"worker": joined["worker"], "resident": joined["residents"][0], "wait_seconds": 30})
    line = HTTPConnection("127.0.0.1", scene.port, timeout=5)
    line.request(
        "POST", "/wire/claims", body, {"Authorization": f"Bearer {WORKER}", "Content-Type": "application/json"}
    )
    time.sleep(0.3)
    line.close()
    time.sleep(0.2)
    scene.add(ECHO)
    time.sleep(0.5)
    assert scene.task("t").state == "open"
    assert scene.rows("SELECT count(*) FROM attempts") == [(0,)]


def test_what_safety_denies_never_reaches_a_worker(scene: Served) -> None:
    scene.add(NewTask(id="bad", command=("cat", "/etc/passwd"), priority=5))
    work = Work(scene, ECHO)
    assert work.claim["task"]["id"] == "t"
    assert scene.task("bad").state == "blocked"


@pytest.mark.promise("one-cycle-at-a-time")
def test_a_resident_is_claimed_for_once_at_a_time(scene: Served) -> None:
    work = Work(scene, ECHO)
    scene.add(NewTask(id="u", command=("echo",)))
    body = {"worker": work.claim["worker"], "resident": work.claim["resident"]["name"], "wait_seconds": 0.4}
    assert scene.post("/wire/claims", body, WORKER).ok() == {"claim": None}
    assert work.settle(exit_code=0).ok()["task_state"] == "done"
    assert scene.post("/wire/claims", {**body, "wait_seconds": 3}, WORKER).ok()["claim"]["task"]["id"] == "u"


# Being told to stop


def running(scene: Served, worker: int, token: str = WORKER) -> Iterator[dict[str, Any]]:
    with scene.stream(f"/wire/workers/{worker}/stops", token) as answer:
        while line := answer.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


@pytest.mark.promise("halt")
@pytest.mark.parametrize("how", ["halt", "quarantine", "cancel"])
def test_a_worker_hears_within_a_second_that_its_act_was_ended(scene: Served, how: str) -> None:
    work = Work(scene, ECHO)
    attempt, name = work.claim["attempt"], work.claim["resident"]["name"]
    heard = running(scene, work.claim["worker"])
    assert next(heard) == {"attempts": [attempt], "upto": attempt}
    began = time.monotonic()
    path, body = {
        "halt": ("/control/halt", {"reason": "x"}),
        "quarantine": (f"/residents/{name}/state", {"state": "quarantined"}),
        "cancel": ("/tasks/t/cancel", {}),
    }[how]
    scene.post(path, body).ok()
    assert next(heard) == {"attempts": [], "upto": attempt}
    assert time.monotonic() - began < 1.0
    work.settle(exit_code=0).problem(401, "auth.token")
    assert scene.task("t").state == ("cancelled" if how == "cancel" else "open")


def test_a_revoked_workers_acts_are_ended(scene: Served) -> None:
    number = scene.token("worker", "other", "other-worker")
    joined = scene.post("/wire/workers", {"residents": 1}, "other-worker").ok()
    scene.add(ECHO)
    body = {"worker": joined["worker"], "resident": joined["residents"][0], "wait_seconds": 5}
    found = scene.post("/wire/claims", body, "other-worker").ok()["claim"]
    scene.post(f"/wire/workers/{joined['worker']}/renew", {}, WORKER).problem(404, "wire.worker")  # not its own
    heard = running(scene, joined["worker"], "other-worker")
    assert next(heard)["attempts"] == [found["attempt"]]
    scene.write(people.revoke_token, (number, "test"))
    assert list(heard) == []  # the stream ends
    until = time.monotonic() + 2
    while scene.task("t").state != "open":
        assert time.monotonic() < until
        time.sleep(0.02)
    scene.post(f"/wire/attempts/{found['attempt']}/settle", {"outcome": {"exit_code": 0}}, found["token"]).problem(
        401, "auth.token"
    )
    assert scene.rows("SELECT count(*) FROM residents WHERE process IS NOT NULL") == [(0,)]


def test_leaving_gives_back_what_still_runs(scene: Served) -> None:
    work = Work(scene, ECHO)
    scene.post(f"/wire/workers/{work.claim['worker']}/leave", {}, WORKER).ok()
    assert scene.task("t").state == "open"
    assert scene.rows("SELECT count(*) FROM residents WHERE process IS NOT NULL") == [(0,)]
    scene.post(f"/wire/workers/{work.claim['worker']}/renew", {}, WORKER).problem(409, "wire.lapsed")


def test_many_workers_waiting_at_once_are_given_different_tasks(scene: Served) -> None:
    joined = scene.post("/wire/workers", {"residents": 12}, WORKER).ok()
    found: list[str] = []

    def wait(name: str) -> None:
        body = {"worker": joined["worker"], "resident": name, "wait_seconds": 10}
        claimed = scene.post("/wire/claims", body, WORKER).ok()["claim"]
        found.append(claimed["task"]["id"])

    threads = [threading.Thread(target=wait, args=(name,)) for name in joined["residents"]]
    for thread in threads:
        thread.start()
    scene.add(*(NewTask(id=f"t{number}", command=("echo",)) for number in range(12)))
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(f"t{number}" for number in range(12))
    assert scene.get("/status", OPERATOR).ok()["running"] == 12
