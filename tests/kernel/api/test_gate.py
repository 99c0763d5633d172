"""Promises about the gate: hosts, origins, sizes and rates, and that every refusal is a problem page."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from vivarium_kernel.api.guards import Hosts, same_origin
from vivarium_kernel.errors import Conflict, Invalid

from .scene import OPERATOR, RESIDENT, Served, found_village, served, with_tokens


@pytest.mark.promise("a name that was rebound to this machine is refused")
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8420", "127.0.0.1.evil.example", "", "[", "8.8.8.8"])
def test_a_request_for_another_host_is_refused(scene: Served, host: str) -> None:
    scene.ask("GET", "/healthz", headers={"Host": host}).problem(421, "request.host")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8420", "[::1]:1", "127.0.0.1:9"])
def test_loopback_names_are_taken(scene: Served, host: str) -> None:
    scene.ask("GET", "/healthz", headers={"Host": host}).ok()


def test_which_hosts_may_be_named_follows_from_what_is_listened_on() -> None:
    lan = Hosts("192.168.1.7", ["village.example"])
    assert [lan.allows(h) for h in ("192.168.1.7:1", "village.example", "localhost", "10.0.0.1", "x.example")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    everywhere = Hosts("0.0.0.0")  # noqa: S104
    assert [everywhere.allows(h) for h in ("10.0.0.1", "[fe80::1]:80", "x.example")] == [True, True, False]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "file://", "http://["])
def test_a_page_of_another_site_can_do_nothing_here(scene: Served, origin: str) -> None:
    answer = scene.ask("POST", "/control/pause", {}, headers={"Origin": origin})
    answer.problem(403, "request.origin")
    assert scene.get("/status").ok()["paused"] is False


def test_an_origin_is_the_same_only_to_the_port() -> None:
    assert same_origin("http://127.0.0.1:8420", "127.0.0.1:8420")
    assert not same_origin("http://127.0.0.1:8421", "127.0.0.1:8420")
    assert not same_origin("ftp://127.0.0.1:8420", "127.0.0.1:8420")


def test_a_body_past_the_limit_is_refused_also_without_its_length(scene: Served) -> None:
    large = b'{"reason": "' + b"x" * 1_100_000 + b'"}'
    scene.post("/control/pause", large).problem(413, "request.size")
    with socket.create_connection(("127.0.0.1", scene.port), timeout=10) as line:
        head = (
            f"POST /control/pause HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        line.sendall(head.encode())
        line.sendall(f"{len(large):x}\r\n".encode() + large + b"\r\n0\r\n\r\n")
        assert b"413" in line.recv(4096).split(b"\r\n")[0]
    assert scene.get("/status").ok()["paused"] is False


@pytest.mark.promise("problems")
@pytest.mark.parametrize(
    ("ask", "status", "rule"),
    [
        (lambda s: s.get("/no/such/path"), 404, "request.path"),
        (lambda s: s.ask("PATCH", "/tasks"), 405, "request.method"),
        (lambda s: s.get("/tasks/nobody"), 404, "board.task"),
        (lambda s: s.get("/attempts/99999999999999999999999"), 404, "request.path"),
        (lambda s: s.get("/attempts/one"), 404, "request.path"),
        (lambda s: s.post("/tasks", b"{"), 422, "input"),
        (lambda s: s.post("/tasks", b"\xff"), 422, "input"),
        (lambda s: s.post("/tasks", b"[" * 100_000), 422, "input"),
        (lambda s: s.post("/tasks", b'{"tasks": [], "tasks": []}'), 422, "input"),
        (lambda s: s.post("/tasks", {"tasks": []}), 422, "input"),
        (lambda s: s.post("/tasks", b"\x00"), 422, "input"),
        (lambda s: s.post("/control/pause", {"reason": "\ud800"}), 422, "input"),
        (lambda s: s.get("/tasks?limit=0"), 422, "input"),
        (lambda s: s.get("/tasks?limit=ten"), 422, "input"),
        (lambda s: s.get("/tasks?limit=1&limit=2"), 422, "input"),
        (lambda s: s.get("/status?what=1"), 422, "input"),
        (lambda s: s.ask("POST", "/tasks", b"x", headers={"Content-Type": "text/plain"}), 415, "request.media"),
        (lambda s: s.ask("GET", "/status", headers={"Authorization": "Basic eDp5"}), 401, "auth.scheme"),
        (lambda s: s.ask("POST", "/control/pause", {}, headers={"Idempotency-Key": "a b"}), 422, "request.key"),
        (lambda s: s.get("/events/stream?after=-1"), 422, "input"),
        (lambda s: s.get("/ledger/history?account=resident:ben:free", RESIDENT), 403, "ledger.others"),
    ],
)
def test_every_error_is_a_problem_page(scene: Served, ask: Callable[[Served], object], status: int, rule: str) -> None:
    ask(scene).problem(status, rule)  # type: ignore[attr-defined]


@pytest.mark.promise("problems")
def test_everything_that_is_wrong_with_a_body_is_told_at_once(scene: Served) -> None:
    tasks = [
        {"id": "a/b", "command": ["echo"], "max_micros": -1},
        {"prompt": "x" * 1_000_00 + "y", "mode": "nonsense"},
        {"command": [], "unknown": 1, "min_micros": "5"},
        {"id": "..", "prompt": "x", "min_micros": 10, "max_micros": 5},
    ]
    page = scene.post("/tasks", {"tasks": tasks[:1] + tasks[2:3]}).problem(422, "input")
    assert {p["path"] for p in page["problems"]} == {"tasks[1].unknown", "tasks[1].min_micros"}
    page = scene.post("/tasks", {"tasks": [tasks[0], tasks[1], tasks[3]]}).problem(422, "task")
    told = {p["path"] for p in page["problems"]}
    assert told == {"tasks[0].id", "tasks[0].max_micros", "tasks[1].prompt", "tasks[1].mode", "tasks[2].id",
                    "tasks[2].min_micros"}  # fmt: skip
    assert all(p["message"] for p in page["problems"])
    assert scene.get("/tasks").ok()["tasks"] == []


@pytest.mark.promise("problems")
def test_a_fault_of_the_village_tells_nothing_of_its_inside(
    scene: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vivarium_kernel.api.village_routes.board.counts", lambda view: 1 / 0)
    answer = scene.get("/status")
    answer.problem(500, "kernel.fault")
    assert b"Zero" not in answer.raw
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.promise("corruption")
def test_what_a_damaged_database_says_is_not_served(scene: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    def damaged(view: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr("vivarium_kernel.api.village_routes.board.counts", damaged)
    page = scene.get("/status").problem(503, "store.corrupt")
    assert "doctor" in page["next_step"]


def test_a_token_that_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    with served(found_village(tmp_path, more="\n[api]\nrequests_per_minute = 5\n")) as scene:
        with_tokens(scene)
        answers = [scene.get("/status") for _ in range(7)]
        assert [a.status for a in answers] == [200] * 5 + [429] * 2
        answers[-1].problem(429, "request.rate")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        scene.get("/tasks", RESIDENT).ok()  # another token's allowance is its own
        for _ in range(5):
            scene.get("/status", "a guess").problem(401, "auth.token")
        scene.get("/status", "a guess").problem(429, "request.rate")


def test_answers_are_not_kept_by_anybody(scene: Served) -> None:
    headers = scene.get("/status").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    from vivarium_kernel.api.server import listen

    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"Port {port}") as refused:
            listen("127.0.0.1", port)
        assert "--port" in refused.value.next_step
    with pytest.raises(Invalid, match="listened on"):
        listen("192.0.2.1", 0)
