"""Promises about the page of promises: it is what the tests say, and it can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LISTED = '["Money"]\nbalance = "The books balance."\n'
SUITE = """
import pytest

@pytest.mark.promise("balance")
@pytest.mark.parametrize("case", [1, 2])
def test_the_books_balance(case):
    assert case

@pytest.mark.promise("Nobody is late.")
def test_nobody_is_late():
    pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A repository with one listed promise, and a test suite that holds it."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "docs" / "promises.toml").write_text(LISTED)
    (tmp_path / "tests" / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ntestpaths = tests\naddopts = -p xdist.plugin -p promises\nmarkers = promise(*names): see the docs\n"
    )
    return tmp_path


def run(suite: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=suite,
        env={"PYTHONPATH": str(Path(__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def page(suite: Path) -> str:
    return (suite / "docs" / "promises.md").read_text()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_page_names_each_promise_its_tests_and_their_result(suite: Path, workers: str) -> None:
    assert run(suite, "-n", workers, "--write-promises")[0] == 0
    assert page(suite).endswith(
        "## Money\n\n"
        "- **The books balance.**\n"
        "  - `tests/test_suite.py::test_the_books_balance`: passed\n\n"
        "## Further promises\n\n"
        "- **Nobody is late.**\n"
        "  - `tests/test_suite.py::test_nobody_is_late`: passed\n"
    )
    written = page(suite)
    assert run(suite, "-n", workers, "--write-promises")[0] == 0
    assert page(suite) == written


def test_a_promise_that_no_test_holds_breaks_the_run(suite: Path) -> None:
    (suite / "docs" / "promises.toml").write_text(LISTED + 'floors = "No account falls below its floor."\n')
    status, said = run(suite, "--write-promises")
    assert status == 1
    assert "floors: no test that ran and passed holds it (No account falls below its floor.)" in said
    assert "no test holds this yet" in page(suite)


def test_a_promise_whose_test_fails_is_named(suite: Path) -> None:
    (suite / "tests" / "test_suite.py").write_text(SUITE.replace("assert case", "assert case == 1"))
    status, said = run(suite)
    assert status == 1
    assert "balance: failed: tests/test_suite.py::test_the_books_balance" in said


def test_a_promise_whose_test_is_skipped_is_not_held(suite: Path) -> None:
    (suite / "tests" / "test_suite.py").write_text(SUITE.replace("assert case", "pytest.skip('not today')"))
    status, said = run(suite)
    assert status == 1
    assert "balance: no test that ran and passed holds it" in said


def test_a_page_that_is_not_what_the_tests_say_breaks_the_run(suite: Path) -> None:
    run(suite, "--write-promises")
    assert run(suite)[0] == 0
    (suite / "docs" / "promises.md").write_text(page(suite).replace("The books balance.", "The books shine."))
    status, said = run(suite)
    assert status == 1
    assert "docs/promises.md is not what the tests say" in said


def test_a_page_written_on_a_bad_day_breaks_no_good_one(suite: Path) -> None:
    run(suite, "--write-promises")
    (suite / "docs" / "promises.md").write_text(page(suite).replace(": passed", ": failed"))
    assert run(suite)[0] == 0


def test_a_skipped_test_keeps_its_last_result_on_the_page(suite: Path) -> None:
    run(suite, "--write-promises")
    late = SUITE.replace("def test_nobody_is_late():\n    pass", "def test_nobody_is_late():\n    pytest.skip('long')")
    (suite / "tests" / "test_suite.py").write_text(late)
    assert run(suite)[0] == 0


def test_a_part_of_the_suite_is_not_held_to_every_promise(suite: Path) -> None:
    (suite / "docs" / "promises.toml").write_text(LISTED + 'floors = "No account falls below its floor."\n')
    assert run(suite, "tests/test_suite.py")[0] == 0
    assert run(suite, "-k", "late")[0] == 0


def test_the_page_is_written_from_the_whole_suite_only(suite: Path) -> None:
    status, said = run(suite, "-k", "late", "--write-promises")
    assert status != 0
    assert "that takes the whole suite" in said
    assert not (suite / "docs" / "promises.md").exists()


def test_a_name_that_is_not_in_the_list_fails_its_test(suite: Path) -> None:
    (suite / "tests" / "test_suite.py").write_text(SUITE.replace('"balance"', '"balanec"'))
    status, said = run(suite, "tests/test_suite.py")
    assert status == 1
    assert 'docs/promises.toml has no promise "balanec"' in said
