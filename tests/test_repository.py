"""Promises about the repository itself: what it carries, what it must not, and that its pages agree with each other."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

# Written so that this file does not match itself.
HOSTS = re.compile(
    r"\bpy[p]i\.org|pytho[n]hosted\.org|np[m]js\.(org|com)|crate[s]\.io|prox[y]\.golang|huggingfac[e]\.co"
    r"|(registry|index-url|index_url|resolved)[\"']? *[:=] *[\"']?https?://"
)
PLACES = re.compile(
    r"/wor[k]/(main|shared|steering|\.lib)|/roo[t]/\.(pyenv|local|cache|config)|/hom[e]/[a-z]+/|/User[s]/[a-z]+/"
)
COMMANDS = ("pip install uv && uv run vivarium run examples/chores", "uv run pytest")


@pytest.fixture(scope="session")
def files(repository: Path) -> list[Path]:
    """The files of the repository: those git knows, and those it would add."""
    listed = git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [repository / name for name in listed if name and (repository / name).is_file()]


@pytest.fixture(scope="session")
def distributions(repository: Path) -> dict[Path, Any]:
    """The folder of each distribution of the workspace, with its pyproject.toml."""
    globs = toml(repository / "pyproject.toml")["tool"]["uv"]["workspace"]["members"]
    folders = sorted(folder for glob in globs for folder in repository.glob(glob))
    return {folder: toml(folder / "pyproject.toml") for folder in folders}


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *arguments],  # noqa: S607 - found as the README says
        cwd=repository,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def toml(file: Path) -> Any:
    return tomllib.loads(file.read_text(encoding="utf-8"))


def found_in(files: list[Path], pattern: re.Pattern[str], repository: Path) -> list[str]:
    """Where a pattern matches: file, line and what matched."""
    found = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture, or material of an example
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{file.relative_to(repository)}:{number}: {match[0]}")
    return found


@pytest.mark.promise("names-no-host")
def test_no_lock_file_is_tracked(repository: Path) -> None:
    assert git(repository, "ls-files", "--", "uv.lock", "**/uv.lock", "pylock*.toml") == ""


@pytest.mark.promise("names-no-host")
def test_no_file_names_a_package_host(repository: Path, files: list[Path]) -> None:
    assert found_in(files, HOSTS, repository) == []


@pytest.mark.promise("names-no-host")
def test_no_file_holds_a_path_of_the_machine_it_was_written_on(repository: Path, files: list[Path]) -> None:
    assert found_in(files, PLACES, repository) == []


@pytest.mark.promise("harnesses-find-planted-bugs")
@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ('source = { registry = "https:' + '//example.org/simple" }', HOSTS),
        ("see py" + "pi.org/project/attrs", HOSTS),
        ("cd /wor" + "k/main", PLACES),
        ("/hom" + "e/ada/village", PLACES),
    ],
)
def test_a_host_or_a_path_is_found(tmp_path: Path, line: str, pattern: re.Pattern[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"fine\n{line}\n")
    assert [fault.split(" ")[0] for fault in found_in([page], pattern, tmp_path)] == ["page.md:2:"]


@pytest.mark.promise("same-versions")
def test_both_lists_of_versions_agree(repository: Path) -> None:
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert toml(repository / "pyproject.toml")["tool"]["uv"]["constraint-dependencies"] == lines
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.+!]+( ; .+)?", line)] == []


def test_each_distribution_carries_its_pages(distributions: dict[Path, Any], repository: Path) -> None:
    licence = (repository / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    for folder, project in distributions.items():
        version = re.escape(project["project"]["version"])
        assert (folder / "README.md").read_text(encoding="utf-8").startswith(f"# {project['project']['name']}\n"), (
            folder
        )
        changes = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
        assert re.search(rf"^## (\[Unreleased\]|\[{version}\])", changes, re.MULTILINE), f"{folder}: no {version}"
        assert (folder / "LICENSE").read_text(encoding="utf-8") == licence, folder
        assert project["project"]["license"] == "Apache-2.0", folder


def test_each_distribution_supports_the_same_pythons(distributions: dict[Path, Any], repository: Path) -> None:
    floor = toml(repository / "pyproject.toml")["project"]["requires-python"]
    assert {project["project"]["requires-python"] for project in distributions.values()} == {floor}


def test_siblings_are_asked_for_by_range(distributions: dict[Path, Any]) -> None:
    ours = {project["project"]["name"] for project in distributions.values()}
    for folder, project in distributions.items():
        extras = project["project"].get("optional-dependencies", {}).values()
        for need in [*project["project"].get("dependencies", []), *(need for extra in extras for need in extra)]:
            name = re.match(r"[A-Za-z0-9._-]+", need)
            assert name, need
            if name[0] in ours:
                assert ">=" in need and "==" not in need, f"{folder}: {need}"


def test_the_readme_says_the_commands_that_the_checks_run(repository: Path) -> None:
    page = (repository / "README.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    lines = [line.partition(" #")[0].rstrip() for line in blocks.splitlines()]
    assert [command for command in COMMANDS if command not in lines] == []
    checks = (repository / ".ci" / "checks").read_text(encoding="utf-8")
    assert '"run", "vivarium", "run", "examples/chores")' in checks
    assert 'run.uv("run", "pytest")' in checks


def test_the_links_between_pages_lead_somewhere(repository: Path, files: list[Path]) -> None:
    broken = []
    for page in (file for file in files if file.suffix == ".md" and "examples" not in file.parts):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(repository)}: {target}")
    assert broken == []
