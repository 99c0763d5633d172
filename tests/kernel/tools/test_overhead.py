"""What the first tools cost a village that doesn't use them: few tokens of a prompt, and no statement a cycle."""

from __future__ import annotations

import pytest
from vivarium_kernel.models import count_tokens
from vivarium_kernel.testing import RunCycles, ScriptedModel, StagedVillage

FIRST = {
    *("files__list", "files__read", "files__search", "files__write"),
    *("desk__ask", "desk__report", "desk__decline", "desk__rest", "desk__flag"),
    *("notes__remember", "notes__forget"),
}


def test_an_idle_village_adds_less_than_700_tokens_to_a_prompt(
    village: StagedVillage, scripted_model: ScriptedModel, run_cycles: RunCycles
) -> None:
    village.task("Go.")
    run_cycles()
    (request,) = scripted_model.requests
    assert {tool.name for tool in request.tools} == FIRST
    tools = sum(-(-tool.size // 4) for tool in request.tools)
    sections = count_tokens(request.text) - count_tokens("Go.")
    assert tools + sections < 700
    assert tools + sections < 620, "leave room for the tools of other plugins"


def test_every_tool_says_what_it_does_in_one_line(village: StagedVillage) -> None:
    for tool in village.tools():
        assert tool.description.endswith(".")
        assert len(tool.description) < 80
        assert tool.parameters["additionalProperties"] is False


@pytest.mark.village(real_time=True)
def test_a_command_task_asks_these_plugins_for_nothing(village: StagedVillage, run_cycles: RunCycles) -> None:
    village.task(command=("ls",))
    (attempt,) = run_cycles()
    assert attempt.ending == "accepted"
    asked = {(row["plugin"], row["hook"]) for row in village.health.view() if row["calls"]}
    assert ("command_execution", "execute_task") in asked
    own = {hook for plugin, hook in asked if plugin in ("files", "desk", "notes")}
    assert own <= {"register_actions", "register_panels"}, "those are asked once, when the village is opened"
