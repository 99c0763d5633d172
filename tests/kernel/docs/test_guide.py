"""Promises about the author's guide: its examples run, and it names all that an author is given."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vivarium_kernel
from vivarium_kernel import Plugin, PluginTx, PluginView, testing

from . import tutorial
from .first_party import REPOSITORY

GUIDE = REPOSITORY / "docs" / "plugins.md"
PAGES = (GUIDE, *(GUIDE.with_name(name) for name in ("hooks.md", "tutorial.md")))
WEATHER = REPOSITORY / "examples" / "vivarium-plugins-weather"
FOREIGN = {"attrs", "pytest", "sqlite_utils", "vivarium_kernel", "vivarium_plugins_weather"}


@pytest.fixture
def guide() -> str:
    return GUIDE.read_text(encoding="utf-8")


@pytest.mark.promise("the examples of the guide run")
def test_the_examples_of_the_guide_run(guide: str, tmp_path: Path) -> None:
    reader = tutorial.Reader(tmp_path, tmp_path / "site", [tmp_path])
    for language, text in tutorial.blocks(guide):
        assert language == "python", text
        reader.write(text)
    assert re.search(r"\b4 passed\b", reader.type("pytest -q"))


def test_the_guide_names_all_that_is_exported_and_handed_out(guide: str) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in vivarium_kernel.__all__ if not re.search(rf"\b{name}\b", pages)] == []
    given = {name for kind in (PluginTx, PluginView) for name in vars(kind) if not name.startswith("_")} | {"actor"}
    assert sorted(name for name in given if not re.search(rf"`{name}\b|, `{name}\b", guide)) == []
    declared = {name for name in Plugin.__annotations__ if not name.startswith("_")}
    assert sorted(name for name in declared if f"| `{name}` |" not in guide) == []
    functions = {name for name in testing.__all__ if name.islower()}
    assert sorted(name for name in functions if f"`{name}`" not in guide) == []


# The example of a third party


@pytest.mark.promise("a third party's plugin uses only what the pages tell")
def test_the_weather_example_uses_only_what_the_pages_tell() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    known = sys.stdlib_module_names | FOREIGN
    for file in [*WEATHER.glob("src/**/*.py"), *WEATHER.glob("tests/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {name.name for name in node.names} <= known, file
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                assert module.partition(".")[0] in known, f"{file}: {module}"
                if module.startswith("vivarium_kernel"):
                    assert module in ("vivarium_kernel", "vivarium_kernel.testing"), f"{file}: {module}"
                    untold = [name.name for name in node.names if not re.search(rf"\b{name.name}\b", pages)]
                    assert untold == [], f"{file}: no page tells of {untold}"


@pytest.mark.promise("a third party's plugin uses only what the pages tell")
@pytest.mark.thorough
def test_the_weather_example_holds_its_own_promises(tmp_path: Path) -> None:
    """From its sources; `.ci/run` does it from the wheel, in an environment of its own."""
    reader = tutorial.Reader(WEATHER, tmp_path / "site")
    reader.type('pip install --editable ".[test]"')
    assert " passed" in reader.type("pytest -q")


def test_the_weather_example_carries_its_pages() -> None:
    project = tomllib.loads((WEATHER / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    readme = (WEATHER / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {project['name']}\n")
    assert f"## [{project['version']}]" in (WEATHER / "CHANGELOG.md").read_text(encoding="utf-8")
    assert (WEATHER / "LICENSE").read_text(encoding="utf-8") == (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    settings = re.search(r"^\[plugins\.weather\]\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert settings is not None
    told = tomllib.loads(settings[1])
    code = "import sys, json, attrs; from vivarium_plugins_weather.plugin import WeatherConfig as C; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(json.dumps(attrs.asdict(C())))"],
        cwd=WEATHER / "src", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told == json.loads(done.stdout)
