"""Promises about the tutorial: what it says can be typed, answers as it shows, and ends in a wheel."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from . import tutorial

pytestmark = pytest.mark.thorough

BUILD = "uv build"


@pytest.fixture
def reader(tmp_path: Path) -> tutorial.Reader:
    place = tmp_path / "place"
    place.mkdir()
    return tutorial.Reader(place, tmp_path / "site")


@pytest.fixture
def page() -> str:
    return tutorial.PAGE.read_text(encoding="utf-8")


@pytest.mark.promise("the tutorial can be typed, and ends in a plugin")
def test_the_tutorial_can_be_typed_and_answers_as_it_shows(page: str, reader: tutorial.Reader) -> None:
    typed = tutorial.follow(page, reader, leave_out=BUILD)
    assert len(typed) >= 15
    assert any(line.startswith("vivarium plugins check") for line in typed)


@pytest.mark.promise("the tutorial can be typed, and ends in a plugin")
def test_the_tutorials_plugin_can_be_built(page: str, reader: tutorial.Reader) -> None:
    assert f"\n$ {BUILD}\n" in page
    reader.type("vivarium plugins new moon")
    reader.type("cd vivarium-plugins-moon")
    for language, text in tutorial.blocks(page):
        if language == "python":
            reader.write(text)
    built = build(reader.place)
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"vivarium_plugins_moon/plugin.py", "vivarium_plugins_moon/tables.py"} <= set(names)
    (points,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "moon = vivarium_plugins_moon.plugin:Moon" in zipfile.ZipFile(wheel).read(points).decode()


def build(project: Path) -> Path:
    """Build as the page says; where hatchling can't be had, that is the machine's, and said as the reason to skip."""
    try:
        done = subprocess.run(BUILD.split(), cwd=project, capture_output=True, text=True, timeout=120, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        told = str(error)
    else:
        if done.returncode == 0:
            return project / "dist"
        told = done.stderr
    unreachable = any(word in told for word in ("No such file", "timed out", "Failed to resolve", "Failed to fetch"))
    if unreachable and not os.environ.get("CI"):
        pytest.skip(f"`{BUILD}` needs uv, and hatchling from a package index: {' '.join(told.split())[-200:]}")
    pytest.fail(f"`{BUILD}` failed: {told}")


@pytest.mark.promise("harnesses-find-planted-bugs")
def test_a_line_that_does_not_answer_as_it_is_shown_is_found(reader: tutorial.Reader) -> None:
    right = "```console\n$ vivarium plugins new --help\nUsage: vivarium plugins new …\n```\n"
    assert tutorial.follow(right, reader) == ["vivarium plugins new --help"]
    with pytest.raises(AssertionError, match="without"):
        tutorial.follow(right.replace("Usage:", "Use:"), reader)
    with pytest.raises(AssertionError, match="failed"):
        tutorial.follow("```console\n$ vivarium plugins newer\n```\n", reader)
