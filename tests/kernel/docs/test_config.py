"""Promises about the reference of the settings: it is what the classes say, and no setting goes unexplained."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from attrs import field, frozen
from attrs.validators import ge, in_, le, optional
from vivarium_kernel.settings import OTHER_VARIABLES, leaves

from . import config


@pytest.mark.promise("the reference of the settings is what the attrs classes say")
def test_the_page_is_what_the_classes_say() -> None:
    assert config.PAGE.read_text(encoding="utf-8") == config.page(), f"write it with `{config.COMMAND}`"


@pytest.mark.promise("the reference of the settings is what the attrs classes say")
def test_every_setting_is_explained() -> None:
    assert [leaf.path for leaf in leaves() if not leaf.doc.strip()] == []
    assert set(config.OTHERS) == set(OTHER_VARIABLES)
    assert config.unexplained() == []


@pytest.mark.promise("harnesses-find-planted-bugs")
def test_a_setting_that_nobody_explains_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {name: dict(keys) for name, keys in config._words().items()}
    monkeypatch.setattr(config, "_doc", lambda name, a: "" if a.name == "talk_tiles" else "something")
    monkeypatch.setattr(config, "_words", lambda: words | {"world": {"gravity": "Down."}})
    assert config.unexplained() == ["world.talk_tiles", "world.gravity"]


@frozen
class Weathered:
    """Every shape that a plugin's setting usually has."""

    days: int = field(default=3, validator=[ge(1), le(9)])
    mood: str | None = field(default=None, validator=optional(in_(["fair", "foul"])))
    places: tuple[str, ...] = ()
    more: dict[str, int] = field(factory=dict)


def test_what_a_setting_must_be_is_said_in_words() -> None:
    attrs.resolve_types(Weathered)
    fields: Any = attrs.fields(Weathered)
    said = [config.kind(a) for a in fields]
    assert said == [
        "a whole number, at least 1, at most 9",
        'text, one of "fair", "foul"',
        "a list of texts",
        "a table",
    ]
