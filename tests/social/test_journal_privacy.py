"""Promises about what stays private: a journal's text wherever one looks, an excerpt after its time, every ballot."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from kernel.api.scene import HUMAN, OPERATOR, OTHER, RESIDENT, Served, claim, found_village, served, with_tokens
from vivarium_plugins_social.journals import Journals

from vivarium_kernel import Event, NewTask, Plugin, PluginView, Resident, Section, Task, actions, hookimpl

from .scene import PRIVATE, SHOWN, TEXT, Scene, where_is

REASON = "THE-REASON"


class Onlooker(Plugin):
    """Looks wherever a plugin can, and puts what it finds into prompts."""

    name = "onlooker"

    @hookimpl
    def enrich_prompt(self, resident: Resident, task: Task, view: PluginView) -> Sequence[Section]:
        found = [str(view.read(f"SELECT * FROM {table}")) for table in ("events", "transfers", "replies")]
        for query in ("SELECT private_text FROM journals_entries", "SELECT choice FROM journals_ballots",
                      "SELECT private_text FROM steps"):  # fmt: skip
            with pytest.raises(sqlite3.DatabaseError):
                view.read(query)
        return [Section("memory", "".join(found))]

    @hookimpl
    async def on_event(self, event: Event) -> None:
        assert PRIVATE not in str(event)


@pytest.fixture
def api(tmp_path: Path, closing: ExitStack) -> Iterator[Served]:
    with served(found_village(tmp_path / "village"), plugins=(Journals, Onlooker), closing=closing) as found:
        yield with_tokens(found)


def pages(api: Served, token: str) -> str:
    """Everything that a token's holder can read of the village."""
    whole = api.get("/openapi.json", None).ok()
    paths = [path for path, page in whole["paths"].items() if "get" in page and "{" not in path]
    paths = [path for path in paths if "event-stream" not in str(whole["paths"][path]["get"]["responses"])]
    paths.append("/events?limit=1000")
    paths += [f"/attempts/{number}" for (number,) in api.rows("SELECT id FROM attempts")]
    paths += [f"/tasks/{name}" for (name,) in api.rows("SELECT id FROM tasks")]
    return "\n".join(api.get(path, token).raw.decode() for path in paths)


@pytest.mark.promise("a journal's text is its author's alone")
def test_no_page_event_or_prompt_shows_a_journal_or_a_ballot_of_residents_at_work(api: Served) -> None:
    held = claim(api, NewTask(id="work", prompt="think"))
    assert held["resident"]["name"] == "ada"
    act = f"/wire/attempts/{held['attempt']}/act"
    asked = {"number": 1, "action": "journals.write", "input": {"text": TEXT, "type": "idea"}}
    written = api.post(act, asked, held["token"]).ok()["reply"]
    assert api.post(act, asked, held["token"]).ok()["reply"] == written  # its answer was lost, and it asks again
    for number in (2, 2, 3):  # reading goes on working, also when the step is repeated
        read = {"number": number, "action": "journals.read", "input": {"journal": written["journal"]}}
        assert api.post(act, read, held["token"]).ok()["reply"]["text"] == TEXT
    vote = {"journal": written["journal"], "choice": "exceptional", "reason": REASON}
    api.post("/actions/journals.vote", vote, OTHER).ok()
    assert SHOWN in str(api.post("/actions/journals.ballots", {}, api_token(api, "cyn")).ok())
    for token in (OPERATOR, HUMAN, RESIDENT, OTHER, held["token"]):
        seen = pages(api, token)
        for word in (PRIVATE, SHOWN, REASON):  # where choices are kept, the database is asked below
            assert word not in seen, (word, token)
    steps = api.get(f"/attempts/{held['attempt']}").ok()["steps"]
    assert [(step["arguments"], step["result"]) for step in steps] == [
        (None, written), (None, "private"), (None, "private")
    ]  # fmt: skip
    folder = api.village.folder
    assert where_is(folder, PRIVATE) == {"journals_entries.private_text", "steps.private_text"}
    api.post("/tasks/work/cancel").ok()
    assert where_is(folder, PRIVATE) == {"journals_entries.private_text"}
    assert where_is(folder, SHOWN) == {"journals_entries.private_text", "journals_entries.excerpt"}
    assert where_is(folder, REASON) == {"journals_ballots.reason"}
    found, _ = actions.actions_of(api.village)
    mine = {name: action for name, action in found.items() if action.plugin == "journals"}
    assert mine and all(action.private for action in mine.values())  # so no step of a vote tells it either
    assert "exceptional" not in str(api.rows("SELECT data FROM events WHERE kind <> 'plugin.physics'"))


def api_token(api: Served, name: str) -> str:
    api.token("resident", name, f"{name}-token")
    return f"{name}-token"


@pytest.mark.promise("voters see an excerpt and never the author, and nobody a count before the end")
def test_no_resident_finds_out_who_wrote_or_who_voted(api: Served) -> None:
    journal = api.post("/actions/journals.write", {"text": TEXT, "type": "idea"}, RESIDENT).ok()["journal"]
    vote = {"journal": journal, "choice": "reject", "reason": REASON}
    api.post("/actions/journals.vote", vote, OTHER).ok()
    third = api_token(api, "cyn")
    events = api.get("/events?limit=1000", third).ok()["events"]
    assert [event for event in events if "journal" in str(event) and "physics" not in event["kind"]] == []
    mine = [event["kind"] for event in api.get("/events?limit=1000", RESIDENT).ok()["events"]]
    assert "journals.written" in mine
    assert "ben" not in str(api.get("/events?limit=1000&kind=journals.*", RESIDENT).ok())
    for path in ("/ledger/balances", "/ledger/history", "/residents", "/status"):
        assert "90000000" not in api.get(path, third).raw.decode(), path


@pytest.mark.parametrize("token", [OPERATOR, HUMAN, None])
def test_only_residents_write_and_vote(api: Served, token: str | None) -> None:
    for name in ("write", "read", "mine", "ballots", "vote"):
        assert api.post(f"/actions/journals.{name}", {}, token).status in (401, 403)


@pytest.mark.promise("an excerpt is deleted when the time to dispute ends")
def test_an_excerpt_is_deleted_two_days_after_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "village"
    with Scene(folder) as scene:
        journal = scene.write()
        scene.pass_hours(24)
        scene.pass_hours(47)
        assert where_is(folder, SHOWN) == {"journals_entries.private_text", "journals_entries.excerpt"}
        assert scene.events("journals.excerpt_deleted") == []
        scene.pass_hours(1)
        scene.tick()
        assert where_is(folder, SHOWN) == {"journals_entries.private_text"}
        assert scene.events("journals.excerpt_deleted") == [{"journal": journal}]
        assert scene.do("ada", "read", journal=journal)["text"] == TEXT


def test_a_refusal_of_a_private_text_repeats_none_of_it_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "village"
    with Scene(folder) as scene:
        for bad in ({"text": TEXT, "type": "poem"}, {"text": f"{TEXT} AKIA{'A' * 16}", "type": "idea"}):
            with pytest.raises(Exception, match=r"type|text"):
                scene.do("ada", "write", **bad)
        assert where_is(folder, PRIVATE) == set()
        assert where_is(folder, SHOWN) == set()
