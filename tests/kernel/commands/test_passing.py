"""What becomes of a task whose command the system could not start just then, or never can."""

from __future__ import annotations

from typing import Any

import pytest
from vivarium_kernel.commands import Runner, Unavailable
from vivarium_kernel.testing import RunCycles, StagedVillage, rows


@pytest.mark.village(plugins=[])
@pytest.mark.promise("uncounted-faults")
@pytest.mark.parametrize(("passes", "became"), [(True, ("parked", "backoff", 0, 1)), (False, ("failed", None, 0, 0))])
def test_a_command_that_cannot_be_started_now_is_tried_again_and_not_counted(
    village: StagedVillage,
    run_cycles: RunCycles,
    monkeypatch: pytest.MonkeyPatch,
    passes: bool,
    became: tuple[object, ...],
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise Unavailable("There is no room for another process", "Wait", passes=passes)

    monkeypatch.setattr(Runner, "run", refuse)
    village.task(command=("pwd",))
    run_cycles(1)
    assert rows(village, "SELECT state, parked_for, failures, faults FROM tasks") == [became]
