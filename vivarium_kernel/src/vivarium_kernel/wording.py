"""The room of wording: moments, durations and addresses as people read them, on the command line and the pages."""

from __future__ import annotations

from datetime import datetime

from vivarium_kernel.terms import MICROS


def when(at: int | None, now: int) -> str:
    """A moment in local time, as short as it can be told: the day is left out today, the year this year."""
    if at is None:
        return ""
    moment, today = datetime.fromtimestamp(at / MICROS), datetime.fromtimestamp(now / MICROS)
    if moment.date() == today.date():
        return f"{moment:%H:%M:%S}"
    return f"{moment:%d %b %H:%M}" if moment.year == today.year else f"{moment:%Y-%m-%d %H:%M}"


def url_of(host: str, port: int) -> str:
    """The address to open of what listens there; for a wildcard that of this machine."""
    everywhere = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - named, not bound
    shown = everywhere.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"


def lasting(seconds: float | None) -> str:
    """A duration: ``0.01 s``, ``12 s``, ``3 min 5 s``, ``2 h 10 min``, ``4 d 3 h``."""
    if seconds is None:
        return ""
    if seconds < 0:
        return f"-{lasting(-seconds)}"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.0f} s"
    for size, unit, part_size, part in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            return f"{whole} {unit} {rest // part_size} {part}" if rest // part_size else f"{whole} {unit}"
    return ""
