"""What many plugins cost: the command line beside 100 installed distributions, and the start with 30 plugins on."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import common

VIVARIUM = Path(sys.executable).with_name("vivarium")
DISTRIBUTIONS = 100
ENABLED = 30
# A plugin as people write them: some hooks, a config, a class or two, a table of its own.
SOURCE = '''
"""A plugin for measurements."""
from __future__ import annotations

from attrs import frozen
from sqlite_utils import Migrations

from vivarium_kernel import Plugin, Section, hookimpl

migrations = Migrations("{name}")


@migrations()
def m001(db):
    db["{name}_things"].create({{"id": int, "what": str}}, pk="id")


@frozen
class Config:
    limit: int = 10


class It(Plugin):
    name = "{name}"
    Config = Config
    migrations = migrations

    @hookimpl
    def enrich_prompt(self, resident, task, view):
        return []

    @hookimpl
    def on_tick(self, now, tx):
        pass
'''


@contextlib.contextmanager
def installed(count: int) -> Iterator[dict[str, str]]:
    """Variables of an environment in which ``count`` more distributions are installed, each with one plugin."""
    with tempfile.TemporaryDirectory(prefix="vivarium-benchmark-") as name:
        folder = Path(name)
        for number in range(count):
            plugin = f"many{number}"
            (folder / f"zz_{plugin}").mkdir()
            (folder / f"zz_{plugin}" / "__init__.py").write_text(SOURCE.format(name=plugin), encoding="utf-8")
            info = folder / f"vivarium_many_{number}-1.0.dist-info"
            info.mkdir()
            about = (
                "".join(f"Classifier: Topic :: Number {line}\n" for line in range(20)) + "\n" + "A long page.\n" * 200
            )
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: vivarium-many-{number}\nVersion: 1.0\n{about}"
            )
            (info / "entry_points.txt").write_text(f"[vivarium.plugins]\n{plugin} = zz_{plugin}:It\n")
            (info / "RECORD").write_text(f"zz_{plugin}/__init__.py,,\n{info.name}/METADATA,,\n")
        subprocess.run([sys.executable, "-m", "compileall", "-q", folder], check=True)
        yield {**os.environ, "PYTHONPATH": name}


def milliseconds_of(arguments: Sequence[str | Path], environ: dict[str, str], times: int) -> float:
    """The median time in milliseconds of a whole command."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run([VIVARIUM, *arguments], check=True, capture_output=True, env=environ)
        found.append((time.perf_counter() - begun) * 1000)
    return statistics.median(found)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    times = 5 if arguments.quick else 15
    figures: dict[str, float] = {}
    with common.folder(3) as village, installed(DISTRIBUTIONS) as environ:
        figures["help_100_installed_ms"] = milliseconds_of(["--help"], environ, times)
        listing = ["plugins", "list", "--village", village]
        figures["list_100_installed_ms"] = milliseconds_of(listing, environ, times)
        names = [f"many{number}" for number in range(DISTRIBUTIONS)]
        enable = [VIVARIUM, "plugins", "enable", *names, "--village", village]
        subprocess.run(enable, check=True, env=environ, stdout=subprocess.DEVNULL)
        figures["list_100_recorded_ms"] = milliseconds_of(listing, environ, times)
    with common.folder(3) as village, installed(ENABLED) as environ:
        run = ["run", village]
        figures["first_start_30_on_ms"] = milliseconds_of(run, environ, 1)  # founds the village and makes the tables
        figures["start_30_on_ms"] = milliseconds_of(run, environ, times)
        figures["start_none_on_ms"] = milliseconds_of(run, environ | {"VIVARIUM_PLUGINS": ""}, times)
    return figures


if __name__ == "__main__":
    common.main(measure, __doc__ or "")
