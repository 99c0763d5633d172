"""Promises about docs/planning.md: what it shows can be typed and answers so, and its tables are the code's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from kernel.cli.running import environment
from vivarium_kernel.errors import Invalid
from vivarium_plugins_intent.checking import check
from vivarium_plugins_intent.sharing import shared
from vivarium_plugins_intent.splitting import LONG_CHARACTERS

RUN = """
import sys
from vivarium_kernel.cli import main
from vivarium_kernel.cli.refusing import answered
from vivarium_plugins_intent.command import plan
words = sys.argv[1:]
if words[0] == "plan":
    sys.exit(answered(lambda: plan.main(words[1:], prog_name="vivarium plan", standalone_mode=False)))
sys.exit(main(words))
"""


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "planning.md").read_text(encoding="utf-8")


def fits(shown: str, answered: str) -> bool:
    """Whether a shown line is among those that were answered; … is anything, and the width of columns is no matter."""
    like = ".*".join(re.escape(" ".join(part.split())) for part in shown.split("…"))
    return any(re.fullmatch(like, " ".join(line.split())) for line in answered.splitlines())


def test_what_the_page_shows_can_be_typed_and_answers_so(page: str, installed: Path, tmp_path: Path) -> None:
    session = "".join(re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    typed = 0
    place = tmp_path
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        line, *shown = part.splitlines()
        words = shlex.split(line)
        if words[0] == "cd":
            place = place / words[1]
            continue
        done = subprocess.run(
            [sys.executable, "-c", RUN, *words[1:]], cwd=place, env=environment({"PYTHONPATH": str(installed)}),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [one for one in shown if not fits(one, done.stdout)] == [], done.stdout
        typed += 1
    assert typed == 3


def test_the_pages_table_of_checks_is_what_is_checked(page: str) -> None:
    table = page[page.index("| stated |") :].partition("\n\n")[0]
    stated = table.splitlines()[2]
    for limit in re.findall(r'"([^"]+)"', stated):
        assert not check("one", [limit], []).unchecked, limit
    for limit in re.findall(r'"([^"]+)"', table.splitlines()[5]):
        assert not check("one", [], [f"Never {limit}"]).unchecked, limit


def test_the_pages_figures_are_the_codes(page: str) -> None:
    assert f"{LONG_CHARACTERS} characters or more" in page
    with pytest.raises(Invalid) as refused:
        shared(100_000, [1] * 4, 30_000)
    assert refused.value.message.removesuffix(".") in " ".join(page.split())
