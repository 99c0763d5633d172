"""Promises about plugins' panels: a template and a function, drawn for whom they are, and harmless when they fail."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kernel.api.scene import Served, found_village, served, with_tokens
from vivarium_kernel.api.panels import Panel
from vivarium_kernel.api.panels_hosting import STUCK, Hosting
from vivarium_kernel.errors import Invalid
from vivarium_kernel.plugins import switch_off
from vivarium_kernel.terms import Actor

from .scene import FAULTS, HOSTILE, Page, Sky, Storm, look, session


@pytest.fixture
def scene(tmp_path: Path, closing: ExitStack) -> Iterator[Served]:
    with served(found_village(tmp_path / "village"), plugins=(Sky, Storm), closing=closing) as found:
        yield with_tokens(found)


def test_a_panel_is_a_template_and_a_function(scene: Served) -> None:
    answer = look(scene, "/panels/sky?day=3", session(scene, "human"))
    assert answer.status == 200
    page = Page(answer.raw.decode())
    assert f"{HOSTILE} over 0 tasks, said ann, asked 3" in page.text
    assert "Sky & <weather>" in page.text  # in the navigation too it is text
    (button,) = [found for found in page.all("button") if "sky.rain" in (found.get("data-do") or "")]
    assert (button["data-do"], button["data-body"]) == ("POST /actions/sky.rain", '{"drops": 3}')


def test_a_panels_script_and_style_come_from_the_village(scene: Served) -> None:
    own = session(scene)
    page = Page(look(scene, "/panels/sky", own).raw.decode())
    assert {"src": "/panels/sky/script.js", "type": "module"} in page.all("script")
    script = look(scene, "/panels/sky/script.js", own)
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert b"dataset.sky" in script.raw
    assert look(scene, "/panels/sky/style.css", own).headers["content-type"] == "text/css; charset=utf-8"
    look(scene, "/panels/sky/other.js", own).problem(404, "panel.file")
    look(scene, "/panels/sky.keys/script.js", own).problem(404, "panel.file")


@pytest.mark.promise("faults-stay-with-their-plugin")
@pytest.mark.parametrize("panel", FAULTS)
def test_a_panel_that_fails_is_a_card_that_names_its_plugin(scene: Served, panel: str) -> None:
    own = session(scene)
    answer = look(scene, f"/panels/{panel}", own)
    page = Page(answer.raw.decode())
    words = " ".join(" ".join(page.text).split())
    assert (answer.status, page.faults, page.open) == (500, [], [])
    assert "The plugin storm failed to draw this panel" in words
    assert FAULTS[panel] in words
    assert switch_off("storm") in words
    assert look(scene, "/panels/sky", own).status == 200
    assert scene.village.health.recent[-1].plugin == "storm"
    assert FAULTS[panel] in scene.village.health.recent[-1].what
    assert scene.village.health.cause("storm", "register_panels") is None


def test_a_panel_that_hangs_holds_up_nobody(scene: Served) -> None:
    own = session(scene)
    patient, hosting = (Hosting(scene.village, asyncio.Event(), limit_seconds=limit) for limit in (1.5, 0.3))
    panel = next(each for _, each in scene.village.hooks.register_panels() if getattr(each, "title", "") == "Sleeps")

    async def draw(hosting: Hosting) -> str:
        card = (await hosting.draw(panel, Actor("operator", "ann"), {}, {})).card
        return "" if card is None else card.what

    said: list[str] = []
    asking = threading.Thread(target=lambda: said.append(scene.do(draw(patient))))
    asking.start()
    began = time.monotonic()
    assert look(scene, "/panels/sky", own).status == 200
    assert scene.get("/status").status == 200
    assert time.monotonic() - began < 1.5
    asking.join(5)
    assert said == ["PanelFault: it did not come back within 1.5 s"]
    before = set(threading.enumerate())
    for _ in range(STUCK + 1):
        said.append(scene.do(draw(hosting)))
    assert said[-1] == f"PanelFault: {STUCK} of its threads have not come back, and no more are begun"
    assert sum(thread.name == "panels-storm" for thread in set(threading.enumerate()) - before) == STUCK


def test_what_is_no_panel_is_left_out_and_named(scene: Served) -> None:
    own = session(scene)
    words = " ".join(Page(look(scene, "/panels/plugins", own).raw.decode()).text)
    assert "storm registers a str, which is no Panel" in words
    assert "storm registers the panel 'status': its name must be storm or begin with it" in words
    assert b"In the kernel" not in look(scene, "/panels/status", own).raw.split(b"</nav>")[0]


def test_a_panel_says_at_once_what_is_wrong_with_its_declaration() -> None:
    with pytest.raises(Invalid) as found:
        Panel(name="Sky", title=" ", template=5, context=None, roles=("worker",))  # type: ignore[arg-type]
    for fault in ("its name is not", "no title", "its template is neither", "not a function", "its roles are not of"):
        assert fault in str(found.value)


def test_a_template_is_read_anew_when_its_file_changes(tmp_path: Path, scene: Served) -> None:
    file = tmp_path / "sky.html"
    panel = Panel(name="sky", title="Sky", template=file)

    def drawn() -> str:
        hosting = Hosting(scene.village, asyncio.Event())
        return str(scene.do(hosting.draw(panel, Actor("operator", "ann"), {}, {})).html)

    file.write_text("<p>{{ 1 + 1 }}</p>")
    assert drawn() == "<p>2</p>"
    file.write_text("<p>{{ '<' }}</p>")
    assert drawn() == "<p>&lt;</p>"
