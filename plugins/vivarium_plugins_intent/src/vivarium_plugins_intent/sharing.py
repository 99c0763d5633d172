"""The room of the shared budget: one amount among several tasks, exact to the millionth."""

from __future__ import annotations

from collections.abc import Sequence

from vivarium_kernel.amounts import money_text

from vivarium_kernel import Invalid


def shared(total_micros: int, shares: Sequence[int], least_micros: int = 0) -> list[int]:
    """What each task gets: the minimum first, the rest by shares, what does not divide by the largest remainder.

    The amounts sum up to ``total_micros``. A budget that is there leaves nobody without a millionth. Raises Invalid,
    with the arithmetic, when it is too small for the minimum of all.
    """
    count = len(shares)
    least = max(least_micros, 1 if total_micros else 0)
    if least * count > total_micros:
        raise Invalid(
            "plan.budget",
            f"{count} task{'s' if count > 1 else ''} of at least {money_text(least)} USD each take {count} * "
            f"{money_text(least)} = {money_text(least * count)} USD, and the budget is {money_text(total_micros)} USD.",
            "Raise the budget or lower the minimum.",
            field="max_micros",
        )
    rest, parts = total_micros - least * count, sum(shares)
    found = [least + rest * share // parts for share in shares]
    remainders = [rest * share % parts for share in shares]
    for place in sorted(range(count), key=lambda at: (-remainders[at], at))[: total_micros - sum(found)]:
        found[place] += 1
    return found
