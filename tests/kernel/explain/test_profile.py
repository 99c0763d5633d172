"""What plugins cost is known while a village lives and after it has ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from kernel.cli.running import Here
from kernel.faults import quick
from kernel.faults.scene import asynchronously_until
from vivarium_kernel.keeping import Keeper
from vivarium_kernel.runtime import Runtime
from vivarium_kernel.timings import KEPT_PROCESSES, Growth, Profile, Timing
from vivarium_kernel.village import Village

from vivarium_kernel import timings

from .scene import folder, opened, plugin, prompts, rows, run


def busy(self: Any) -> None:
    time.sleep(0.005)


def sometimes(self: Any, task: Any) -> None:
    if task.id == "a":
        raise ValueError("boom")


Busy = plugin("busy", enrich_prompt=busy)
Wrong = plugin("wrong", enrich_prompt=sometimes)


def profile(village: Village, everything: bool = False) -> Profile:
    with village.store.view() as view:
        return timings.profile(view, everything=everything)


def of(found: Profile, name: str, hook: str) -> Timing:
    return next(each for each in found.timings if (each.plugin, each.hook) == (name, hook))


@pytest.mark.promise("profile")
def test_figures_outlive_the_process_and_agree_with_its_call_records(tmp_path: Path) -> None:
    path = folder(tmp_path / "v")
    with opened(path, Busy, Wrong) as village:
        village.post(prompts(*"abcde"))
        run(village)
        records = {(row["plugin"], row["hook"]): row for row in village.health.view() if row["calls"]}
    with opened(path) as village:
        found = profile(village)
    assert found.cycles == 5
    busy, wrong = of(found, "busy", "enrich_prompt"), of(found, "wrong", "enrich_prompt")
    assert (busy.calls, busy.errors, wrong.calls, wrong.errors) == (5, 0, 5, 1)
    assert wrong.last_error == "ValueError: boom"
    assert busy.seconds >= 0.025
    assert busy.mean_seconds >= 0.005
    assert [each for each in found.timings if each.slowest_seconds < each.mean_seconds] == []  # failed calls count too
    assert busy.share == pytest.approx(busy.seconds / found.cycle_seconds)
    assert found.timings[0].seconds == max(each.seconds for each in found.timings)
    assert {(each.plugin, each.hook): each.calls for each in found.timings} == {
        key: row["calls"] for key, row in records.items()
    }


@pytest.mark.promise("profile")
def test_a_living_village_is_profiled_from_elsewhere(tmp_path: Path) -> None:
    path = folder(tmp_path / "v")

    async def lived(village: Village, other: Village) -> None:
        async with Runtime(village, 1) as runtime:
            await asynchronously_until(lambda: profile(other).timings, "the first figures", 60.0)
            found = profile(other)
            assert found.processes == (runtime.process,)
            assert of(found, "busy", "enrich_prompt").calls == 1
            village.post(prompts("b"))
            await asynchronously_until(lambda: of(profile(other), "busy", "enrich_prompt").calls == 2, "more", 60.0)

    with opened(path, Busy) as village, opened(path) as other:
        village.post(prompts("a"))
        quick.run(lived(village, other))


def test_each_process_has_its_own_figures_and_old_ones_go(tmp_path: Path) -> None:
    path = folder(tmp_path / "v")
    for name in "ab":
        with opened(path, Busy) as village:
            village.post(prompts(name))
            run(village)
    with opened(path) as village:
        assert of(profile(village), "busy", "enrich_prompt").calls == 1
        assert profile(village).cycles == 1
        assert of(profile(village, everything=True), "busy", "enrich_prompt").calls == 2
        for number in range(100, 150):
            village.store.call(timings.add, Growth(number, [Timing("busy", "on_tick", 1, 0, 0, 0.5, 0.5)]))
        village.store.call(timings.forget_old, None)
        kept = rows(village, "SELECT DISTINCT process FROM timings ORDER BY process")
    assert [number for (number,) in kept] == list(range(150 - KEPT_PROCESSES, 150))


def test_what_is_written_is_what_grew_so_that_a_new_number_counts_nothing_twice(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "v"), Busy) as village:
        number = [1]
        keeper = Keeper(village, lambda: number[0], lambda: None)
        tally = village.health.tally("busy", "enrich_prompt")

        async def grow() -> None:
            await keeper.begin()
            tally.calls, tally.seconds = 3, 0.3
            await keeper._flush()
            await keeper._flush()
            number[0] = 2  # its lease had lapsed, and it joined again
            tally.calls, tally.seconds = 5, 0.4
            await keeper.end()

        quick.run(grow())
        found = rows(village, "SELECT process, calls, micros FROM timings WHERE plugin = 'busy' ORDER BY process")
        assert village.health.on_change is None
    assert found == [(1, 3, 300_000), (2, 2, 100_000)]


def test_the_command_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "v")
    here = Here(path, monkeypatch)
    here("pace", "1")  # founds it
    assert "Nothing is known yet" in here("plugins", "profile").out
    with opened(path, Busy, Wrong) as village:
        village.post(prompts(*"abc"))
        run(village)
    page = here("plugins", "profile").out
    assert page.startswith("1 process, 3 cycles of ")
    line = next(line for line in page.splitlines() if line.startswith("wrong "))
    assert line.split()[:4] == ["wrong", "enrich_prompt", "3", "1"]
    document = here("plugins", "profile", "--json").document
    assert document["cycles"] == 3
    assert all(0 < each["share"] <= 1 for each in document["timings"])
