"""Promises about who is let in: every route with each role, and what a narrowed, revoked or dead credential may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from vivarium_kernel.api.roles import ANYONE, CALLERS, ROLES, scope_of
from vivarium_kernel.records import NewTask

from vivarium_kernel import people

from .scene import HUMAN, OPERATOR, RESIDENT, REVOKED, WORKER, Reply, Served, claim, found_village, served, with_tokens

SECRETS = {"operator": OPERATOR, "human": HUMAN, "resident": RESIDENT, "worker": WORKER}
STREAMS = ("GET /events/stream", "GET /wire/workers/{worker}/stops")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("roles") / "village"
    with served(found_village(folder, more="\n[api]\nrequests_per_minute = 100000\n")) as found:
        yield with_tokens(found)


@pytest.fixture(scope="module")
def attempt(scene: Served) -> tuple[int, str]:
    """A running attempt: its number and token."""
    found = claim(scene, NewTask(id="held", command=("echo", "hi")))
    return found["attempt"], found["token"]


def ask(scene: Served, route: str, token: str | None, attempt: int) -> Reply:
    """Ask for a route with nonsense that changes nothing: whoever is let in gets another answer than 401 or 403."""
    method, _, path = route.partition(" ")
    for name, value in (("{attempt}", attempt), ("{token}", 999_999), ("{worker}", 999_999), ("{task}", "nobody"),
                        ("{resident}", "nobody"), ("{action}", "no.thing")):  # fmt: skip
        path = path.replace(name, str(value))
    if route in STREAMS and token is not None:
        path += "?nonsense=1"
    body = None if method == "GET" else {"nonsense": 1}
    headers = {"Origin": f"http://127.0.0.1:{scene.port}"} if "login" in path else {}
    if path == "/login" and method == "POST":
        return scene.ask(
            method, path, b"token=x", token, {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        )
    return scene.ask(method, path, body, token, headers)


@pytest.mark.promise("role-on-every-route")
@pytest.mark.parametrize("route", ROLES)
def test_every_route_lets_in_its_roles_and_no_other(scene: Served, attempt: tuple[int, str], route: str) -> None:
    number, attempt_token = attempt
    for caller in CALLERS:
        token = {**SECRETS, "attempt": attempt_token}[caller]
        if route == "POST /logout":
            if caller == "attempt":
                continue  # it would be let in nowhere, and is asked below
            token = f"leaving-{caller}"
            scene.token(caller, "ada" if caller == "resident" else "leaving", token)
        answer = ask(scene, route, token, number)
        if ANYONE in ROLES[route] or caller in ROLES[route]:
            assert answer.status not in (401,), (route, caller, answer)
            assert answer.status != 403 or answer.json["rule"] == "login.used", (route, caller, answer)
        else:
            answer.problem(403, "auth.role")
    if ANYONE not in ROLES[route]:
        ask(scene, route, None, number).problem(401, "auth.none")
        ask(scene, route, REVOKED, number).problem(401, "auth.token")
        ask(scene, route, "never-was-one", number).problem(401, "auth.token")


def test_only_the_operator_holds_the_switches_and_the_keys() -> None:
    for route, callers in ROLES.items():
        if route.split(" ")[1].startswith(("/control", "/tokens")):
            assert callers == ("operator",), route
        if route.split(" ")[1].startswith("/wire"):
            assert callers in (("worker",), ("attempt",)), route
        assert "worker" not in callers or route == "GET /status" or "/wire" in route, route


def test_a_token_of_narrow_scope_does_what_its_scope_names_and_no_more(scene: Served) -> None:
    scene.token("operator", "reader", "reads", scope=("read",))
    scene.token("operator", "poster", "posts", scope=("tasks",))
    scene.get("/status", "reads").ok()
    scene.post("/tasks", {"tasks": [{"id": "x", "prompt": "x"}]}, "reads").problem(403, "auth.scope")
    scene.post("/tasks", {"tasks": [{"id": "by-poster", "prompt": "x"}]}, "posts").ok()
    scene.post("/control/pause", {}, "posts").problem(403, "auth.scope")
    assert scene.task("by-poster").by == "operator:poster"


def test_scopes_are_the_words_that_routes_begin_with() -> None:
    assert scope_of("GET /tasks/{task}") == "read"
    assert scope_of("POST /tasks/{task}/cancel") == "tasks"
    assert scope_of("GET /wire/workers/{worker}/stops") == "wire"


@pytest.mark.promise("actor-is-the-credential")
def test_a_field_of_the_request_never_says_who_acts(scene: Served) -> None:
    found = scene.post("/tasks", {"tasks": [{"id": "mine", "prompt": "x"}]}, HUMAN).ok()["tasks"][0]
    assert found["by"] == "human:hana"
    forged = {"tasks": [{"id": "forged", "prompt": "x", "by": "operator:op"}]}
    page = scene.post("/tasks", forged, HUMAN).problem(422, "input")
    assert page["problems"][0]["path"] == "tasks[0].by"
    assert scene.rows("SELECT 1 FROM tasks WHERE id = 'forged'") == []


@pytest.mark.promise("attempt-token")
def test_an_attempts_token_speaks_for_its_own_attempt_alone(scene: Served, attempt: tuple[int, str]) -> None:
    number, token = attempt
    scene.post(f"/wire/attempts/{number + 1}/renew", {}, token).problem(409, "attempt.lapsed")
    assert scene.get(f"/attempts/{number}", token).ok()["attempt"]["id"] == number
    scene.post("/tasks/held/cancel", {}, token).problem(403, "auth.role")


@pytest.mark.promise("quarantine")
def test_a_quarantined_resident_is_let_in_no_more(scene: Served) -> None:
    scene.token("resident", "cyn", "cyn-secret")
    scene.get("/tasks", "cyn-secret").ok()
    scene.post("/residents/cyn/state", {"state": "quarantined", "reason": "odd"}).ok()
    scene.get("/tasks", "cyn-secret").problem(401, "auth.token")
    with scene.village.store.view() as view:
        assert people.resident(view, "cyn").state == "quarantined"
