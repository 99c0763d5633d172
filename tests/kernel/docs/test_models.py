"""Promises about docs/models.md: its settings are settings, and what it says of limits is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vivarium_kernel.circuit import FAILURES, PAUSE_MAX_SECONDS, PAUSE_SECONDS
from vivarium_kernel.settings import Models, load
from vivarium_kernel.thinking import IDENTICAL_CALLS

from vivarium_kernel import board, claiming, stepping, thinking


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "models.md").read_text(encoding="utf-8")


def test_every_example_of_settings_is_one(page: str, tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(examples) >= 3
    for number, text in enumerate(examples):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "vivarium.toml").write_text(text)
        assert load(folder, {}).settings.name == "study"


def test_limits_and_rules_are_those_of_the_code(page: str) -> None:
    told = dict(re.findall(r"^\| `(thought\.\w+)` \| (.+) \|$", page, re.MULTILINE))
    known = set()
    for module in (thinking, board):
        known |= set(re.findall(r'"(thought\.\w+)[":]', Path(str(module.__file__)).read_text(encoding="utf-8")))
    assert set(told) == known - {"thought.schema"}
    models = Models()
    for rule, number in (
        ("thought.steps", models.steps),
        ("thought.tokens", models.attempt_tokens),
        ("thought.progress", models.steps_without_progress),
        ("thought.seconds", int(board.OTHER_SECONDS)),
    ):
        assert f"{number:,}" in told[rule].replace("(600 ", "(600 ")
    assert (IDENTICAL_CALLS, board.MOST_HANDED_ON, FAILURES) == (4, 3, 5)
    assert "left alone for 15 s, then 30 s" in page
    assert (PAUSE_SECONDS, PAUSE_MAX_SECONDS) == (15.0, 300.0)


def test_every_kind_of_event_is_one_that_is_written(page: str) -> None:
    source = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in (stepping, claiming))
    for kind in re.findall(r"`([A-Z_]{10,})`", page):
        assert f'"{kind}"' in source, kind
