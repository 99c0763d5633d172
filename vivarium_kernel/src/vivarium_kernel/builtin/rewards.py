"""The room of the task reward. Rules: docs/rules.md, "Money"."""

from __future__ import annotations

from attrs import frozen

from vivarium_kernel.amounts import LARGEST_MICROS
from vivarium_kernel.errors import OverBudget
from vivarium_kernel.grants import PluginTx
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Ending, Task
from vivarium_kernel.terms import MICROS


@frozen
class RewardPhysics:
    """The constants of the reward: how much of saving and of confidence it pays, and its bounds, in aiDollar."""

    saving: int = 8
    confidence: int = 2
    least: int = 1
    most: int = 12


def reward_micros(max_micros: int, spent_micros: int, confidence: float, physics: RewardPhysics) -> int:
    """clamp(round(8 · saved/max) + round(2 · confidence), 1, 12) aiDollar, in millionths; 0 without savings."""
    saved = max_micros - spent_micros
    if max_micros <= 0 or saved <= 0:
        return 0
    whole = _round(physics.saving * saved, max_micros) + _round(round(physics.confidence * confidence * MICROS), MICROS)
    return min(max(whole, physics.least), physics.most) * MICROS


def _round(top: int, bottom: int) -> int:
    """A quotient rounded to the nearest whole, halves up: Python's own round() would pay 4 for 4.5 and 6 for 5.5."""
    return (2 * top + bottom) // (2 * bottom)


class TaskReward(Plugin):
    """Pays a resident once for each task whose outcome is accepted for less than its budget."""

    name = "task_reward"
    Physics = RewardPhysics

    @hookimpl
    def end_attempt(self, task: Task, ending: Ending, tx: PluginTx) -> None:
        if ending.kind != "accepted" or ending.resident is None or ending.review is None:
            return
        micros = reward_micros(task.max_micros, ending.spent_micros, ending.review.confidence, RewardPhysics())
        if not micros:
            return
        try:
            tx.mint(
                "task", f"resident:{ending.resident}:free", micros, key=f"{task.id}:{ending.resident}",
                reason="task_reward", ref=f"task:{task.id}",
            )  # fmt: skip
        except OverBudget:
            # The faucet's cap of the day is reached: the work stands, and says why nothing was paid for it.
            tx.emit("capped", resident=ending.resident, task=task.id, micros=micros)

    def declare(self, tx: PluginTx, cap_micros: int | None) -> None:
        """Declare the policy that mints rewards, with its cap a village day."""
        tx.declare_policy("task", LARGEST_MICROS if cap_micros is None else cap_micros)
