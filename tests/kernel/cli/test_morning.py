"""Promises about `vivarium report`: what ended in a span and what is left, each with its reason, on one safe page."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest
from kernel.thought.scene import Shelf
from kernel.thought.scene import use as use_with
from kernel.tools.scene import use
from vivarium_kernel.cli import morning
from vivarium_kernel.cli.night import Night, night
from vivarium_kernel.costing import costs
from vivarium_kernel.models import Price, ProviderFault
from vivarium_kernel.terms import MICROS
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage

from .running import Here

HOSTILE = "<script>alert(1)</script>\x1b[31m</table>"


def of(village: StagedVillage, seconds: int = 86_400) -> Night:
    with village.store.view() as view:
        return night(view, view.now - seconds * MICROS)


@pytest.mark.promise("The morning's report names what was done, refused, failed and left, each with its reason")
def test_each_ending_is_where_it_belongs_with_its_reason(
    make_village: Any, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    village = make_village(settings={"models": {"allow": ["scripted_model:*"]}, "budgets": {"village_day_usd": "1"}})
    scripted_model.price_of_all = Price(1_000_000, 1_000_000)
    village.task("Say good morning.", id="fine")
    village.task("Say more.", id="forbidden", model="scripted:echo", expect="failed")
    village.task("Where is it?", id="wrong", data={"citations": 1}, max_attempts=1)
    village.task("Read this.", id="read", human=True)
    village.task("Buy the sea.", id="dear", max_micros=5 * MICROS, priority=9)
    run_cycles(4, village=village)
    found = of(village)
    assert [one.task for one in found.done] == ["fine"]
    assert [(one.task, one.state) for one in found.refused] == [("forbidden", "failed")]
    assert "[model.allow]" in found.refused[0].why
    assert [(one.task, one.why) for one in found.failed] == [("wrong", "it needs 1 citation that holds, and has 0")]
    assert [(wait.task, wait.kind) for wait in found.people] == [("read", "person")]
    assert [(wait.task, wait.kind) for wait in found.parked] == [("dear", "quota")]
    assert found.counts == {"done": 1, "failed": 2}
    assert found.spent_micros == sum(one.spent_micros for one in found.models) > 0
    assert found.caps[0].spent_micros == found.spent_micros
    assert ("BUDGET_EXCEEDED", 1) in [(one.what, one.times) for one in found.troubles]
    assert found.more == 0


def test_what_ended_before_the_span_is_not_told_again(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.price_of_all = Price(1_000_000, 1_000_000)
    village.task(id="old")
    run_cycles()
    with village.store.view() as view:
        after = night(view, view.now + 1)
    assert (after.done, after.counts, after.spent_micros, after.models) == ((), {}, 0, ())
    assert [one.task for one in of(village).done] == ["old"]


def test_failed_calls_are_told_by_kind_with_the_last_reason(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    for number in range(3):
        scripted_model.says(ProviderFault(f"refused {number}", started=False, kind="connection"))
    scripted_model.says(ProviderFault("too fast", started=False, kind="rate_limited"))
    village.task(id="a")
    run_cycles(5)
    found = of(village)
    told = {one.what: (one.times, one.reason) for one in found.troubles}
    assert told["API_CALL_FAILURE (connection)"] == (3, "refused 2")
    assert told["API_CALL_FAILURE (rate_limited)"] == (1, "too fast")
    assert [(used.calls, used.failures) for used in found.models] == [(1, 4)]


@pytest.mark.village(residents=["ada"], plugins=[Shelf])
def test_the_calls_of_a_model_are_those_of_the_costs(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(
        use_with("lend", 1), ProviderFault("429", started=False), use_with("lend", 2),
        ProviderFault("cut", started=True), "done",
    )  # fmt: skip
    village.task("Go.", id="go", wanted="ada")
    run_cycles(3)
    assert village.state("go") == "done"
    with village.store.view() as view:
        (line,) = costs(view, "model").lines
    (used,) = of(village).models
    assert (used.calls, used.tokens_in, used.tokens_out) == (line.calls, line.tokens_in, line.tokens_out)
    assert (used.calls, used.failures) == (4, 2)  # one of the two failed calls was never made


def test_a_question_stands_there_in_whole_and_what_residents_flag_too(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    question = "Which of the two lamps did the keeper mean, the one in the store or the one in the hall?"
    scripted_model.says(use("desk.flag", text="The store smells of gas."), use("desk.ask", question=question))
    village.task(id="lamp")
    run_cycles()
    found = of(village)
    assert question in found.people[0].what
    assert [(one.kind, one.text) for one in found.told] == [("flag", "The store smells of gas.")]
    assert question in morning.page("v", found)


@pytest.mark.promise("No text of a task or a model can act on the report's page")
def test_the_page_shows_hostile_texts_and_obeys_none(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(HOSTILE, use("desk.ask", question=HOSTILE))
    village.task(id="a", title="<img src=x>")
    village.task(id="b")
    run_cycles(2)
    page = morning.page("<b>v</b>", of(village))
    assert html.escape("<script>alert(1)</script>") in page
    assert "\x1b" not in page
    for tag in ("<script", "<img", "<b>", "<link", "<iframe"):
        assert tag not in page
    assert re.findall(r"(?:src|href|url\(|@import|https?:)", page.replace(html.escape(HOSTILE), "")) == []


@pytest.mark.parametrize(
    ("since", "status"),
    [("90s", 0), ("1 h", 0), ("15min", 0), ("2d", 0), ("2026-01-31", 0), ("2026-01-31T20:00+02:00", 0),
     ("1969-01-01", 0), ("", 2), ("-1h", 2), ("h", 2), ("yesterday", 2), ("9999999h", 2), ("99999-01-01", 2)],
)  # fmt: skip
def test_a_span_is_a_length_or_a_moment(here: Here, since: str, status: int) -> None:
    here("pace", "1")  # founds it
    done = here("report", f"--since={since}")
    assert done.status == status, done.err
    assert ("[report.since]" in done.err) == (status == 2)


def test_a_page_goes_to_its_file_and_json_to_programs(here: Here, tmp_path: Path) -> None:
    here("pace", "1")
    done = here("report", "--html", tmp_path / "page.html", "--json")
    assert done.status == 0
    assert done.document["village"] == "small"
    assert {"done", "refused", "failed", "people", "parked", "troubles", "models", "spent_micros"} <= {*done.document}
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
