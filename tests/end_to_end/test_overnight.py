"""The operator's night: 40 tasks, a cap, a model server that dies and comes back, and one page in the morning."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from end_to_end.newcomer import EXAMPLES, SECONDS, VIVARIUM, copied, environment, installed, typed
from vivarium_kernel.village import Village, With

from vivarium_kernel import audit, ledger

VILLAGE = EXAMPLES / "overnight"
LABEL = "[simulated server, no LLM]"


def tasks() -> dict[str, dict[str, Any]]:
    return {task["id"]: task for task in tomllib.loads((VILLAGE / "tasks.toml").read_text(encoding="utf-8"))["task"]}


def test_the_list_is_what_its_page_says() -> None:
    found = tasks()
    settings = tomllib.loads((VILLAGE / "vivarium.toml").read_text(encoding="utf-8"))
    page = (VILLAGE / "README.md").read_text(encoding="utf-8")
    assert (len(found), sum("command" in task for task in found.values())) == (40, 18)
    assert "40 tasks of a small seed shop, 18 of them commands and 22 for a" in page
    assert settings["budgets"]["village_day_usd"] == "1.00"
    assert set(re.findall(r"^\| `([\w-]+)` \| ", page, re.MULTILINE)) <= {*found}


@pytest.mark.thorough
def test_without_the_provider_the_run_says_how_to_get_it_and_changes_nothing(tmp_path: Path) -> None:
    village = copied("overnight", tmp_path)
    done = typed("run", village, place=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert "vivarium plugins install vivarium-plugins-openai" in done.err
    assert not (village / "vivarium.db").exists()


@contextlib.contextmanager
def server(village: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """The simulated server as its page says to start it, when it listens."""
    process = subprocess.Popen(
        [sys.executable, "-u", "simulated_server.py", "--port", str(port), "--seconds", "0.1"],
        cwd=village, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert f"{LABEL} listens at" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def until(village: Path, process: subprocess.Popen[str], sql: str) -> None:
    """Wait until the village's database answers a question with something that is not 0."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(sqlite3.OperationalError),  # before the village is founded
            closing(sqlite3.connect(f"file:{village / 'vivarium.db'}?mode=ro", uri=True)) as db,
        ):
            if db.execute(sql).fetchone()[0]:
                return
        time.sleep(0.01)
    pytest.fail(f"it never came to: {sql}")


class Loading(HTMLParser):
    """What a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe", "object", "embed", "base") or {"src", "href"} & {*dict(attrs)}:
            self.found.append(tag)


@pytest.mark.thorough
@pytest.mark.promise("A model server that dies and comes back costs time alone, and one page tells of the night")
def test_the_night_goes_on_when_the_server_dies_and_one_page_tells_of_it(tmp_path: Path) -> None:
    village = copied("overnight", tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = village / "vivarium.toml"
    settings.write_text(settings.read_text().replace(":8791/", f":{port}/"))
    env = installed(tmp_path / "site", "vivarium_plugins_openai")
    night = subprocess.Popen(
        [*VIVARIUM, "run", "overnight"], cwd=tmp_path, env=environment(env), text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        with server(village, port):
            until(village, night, "SELECT count(*) >= 3 FROM tasks WHERE state = 'done' AND id GLOB 'letter-[0-9]*'")
        until(village, night, "SELECT count(*) FROM events WHERE kind = 'model.left_alone'")
        with server(village, port):
            out, err = night.communicate(timeout=SECONDS)
            assert (night.returncode, err) == (1, ""), out
            assert "40 tasks: 34 done, 2 failed, 1 blocked, 3 left; each that ended did so as expected" in out
            assert_morning(village, env)
            decide(village, env)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(night.pid, signal.SIGKILL)
        night.communicate()


def assert_morning(village: Path, env: dict[str, str]) -> None:
    """The page says what was done, spent, refused and parked, and why; in words, as data, and as HTML."""
    found = json.loads(typed("report", "-v", village, "--json", place=village, env=env).out)
    assert {one["task"] for one in found["people"]} == {"refund", "newsletter"}
    asked = next(one for one in found["people"] if one["task"] == "refund")
    assert "Is the money for order 1051 given back" in asked["what"]
    assert asked["next_step"].startswith("vivarium task answer refund")
    refused = {one["task"]: one["why"] for one in found["refused"]}
    assert {*refused} == {"pasted-letter", "long-essay"}
    assert refused["pasted-letter"].startswith("text_policy.injection")
    assert "The village does not allow openai:simulated/night-huge" in refused["long-essay"]
    assert [one["task"] for one in found["failed"]] == ["spring-list"]
    (parked,) = found["parked"]
    assert (parked["task"], parked["kind"]) == ("whole-catalogue", "quota")
    assert len(found["done"]) == found["counts"]["done"] == 34
    troubles = {one["what"] for one in found["troubles"]}
    assert {"API_CALL_FAILURE (connection)", "model.left_alone", "model.tried_again", "BUDGET_EXCEEDED"} <= troubles
    stood_in = next(one["thought"] for one in found["done"] if one["task"] == "describe-black-krim")
    assert stood_in["instead_of"] == "openai:simulated/night-huge"

    with Village(village, With(load_plugins=False), environ={}) as opened, opened.store.view() as view:
        assert audit.verify(view)[2] is None
        assert ledger.verify(view).problems == ()
        (paid,) = view.row("SELECT sum(micros) FROM transfers WHERE currency = 'usd'") or (0,)
    assert 0 < found["spent_micros"] == paid < 1_000_000
    assert found["spent_micros"] == sum(one["spent_micros"] for one in found["models"])

    page = village / "morning.html"
    words = typed("report", "-v", village, "--html", page, place=village, env=env)
    assert (words.status, words.out) == (0, f"Written: {page}\n")
    html = page.read_text(encoding="utf-8")
    loading = Loading()
    loading.feed(html)
    assert loading.found == [] and "url(" not in html and "@import" not in html
    text = typed("report", "-v", village, place=village, env=env).out
    for shown in (text, html):
        assert all(name in shown for name in tasks()), "each task is on the page"
        assert "Waits for a person (2)" in shown and "Refused (2)" in shown and "Done (34)" in shown
        assert LABEL in shown


def decide(village: Path, env: dict[str, str]) -> None:
    """What the operator decides in the morning goes on from where it waited."""
    answered = typed("task", "answer", "refund", "Give it back.", "-v", village, place=village, env=env)
    approved = typed("task", "approve", "newsletter", "-v", village, place=village, env=env)
    assert (answered.status, approved.status) == (0, 0), answered.err + approved.err
    done = typed("run", village, place=village, env=env)
    assert "40 tasks: 36 done, 2 failed, 1 blocked, 1 left; each that ended did so as expected" in done.out
    with closing(sqlite3.connect(village / "vivarium.db")) as db:
        ((answer,),) = db.execute("SELECT answer FROM attempts WHERE task = 'refund' AND ending = 'accepted'")
    assert answer == f"{LABEL} A draft would stand here. A person said: Give it back. [shop/letters/09.md:1]"
