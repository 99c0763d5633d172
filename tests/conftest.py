"""The room of the test run: which kernel is tested, what runs by default, in which order and on how many cores."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

pytest_plugins = ["promises"]

INSTALL = "pip install uv && uv sync, then: uv run pytest"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vivarium")
    group.addoption("--long", action="store_true", help="run the tests marked long too: minutes to hours")
    group.addoption(
        "--thorough", action="store_true", help="run the tests marked thorough too, and each with all its cases"
    )
    group.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in an order drawn from this seed")


def pytest_configure() -> None:
    # At the repository's root an uninstalled kernel imports as an empty namespace, and every test would then fail
    # for a reason that it does not name.
    try:
        import vivarium_kernel
    except ModuleNotFoundError as fault:
        raise pytest.UsageError(f"{fault.name} is not installed in this Python: {INSTALL}") from None
    if vivarium_kernel.__file__ is None:
        raise pytest.UsageError(f"vivarium_kernel is not installed in this Python: {INSTALL}")
    # Containers often forbid Python to keep what it compiled. The suite starts hundreds of processes, each of which
    # would compile the whole kernel again; its workers and theirs inherit this.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # No test fails for being slow: what is measured is measured in benchmarks/.
    hypothesis.settings.register_profile(
        "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("untimed")
    # A width is told to those who are to fit it, by each test itself; the one of this run's terminal is not theirs.
    os.environ.pop("COLUMNS", None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--thorough"):
        # Those that have more to do in a thorough run belong to it, so that `-m thorough` leaves none of that out.
        for item in items:
            if "thorough" in getattr(item, "fixturenames", ()):
                item.add_marker("thorough")
    for word in ("long", "thorough"):
        if not config.getoption(f"--{word}"):
            for item in items:
                if item.get_closest_marker(word):
                    item.add_marker(pytest.mark.skip(reason=f"{word}: runs with --{word}"))
    seed = config.getoption("--shuffle")
    if seed is not None:
        random.Random(seed).shuffle(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A test that skips for want of a component fails where TESTS_NEED says that it is there."""
    report = yield
    needed = [name for name in os.environ.get("TESTS_NEED", "").split(",") if name]
    if report.skipped and any(name in str(report.longrepr).lower() for name in needed):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not skip here (TESTS_NEED): {call.excinfo and call.excinfo.value}"
    return report


def pytest_report_header(config: pytest.Config) -> list[str]:
    import vivarium_kernel

    seed = config.getoption("--shuffle")
    return [f"kernel: {vivarium_kernel.__file__}"] + ([f"order: --shuffle {seed}"] if seed is not None else [])


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One process for named files, where starting workers costs more than they save; else one more than cores.

    A third of its time the suite waits: for leases, for beats, and for processes to end.
    """
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    if named and all(Path(str(arg).split("::")[0]).is_file() for arg in config.args):
        return 0
    return len(os.sched_getaffinity(0)) + 1


@pytest.fixture(scope="module")
def closing() -> Iterator[contextlib.ExitStack]:
    """What each test of a file need not wait for, but the last of them must: servers that take their time to end."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    """Whether a test that takes one path many times takes it as often as it can: a few times will do by default."""
    return bool(request.config.getoption("--thorough"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder of the whole repository."""
    return Path(__file__).resolve().parent.parent
