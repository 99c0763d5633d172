"""The room of the journals' arithmetic: what an attempt costs, and what a vote comes to. Pure functions, whole aid.

Everything is exact in whole numbers: no result hangs on how a fraction is rounded on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Literal

from attrs import frozen

Choice = Literal["reject", "accept", "exceptional", "gaming"]
Result = Literal["accepted", "rejected", "gaming", "returned"]


@frozen
class JournalPhysics:
    """The constants of the vote. They never change in a village that was founded with them.

    Choices are worth points; ``n`` votes with ``t`` points have the mean ``m = t/n``, and ``s = m - 1``.
    """

    reject_points: int = 0
    accept_points: int = 1
    exceptional_points: int = 2
    gaming_points: int = 0
    gaming_percent: int = 50  # this share of votes for gaming rejects, with a penalty
    refund_percent: int = 50  # of the cost, at s = 0
    refund_slope_percent: int = 50  # of the cost more, at s = 1
    bonus_halves: int = 3  # the bonus is cost · s^(3/2)
    most_percent: int = 200  # of the cost, refund and bonus together
    penalty_percent: int = 125  # of the cost, while penalised


@frozen
class Decision:
    """What a vote comes to: ``refund`` is given back of the cost, ``bonus`` is new; both in whole aid."""

    result: Result
    refund: int = 0
    bonus: int = 0


def cost(base: int, penalised: bool, physics: JournalPhysics) -> int:
    """What an attempt costs in whole aid; a penalty rounds up."""
    return -(-base * physics.penalty_percent // 100) if penalised else base


def decide(choices: Sequence[Choice], paid: int, physics: JournalPhysics) -> Decision:
    """What these votes on a journal that cost ``paid`` whole aid come to. Without any vote the cost returns."""
    n = len(choices)
    if not n:
        return Decision("returned", refund=paid)
    if choices.count("gaming") * 100 >= physics.gaming_percent * n:
        return Decision("gaming")
    worth = {
        "reject": physics.reject_points, "accept": physics.accept_points,
        "exceptional": physics.exceptional_points, "gaming": physics.gaming_points,
    }  # fmt: skip
    above = sum(worth[choice] for choice in choices) - n  # s · n
    if above < 0:
        return Decision("rejected")
    share = physics.refund_percent * n + physics.refund_slope_percent * above
    refund = -(-paid * share // (100 * n))
    bonus = isqrt(paid**2 * above**physics.bonus_halves // n**physics.bonus_halves)
    return Decision("accepted", refund, min(bonus, paid * physics.most_percent // 100 - refund))
