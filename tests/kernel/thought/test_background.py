"""Promises about what a model is told of its task beside its words."""

from __future__ import annotations

import pytest
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage, VirtualClock

from vivarium_kernel import ProviderFault, deciding

pytestmark = pytest.mark.promise("a model is told what its task builds on, has to make, and why it was refused")


def asked(model: ScriptedModel) -> str:
    """All that the model was told in its last call."""
    return "\n".join(message.text for message in model.requests[-1].messages)


def test_the_results_that_a_task_builds_on_are_in_its_prompt(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says("Forty-two birds.", "So many.")
    birds = village.task("Count the birds.")
    village.task("What did they find?", needs=(birds,))
    run_cycles()
    told = asked(scripted_model)
    assert "What did they find?" in told
    assert told.index("<untrusted") < told.index(f"result of task {birds}") < told.index("Forty-two birds.")


@pytest.mark.village(plugins=[], settings={"plugins": {"background": {"result_characters": 5}}})
def test_a_long_result_is_cut_with_a_mark(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says("Forty-two birds.", "So many.")
    village.task("And?", needs=(village.task("Count the birds."),))
    run_cycles()
    assert "Forty\n[cut]" in asked(scripted_model) and "Forty-two" not in asked(scripted_model)


def test_what_a_person_found_wrong_is_told_to_the_next_attempt(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says("One line.", "Three\nlines\nnow.")
    task = village.task("Write a haiku.", human=True)
    run_cycles()
    before = asked(scripted_model)
    reject = deciding.Decision(task, "reject", "operator:test", "It must have three lines.")
    village.store.call(deciding.decide, reject)
    run_cycles()
    assert "was not accepted" not in before
    assert "The last attempt at this was not accepted" in asked(scripted_model)
    assert "It must have three lines." in asked(scripted_model)


def test_a_fault_that_is_nobodys_hides_no_review(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles, virtual_clock: VirtualClock
) -> None:
    scripted_model.says("One line.", ProviderFault("it is down", started=False, kind="connection"), "Better.")
    task = village.task("Write a haiku.", human=True)
    run_cycles()
    village.store.call(deciding.decide, deciding.Decision(task, "reject", "operator:test", "It must have three lines."))
    for _ in range(3):
        virtual_clock.pass_time(seconds=600)
        run_cycles()
    assert len(scripted_model.requests) == 3
    assert "It must have three lines." in asked(scripted_model) and "it is down" not in asked(scripted_model)


def test_the_files_that_a_task_has_to_make_are_named(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says("Done.", "Done.", "Done.")
    task = village.task("Write a note.", files=("files/note.md",), max_attempts=2)
    run_cycles()
    assert "these files of the village have to be there: files/note.md" in asked(scripted_model)
    assert "it claims files that don't exist: files/note.md" in asked(scripted_model)
    assert village.state(task) == "failed"


def test_a_task_without_any_of_it_is_told_nothing_more(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    scripted_model.says("One.", "Two.")
    village.task("Say one.", needs=())
    village.task("Say two.", needs=(village.task("true", command=("true",), mode="command"),))
    run_cycles()
    assert all("result of task" not in message.text for one in scripted_model.requests for message in one.messages)
