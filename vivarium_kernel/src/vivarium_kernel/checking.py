"""The room of the check of the board: what safety says of every task before anybody claims it."""

from __future__ import annotations

import asyncio

from attrs import frozen

from vivarium_kernel import board, deciding
from vivarium_kernel.records import Subject, Task, Verdict
from vivarium_kernel.village import Village


@frozen
class Checked:
    """A task that safety stops before anybody claims it."""

    task: Task
    verdict: Verdict


async def check_board(village: Village, *, act: bool = True) -> tuple[int, list[Checked]]:
    """Check every open and waiting task against safety. Returns how many pass, and the others.

    With ``act``, denied tasks become blocked, and those that a human is to see are parked for approval.
    """

    passed, after = 0, 0
    stopped: list[Checked] = []
    while True:
        with village.store.view() as view:
            tasks = board.tasks(view, after=after, limit=500)
        if not tasks:
            return passed, stopped
        after = tasks[-1].seq
        for task in tasks:
            if task.state not in ("open", "waiting", "parked") or (task.state == "parked" and task.approved):
                continue
            verdict = await judge(village, task)
            if verdict.answer == "allow" or (verdict.answer == "ask" and task.approved):
                passed += 1
                continue
            stopped.append(Checked(task, verdict))
            if act and verdict.answer == "deny" and verdict.rule != "safety.failed":
                await village.store.write(deciding.block, (task.id, verdict, village.hooks.end_attempt))
            elif act and verdict.answer == "ask":
                await village.store.write(deciding.ask_approval, (task.id, verdict))
        await asyncio.sleep(0)  # a long board must not hold the loop


async def judge(village: Village, task: Task) -> Verdict:
    """What safety says of a task as it stands on the board."""
    subjects = [Subject("task", f"{task.title}\n{task.prompt}", task.command, task, cwd=task.cwd)]
    if task.command:
        subjects.append(Subject("command", "", task.command, task, cwd=task.cwd))
    for subject in subjects:
        safety = await village.hooks.check_safety(subject)
        if safety.verdict.answer != "allow":
            return safety.verdict
    return Verdict("allow", "safety")
