"""Promises about the page of the HTTP API: its program runs as it stands, and it names every role and status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from kernel.cli.running import village, vivarium
from kernel.cli.test_serving import ended, said, started
from vivarium_kernel.api import problem
from vivarium_kernel.terms import Role

from vivarium_kernel import errors, replies

from . import tutorial
from .first_party import REPOSITORY

PAGE = REPOSITORY / "docs" / "api.md"


@pytest.mark.promise("the program of the page of the API runs")
def test_the_program_of_the_page_runs(tmp_path: Path) -> None:
    (program,) = [text for language, text in tutorial.blocks(PAGE.read_text(encoding="utf-8")) if language == "python"]
    (tmp_path / "drive.py").write_text(program, encoding="utf-8")
    folder = village(tmp_path / "v")
    with started("up", folder, "--port", "0", cwd=tmp_path) as process:
        address = said(process, r"^Open at (\S+)$")[1]
        token = vivarium("token", "create", "script", "--role", "human", "-v", folder, cwd=tmp_path).out.strip()
        for _ in range(2):  # the key makes a second run answer the first one's reply
            done = subprocess.run(
                [sys.executable, "drive.py", address, token], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                check=False,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, "")
            first, kinds, last = done.stdout.splitlines()
            assert re.fullmatch(r"done 0 \d+ vivarium\.toml", first)
            assert kinds.startswith("['task.posted', 'task.claimed',") and "'attempt.ended'" in kinds
            assert last.startswith("the stream says ")
        tasks = vivarium("task", "list", "-v", folder, "--json", cwd=tmp_path).document
        assert len(tasks) == 1
        assert ended(process)[0] == 0


def test_the_page_says_what_each_status_means() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    told = {int(number) for row in rows for number in row.split(",")}
    kinds = [each for module in (errors, problem, replies) for each in vars(module).values() if isinstance(each, type)]
    known = {each.status for each in kinds if issubclass(each, errors.VivariumError)}
    assert {405, *known} <= told


def test_the_page_names_every_role_and_only_routes_that_there_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [role for role in get_args(Role) if f"| `{role}` |" not in text] == []
    routes = json.loads((REPOSITORY / "docs" / "openapi.json").read_text(encoding="utf-8"))["paths"]
    told = set(re.findall(r"`(?:GET|POST) (/[a-z]+)", text))
    assert told
    assert {
        path for path in told if not any(known == path or known.startswith(f"{path}/") for known in routes)
    } == set()
