"""Promises about the panels in a real browser: usable by keyboard and ear, live, in light and dark, from here alone."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel.api.scene import Served, found_village, served, with_tokens
from vivarium_kernel.api.login import login_link
from vivarium_kernel.records import NewTask

from .scene import HOSTILE, Sky, Storm, hostile_tasks, session

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: uv sync")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: uv sync")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium fonts-dejavu-core"),
]

# Nothing but this machine has an address, so that a page that loads from elsewhere can't.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PATHS = (
    "/",
    "/panels/tasks",
    "/panels/tasks?task=evil%2F%3Cb%3E%3F%26%23",
    "/panels/tasks?task=failed",
    "/panels/tasks?task=judged",
    "/panels/events",
    "/panels/plugins",
    "/panels/sky",
    "/panels/storm",
    "/panels/nothing",
    "/login?token=x",
)
# What a browser says of an answer that is no 200, and of the scripts that a test plants: both are asked for.
KNOWN = ("Failed to load resource: the server responded with a status of", "Executing inline")
WIDE, NARROW = {"width": 1300, "height": 900}, {"width": 375, "height": 700}
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A village with three residents at work, a task of every fate, and plugins good and bad."""
    folder: Path = tmp_path_factory.mktemp("browser") / "village"
    more = "\n[api]\nrequests_per_minute = 100000\n"
    with served(found_village(folder, more=more), plugins=(Sky, Storm), residents=3) as found:
        with_tokens(found)
        hostile_tasks(found)
        found.add(
            NewTask(id="failed", title="Fails", command=("sh", "-c", "echo out; echo no >&2; exit 3"), max_attempts=1),
            NewTask(id="judged", title="Waits for a person", command=("echo", "look"), human=True),
            NewTask(id="walk", title="A slow walk", command=("sleep", "60"), timeout_seconds=100.0),
        )
        until(lambda: found.task("judged").state == "review" and found.task("failed").state == "failed")
        tally = found.village.health.tally("storm", "on_event")
        for _ in range(5):
            found.village.health.failed(tally, 0.01, ValueError("the barometer is gone"))
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield found
        found.close()


@pytest.fixture(autouse=True)
def going_on(scene: Served) -> Iterator[None]:
    """Whatever a test does with the switches, the next one finds them as they were."""
    yield
    for what in ("resume", "unhalt"):
        scene.post(f"/control/{what}").ok()


@pytest.fixture
def visit(scene: Served, browser: Any) -> Iterator[Open]:
    """Opens a page of the village as an operator; whatever it asks of others, or complains of, fails the test."""
    contexts: list[Any] = []
    faults: list[str] = []

    def opened(path: str, scheme: str = "light", size: Any = None, *, signed_in: bool = True, **more: Any) -> Any:
        context = browser.new_context(color_scheme=scheme, viewport=size or WIDE, **more)
        context.set_default_timeout(8_000)
        contexts.append(context)
        if signed_in:
            name, _, value = session(scene)["Cookie"].partition("=")
            context.add_cookies([{"name": name, "value": value, "domain": "127.0.0.1", "path": "/"}])
        page = context.new_page()
        own = f"http://127.0.0.1:{scene.port}/"
        page.on("request", lambda asked: asked.url.startswith(own) or faults.append(f"asks {asked.url}"))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda said: said.type == "error" and not said.text.startswith(KNOWN) and faults.append(said.text),
        )
        page.on("dialog", lambda box: faults.append(f"a script runs: {box.message}"))
        page.goto(own.rstrip("/") + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    waiting = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if true():
            return
        waiting.wait(0.05)
    raise AssertionError("it did not become true")


def heard(page: Any, words: str) -> None:
    """A message that a screen reader says."""
    page.get_by_role("status").filter(has_text=words).first.wait_for()


@pytest.mark.promise("the panels can be used with a keyboard and a screen reader, in light and dark, wide and narrow")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", NARROW)], ids=["light-wide", "dark-narrow"])
def test_axe_finds_nothing_wrong_and_nothing_overflows(visit: Open, path: str, scheme: str, size: Any) -> None:
    page = visit(path, scheme, size)
    for folded in page.locator("summary").all():
        folded.click()
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if path == "/panels/tasks":
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(246, 245, 240)" if scheme == "light" else "rgb(18, 22, 20)"
        )


def test_one_signs_in_with_a_link_and_the_keyboard_alone(scene: Served, visit: Open) -> None:
    link = scene.do(login_link(scene.village, "", "eve"))
    page = visit(link, signed_in=False)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="You are signed in").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Status", exact=True).wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.get_by_role("button", name="Sign out").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Sign in to served").wait_for()


def test_everything_that_can_be_pressed_can_be_reached_and_shows_its_focus(visit: Open) -> None:
    page = visit("/panels/tasks?task=judged")
    wanted = page.locator("a[href]:visible, button:visible, summary:visible, pre:visible").count()
    seen: set[str] = set()
    for _ in range(wanted + 2):
        page.keyboard.press("Tab")
        at = page.evaluate(
            "(() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.tagName, e.outerHTML.slice(0, 200) + e.offsetTop, s.outlineStyle, s.outlineWidth]; })()"
        )
        if at[0] != "BODY":
            assert at[2:] == ["solid", "3px"], at
            seen.add(at[1])
    assert len(seen) >= wanted


def test_pause_is_pressed_heard_and_shown_and_the_focus_stays(scene: Served, visit: Open) -> None:
    page = visit("/")
    page.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Enter")
    heard(page, "Paused: what runs goes on")
    page.locator("#state", has_text="Paused").wait_for()
    assert scene.village.times().paused
    assert page.evaluate("document.activeElement.textContent") == "Resume"
    page.keyboard.press("Enter")
    page.locator("#state", has_text="Running").wait_for()
    assert not scene.village.times().paused
    page.get_by_label("Pace").fill("0.2")
    page.keyboard.press("Enter")
    heard(page, "The pace is set.")
    assert scene.village.times().pace_seconds == 0.2


def test_halt_asks_first_and_keeps_the_reason(scene: Served, visit: Open) -> None:
    page = visit("/")
    halt = page.get_by_role("button", name="Halt", exact=True)
    halt.click()
    page.get_by_role("dialog", name="Halt the village?").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.textContent") == "Halt"
    assert not scene.village.times().halted
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_label("Reason").fill("smoke <b>everywhere</b>")
    page.get_by_role("dialog").get_by_role("button", name="Halt").click()
    page.locator("#attention").get_by_text("smoke <b>everywhere</b>").wait_for()
    assert scene.village.times().halt_reason == "smoke <b>everywhere</b>"
    page.get_by_role("button", name="End the halt").click()
    page.locator("#state", has_text="Running").wait_for()
    assert not scene.village.times().halted


def test_a_dialog_asked_again_at_once_hears_its_own_answer_alone(scene: Served, visit: Open) -> None:
    """A browser tells of a close with its next frame: here the dialog is open again, and answered, before that."""
    page = visit("/")
    posts: list[str] = []
    page.on("request", lambda asked: asked.method == "POST" and posts.append(asked.url))
    page.evaluate(
        "(() => { const box = document.getElementById('ask'), reason = document.getElementById('ask-reason');"
        " const halt = [...document.querySelectorAll('button')].find((each) => each.textContent.trim() === 'Halt');"
        " for (const why of ['first', 'second']) { halt.click(); reason.value = why; box.close(); }"
        " halt.click(); reason.value = 'third'; document.getElementById('ask-yes').click(); })()"
    )
    page.locator("#attention").get_by_text("third").wait_for()
    assert (len(posts), scene.village.times().halt_reason) == (1, "third")


def test_what_was_done_is_shown_though_the_page_was_being_asked_for(scene: Served, visit: Open) -> None:
    """An asking that began before the act tells nothing of it, and here none other comes by itself."""
    page = visit("/")
    page.clock.install(time=0)
    page.reload()
    held: list[Any] = []

    def first_is_held(route: Any) -> None:
        if held or route.request.method != "GET":
            route.continue_()
        else:
            held.append(route.fetch())  # what the village showed before
            page.evaluate("document.querySelector('[data-do=\"POST /control/pause\"]').click()")
            until(lambda: scene.village.times().paused)
            page.get_by_role("status").filter(has_text="Paused").first.wait_for()
            route.fulfill(response=held[0])

    page.route(page.url, first_is_held)
    page.clock.pause_at(1)
    page.clock.run_for(3_500)
    page.locator("#state", has_text="Paused").wait_for()
    assert held


def test_a_person_decides_about_tasks_where_they_stand(scene: Served, visit: Open) -> None:
    scene.add(NewTask(id="to-judge", title="Judge me", command=("echo", "x"), human=True))
    until(lambda: scene.task("to-judge").state == "review")
    page = visit("/panels/tasks?show=you")
    page.get_by_role("link", name="Judge me").click()
    page.get_by_role("button", name="Approve").click()
    page.locator("#task-state", has_text="done").wait_for()
    assert (scene.task("to-judge").state, page.get_by_role("button", name="Approve").count()) == ("done", 0)
    scene.add(NewTask(id="to-cancel", title="Cancel me", prompt="x", wanted="ada", plugins=("absent",)))
    page = visit("/panels/tasks?task=to-cancel")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_label("Reason").fill("not now")
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.locator("#task-state", has_text="cancelled").wait_for()
    assert scene.task("to-cancel").reason == "not now"
    page.get_by_role("button", name="Put back on the board").click()
    page.get_by_role("dialog").get_by_role("button", name="Put back on the board").click()
    page.locator("#task-state", has_text="open").wait_for()
    assert scene.rows("SELECT actor FROM events WHERE kind = 'task.requeued'") == [("operator:ann",)]


def test_a_refusal_is_said_with_its_next_step(scene: Served, visit: Open) -> None:
    scene.add(NewTask(id="decided", title="Decided elsewhere", command=("echo", "x"), human=True))
    until(lambda: scene.task("decided").state == "review")
    page = visit("/panels/tasks?task=decided")
    page.clock.install(time=0)  # so that the page does not bring itself up to date first
    scene.post("/tasks/decided/approve").ok()
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("alert").filter(has_text="Only a task in review").wait_for()
    page.get_by_role("button", name="Close").click()
    assert page.get_by_role("alert").inner_text() == ""


def test_the_log_is_followed_live_through_its_filters(scene: Served, visit: Open) -> None:
    page = visit("/panels/events")
    page.get_by_label("Kind").fill("task.posted")
    page.get_by_label("Kind").press("Enter")
    page.locator("#tail-state", has_text="Live").wait_for()
    before = page.locator("#tail .event").count()
    scene.add(NewTask(id="news", title="News", prompt="x", wanted="ada", plugins=("absent",)))
    first = page.locator("#tail .event").first
    first.filter(has_text="news").wait_for()
    assert page.locator("#tail .event").count() == before + 1
    assert first.get_by_role("link", name="news").get_attribute("href") == "/panels/tasks?task=news"
    assert set(page.locator("#tail .kind").all_inner_texts()) == {"task.posted"}
    page.get_by_role("button", name="Pause").click()
    scene.add(*(NewTask(id=f"missed-{n}", title=HOSTILE, prompt="x", plugins=("absent",)) for n in range(3)))
    page.wait_for_timeout(500)
    assert page.get_by_text("missed-2").count() == 0
    page.get_by_role("button", name="Follow").click()
    page.get_by_role("link", name="missed-2").wait_for()
    numbers = [int(number) for number in page.locator("#tail .number").all_inner_texts()]
    assert numbers == sorted(set(numbers), reverse=True)


def test_the_tail_keeps_up_with_a_flood_and_stays_small(scene: Served, visit: Open) -> None:
    page = visit("/panels/events?kind=task.posted")
    page.locator("#tail-state", has_text="Live").wait_for()
    scene.add(*(NewTask(id=f"flood-{n}", prompt="x", plugins=("absent",)) for n in range(1500)))
    page.get_by_role("link", name="flood-1499").wait_for(timeout=15_000)
    assert page.locator("#tail .event").count() == 500


def test_a_plugins_panel_acts_and_its_script_runs_under_the_policy(scene: Served, visit: Open) -> None:
    page = visit("/panels/sky")
    assert page.evaluate("document.documentElement.dataset.sky") == "read"
    page.get_by_role("button", name="Let it rain").click()
    heard(page, "It rains.")
    assert scene.events("sky.rained") == [{"drops": 3}]


def test_a_script_that_gets_into_a_page_does_not_run(visit: Open) -> None:
    page = visit("/panels/sky")
    refused: list[str] = []
    page.on("console", lambda said: refused.append(said.text))
    for planted in (
        "const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s)",
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,x\" onerror=\"window.ran = 1\">')",
    ):
        page.evaluate(f"() => {{ {planted} }}")
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran ?? null") is None
    assert len([words for words in refused if "Content Security Policy" in words]) == 2


def test_what_the_village_does_is_shown_without_a_reload_and_nothing_open_is_shut(scene: Served, visit: Open) -> None:
    page = visit("/panels/plugins")
    page.locator("#hooks-storm > summary").click()
    page.locator("#hooks-storm > summary").focus()
    tally = scene.village.health.tally("storm", "on_event")
    scene.village.health.failed(tally, 0.01, ValueError("the vane is gone too"))
    page.locator("#hooks-storm").get_by_role("row", name="on_event").get_by_role("cell", name="6").first.wait_for()
    assert page.locator("#hooks-storm").get_attribute("open") is not None
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_a_plugin_is_switched_off_and_on_by_its_button(scene: Served, visit: Open) -> None:
    page = visit("/panels/plugins")
    reward = page.locator("article", has=page.get_by_role("heading", name="task_reward"))
    reward.get_by_role("button", name="Switch off").click()
    page.get_by_role("dialog").get_by_label("Give back the money and tasks").check()
    with page.expect_request(lambda asked: asked.method == "PUT") as put:
        page.get_by_role("dialog").get_by_role("button", name="Switch off").click()
    assert put.value.url.endswith("/plugins/task_reward")
    assert put.value.post_data_json == {"enabled": False, "drain": True}
    heard(page, "task_reward is switched off.")
    reward.get_by_role("button", name="Switch on").click()
    reward.locator(".chip", has_text="on").wait_for()
    assert {"task_reward"} == {
        each["plugin"] for kind in ("disabled", "enabled") for each in scene.events(f"plugin.{kind}")
    }


def test_who_wants_no_motion_gets_none(visit: Open) -> None:
    page = visit("/panels/events", reduced_motion="reduce")
    page.locator(".event").first.evaluate("row => row.classList.add('new')")
    assert page.locator(".event").first.evaluate("row => getComputedStyle(row).animationName") == "none"
