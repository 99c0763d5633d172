"""The room of the promises: which test holds which promise, written to docs/promises.md.

A test says what it holds with ``@pytest.mark.promise("lapsed-lease")``, a name from docs/promises.toml, or with a
promise in words of its own (two words or more). When the whole suite has run, every promise of that file must have a
test that passed, none may have one that failed, and docs/promises.md must say so. ``--write-promises`` writes the page;
with ``--collect-only`` in seconds, with the last results.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import define, field, frozen

LIST = "docs/promises.toml"
PAGE = "docs/promises.md"
COMMAND = "uv run pytest --write-promises"
OWN_WORDS = "Further promises"
HEAD = f"""# Promises

What Vivarium promises, the tests that hold each promise, and their last result. This page is written by
`{COMMAND}` from the tests and from `{LIST}`; the test run fails when a promise has no test that passes,
and when this page names other promises or tests than there are. The results are those of the day it was written.
"""
ROW = re.compile(r"^  - `(?P<test>[^`]+)`: (?P<result>.+)$", re.MULTILINE)


@frozen
class Promise:
    """A promise that must be held: its name for tests, its section on the page, its words."""

    name: str
    section: str
    text: str


@define
class Held:
    """What is known of one test function: the promises it names, and how its cases went."""

    names: set[str] = field(factory=set)
    results: set[str] = field(factory=set)

    def result(self, before: str | None) -> str:
        """One word for all cases; a test that was skipped keeps its last result."""
        if "failed" in self.results:
            return "failed"
        if "passed" in self.results:
            return "passed"
        return before or "not run yet"


def read_promises(path: Path) -> list[Promise]:
    """The promises of docs/promises.toml: a table is a section, a key is a name, a value is the promise.

    Raises UsageError with the file's fault in words.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as fault:
        raise pytest.UsageError(f"{path}: {fault}") from None
    promises: list[Promise] = []
    for section, table in tables.items():
        if not isinstance(table, dict) or not all(isinstance(text, str) for text in table.values()):
            raise pytest.UsageError(f'{path}: {section}: write [section] and below it name = "the promise" lines')
        promises += [Promise(name, section, text) for name, text in table.items()]
    names = [promise.name for promise in promises]
    if twice := {name for name in names if names.count(name) > 1}:
        raise pytest.UsageError(f"{path}: named twice: {', '.join(sorted(twice))}")
    return promises


def render(promises: list[Promise], held: Mapping[str, Held], results: Mapping[str, str]) -> str:
    """The page: every promise of the list in its order, then those that tests put in their own words."""
    own = {name for test in held.values() for name in test.names if " " in name}
    everything = [*promises, *(Promise(text, OWN_WORDS, text) for text in sorted(own))]
    lines = [HEAD]
    section = None
    for promise in everything:
        if promise.section != section:
            section = promise.section
            lines += [f"## {section}", ""]
        tests = sorted(test for test, known in held.items() if promise.name in known.names)
        lines.append(f"- **{promise.text}**")
        lines += [f"  - `{test}`: {results[test]}" for test in tests] or ["  - no test holds this yet"]
        lines.append("")
    return "\n".join(lines)


def structure(page: str) -> str:
    """The page without the last results: those are as old as its writing, and ``faults`` judges those of now."""
    return ROW.sub(lambda row: f"  - {row['test']}", page)


def faults(promises: list[Promise], held: Mapping[str, Held], results: Mapping[str, str]) -> list[str]:
    """What breaks the promises: those without a test that passes, and those with one that failed."""
    found = []
    for promise in promises:
        tests = [test for test, known in held.items() if promise.name in known.names]
        failed = [test for test in tests if results[test] == "failed"]
        passed = [test for test in tests if "passed" in held[test].results]  # now, not on the page
        if failed:
            found.append(f"{promise.name}: failed: {', '.join(sorted(failed))}")
        elif not passed:
            found.append(f"{promise.name}: no test that ran and passed holds it ({promise.text})")
    return found


def ran_everything(config: pytest.Config) -> bool:
    """Whether this run was asked for the whole suite: no files, no selection."""
    selections = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "stepwise", "collectonly")
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not any(
        config.getoption(name, default=None) for name in selections
    )


class Ledger:
    """Collects, in the process that reports to the user, what each test held; under xdist from its workers' reports."""

    def __init__(self, root: Path, promises: list[Promise], write: bool) -> None:
        self._list = promises
        self._page = root / PAGE
        self._write = write
        self._held: dict[str, Held] = {}
        self.said: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        names = [str(value) for key, value in report.user_properties if key == "promise"]
        if not names:
            return
        test = self._held.setdefault(report.nodeid.split("[")[0], Held())
        test.names.update(names)
        if report.failed:
            test.results.add("failed")
        elif report.when == "call" and report.passed:
            test.results.add("passed")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if not (self._write and session.config.getoption("collectonly", default=False)):
            return
        for item in session.items:
            names = {str(value) for key, value in item.user_properties if key == "promise"}
            if names:
                self._held.setdefault(item.nodeid.split("[")[0], Held()).names.update(names)
        before = self._page.read_text(encoding="utf-8") if self._page.exists() else ""
        last = {row["test"]: row["result"] for row in ROW.finditer(before)}
        results = {name: test.result(last.get(name)) for name, test in self._held.items()}
        self._page.write_text(render(self._list, self._held, results), encoding="utf-8")
        self.said.append(f"wrote {PAGE}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        if not ran_everything(session.config):
            if self._write and not session.config.getoption("collectonly", default=False):
                self.said.append(f"{PAGE} was not written: that takes the whole suite, so name no tests")
                session.exitstatus = pytest.ExitCode.USAGE_ERROR
            return
        before = self._page.read_text(encoding="utf-8") if self._page.exists() else ""
        last = {row["test"]: row["result"] for row in ROW.finditer(before)}
        results = {name: test.result(last.get(name)) for name, test in self._held.items()}
        page = render(self._list, self._held, results)
        if self._write:
            self._page.write_text(page, encoding="utf-8")
            self.said.append(f"wrote {PAGE}")
        found = faults(self._list, self._held, results)
        if structure(page) != structure(before) and not self._write and exitstatus == pytest.ExitCode.OK:
            found.append(f"{PAGE} is not what the tests say: write it with `{COMMAND}`")
        if found:
            self.said += found
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.said:
            terminalreporter.section("promises")
            for line in self.said:
                terminalreporter.line(line)


class Marks:
    """Reads the marks where tests are collected and run, and sends them along with each report."""

    def __init__(self, promises: list[Promise]) -> None:
        self._known = {promise.name for promise in promises}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        for mark in item.iter_markers("promise"):
            item.user_properties += [("promise", str(name)) for name in mark.args]

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        for key, name in item.user_properties:
            if key == "promise" and name not in self._known and " " not in str(name):
                pytest.fail(
                    f'{LIST} has no promise "{name}": add it there, or say it in words of its own', pytrace=False
                )


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("promises")
    group.addoption("--write-promises", action="store_true", help=f"write {PAGE} from this run of the whole suite")


def pytest_configure(config: pytest.Config) -> None:
    promises = read_promises(config.rootpath / LIST)
    config.pluginmanager.register(Marks(promises), "promise-marks")
    if not hasattr(config, "workerinput"):  # an xdist worker reports to the process that started it
        write = bool(config.getoption("--write-promises"))
        config.pluginmanager.register(Ledger(config.rootpath, promises, write), "promise-ledger")
