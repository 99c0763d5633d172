"""The room of the test run: which kernel is tested, what runs by default, in which order and on how many cores."""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["promises"]

INSTALL = "pip install uv && uv sync, then: uv run pytest"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vivarium")
    group.addoption("--long", action="store_true", help="run the tests marked long too: minutes to hours")
    group.addoption("--thorough", action="store_true", help="run the tests marked thorough too: some minutes, in CI")
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
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
    """One process for named files, where starting workers costs more than they save; every core for the suite."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    return 0 if named and all(Path(str(arg).split("::")[0]).is_file() for arg in config.args) else None


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder of the whole repository."""
    return Path(__file__).resolve().parent.parent
