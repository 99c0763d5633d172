"""Promises about the scaffold: for every kind what it writes installs, passes its own tests and every check."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from vivarium_kernel.cli import main
from vivarium_kernel.cli.plugins_author import KINDS
from vivarium_kernel.errors import Conflict, Invalid
from vivarium_kernel.scaffold import writing
from vivarium_kernel.scaffold.writing import name_of, rendered, write

from .installing import install, python, vivarium


@pytest.mark.promise("scaffold-passes")
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "blank" else pytest.mark.thorough) for kind in KINDS]
)
def test_a_new_plugin_passes_its_own_tests_and_every_check(kind: str, tmp_path: Path) -> None:
    names = name_of(f"my-{kind}")
    project = write(names, kind, tmp_path).folder
    site = install(project, tmp_path / "site")
    tests = python("-m", "pytest", "-q", "-p", "no:cacheprovider", site=site, cwd=project)
    assert tests.status == 0, tests.out + tests.err
    assert re.search(r"^1[5-9] passed", tests.out, re.MULTILINE), tests.out
    checked = vivarium("plugins", "check", names.distribution, "--json", site=site, cwd=tmp_path)
    assert checked.status == 0, checked.out + checked.err
    results = json.loads(checked.out)
    assert {each["result"] for each in results} == {"passed"}
    assert {each["plugin"] for each in results} == {names.name}
    assert len(results) == 14


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy has found of the kernel and of its libraries, once for every kind."""
    return tmp_path_factory.mktemp("types")


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_writes_is_typed_and_tidy(kind: str, tmp_path: Path, types: Path) -> None:
    project = write(name_of(f"a-{kind}-of-mine"), kind, tmp_path, "Ada Byron").folder
    for command in (
        ["ruff", "check", "--isolated", "--line-length=120", "--select=E,F,W,I,B,UP,SIM,RUF", "--no-cache", "."],
        ["mypy", "--strict", f"--cache-dir={types}", "src"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=project, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert about["authors"] == [{"name": "Ada Byron"}]
    assert (project / "README.md").read_text().startswith(f"# {about['name']}\n")


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_there_and_nothing_is_left_open(kind: str) -> None:
    files = rendered(name_of("weather"), kind)
    assert {
        "pyproject.toml", "README.md", "CHANGELOG.md", ".gitignore", ".github/workflows/test.yml",
        "src/vivarium_plugins_weather/plugin.py", "src/vivarium_plugins_weather/tables.py",
        "src/vivarium_plugins_weather/py.typed", "tests/test_weather.py", "tests/test_conformance.py",
    } <= set(files)  # fmt: skip
    for file, (text, what) in files.items():
        assert what, file
        assert not re.search(r"TODO|FIXME|jinja", text), file
        assert text == "" or (text.endswith("\n") and not text.endswith("\n\n")), file
        if "panel.html" not in file and not file.endswith(".yml"):
            assert "{{" not in text and "{%" not in text, file
        if file.endswith(".py"):
            ast.parse(text)


def test_every_setting_of_a_new_plugin_is_in_its_readme() -> None:
    for kind in KINDS:
        files = {file: text for file, (text, _) in rendered(name_of("weather"), kind).items()}
        fields = re.findall(r"^    (\w+): \w+ = field\(", files["src/vivarium_plugins_weather/plugin.py"], re.MULTILINE)
        assert fields and all(f"| `{field}` |" in files["README.md"] for field in fields), kind


@pytest.mark.parametrize("asked", ["weather", "vivarium-plugins-weather", "vivarium_plugins_weather", "Weather"])
def test_one_name_has_all_its_forms(asked: str) -> None:
    assert name_of(asked) == writing.Names("weather", "vivarium-plugins-weather", "vivarium_plugins_weather", "Weather")


def test_a_class_never_hides_what_it_is_made_from() -> None:
    assert name_of("plugin").cls == "PluginPlugin"
    assert name_of("section").cls == "SectionPlugin"
    assert name_of("tile-map").cls == "TileMap"


@pytest.mark.parametrize("asked", ["", "9lives", "a b", "wet__weather", "class", "x" * 41, "wetter-ö", "a/b", "../a"])
def test_a_name_that_can_not_be_is_refused(asked: str) -> None:
    with pytest.raises(Invalid, match="can't be called"):
        name_of(asked)


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(Conflict, match="kernel's own"):
        name_of("text-policy")


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vivarium-plugins-weather").mkdir()
    assert main(["plugins", "new", "weather", "--in", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert list((tmp_path / "vivarium-plugins-weather").iterdir()) == []


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_text

    def full(path: Path, *arguments: str, **more: str) -> int:
        if path.name == "tables.py":
            raise OSError(28, "No space left on device")
        return real(path, *arguments, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Invalid, match="No space left"):
        write(name_of("weather"), "blank", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_wrote_and_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "new", "weather", "--kind", "tools", "--in", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "src/vivarium_plugins_weather/plugin.py" in said
    assert "vivarium plugins check vivarium-plugins-weather" in said
