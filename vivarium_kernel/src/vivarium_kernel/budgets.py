"""The room of how a budget stands: what it may take, what of it is set aside and spent, and the cap that is wanted."""

from __future__ import annotations

from typing import NamedTuple

from attrs import frozen

from vivarium_kernel.amounts import LARGEST_MICROS
from vivarium_kernel.store import Tx, View


class Span(NamedTuple):
    """Amounts above one and up to another."""

    above: int
    upto: int

    def holds(self, micros: int) -> bool:
        return self.above < micros <= self.upto


@frozen
class Budget:
    """A budget in millionths of its currency.

    ``wanted_micros`` is the cap that was asked for where it is below what is reserved and spent already; None where
    ``cap_micros`` is what was asked for. Until enough of what is reserved is back, nothing more fits.
    """

    cap_micros: int
    reserved_micros: int
    spent_micros: int
    wanted_micros: int | None

    @property
    def left_micros(self) -> int:
        return self.cap_micros - self.reserved_micros - self.spent_micros

    @property
    def asked_micros(self) -> int:
        """The cap that was asked for."""
        return self.cap_micros if self.wanted_micros is None else self.wanted_micros

    @property
    def in_line(self) -> Span:
        """What doesn't fit for nothing but what running attempts have set aside and may yet give back."""
        return Span(self.left_micros, self.asked_micros - self.spent_micros)


def budget(source: View | Tx, scope: str, currency: str = "usd") -> Budget | None:
    """How a budget stands; None where this scope has none, or one that was lifted, which is the largest."""
    row = source.row(
        "SELECT cap, reserved, spent, wanted FROM budgets WHERE scope = ? AND currency = ? AND cap < ?",
        (scope, currency, LARGEST_MICROS),
    )
    return None if row is None else Budget(*row)
