"""Every problem of a table at once, each with the path of its field: for settings and for each plugin's Config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from attrs import field, frozen, validators
from hypothesis import given
from hypothesis import strategies as st
from vivarium_kernel.problems import InputError, Problem
from vivarium_kernel.structuring import structure


@frozen
class Inner:
    size: int = field(default=1, validator=validators.ge(1))
    kind: Literal["a", "b"] = "a"


def _below_high(instance: Config, attribute: Any, value: int) -> None:
    if value > instance.high:
        raise ValueError(f"must not be above high ({instance.high})")


@frozen
class Config:
    name: str
    high: int = 10
    low: int = field(default=0, validator=_below_high)
    rate: float = field(default=0.5, validator=[validators.ge(0), validators.le(1)])
    words: tuple[str, ...] = ()
    spot: tuple[int, int] = (0, 0)
    inner: Inner = field(factory=Inner)
    many: tuple[Inner, ...] = ()
    by_name: Mapping[str, int] = field(factory=dict)
    either: int | str = 0
    perhaps: int | None = None
    tags: frozenset[str] = frozenset()
    raw: Mapping[str, Any] = field(factory=dict)
    on: bool = False


def problems(raw: object, path: str = "") -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        structure(Config, raw, path)
    return caught.value.problems


def test_a_sound_table_becomes_its_record() -> None:
    raw: dict[str, Any] = {
        "name": "x",
        "rate": 1,
        "words": ["a"],
        "spot": [3, 4],
        "inner": {"size": 2, "kind": "b"},
        "many": [{"size": 3}],
        "by_name": {"k": 1},
        "either": "text",
        "perhaps": 4,
        "tags": ["t", "t"],
        "raw": {"deep": [1, {"x": 2}]},
    }
    made = structure(Config, raw)
    assert made == Config(
        "x", 10, 0, 1.0, ("a",), (3, 4), Inner(2, "b"), (Inner(3),), {"k": 1}, "text", 4, frozenset("t"), raw["raw"]
    )
    assert type(made.rate) is float


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x", "high": "5"}, "high"),
        ({"name": "x", "high": True}, "high"),
        ({"name": "x", "high": 2.0}, "high"),
        ({"name": "x", "rate": "0.5"}, "rate"),
        ({"name": "x", "rate": False}, "rate"),
        ({"name": "x", "rate": float("nan")}, "rate"),
        ({"name": "x", "rate": 10**400}, "rate"),
        ({"name": "x", "rate": 2}, "rate"),
        ({"name": "x", "words": "abc"}, "words"),
        ({"name": "x", "words": {"a": 1}}, "words"),
        ({"name": "x", "words": ["a", 1]}, "words[1]"),
        ({"name": "x", "spot": [1]}, "spot"),
        ({"name": "x", "spot": [1, "2"]}, "spot[1]"),
        ({"name": "x", "inner": 3}, "inner"),
        ({"name": "x", "inner": {"size": 0}}, "inner.size"),
        ({"name": "x", "inner": {"kind": "c"}}, "inner.kind"),
        ({"name": "x", "inner": {"kind": []}}, "inner.kind"),
        ({"name": "x", "many": [{}, {"size": 0}]}, "many[1].size"),
        ({"name": "x", "many": [{}, {"sise": 0}]}, "many[1].sise"),
        ({"name": "x", "by_name": {"k": "v"}}, "by_name.k"),
        ({"name": "x", "by_name": []}, "by_name"),
        ({"name": "x", "tags": "abc"}, "tags"),
        ({"name": "x", "on": 1}, "on"),
        ({"name": "x", "low": 11}, "low"),
        ({"name": "x", "odd key": 1}, '"odd key"'),
        ([], ""),
    ],
)
def test_a_problem_has_the_path_of_its_field(raw: object, path: str) -> None:
    assert [problem.path for problem in problems(raw)] == [path]


def test_all_problems_are_told_at_once_also_those_of_attrs_validators() -> None:
    raw = {"high": "x", "low": 3, "rate": 7, "inner": {"size": 0, "kind": "z", "sice": 1}, "words": [1, "a", 2]}
    found = {problem.path for problem in problems(raw, "plugins.hats")}
    fields = ("name", "high", "rate", "inner.size", "inner.kind", "inner.sice", "words[0]", "words[2]")
    assert found == {f"plugins.hats.{field}" for field in fields}


def test_a_validator_that_compares_fields_is_heard_when_both_are_sound() -> None:
    assert [problem.message for problem in problems({"name": "x", "low": 11})] == ["must not be above high (10)"]


def test_an_unknown_key_comes_with_the_one_that_was_meant() -> None:
    [problem] = problems({"name": "x", "inner": {"sze": 3}})
    assert (problem.message, problem.next_step) == ("unknown key", 'did you mean "size"?')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([attribute.name for attribute in Config.__attrs_attrs__])


@given(st.dictionaries(KEYS | st.text(max_size=5), JSON))
def test_any_table_becomes_a_record_or_an_input_error(raw: dict[str, Any]) -> None:
    try:
        assert isinstance(structure(Config, raw), Config)
    except InputError as error:
        assert error.problems
        assert all(line.isprintable() for line in str(error).splitlines())
