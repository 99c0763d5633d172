"""Promises about citations: each is looked up, its words too, and what is not there is kept as what it is."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivarium_kernel.builtin.citations import Citation, citations, fault_of
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage, rows

LOG = "2 Oct. Wind NW 4.\nThe lamp was lit at 17.52, said Lisk's wife.\n5 Oct. *Calm*, thick from\nmidnight.\n"
PAGE = "files/library/community_library/swarm_docs/page.md"
pytestmark = pytest.mark.village(residents=["ada"])


@pytest.fixture
def records(village: StagedVillage) -> StagedVillage:
    library = village.folder / "files" / "library"
    library.mkdir(parents=True)
    (library / "log.md").write_text(LOG)
    (village.folder / "hidden.md").write_text("nobody may read this by a tool\n")
    return village


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It blew [records/log.md:1].", [Citation("records/log.md", 1, 1)]),
        ("Both [log.md:1-3] and [a b/c.txt:7]", [Citation("log.md", 1, 3), Citation("a b/c.txt", 7, 7)]),
        ('He wrote "wind NW 4" [log.md:1]', [Citation("log.md", 1, 1, "wind NW 4")]),
        ("He wrote “wind NW 4”, ([log.md:1])", [Citation("log.md", 1, 1, "wind NW 4")]),
        ('"one" [a.md:1][b.md:2]', [Citation("a.md", 1, 1, "one"), Citation("b.md", 2, 2)]),
        ('"one" and so on [a.md:1]', [Citation("a.md", 1, 1)]),
        ("at [12:30], [x](http://a.b:80), [note: 3], [a.md:x], [:3], a.md:3", []),
    ],
)
def test_a_citation_is_a_path_and_lines_in_brackets_with_the_quotation_right_before_it(
    text: str, found: list[Citation]
) -> None:
    assert list(citations(text)) == found


@pytest.mark.parametrize(
    ("citation", "fault"),
    [
        (Citation("log.md", 1, 1, "wind nw 4"), ""),
        (Citation("log.md", 1, 4), ""),
        (Citation("log.md", 2, 2, "Lisk\u2019s wife."), ""),
        (Citation("log.md", 2, 2, "The lamp … 17.52"), ""),
        (Citation("log.md", 3, 4, "calm, thick from midnight"), ""),
        (Citation("log.md", 2, 2, "17.52 ... The lamp"), "the words are not there, but: the lamp was lit"),
        (Citation("log.md", 3, 3, "thick from midnight"), "the words are not there"),
        (Citation("log.md", 5, 5), "it has 4 lines"),
        (Citation("log.md", 0, 1), "it has 4 lines"),
        (Citation("log.md", 3, 2), "the wrong way round"),
    ],
)
def test_the_lines_are_there_and_the_words_stand_on_them(citation: Citation, fault: str) -> None:
    found = fault_of(citation, LOG.splitlines())
    assert (fault in found) if fault else found == ""


def facts(village: StagedVillage) -> dict[str, Any]:
    ((told,),) = rows(village, "SELECT facts FROM attempts ORDER BY id DESC LIMIT 1")
    return dict(json.loads(told)) if told else {}


@pytest.mark.promise("A citation of what is not there is kept with what was claimed and what was found")
def test_what_is_not_there_is_kept_with_what_was_claimed_and_found(
    records: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(
        'It blew "NW 4" [files/library/log.md:1], later "SE 9" [files/library/log.md:1], see '
        "[files/library/log.md:99], [ghost.md:1] and [hidden.md:1]; again [files/library/log.md:99]."
    )
    records.task()
    (attempt,) = run_cycles()
    assert attempt.ending == "accepted"
    found = facts(records)
    assert (found["citations"], found["verified"]) == (5, 1)
    told = {each["claimed"] + each["quoted"]: each["found"] for each in found["wrong"]}
    assert told["files/library/log.md:1SE 9"].startswith("the words are not there, but: 2 oct.")
    assert told["files/library/log.md:99"] == "it has 4 lines"
    assert "is in no place that you may read" in told["ghost.md:1"] == told["hidden.md:1"].replace("hidden", "ghost")


@pytest.mark.promise("A task that demands citations is accepted only with as many that hold")
@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        ("Calm. [files/library/log.md:3] [files/library/log.md:1]", "accepted"),
        ("Calm. [files/library/log.md:3]", "rejected"),
        ("Calm. [files/library/log.md:3] [files/library/log.md:3]", "rejected"),
        ("Calm. [files/library/log.md:3] [files/library/log.md:77]", "rejected"),
        ("Calm.", "rejected"),
    ],
    ids=["two", "one", "one twice", "one made up", "none"],
)
def test_a_task_that_demands_citations_needs_as_many_that_hold(
    records: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles, answer: str, ending: str
) -> None:
    scripted_model.says(answer)
    records.task(data={"citations": 2}, max_attempts=1)
    (attempt,) = run_cycles()
    assert attempt.ending == ending
    if ending == "rejected":
        assert "it needs 2 citations that hold" in attempt.reason


def test_who_is_sent_back_is_told_why_and_how_sources_are_named(
    records: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says("Calm. [files/library/log.md:77]", "Calm. [files/library/log.md:3]")
    records.task(data={"citations": 1}, max_attempts=2)
    first, second = run_cycles(2)
    assert (first.ending, second.ending) == ("rejected", "accepted")
    before, after = scripted_model.prompts
    assert "Name your sources, 1 at least" in before and "[path:line]" in before
    assert "it has 4 lines" in after and "it has 4 lines" not in before
    assert '<untrusted source="why it was not accepted">' in after


def test_citations_of_a_claimed_page_count_and_links_are_not_followed(
    records: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    page = records.folder / PAGE
    page.parent.mkdir(parents=True)
    page.write_text('# Wind\n\n"Wind NW 4" [files/library/log.md:1]\n')
    (records.folder / "files" / "library" / "link.md").symlink_to(records.folder / "hidden.md")
    scripted_model.says("The page is written [files/library/link.md:1].")
    records.task(data={"citations": 1}, files=[PAGE])
    (attempt,) = run_cycles()
    found = facts(records)
    assert (attempt.ending, found["citations"], found["verified"]) == ("accepted", 2, 1)
    assert "is no file" in found["wrong"][0]["found"]


@pytest.mark.parametrize("wanted", [0, -1, "2", None, True])
def test_what_is_no_count_demands_nothing(
    records: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles, wanted: Any
) -> None:
    scripted_model.says("Calm.")
    records.task(data={"citations": wanted})
    (attempt,) = run_cycles()
    assert attempt.ending == "accepted"
    assert "Name your sources" not in scripted_model.prompts[0]


def test_a_task_without_citations_is_not_looked_at(
    records: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says("Calm, as of [12:30].")
    records.task()
    run_cycles()
    assert "citations" not in facts(records)


def test_very_many_citations_are_looked_up_to_a_limit(
    records: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says(" ".join(f"[files/library/log.md:{number}]" for number in range(1, 5_000)))
    records.task()
    run_cycles()
    found = facts(records)
    assert (found["citations"], found["verified"], len(found["wrong"])) == (500, 4, 20)


LONG = [
    "[" + "." * 1_000_000,
    "[a/" * 300_000,
    "[" + "a.b:" * 250_000,
    "[a.b:1" * 150_000,
    "[a.b:1]" * 140_000,
    '"' + " " * 1_000_000 + "[a.b:1]",
]


@pytest.mark.parametrize("text", LONG, ids=lambda text: repr(text[:12]))
def test_a_text_is_gone_through_once_whatever_is_in_it(text: str) -> None:
    began = time.process_time()
    list(citations(text))
    assert time.process_time() - began < 20.0  # a fraction of a second, or hours


@given(st.text(alphabet='[]./:-19a \n"“”', max_size=400))
def test_what_is_a_citation_is_as_the_rule_has_it(text: str) -> None:
    shape = re.compile(r"\[([^\[\]:\n]*[./][^\[\]:\n]*):(\d{1,9})(?:-(\d{1,9}))?\]")  # the rule, as it is written
    expected = [(found[1].strip(), int(found[2]), int(found[3] or found[2])) for found in shape.finditer(text)]
    assert [(each.path, each.first, each.last) for each in citations(text)] == expected


def test_a_name_that_is_longer_than_any_path_is_no_citation() -> None:
    assert list(citations(f"[{'a/' * 250}:1]")) == [Citation("a/" * 250, 1, 1)]
    assert list(citations(f"[{'a/' * 251}:1]")) == []


@pytest.mark.parametrize("mark", ["…", "...", "[…]", "[...]"])
@pytest.mark.parametrize("blank", ["", " " * 250])
def test_a_gap_is_a_gap_whatever_is_around_it(mark: str, blank: str) -> None:
    assert fault_of(Citation("log.md", 2, 2, f"The lamp{blank}{mark}{blank}17.52"), LOG.splitlines()) == ""
