"""The command line: python3 -m tidewatch COMMAND ..."""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path

from tidewatch import alerts, bulletin, harmonics, readings, settings, surge


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tidewatch", description="Ask the tide station's records a question.")
    commands = parser.add_subparsers(dest="command", required=True)

    gaps = commands.add_parser("gaps", help="where the gauge was silent")
    gaps.add_argument("log", type=Path)

    daily = commands.add_parser("daily", help="lowest and highest water of each day, as a table")
    daily.add_argument("log", type=Path)
    daily.add_argument("table", type=Path)

    largest = commands.add_parser("surge", help="the strongest surge")
    largest.add_argument("log", type=Path)
    largest.add_argument("constituents", type=Path)

    warned = commands.add_parser("alerts", help="every tide that reached a threshold, one a line")
    warned.add_argument("log", type=Path)
    warned.add_argument("settings", type=Path)
    warned.add_argument("list", type=Path)

    sheet = commands.add_parser("bulletin", help="the sheet for one day")
    sheet.add_argument("constituents", type=Path)
    sheet.add_argument("day", type=date.fromisoformat)
    return parser


def _gaps(asked: argparse.Namespace) -> str:
    found = list(readings.gaps(readings.load(asked.log)))
    lines = [f"{gap.first_missing:%Y-%m-%dT%H:%MZ} {gap.missing}" for gap in found]
    return "\n".join([*lines, f"missing {sum(gap.missing for gap in found)}"])


def _daily(asked: argparse.Namespace) -> str:
    days = readings.by_day(readings.load(asked.log))
    rows = [f"{day.day},{day.readings},{day.lowest_mm},{day.highest_mm},{day.range_mm}\n" for day in days]
    asked.table.write_text("".join(rows))
    return f"{len(days)} days"


def _surge(asked: argparse.Namespace) -> str:
    top = surge.largest(surge.residuals(readings.load(asked.log), harmonics.load_constituents(asked.constituents)))
    return f"{top.at:%Y-%m-%dT%H:%MZ} observed {top.observed_mm} mm, surge {top.surge_mm} mm"


def _alerts(asked: argparse.Namespace) -> str:
    found = alerts.alerts(readings.load(asked.log), settings.thresholds(settings.load(asked.settings)))
    asked.list.write_text("".join(f"{alert}\n" for alert in found))
    floods = sum(alert.kind == "flood" for alert in found)
    return f"{len(found)} alerts, {floods} of them floods"


def _bulletin(asked: argparse.Namespace) -> str:
    return bulletin.bulletin(asked.day, harmonics.load_constituents(asked.constituents))


def main(arguments: list[str] | None = None) -> int:
    """Answer one question; exit status 2 for a file that can't be read, with the fault on one line."""
    asked = _parser().parse_args(arguments)
    answers = {"gaps": _gaps, "daily": _daily, "surge": _surge, "alerts": _alerts, "bulletin": _bulletin}
    try:
        print(answers[asked.command](asked))
    except (OSError, readings.BadLine, settings.BadSetting) as error:
        print(f"tidewatch: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
