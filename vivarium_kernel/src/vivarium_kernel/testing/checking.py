"""The room of checking what is installed: the conformance suite for one distribution, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from vivarium_kernel.errors import Invalid
from vivarium_kernel.testing.reporting import REPORT

LIMIT_SECONDS = 300.0


@frozen
class Checked:
    """How one check of one plugin went: ``passed``, ``failed``, ``excused`` (marked, and it failed as it was said to),
    ``skipped`` (it could not be reached) or ``ended`` (the plugin ended the process, or held it for ever)."""

    plugin: str
    check: str
    result: str
    seconds: float
    why: str = ""


def check(
    distribution: str,
    excused: Mapping[str, str],
    *,
    real_time: bool = False,
    limit_seconds: float = LIMIT_SECONDS,
) -> list[Checked]:
    """Run every check. Raises NotFound for a distribution without plugins, Invalid where pytest is missing."""
    if importlib.util.find_spec("pytest") is None:
        raise Invalid("plugins.check", "The checks are pytest's, which is not installed.", "pip install pytest")
    from vivarium_kernel.testing.conformance import conformance_of

    conformance_of(distribution, excused, real_time=real_time)  # refuses here what it would refuse there
    with tempfile.TemporaryDirectory(prefix="vivarium-check-") as folder:
        place = Path(folder)
        report = place / "report.jsonl"
        report.touch()
        (place / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (place / "test_conformance.py").write_text(
            "from vivarium_kernel.testing.conformance import conformance_of\n\n"
            f"globals().update(conformance_of({distribution!r}, {dict(excused)!r}, real_time={real_time!r}))\n",
            encoding="utf-8",
        )
        said = _run(place, report, limit_seconds)
        lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    return _results([Checked(**line) for line in lines], said)


def _run(place: Path, report: Path, limit_seconds: float) -> str:
    """Let pytest run the file with nothing but our plugins; returns how it ended, in words."""
    arguments = [
        *("-q", "-p", "no:cacheprovider", "-p", "vivarium_kernel.testing.fixtures"),
        *("-p", "vivarium_kernel.testing.reporting", "--rootdir", str(place), "test_conformance.py"),
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "VIVARIUM_"))}
    try:
        done = subprocess.run(  # noqa: S603 - this Python
            [sys.executable, "-m", "pytest", *arguments], cwd=place, capture_output=True, text=True, check=False,
            env=kept | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", REPORT: str(report)}, timeout=limit_seconds,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it held the process for more than {limit_seconds:.0f} s"
    last = [line for line in (done.stderr or done.stdout).strip().splitlines() if line][-1:]
    return f"it ended the process with status {done.returncode}" + (f": {last[0]}" if last else "")


def _results(lines: Sequence[Checked], said: str) -> list[Checked]:
    """One result a check: the worst of its setup, call and teardown; what began and has none ended the process."""
    found: dict[tuple[str, str], Checked] = {}
    for line in lines:
        before = found.get((line.plugin, line.check))
        if before is None or before.result in ("begun", "passed"):
            found[line.plugin, line.check] = line
    results = [
        Checked(each.plugin, each.check, "ended", each.seconds, said) if each.result == "begun" else each
        for each in found.values()
    ]
    return results or [Checked("", "", "ended", 0.0, said)]
