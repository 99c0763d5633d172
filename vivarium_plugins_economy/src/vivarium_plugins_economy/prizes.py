"""The room of the prizes: who gets how much of a bounty's escrow. Pure rules; the README has them in words."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from attrs import frozen


@frozen
class Work:
    """A submission that the judge named: its number, the place of its entrant (from 1), and who shares its prize.

    ``residents`` has first who gets what can't be split evenly.
    """

    submission: int
    place: int
    residents: tuple[str, ...]


@frozen
class Payout:
    """What one resident gets, of which prize (1 is the winner's) and for which submission."""

    prize: int
    submission: int
    resident: str
    micros: int


@frozen
class Slots:
    """How many entrants are paid in full, and what each place past them costs."""

    count: int
    factor: Fraction = Fraction(1, 2)
    least: Fraction = Fraction(1, 20)

    def multiplier(self, place: int) -> Fraction:
        """1 within the slots, then ``factor`` to the power of the overflow, never below ``least``."""
        found = Fraction(1)
        for _ in range(place - self.count):
            found *= self.factor
            if found <= self.least:
                return self.least
        return found


def team(members: Sequence[str], founder: str) -> tuple[str, ...]:
    """A guild's members in the order in which they share: its founder first, where the founder is one of them."""
    return tuple(sorted(set(members), key=lambda name: (name != founder, name)))


def split(micros: int, among: int) -> list[int]:
    """An amount in even parts; the first gets the remainder."""
    part, rest = divmod(micros, among)
    return [part + rest, *[part] * (among - 1)]


def payouts(prizes: Sequence[tuple[int, Sequence[Work]]], slots: Slots) -> list[Payout]:
    """What everybody gets, of prizes in millionths, the winner's first; together never more than the prizes.

    Works that share a prize share it evenly, the earlier one (by number) with the remainder, and then each takes the
    multiplier of its place. A resident is rewarded for one submission: a share in a further one stays in the escrow.
    """
    found: list[Payout] = []
    rewarded_for: dict[str, int] = {}
    for prize, (micros, works) in enumerate(prizes, 1):
        ordered = sorted(works, key=lambda work: work.submission)
        for work, part in zip(ordered, split(micros, len(ordered)) if ordered else (), strict=True):
            whole = int(part * slots.multiplier(work.place))
            for resident, share in zip(work.residents, split(whole, len(work.residents)), strict=True):
                if share and rewarded_for.setdefault(resident, work.submission) == work.submission:
                    found.append(Payout(prize, work.submission, resident, share))
    return found
