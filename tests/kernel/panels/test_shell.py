"""Promises about the panel shell: who sees what, nobody's text becomes markup, and nothing comes from afar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel.api.scene import HUMAN, RESIDENT, WORKER, Served, found_village, served, with_tokens
from vivarium_kernel.api.panels_shell import own_panels

from .scene import HOSTILE, Loaded, Page, Sky, hostile_tasks, look, session

OWN = tuple(own_panels())
PAGES = (
    "/",
    *(f"/panels/{name}" for name in OWN),
    "/panels/tasks?task=evil%2F%3Cb%3E%3F%26%23",
    "/panels/tasks?task=shell",
    "/panels/tasks?show=moving&q=%3Cscript%3E",
    "/panels/events?kind=task.*",
    "/panels/sky?day=%3Cb%3E",
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("panels") / "village"
    more = "\n[api]\nrequests_per_minute = 100000\n"
    with served(found_village(folder, more=more), plugins=(Sky,)) as found:
        hostile_tasks(with_tokens(found))
        found.post("/cycle", {"command": ["echo", HOSTILE], "title": HOSTILE}).ok()
        yield found


@pytest.fixture(scope="module")
def operator(scene: Served) -> dict[str, str]:
    return session(scene)


@pytest.fixture(scope="module")
def human(scene: Served) -> dict[str, str]:
    return session(scene, "human")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("role", ["operator", "human"])
def test_every_panel_is_a_whole_page_with_landmarks_for_each_role(
    scene: Served, request: pytest.FixtureRequest, role: str, path: str
) -> None:
    answer = look(scene, path, request.getfixturevalue(role))
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), answer.raw
    page = Page(answer.raw.decode())
    assert (page.faults, page.open) == ([], [])
    assert [len(page.all(tag)) for tag in ("header", "main", "footer", "h1", "title")] == [1, 1, 1, 1, 1]
    assert page.all("html") == [{"lang": "en"}]
    assert any(link.get("aria-current") == "page" for link in page.all("a"))
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))


def test_a_button_is_there_for_those_who_may_press_it(
    scene: Served, operator: dict[str, str], human: dict[str, str]
) -> None:
    def buttons(path: str, headers: dict[str, str]) -> set[str]:
        page = Page(look(scene, path, headers).raw.decode())
        return {str(found["data-do"]) for _, found in page.tags if "data-do" in found}

    switches = {"POST /control/pause", "POST /control/halt", "POST /control/pace", "POST /control/residents"}
    assert buttons("/panels/status", operator) == {*switches, "POST /logout"}
    assert buttons("/panels/status", human) == {"POST /logout"}
    cancel = "POST /tasks/plain/cancel"
    assert buttons("/panels/tasks?task=plain", human) == {cancel, "POST /logout"}
    assert any(route.startswith("PUT /plugins/") for route in buttons("/panels/plugins", operator))
    assert not any(route.startswith("PUT /plugins/") for route in buttons("/panels/plugins", human))
    assert b'href="/panels/sky.keys"' in look(scene, "/", operator).raw
    assert b'href="/panels/sky.keys"' not in look(scene, "/", human).raw
    assert look(scene, "/panels/sky.keys", human).status == 404


@pytest.mark.promise("role-on-every-route")
def test_panels_let_in_people_alone_and_tell_a_browser_how_to_sign_in(scene: Served) -> None:
    for path in ("/", "/panels/tasks", "/panels/sky"):
        page = scene.ask("GET", path, token=None, headers={"Accept": "text/html"})
        assert page.status == 401
        assert b"vivarium token create --login" in page.raw
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert b"A plain task" not in page.raw
        scene.get(path, None).problem(401, "auth.none")
        for token in (RESIDENT, WORKER):
            scene.get(path, token).problem(403, "auth.role")
        assert scene.get(path, HUMAN).status == 200
        refused = scene.ask("GET", path, token=RESIDENT, headers={"Accept": "text/html"})
        assert (refused.status, refused.headers["content-type"]) == (403, "text/html; charset=utf-8")


@pytest.mark.parametrize("path", PAGES)
def test_what_people_write_is_never_markup(scene: Served, operator: dict[str, str], path: str) -> None:
    page = Page(look(scene, path, operator).raw.decode())
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        assert attributes.get("src") != "x"
    assert all(script.get("src", "").startswith(("/pages/", "/panels/sky/")) for script in page.all("script"))  # type: ignore[union-attr]
    assert "49" not in [text.strip() for text in page.text]  # nor a template


def test_a_hostile_title_is_read_as_it_was_written(scene: Served, operator: dict[str, str]) -> None:
    page = Page(look(scene, PAGES[5], operator).raw.decode())
    assert HOSTILE in page.text
    assert len([text for text in page.text if HOSTILE in text]) >= 3
    listed = Page(look(scene, "/panels/tasks", operator).raw.decode())
    (link,) = [a["href"] for a in listed.all("a") if "evil" in (a.get("href") or "")]
    assert link == "/panels/tasks?task=evil%2F%3Cb%3E%3F%26%23"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_names_no_address_but_its_own(scene: Served, operator: dict[str, str], path: str) -> None:
    answer = look(scene, path, operator)
    found = Loaded(Page(answer.raw.decode()))
    assert found.addresses
    assert [each for each in found.addresses if not each.startswith(("/", "#")) or each.startswith("//")] == []
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"


def test_every_file_that_a_page_names_is_there_and_may_be_kept(scene: Served, operator: dict[str, str]) -> None:
    named = {
        address
        for path in PAGES
        for address in Loaded(Page(look(scene, path, operator).raw.decode())).addresses
        if address.startswith("/pages/")
    }
    folder = next(iter(named)).rpartition("/")[0]
    asked = [name.rpartition("/")[2] for name in named]
    for name in asked:
        answer = scene.get(f"{folder}/{name}", None)
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
        text = answer.raw.decode().replace('xmlns="http://www.w3.org/2000/svg"', "")  # a name, not a place
        assert not re.search(r"https?:|//[a-z]+\.[a-z]", text), name
        asked += [found for found in re.findall(r'from "\./([^"]+)"', text) if found not in asked]
    assert {"shell.js", "acting.js", "live.js", "saying.js", "events.js", "shell.css", "mark.svg"} == set(asked)
    assert scene.get("/pages/older/shell.css", None).headers["cache-control"] == "no-store"
    for name in ("base.html", "nothing.js", "..%2Fbase.html"):
        scene.get(f"{folder}/{name}", None).problem(404, "panel.file" if "%" not in name else "request.path")


def test_a_sessions_button_works_from_its_own_page_alone(scene: Served, operator: dict[str, str]) -> None:
    elsewhere = {**operator, "Origin": "http://evil.example"}
    scene.ask("POST", "/tasks/plain/cancel", {}, None, elsewhere).problem(403, "request.origin")
    scene.ask("POST", "/tasks/plain/cancel", {}, None, {"Cookie": operator["Cookie"]}).problem(403, "request.origin")
    assert scene.task("plain").state == "waiting"
    scene.ask("POST", "/actions/sky.rain", {"drops": 2}, None, operator).ok()
    assert scene.events("sky.rained") == [{"drops": 2}]


def test_what_is_asked_wrongly_is_refused_in_words(scene: Served, operator: dict[str, str]) -> None:
    for path, status, words in (
        ("/panels/tasks?task=nobody", 404, "no task"),
        ("/panels/tasks?before=x", 422, "whole number"),
        ("/panels/tasks?show=x", 422, "no part"),
        ("/panels/events?day=x", 422, "whole number"),
        ("/panels/nothing", 404, "no panel"),
        ("/panels/tasks?q=a&q=b", 422, "stands twice"),
    ):
        answer = look(scene, path, operator)
        assert answer.status == status, path
        assert (Page(answer.raw.decode()).open, words in answer.raw.decode()) == ([], True), (path, answer.raw)


def test_the_board_is_read_newest_first_and_page_by_page(scene: Served, operator: dict[str, str]) -> None:
    from vivarium_kernel.records import NewTask

    scene.add(*(NewTask(id=f"many-{number:03}", prompt="x", labels=("many",)) for number in range(120)))
    seen: list[str] = []
    path: str | None = "/panels/tasks?show=all&q=many"
    while path:
        page = Page(look(scene, path, operator).raw.decode())
        seen += re.findall(r"task=(many-\d+)", " ".join(a.get("href") or "" for a in page.all("a")))
        path = next((a["href"] for a in page.all("a") if a.get("rel") == "next"), None)
    assert seen == [f"many-{number:03}" for number in reversed(range(120))]
