"""Settings: the 'key = value' files in config/, one for each season."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class BadSetting(ValueError):
    """A settings file that can't be used, with the line or key that is at fault."""


@dataclass(frozen=True)
class Thresholds:
    """From which height a tide is worth a warning, in millimetres above datum."""

    watch_mm: int
    flood_mm: int


def load(path: Path) -> dict[str, str]:
    """All keys of a settings file. A key that stands there twice is refused: nobody could say which one counts."""
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key:
            raise BadSetting(f"{path.name}, line {number}: expected 'key = value', found {line!r}")
        if key in found:
            raise BadSetting(f"{path.name}, line {number}: {key} is set twice")
        found[key] = value
    return found


def thresholds(settings: dict[str, str]) -> Thresholds:
    """The two heights, checked against each other."""
    try:
        chosen = Thresholds(int(settings["alerts.watch_mm"]), int(settings["alerts.flood_mm"]))
    except KeyError as error:
        raise BadSetting(f"{error.args[0]} is missing; copy it from last season's file") from error
    if chosen.watch_mm >= chosen.flood_mm:
        raise BadSetting(f"alerts.watch_mm ({chosen.watch_mm}) must lie below alerts.flood_mm ({chosen.flood_mm})")
    return chosen
