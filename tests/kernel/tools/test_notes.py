"""What a resident remembers is in its own later prompts, within a budget, and is shown to nobody else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage, rows

from .scene import HIDDEN, heard, use, use_all


def remember(village: StagedVillage, model: ScriptedModel, run_cycles: RunCycles, *texts: str, by: str = "ada") -> None:
    model.says(use_all(*(("notes.remember", {"text": text}) for text in texts)), "Noted.")
    village.task(wanted=by)
    (attempt,) = run_cycles(village=village)
    assert attempt.ending == "accepted"


def prompt_of(village: StagedVillage, model: ScriptedModel, run_cycles: RunCycles, resident: str = "ada") -> str:
    before = len(model.requests)
    village.task("Go on.", wanted=resident)
    run_cycles(village=village)
    return model.requests[before].text


def test_what_is_remembered_is_in_later_prompts_also_after_a_restart_and_in_nobody_else_s(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    remember(village, scripted_model, run_cycles, HIDDEN, "Two\nlines")
    village = village.reopened()
    prompt = prompt_of(village, scripted_model, run_cycles)
    assert f'<untrusted source="your notes">\nYour notes, by number:\n1: {HIDDEN}\n2: Two lines\n</untrusted>' in prompt
    assert HIDDEN not in prompt_of(village, scripted_model, run_cycles, "ben")


def test_no_step_prompt_or_event_keeps_a_word_of_a_note(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    remember(village, scripted_model, run_cycles, HIDDEN)
    prompt_of(village, scripted_model, run_cycles)
    for sql in (
        "SELECT arguments, result FROM steps",
        "SELECT prompt, answer, reason FROM attempts",
        "SELECT data FROM events",
        "SELECT key, reply FROM replies",
    ):
        assert HIDDEN not in str(rows(village, sql))
    assert HIDDEN in str(rows(village, "SELECT private_text FROM notes_kept"))


def test_a_note_is_forgotten_by_its_number_and_its_number_never_comes_back(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    remember(village, scripted_model, run_cycles, "one", "two")
    scripted_model.says(use("notes.forget", note=2), "Forgotten.")
    village.task(wanted="ada")
    run_cycles()
    remember(village, scripted_model, run_cycles, "three")
    prompt = prompt_of(village, scripted_model, run_cycles)
    assert "1: one\n3: three" in prompt


def test_nobody_forgets_the_notes_of_another(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    remember(village, scripted_model, run_cycles, "one")
    scripted_model.says(use_all(("notes.forget", {"note": 1}), ("notes.forget", {"note": 9})), "Well.")
    village.task(wanted="ben")
    run_cycles()
    assert [text.startswith("Refused (notes.note)") for text in heard(scripted_model)] == [True, True]
    assert rows(village, "SELECT resident FROM notes_kept") == [("ada",)]


def test_the_newest_notes_that_fit_the_budget_are_in_the_prompt_and_so_many_are_kept(
    make_village: Callable[..., StagedVillage], tmp_path: Path, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    config = {"notes": {"prompt_characters": 20, "kept": 4, "note_characters": 10}}
    village = make_village(folder=tmp_path / "v", config=config)
    remember(village, scripted_model, run_cycles, *(f"note {n}" for n in range(1, 7)))
    assert "by number:\n5: note 5\n6: note 6\n<" in prompt_of(village, scripted_model, run_cycles)
    assert [row[0] for row in rows(village, "SELECT id FROM notes_kept ORDER BY id")] == [3, 4, 5, 6]
    scripted_model.says(use_all(("notes.remember", {"text": "x" * 11}), ("notes.remember", {"text": " \n"})), "Well.")
    village.task(wanted="ada")
    run_cycles(village=village)
    assert ["from 1 to 10 characters" in text for text in heard(scripted_model)] == [True, True]


def test_a_village_without_notes_says_nothing_of_them(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    assert "notes" not in prompt_of(village, scripted_model, run_cycles)


@pytest.mark.village(settings={"budgets": {"start_aid": "0"}})
def test_the_poorest_may_remember(village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles) -> None:
    remember(village, scripted_model, run_cycles, "one")
    assert rows(village, "SELECT count(*) FROM notes_kept") == [(1,)]
