"""Promises about browsers: a link that works once, a cookie that no script reads, and no request from elsewhere."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest
from vivarium_kernel.api.login import login_link

from .scene import HUMAN, Reply, Served

FORM = "application/x-www-form-urlencoded"


def secret_of(scene: Served, role: str = "operator") -> str:
    link = scene.do(login_link(scene.village, f"http://127.0.0.1:{scene.port}", "ann", role))  # type: ignore[arg-type]
    found: str = link.partition("token=")[2]
    return found


def log_in(scene: Served, secret: str, **headers: str) -> Reply:
    sent = {"Content-Type": FORM, "Accept": "text/html", "Origin": f"http://127.0.0.1:{scene.port}", **headers}
    return scene.ask("POST", "/login", urlencode({"token": secret}).encode(), None, sent)


def cookie_of(answer: Reply) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


def test_a_login_link_works_once_and_opening_it_uses_nothing_up(scene: Served) -> None:
    secret = secret_of(scene)
    for _ in range(3):  # a preview, a scanner, the person
        page = scene.get(f"/login?token={secret}", None)
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    answer = log_in(scene, secret)
    assert answer.status == 200
    assert b"ann" in answer.raw
    kept = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(kept.split("; "))
    assert kept.startswith(f"vivarium_{scene.port}=")
    assert scene.ask("GET", "/status", token=None, headers={"Cookie": cookie_of(answer)}).ok()["village"] == "served"
    again = log_in(scene, secret)
    assert again.status == 403
    assert b"used before" in again.raw
    log_in(scene, secret, Accept="application/json").problem(403, "login.used")


def test_a_session_changes_things_only_from_its_own_page(scene: Served) -> None:
    cookie = cookie_of(log_in(scene, secret_of(scene)))
    own = f"http://127.0.0.1:{scene.port}"
    for origin in ({}, {"Origin": "http://evil.example"}):
        scene.ask("POST", "/control/pause", {}, None, {"Cookie": cookie, **origin}).problem(403, "request.origin")
    assert scene.ask("POST", "/control/pause", {}, None, {"Cookie": cookie, "Origin": own}).ok()["paused"] is True
    assert scene.rows("SELECT actor FROM events WHERE kind = 'village.paused'") == [("operator:ann",)]


def test_a_session_has_the_role_of_its_link_and_ends_with_logging_out(scene: Served) -> None:
    cookie = cookie_of(log_in(scene, secret_of(scene, "human")))
    own = {"Cookie": cookie, "Origin": f"http://127.0.0.1:{scene.port}"}
    scene.ask("POST", "/control/pause", {}, None, own).problem(403, "auth.role")
    scene.ask("POST", "/logout", {}, None, own).ok()
    scene.ask("GET", "/status", token=None, headers={"Cookie": cookie}).problem(401, "auth.token")


def test_no_credential_serves_as_another_kind(scene: Served) -> None:
    secret = secret_of(scene)
    scene.get("/status", secret).problem(401, "auth.token")  # a link is no bearer token
    session = cookie_of(log_in(scene, secret)).partition("=")[2]
    scene.get("/status", session).problem(401, "auth.token")  # nor is a session
    cookie = {"Cookie": f"vivarium_{scene.port}={HUMAN}"}
    scene.ask("GET", "/status", token=None, headers=cookie).problem(401, "auth.token")  # nor a bearer token a session


def test_a_page_elsewhere_cannot_log_somebody_in(scene: Served) -> None:
    secret = secret_of(scene)
    sent = {"Content-Type": FORM}
    scene.ask("POST", "/login", f"token={secret}".encode(), None, sent).problem(403, "request.origin")
    assert log_in(scene, secret).status == 200  # and the link was not used up


@pytest.mark.promise("the login page can be used with a keyboard, a screen reader and no script")
def test_the_login_page_is_plain_and_accessible(scene: Served) -> None:
    page = scene.get('/login?token="><script>x', None)
    html = page.raw.decode()
    assert '<html lang="en">' in html
    assert re.search(r"<title>[^<]+</title>", html)
    assert len(re.findall("<h1>", html)) == 1
    assert "<main>" in html
    assert '<button type="submit">Sign in</button>' in html
    assert "<script" not in html
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


def test_a_login_links_secret_is_kept_nowhere(scene: Served) -> None:
    secret = secret_of(scene)
    for (table,) in scene.rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
        for row in scene.rows(f"SELECT * FROM {table}"):
            assert secret not in str(row)
