"""Money that people type becomes exactly the millionths that they meant, or is refused."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivarium_kernel.amounts import LARGEST_MICROS, WrittenFloat, amount, money, money_text
from vivarium_kernel.documents import json_of, toml_of
from vivarium_kernel.problems import InputError


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0", 0),
        ("0.10", 100_000),
        ("0.1", 100_000),
        ("0.000001", 1),
        ("100", 100_000_000),
        ("4.35", 4_350_000),
        ("1000000000", LARGEST_MICROS),
        ("999999999.999999", LARGEST_MICROS - 1),
    ],
)
def test_a_decimal_is_exactly_its_millionths(text: str, micros: int) -> None:
    assert money(text) == micros


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-1", "must not be negative"),
        ("-0", "must not be negative"),
        ("-1e5", "must not be negative"),
        ("NaN", "must be a number"),
        ("inf", "must be a number"),
        ("-Infinity", "must be a number"),
        ("1e3", "without an exponent"),
        ("0.0000001", "at most 6 decimals"),
        ("1000000000.000001", "at most 1000000000"),
        ("9" * 40, "at most 1000000000"),
        ("", "must be a decimal number"),
        (" 1", "must be a decimal number"),
        ("1\n", "must be a decimal number"),
        ("1,50", "must be a decimal number"),
        ("0x10", "must be a decimal number"),
        ("٣", "must be a decimal number"),
        (".5", "must be a decimal number"),
        ("1_000", "must be a decimal number"),
    ],
)
def test_anything_else_is_refused_with_field_value_and_next_step(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        money(text, "max_budget")
    [problem] = caught.value.problems
    assert problem.path == "max_budget"
    assert says in problem.message
    assert "0.10" in problem.next_step
    assert "not " in str(caught.value)


@given(st.integers(0, LARGEST_MICROS))
def test_written_money_reads_back_as_it_was(micros: int) -> None:
    assert money(money_text(micros)) == micros


@given(st.text(max_size=40))
def test_any_text_is_an_amount_or_an_input_error(text: str) -> None:
    try:
        micros = money(text)
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert 0 <= micros <= LARGEST_MICROS
        assert money(money_text(micros)) == micros


def test_amounts_are_shown_as_people_write_them() -> None:
    assert [money_text(m) for m in (0, 170_000_000, 100_000, 1, -2_500_000)] == [
        "0",
        "170",
        "0.10",
        "0.000001",
        "-2.50",
    ]


@given(st.integers(0, LARGEST_MICROS))
def test_a_number_in_a_file_is_what_was_typed_and_not_its_binary_neighbour(micros: int) -> None:
    written = f"{micros // 1_000_000}.{micros % 1_000_000:06d}"
    assert amount(toml_of(f"x = {written}", "t")["x"]) == micros
    assert amount(json_of(written, "j")) == micros


def test_more_decimals_than_a_float_can_hold_are_still_seen() -> None:
    # As a binary float this is exactly 0.1.
    with pytest.raises(InputError, match="at most 6 decimals"):
        amount(toml_of("x = 0.1000000000000000055", "t")["x"])


@pytest.mark.parametrize("value", [True, None, [], {}, float("nan"), float("inf"), -0.5, 2**200, 1e300, object()])
def test_what_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        amount(value, "max_budget")


def test_a_number_too_long_to_be_written_is_refused() -> None:
    with pytest.raises(InputError, match="bits"):
        amount(10**5000)


@pytest.mark.parametrize(("value", "micros"), [(5, 5_000_000), (0.1, 100_000), (1e-05, 10), (0.07, 70_000)])
def test_plain_numbers_of_a_program_are_amounts_too(value: float, micros: int) -> None:
    assert amount(value) == micros


def test_a_written_float_is_a_float_that_survives_pickling() -> None:
    written = WrittenFloat("1_0.50")
    assert written == 10.5
    assert pickle.loads(pickle.dumps(written)).text == "10.50"  # noqa: S301 - our own bytes
