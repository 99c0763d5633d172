"""``vivarium plugins enable`` and ``disable``: what is refused and why, what is given back, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kernel.cli.running import Here, vivarium
from kernel.plugins.shelf import Shelf
from vivarium_kernel.enabling import held, whole
from vivarium_kernel.installed import claims, digest
from vivarium_kernel.registry import Registry, read, write
from vivarium_kernel.terms import Actor
from vivarium_kernel.village import Village, With

from vivarium_kernel import NewTask, audit, ledger, people

SAFE = {"environ": {}}


def events(here: Here, kind: str) -> list[dict[str, Any]]:
    with Village(here.folder, With(load_plugins=False), **SAFE) as opened, opened.store.view() as view:
        return [dict(event.data) | {"actor": event.actor} for event in audit.tail(view, only=audit.Filter(kind=kind))]


def settings(here: Here, text: str) -> None:
    path = here.folder / "vivarium.toml"
    path.write_text(path.read_text() + text + "\n")


def refused(here: Here, rule: str, *arguments: str) -> str:
    before = read(here.folder)
    done = here("plugins", *arguments)
    assert done.status == 2 and f"[{rule}]" in done.err, done.err + done.out
    assert read(here.folder) == before
    return done.err


def test_enabling_records_what_the_plugin_is_now(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", heads="", hats='requires = ("heads",)\n@hookimpl\ndef on_tick(self, now, tx): pass')
    assert here("plugins", "enable", "hats").out == "hats is on: hat-shop 1.2\n"
    assert json.loads((here.folder / "plugins.json").read_text()) == {
        "version": 1, "disabled": [], "installed": [],
        "plugins": {"hats": {"distribution": "hat-shop", "version": "1.2", "requirement": "hat-shop==1.2",
                             "files": digest(claims()["hats"][0]), "hooks": ["on_tick"], "config": [],
                             "requires": ["heads"], "offers": []}},
    }  # fmt: skip
    (event,) = events(here, "plugin.enabled")
    assert (event["plugin"], event["version"]) == ("hats", "1.2") and event["actor"].startswith("cli:")


def test_a_switch_is_kept_and_told(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats="")
    assert here("plugins", "disable", "hats", "verifier").out == "hats is off\nverifier is off\n"
    assert read(here.folder).disabled == {"hats", "verifier"}
    assert [event["plugin"] for event in events(here, "plugin.disabled")] == ["hats", "verifier"]
    assert here("plugins", "disable", "hats").status == 0
    assert len(events(here, "plugin.disabled")) == 2  # it was off already
    times = len(shelf.imported())
    vivarium("run", cwd=here.folder, env={"PYTHONPATH": str(shelf.folder)})
    assert len(shelf.imported()) == times
    assert here("plugins", "enable", "hats", "verifier").status == 0
    assert read(here.folder).disabled == frozenset()


def test_what_others_require_is_refused_with_their_names(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", heads="", hats='requires = ("heads",)', scarves="")
    told = refused(here, "plugins.required", "disable", "heads")
    assert "hats" in told and "vivarium plugins disable hats heads" in told
    here("plugins", "enable", "hats")
    times = len(shelf.imported())
    refused(here, "plugins.required", "disable", "heads")
    assert "hats" not in shelf.imported()[times:]  # what is recorded need not be imported again
    assert here("plugins", "disable", "heads", "hats").status == 0
    told = refused(here, "plugins.requires", "enable", "hats")
    assert "vivarium plugins enable heads hats" in told
    assert here("plugins", "enable", "hats", "heads").status == 0
    here("plugins", "disable", "hats")
    assert here("plugins", "disable", "heads").status == 0


def test_what_the_settings_name_is_refused(shelf: Shelf, here: Here) -> None:
    shelf.put("oracles", "1.0", models={"delphi": "zz_oracle:make"}, oracle="")
    shelf.put("many", "1.0", models={"dodona": "zz_one:make"}, one="", two="", dodona="")
    assert "safety_required" in refused(here, "plugins.safety", "disable", "text_policy")
    settings(here, 'model = "delphi:pythia"')
    assert "models of delphi, which come from the plugin oracle" in refused(here, "plugins.model", "disable", "oracle")
    text = (here.folder / "vivarium.toml").read_text()
    (here.folder / "vivarium.toml").write_text(text.replace("delphi", "dodona"))
    assert "the plugin dodona" in refused(here, "plugins.model", "disable", "dodona")
    assert here("plugins", "disable", "oracle", "one").status == 0


def test_what_is_not_there_or_broken_cannot_be_enabled(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats="", broken="raise SystemExit", lonely='requires = ("nobody",)', newer="api = 99")
    assert "Did you mean hats?" in refused(here, "plugins.unknown", "enable", "hat")
    assert "Did you mean hats?" in refused(here, "plugins.unknown", "disable", "hat")
    assert "SystemExit" in refused(here, "plugins.faulty", "enable", "broken")
    assert "upgrade vivarium-kernel" in refused(here, "plugins.faulty", "enable", "newer")
    assert "nobody, which is not installed" in refused(here, "plugins.requires", "enable", "lonely")
    refused(here, "plugins.faulty", "enable", "hats", "broken")
    assert events(here, "plugin.*") == []


def test_a_plugin_that_is_recorded_and_gone_can_be_switched_off(here: Here) -> None:
    (here.folder / "plugins.json").write_text(
        '{"plugins": {"hats": {"distribution": "hat-shop", "version": "1", "requirement": "hat-shop==1"}}}'
    )
    assert "vivarium plugins sync" in refused(here, "plugins.missing", "enable", "hats")
    assert here("plugins", "disable", "hats").status == 0


def test_whoever_may_not_switch_changes_nothing(shelf: Shelf, here: Here) -> None:
    shelf.put("hat-shop", "1.2", hats="")
    token = here("token", "create", "eve", "--role", "human").out.strip()
    refused(here, "role", "disable", "hats", "--as", token)
    refused(here, "role", "enable", "hats", "--as", token)


def test_a_switch_that_cannot_be_committed_has_not_happened(tmp_path: Path) -> None:
    write(tmp_path, Registry(frozenset({"hats"})))

    def commit_fails() -> None:
        with whole(tmp_path):
            write(tmp_path, Registry())
            raise OSError("no room to commit")

    with pytest.raises(OSError, match="no room"):
        commit_fails()
    assert read(tmp_path).disabled == {"hats"}


# Money and tasks

_TILL = """
    @hookimpl
    def end_attempt(self, task, ending, tx):
        if "paid" in task.labels and ending.kind == "cancelled":
            tx.emit("ended", task=task.id)
"""


@pytest.fixture
def till(shelf: Shelf, here: Here) -> Here:
    """A village whose plugin holds money in three ways, and tasks in two."""
    shelf.put("tills", "1.0", till=_TILL)
    with Village(here.folder, **SAFE) as opened:
        opened.store.call(people.add, people.NewResident("ben", "operator:cli", start_micros=100))
        opened.store.call(_fill, None)
        opened.post([NewTask(id="needs", prompt="x", plugins=("till",)), NewTask(id="other", prompt="x")])
    return here


def _fill(tx: Any, _: None) -> None:
    mine = tx.plugin("till")
    books = tx.books
    mine.post_task(NewTask(id="posted", prompt="x", labels=("paid",)))
    mine.actor = Actor("operator", "cli:eve")
    mine.hold("resident:ben:free", 7, key="one", ref="r")
    mine.hold("resident:ben:free", 5, key="two", ref="r")
    first = mine.hold("resident:ben:free", 3, key="done", ref="r")
    mine.settle_hold(first, [("plugin:till:pool", 3)], reason="because")
    books.transfer("a", "resident:ben:free", "plugin:till:pool", "aid", 40, "fee", "test", "x", "r")
    books.transfer("b", "plugin:till:pool", "commons", "aid", 30, "out", "test", "x", "r")
    books.transfer("c", "treasury", "plugin:till:pool", "aid", 11, "mint", "test", "x", "r")
    books.transfer("d", "resident:ben:free", "plugin:till:pool", "aid", 2, "fee", "test", "x", "r")
    books.transfer("e", "operator", "plugin:till:usd", "usd", 9, "deposit", "test", "x", "r")


def balances(here: Here) -> dict[tuple[str, str], int]:
    with Village(here.folder, With(load_plugins=False), **SAFE) as opened, opened.store.view() as view:
        assert ledger.verify(view).problems == ()
        return {(name, currency): micros for name, currency, micros in ledger.balances(view) if micros}


@pytest.mark.promise("a plugin that holds something is not switched off unless it is given back")
def test_a_plugin_that_holds_money_or_tasks_is_refused_without_drain(till: Here) -> None:
    before = balances(till)
    told = refused(till, "plugins.holds", "disable", "till")
    assert "0.000038 aid, 0.000009 usd" in told
    assert "open tasks that it posted (posted), open tasks that need it (needs)" in told
    assert "vivarium plugins disable till --drain" in told
    assert balances(till) == before


@pytest.mark.promise("a plugin that holds something is not switched off unless it is given back")
def test_drain_returns_what_a_plugin_holds_to_those_whose_it_is(till: Here) -> None:
    before = balances(till)
    assert before["resident:ben:free", "aid"] == 100 - 7 - 5 - 3 - 40 - 2
    assert before["plugin:till:pool", "aid"] == 3 + 40 - 30 + 11 + 2
    done = till("plugins", "disable", "till", "--drain")
    assert done.status == 0, done.err
    assert "1 task cancelled, 2 holds returned, 2 accounts emptied, 1 task held until it is on again" in done.out
    after = balances(till)
    # The holds whole; of the pool's 26 the newest payments: 2 of ben's, 11 that were minted, 13 of ben's 40.
    assert after["resident:ben:free", "aid"] == before["resident:ben:free", "aid"] + 7 + 5 + 2 + 13
    assert after["commons", "aid"] == before["commons", "aid"] + 11
    assert ("operator", "usd") not in after  # its 9 are back
    assert not [name for name, _ in after if name.startswith("plugin:till:")]
    with Village(till.folder, With(load_plugins=False), **SAFE) as opened, opened.store.view() as view:
        assert held(view, "till").needing == ("needs",)
        assert dict(view.rows("SELECT id, state FROM tasks")) == {
            "posted": "cancelled", "needs": "open", "other": "open"
        }  # fmt: skip
    (event,) = events(till, "plugin.disabled")
    assert (event["plugin"], event["cancelled"], len(event["holds"])) == ("till", ["posted"], 2)
    assert [event["actor"] for event in events(till, "till.ended")]  # its own part of the ending was run
    assert read(till.folder).disabled == {"till"}


def test_what_needs_a_plugin_that_is_off_is_held_with_the_reason_and_goes_on_with_it(till: Here, shelf: Shelf) -> None:
    till("plugins", "disable", "till", "--drain")
    path = {"PYTHONPATH": str(shelf.folder)}
    run = vivarium("run", cwd=till.folder, env=path)
    assert "the plugin till, which is off or not installed" in run.out
    till("plugins", "enable", "till")
    vivarium("run", cwd=till.folder, env=path)
    assert till("task", "show", "needs", "--json").document["state"] == "done"


def test_what_comes_after_a_drain_is_given_back_by_a_second_one(till: Here) -> None:
    till("plugins", "disable", "till", "--drain")
    before = balances(till)
    with Village(till.folder, With(load_plugins=False), **SAFE) as opened:
        opened.store.call(
            lambda tx, _: tx.books.transfer(
                "late", "resident:ben:free", "plugin:till:pool", "aid", 1, "x", "x", "x", "r"
            ),
            None,
        )
    assert till("plugins", "disable", "till", "--drain").status == 0
    assert balances(till) == before


def test_a_plugin_that_knows_whose_money_it_holds_gives_it_back_itself(shelf: Shelf, here: Here) -> None:
    shelf.put(
        "tills", "1.0",
        till="""
        def drain(self, tx):
            tx.transfer("plugin:till:pool", "resident:ada:free", 4, key="back", reason="drain", ref="r")
        """,
    )  # fmt: skip
    with Village(here.folder, **SAFE) as opened:
        opened.store.call(
            lambda tx, _: tx.books.transfer("in", "treasury", "plugin:till:pool", "aid", 5, "x", "x", "x", "r"), None
        )
    before = balances(here)
    assert here("plugins", "disable", "till", "--drain").status == 0
    after = balances(here)
    assert after["resident:ada:free", "aid"] == before["resident:ada:free", "aid"] + 4
    assert after["commons", "aid"] == 1  # what it left, by the kernel's rule


def test_a_drain_that_fails_has_drained_nothing(shelf: Shelf, here: Here) -> None:
    shelf.put("tills", "1.0", till="def drain(self, tx):\n    raise ValueError('lost the key')")
    with Village(here.folder, **SAFE) as opened:
        opened.store.call(
            lambda tx, _: tx.books.transfer("in", "treasury", "plugin:till:pool", "aid", 5, "x", "x", "x", "r"), None
        )
    before = balances(here)
    done = here("plugins", "disable", "till", "--drain")
    assert done.status == 2 and "lost the key" in done.err and "till" in done.err
    assert balances(here) == before and read(here.folder).disabled == frozenset()
