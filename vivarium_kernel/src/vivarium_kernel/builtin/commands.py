"""The room of the command tasks: which commands are safe, and running them. Rules: docs/rules.md, "Safety"."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from attrs import evolve

from vivarium_kernel.commands import Finished, Limits, Runner, Unavailable, check, resolve_allowed
from vivarium_kernel.commands.policy import Allowed, find
from vivarium_kernel.jobs import Job
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Outcome, Subject, Task, Verdict
from vivarium_kernel.terms import Effect

_ALLOW = Verdict("allow", "command_policy")


def allowed_commands(settings: Any, *, strict: bool = False) -> dict[str, Allowed]:
    """The shipped commands and the operator's; ``{python}`` is the interpreter that runs this.

    Raises BadAllow where it is ``strict``: whoever begins a life asks so, before anything is opened.
    """
    own = {name: program.replace("{python}", sys.executable) for name, program in settings.commands.allow.items()}
    return resolve_allowed(own, strict=strict)


def effect_of(task: Task, allowed: Allowed | None) -> Effect:
    """Shipped read-only commands are pure; others are what the task says, by default ``once``."""
    return "pure" if allowed is not None and allowed.shipped else task.effect


class CommandPolicy(Plugin):
    """Allows only the commands on the list, with arguments that stay inside the village."""

    name = "command_policy"
    guards = ("command",)

    def __init__(self, village: Any, config: Any) -> None:
        super().__init__(village, config)
        self.allowed = allowed_commands(village.settings)

    @hookimpl
    async def check_safety(self, subject: Subject) -> Verdict | None:
        refused = check(
            subject.argv,
            cwd=Path(subject.cwd),
            village=self.village.folder,
            read_roots=[Path(root) for root in self.village.settings.commands.read_roots],
            allowed=self.allowed,
        )
        if refused is None:
            return _ALLOW
        return Verdict("deny", refused.rule, refused.message, refused.next_step)


class CommandExecution(Plugin):
    """Runs ``command`` tasks: argv without a shell, confined and limited."""

    name = "command_execution"
    modes = ("command",)

    def __init__(self, village: Any, config: Any) -> None:
        super().__init__(village, config)
        asked = village.settings.commands
        self.allowed = allowed_commands(village.settings)
        self.limits = Limits(
            cpu_seconds=asked.cpu_seconds, memory_bytes=asked.memory_bytes, processes=asked.processes,
            output_bytes=max(2, asked.output_bytes),
        )  # fmt: skip
        environment = {name: village.environ[name] for name in asked.env if name in village.environ}
        self.runner = Runner(
            village.folder, [Path(root) for root in asked.read_roots], asked.sandbox, environment=environment
        )

    @hookimpl
    async def shutdown(self, village: Any) -> None:
        self.runner.close()

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        task = job.task
        if task.mode != "command":
            return None
        allowed = find(task.command[0], self.allowed)
        if allowed is None:
            return Outcome(fault="invalid", reason=f"{task.command[0]!r} is not among the allowed commands")
        seconds = min(task.timeout_seconds, self.village.settings.commands.timeout_max_seconds)
        recorded = await job.begin(
            "command", task.command[0], effect_of(task, allowed), {"argv": list(task.command), "cwd": task.cwd}
        )
        if recorded is not None:
            return _outcome(recorded)
        try:
            finished = await self.runner.run(
                task.command, allowed=allowed, cwd=self.village.folder / task.cwd,
                limits=evolve(self.limits, timeout_seconds=seconds),
            )  # fmt: skip
        except (Unavailable, ValueError) as error:
            job.end("void", {"error": str(error)})
            passes = isinstance(error, Unavailable) and error.passes
            return Outcome(fault="provider" if passes else "invalid", reason=str(error))
        result = _facts(finished)
        job.end("done", result)
        return _outcome(result)


def _facts(finished: Finished) -> dict[str, Any]:
    return {
        "exit_code": finished.exit_code if finished.exit_code is not None else -(finished.signal or 0),
        "stdout": finished.stdout,
        "stderr": finished.stderr,
        "timed_out": finished.timed_out,
        "seconds": round(finished.seconds, 6),
    }


def _outcome(facts: dict[str, Any]) -> Outcome:
    return Outcome(
        exit_code=facts["exit_code"], stdout=facts["stdout"], stderr=facts["stderr"], timed_out=facts["timed_out"],
        seconds=facts["seconds"],
    )  # fmt: skip
