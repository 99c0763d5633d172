"""What is off is off in every process and after a restart, is shown in one place, and is on again when retried."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kernel.cli.running import Here, started, vivarium
from kernel.cli.running import village as small
from kernel.faults import quick
from kernel.faults.scene import asynchronously_until, until
from vivarium_kernel.health import FAILURES_IN_A_ROW, Health
from vivarium_kernel.records import NewTask, Verdict
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.village import Village

from vivarium_kernel import breakers

from .scene import folder, names, opened, plugin, prompts, rows, run, site

SWITCHES = (
    "SELECT kind, json_extract(data, '$.plugin'), json_extract(data, '$.hook') FROM events WHERE kind LIKE 'plugin.o%'"
)


def broken(self: Any) -> None:
    raise ValueError("boom")


Broken = plugin("broken", enrich_prompt=broken)


def off(village: Village) -> list[breakers.Breaker]:
    with village.store.view() as view:
        return breakers.breakers(view)


@pytest.mark.promise("breaker-view")
def test_what_failed_five_times_stays_off_for_whoever_opens_the_village_next(tmp_path: Path) -> None:
    path = folder(tmp_path / "v")
    with opened(path, Broken) as village:
        village.post(prompts(*"abcdefgh"))
        run(village)
        (found,) = off(village)
        assert rows(village, SWITCHES) == [("plugin.off", "broken", "enrich_prompt")]
        assert village.health.tally("broken", "enrich_prompt").calls == FAILURES_IN_A_ROW
    assert (found.plugin, found.hook, found.probed) == ("broken", "enrich_prompt", False)
    assert found.cause == "5 failures in a row, the last: ValueError: boom"
    assert found.next_step == "vivarium plugins retry broken"
    with opened(path, Broken) as village:
        assert village.health.cause("broken", "enrich_prompt") == found.cause
        village.post(prompts(*"ijk"))
        run(village)
        assert village.health.tally("broken", "enrich_prompt").calls == 0
        assert off(village) == [found]
        assert len(rows(village, SWITCHES)) == 1  # said once


@pytest.mark.promise("breaker-view")
def test_the_status_shows_it_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "v")
    with opened(path, Broken) as village:
        village.post(prompts(*"abcdefgh"))
        run(village)
    here = Here(path, monkeypatch)
    page = here("status").out
    assert "broken is off on enrich_prompt for " in page
    assert "5 failures in a row, the last: ValueError: boom" in page
    assert "→ once it is mended: vivarium plugins retry broken" in page
    (shown,) = here("status", "--json").document["breakers"]
    assert (shown["plugin"], shown["hook"]) == ("broken", "enrich_prompt")


def test_what_the_watchdog_switched_off_is_noted_with_its_event(tmp_path: Path) -> None:
    sound = plugin("sound", enrich_prompt=lambda self: None)
    with opened(
        folder(tmp_path / "v"), sound, switched_off={("sound", "enrich_prompt"): "it held the loop"}
    ) as village:
        run(village)
        (found,) = off(village)
        assert (found.cause, found.probed) == ("it held the loop", False)
        assert rows(village, SWITCHES) == [("plugin.off", "sound", "enrich_prompt")]


@pytest.mark.promise("breaker-view")
def test_a_probe_that_passes_takes_it_off_the_list(tmp_path: Path) -> None:
    ill = [True]

    async def check(self: Any, subject: Any) -> Verdict:
        if ill[0]:
            raise ValueError("boom")
        return Verdict("allow", "fine")

    async def lived(village: Village) -> None:
        async with Runtime(village, 1) as runtime:
            await asynchronously_until(lambda: off(village), "the breaker")
            assert off(village)[0].probed
            ill[0] = False
            await asynchronously_until(lambda: not off(village), "the probe", 60.0)
            runtime.drain()
            await runtime.run()

    with opened(folder(tmp_path / "v", "lease_seconds = 600.0\n"), plugin("guard", check_safety=check)) as village:
        village.post(prompts("a"))
        quick.run(lived(village))
        assert rows(village, SWITCHES) == [
            ("plugin.off", "guard", "check_safety"),
            ("plugin.on", "guard", "check_safety"),
        ]


# Between processes


@contextlib.contextmanager
def two_stores(path: Path) -> Iterator[tuple[Village, Village]]:
    with opened(folder(path)) as one, opened(path) as other:
        yield one, other


def follow(village: Village, health: Health) -> bool:
    with village.store.view() as view:
        return breakers.follow(view, health)


def tripped(hook: str = "enrich_prompt") -> breakers.Tripped:
    return breakers.Tripped("p", hook, "boom", False, 1)


def test_a_process_follows_what_another_switches_and_tells_nobody_of_it_again(tmp_path: Path) -> None:
    told: list[Any] = []
    with two_stores(tmp_path / "v") as (one, other):
        health = Health(lambda *change: told.append(change))
        assert one.store.call(breakers.trip, tripped())
        assert not one.store.call(breakers.trip, tripped())  # another found out, too
        assert not follow(other, health)
        assert health.cause("p", "enrich_prompt") == "boom"
        (closed,) = one.store.call(breakers.close, breakers.Closing("p", actor="operator:t", cause="retried"))
        assert closed.hook == "enrich_prompt"
        assert follow(other, health)
        assert health.cause("p", "enrich_prompt") is None
        assert told == []


def test_what_was_switched_off_here_and_not_written_yet_stays_off(tmp_path: Path) -> None:
    with two_stores(tmp_path / "v") as (one, other):
        health = Health()
        health.off("p", "claim_filter", "mine")
        one.store.call(breakers.trip, tripped())
        follow(other, health)
        one.store.call(breakers.close, breakers.Closing("p", "enrich_prompt"))
        follow(other, health)
        assert health.switched_off == {"p": {"claim_filter": "mine"}}


def test_all_are_closed_or_one_plugins_or_one_hook(tmp_path: Path) -> None:
    with two_stores(tmp_path / "v") as (one, _):
        for hook in ("entitle", "claim_filter", "claim_score"):
            one.store.call(breakers.trip, tripped(hook))
        one.store.call(breakers.trip, breakers.Tripped("q", "entitle", "boom", True, None))
        assert len(one.store.call(breakers.close, breakers.Closing("p", "entitle"))) == 1
        assert names(one.store.call(breakers.close, breakers.Closing("p"))) == ["p", "p"]
        assert names(one.store.call(breakers.close, breakers.Closing())) == ["q"]
        assert one.store.call(breakers.close, breakers.Closing()) == []


# Retrying

PAYER = """
@hookimpl
def end_attempt(self, task, ending, tx):
    if (Path(self.village.folder) / "ill").exists():
        raise ValueError("no money today")
    tx.emit("paid", task=task.id)
"""
COUNT = "SELECT task, count(*) FROM events WHERE kind = 'payer.paid' GROUP BY task"


def read(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path / "vivarium.db", timeout=10)) as db:
        return db.execute(sql).fetchall()


def ask(path: Path, env: dict[str, str], *names: str) -> None:
    tasks = "".join(f'[[task]]\nid = "{name}"\ncommand = ["ls"]\n' for name in names)
    (path / "more.toml").write_text(tasks)
    assert vivarium("task", "add", "--from", "more.toml", cwd=path, env=env).status == 0


def all_done(path: Path) -> bool:
    return read(path, "SELECT count(*) FROM tasks WHERE state <> 'done'") == [(0,)]


@pytest.mark.promise("breaker-view")
@pytest.mark.promise("missed-parts")
def test_a_retry_switches_on_in_every_process_and_makes_up_for_each_missed_part_once(tmp_path: Path) -> None:
    env = site(tmp_path / "site", payer=PAYER)
    path = small(tmp_path / "v", settings="pace_seconds = 0.1\n")
    assert vivarium("pace", "0.1", cwd=path, env=env).status == 0  # founds it
    (path / "ill").touch()
    early, late = [f"e{number}" for number in range(12)], [f"l{number}" for number in range(12)]
    with started("work", path, "-n", "2", cwd=path, env=env), started("work", path, "-n", "2", cwd=path, env=env):
        until(lambda: read(path, "SELECT count(*) FROM processes") == [(2,)], "both processes")
        ask(path, env, *early)
        until(lambda: all_done(path), "the tasks")
        until(lambda: read(path, "SELECT plugin, hook FROM breakers") == [("payer", "end_attempt")], "the breaker")
        assert read(path, "SELECT count(*) FROM missed") == [(12,)]
        assert read(path, COUNT) == []

        still = vivarium("plugins", "retry", "payer", "--json", cwd=path, env=env)
        assert still.status == 1
        assert len(still.document["failed"]) == 12
        assert "no money today" in still.document["failed"][0]["error"]
        assert read(path, "SELECT DISTINCT tries FROM missed") == [(2,)]

        (path / "ill").unlink()
        with ThreadPoolExecutor(3) as pool:
            several = list(pool.map(lambda _: vivarium("plugins", "retry", cwd=path, env=env), range(3)))
        assert [done.status for done in several] == [0, 0, 0], [done.err for done in several]
        assert dict(read(path, COUNT)) == dict.fromkeys(early, 1)
        assert read(path, "SELECT count(*) FROM breakers") == [(0,)]

        ask(path, env, *late)
        until(lambda: all_done(path), "the later tasks")
        until(lambda: dict(read(path, COUNT)) == dict.fromkeys([*early, *late], 1), "what is paid without a retry")
    assert read(path, "SELECT count(*) FROM missed") == [(0,)]
    on = read(path, "SELECT actor, data FROM events WHERE kind = 'plugin.on'")
    assert on
    assert all(actor.startswith("cli:") and json.loads(data)["cause"] == "retried" for actor, data in on)


def test_a_name_that_is_nowhere_is_refused_with_the_one_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Here(small(tmp_path / "v"), monkeypatch)
    refused = here("plugins", "retry", "verifer")
    assert refused.status == 2
    assert "Did you mean verifier?" in refused.err
    assert "Nothing is switched off" in here("plugins", "retry", "verifier").out


def test_the_missed_part_of_a_plugin_that_is_gone_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "v")
    with opened(path, plugin("gone", end_attempt=broken)) as village:
        village.post([NewTask(id="a", command=("ls",))])
        run(village)
    done = Here(path, monkeypatch)("plugins", "retry", "gone")
    assert done.status == 1
    assert "0 parts made up for; 1 failed again" in done.out
    assert "gone is off or has no such part" in done.err
    assert read(path, "SELECT count(*) FROM missed") == [(1,)]
