"""The room of the report of ``vivarium plugins check``: pytest's results as lines of JSON, as they come.

It is loaded by the process that checks (``-p``), which may end at any moment: each line is written before what follows.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

REPORT = "VIVARIUM_CHECK_REPORT"


def pytest_runtest_logstart(nodeid: str) -> None:
    _write(nodeid, result="begun", seconds=0.0, why="")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        excuse = getattr(report, "wasxfail", None)
        why = str(report.longrepr) if report.failed else ""
        if report.skipped and excuse is None:
            why = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _write(
            report.nodeid,
            result="excused" if excuse is not None and report.skipped else report.outcome,
            seconds=report.duration,
            why=excuse or why,
        )


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _write("", result="failed", seconds=0.0, why=str(report.longrepr))


def _write(nodeid: str, **fields: Any) -> None:
    _, _, name = nodeid.partition("::")
    plugin, _, check = name.partition("::")
    line = {"plugin": plugin.removeprefix("Test_"), "check": check.removeprefix("test_"), **fields}
    with Path(os.environ[REPORT]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
