"""What the weather is: a formula of a seed and an hour, the same in every process and after every restart."""

import math
from hashlib import sha256

from attrs import frozen

HOURS_A_DAY = 24


@frozen
class Sky:
    """The weather of one village hour. ``celsius`` is whole degrees."""

    hour: int
    word: str
    celsius: int

    @property
    def storms(self) -> bool:
        return self.word == "storm"

    def __str__(self) -> str:
        return f"{self.word}, {self.celsius} °C"


def sky(seed: int, hour: int, storm_chance: float) -> Sky:
    """The weather at a village hour, counted from the village's first."""
    time_of_day = hour % HOURS_A_DAY
    warmth = (
        11 + 6 * math.sin((time_of_day - 8) * math.tau / HOURS_A_DAY) + 6 * _chance(seed, "day", hour // HOURS_A_DAY)
    )
    chance = _chance(seed, "hour", hour)
    if chance < storm_chance:
        word = "storm"
    else:
        # What is left of the chance, spread over the other words.
        rest = (chance - storm_chance) / (1 - storm_chance)
        words = ("rain", "clouds", "clouds", "clear", "clear")
        word = words[int(rest * len(words))]
    return Sky(hour, word, round(warmth))


def _chance(seed: int, kind: str, number: int) -> float:
    """A number from 0 to 1 that follows from what it is asked about."""
    digest = sha256(f"{seed}/{kind}/{number}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
