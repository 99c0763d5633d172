"""The room of written money: decimals that people type, as integer millionths and back.

No amount ever passes through binary arithmetic: what is read is the text that stands in the file.
"""

from __future__ import annotations

import re

from vivarium_kernel.problems import InputError, Problem, quoted
from vivarium_kernel.terms import MICROS

LARGEST_MICROS = 10**15
NEXT_STEP = 'write a plain decimal such as "0.10"'


class WrittenFloat(float):
    """A float of a file that remembers how it was written, so that ``0.10`` is exactly ten hundredths."""

    text: str

    def __new__(cls, text: str) -> WrittenFloat:
        self = super().__new__(cls, text)
        self.text = text.replace("_", "")
        return self

    def __reduce__(self) -> tuple[type[WrittenFloat], tuple[str]]:
        return type(self), (self.text,)


def money(text: str, field: str = "amount") -> int:
    """The millionths of a decimal such as ``"0.10"``; an :class:`InputError` that names ``field`` for anything else."""
    found = re.fullmatch(r"([0-9]{1,16})(?:\.([0-9]{1,6}))?", text)
    if found is None:
        raise InputError([Problem(field, quoted(text), f"{_fault(text)}, not {quoted(text)}", NEXT_STEP)])
    micros = int(found[1]) * MICROS + int((found[2] or "").ljust(6, "0"))
    if micros > LARGEST_MICROS:
        most = money_text(LARGEST_MICROS)
        raise InputError([Problem(field, quoted(text), f"must be at most {most}, not {quoted(text)}", NEXT_STEP)])
    return micros


def amount(value: object, field: str = "amount") -> int:
    """The millionths of an amount from a file: a decimal as text, or a number as it was written there."""
    match value:
        case str():
            return money(value, field)
        case bool():
            pass
        case WrittenFloat():
            return money(value.text, field)
        case int() if abs(value) < 10**24:
            return money(str(value), field)
        case float():
            return money(_without_exponent(value), field)
    raise InputError([Problem(field, quoted(value), f"must be an amount, not {quoted(value)}", NEXT_STEP)])


def money_text(micros: int) -> str:
    """Millionths as a decimal: ``170``, ``0.10``, ``0.000001``; exact, and what :func:`money` reads back."""
    sign = "-" if micros < 0 else ""
    whole, part = divmod(abs(micros), MICROS)
    decimals = f"{part:06d}".rstrip("0")
    return f"{sign}{whole}.{decimals.ljust(2, '0')}" if decimals else f"{sign}{whole}"


def _without_exponent(value: float) -> str:
    # The shortest text that reads back as this float is what its writer typed; only its exponent must be undone.
    from decimal import Decimal

    return f"{Decimal(repr(value)):f}"


def _fault(text: str) -> str:
    number = r"[0-9]+(\.[0-9]*)?|\.[0-9]+"
    if re.fullmatch(rf"-({number})([eE][+-]?[0-9]+)?", text):
        return "must not be negative"
    if re.fullmatch(r"[+-]?(nan|inf|infinity)", text, re.IGNORECASE):
        return "must be a number"
    if re.fullmatch(rf"[+]?({number})[eE][+-]?[0-9]+", text):
        return "must be written without an exponent"
    if re.fullmatch(r"[0-9]+\.[0-9]{7,}", text):
        return "must have at most 6 decimals"
    if re.fullmatch(r"[0-9]{17,}(\.[0-9]+)?", text):
        return f"must be at most {money_text(LARGEST_MICROS)}"
    return "must be a decimal number"
