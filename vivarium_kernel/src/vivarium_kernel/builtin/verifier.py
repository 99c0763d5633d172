"""The room of the verifier: it reads facts, not words. Rules: docs/rules.md, "Board"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Outcome, Review, Task

_SURE, _REJECTED = 0.95, 0.90


class Verifier(Plugin):
    """Accepts an outcome whose command exited with 0 and whose claimed files exist; rejects any other."""

    name = "verifier"

    @hookimpl
    async def review_outcome(self, task: Task, outcome: Outcome) -> Review | None:
        issues: list[str] = []
        # Which model stood in for which, and why, is kept with what was found.
        facts: dict[str, Any] = {name: outcome.data[name] for name in ("instead_of", "because") if name in outcome.data}
        if outcome.timed_out:
            issues.append(self._too_long(task))
        elif outcome.exit_code is not None and outcome.exit_code != 0:
            issues.append(f"exit code {outcome.exit_code}")
        elif task.mode == "command" and outcome.exit_code is None:
            issues.append(outcome.reason or "it has no exit code")
        missing = missing_files(self.village.folder, task.files)
        if missing:
            issues.append(f"it claims files that don't exist: {', '.join(missing)}")
            facts["hallucinated"] = {"claimed": list(task.files), "missing": missing}
        if issues:
            return Review("reject", _REJECTED, "; ".join(issues), facts)
        return Review("accept", _SURE, "", facts)

    def _too_long(self, task: Task) -> str:
        most = self.village.settings.commands.timeout_max_seconds
        if task.mode == "command" and most < task.timeout_seconds:
            return f"it ran longer than the {most:g} s that commands.timeout_max_seconds allows"
        return f"it ran longer than its {task.timeout_seconds:g} s"


def missing_files(folder: Path, claimed: tuple[str, ...]) -> list[str]:
    """Which of the claimed files, relative to the village, do not exist inside it."""
    if not claimed:
        return []
    root = folder.resolve()
    missing = []
    for name in claimed:
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            missing.append(name)
    return missing
