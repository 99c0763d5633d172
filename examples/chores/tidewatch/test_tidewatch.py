"""What Tidewatch promises; run with: python3 -m unittest tidewatch.test_tidewatch"""

import unittest
from datetime import UTC, datetime, timedelta

from tidewatch.alerts import alerts
from tidewatch.bulletin import kind_of_day
from tidewatch.harmonics import MEAN_LEVEL_MM, Constituent, Turn, height_mm, turns
from tidewatch.readings import BadLine, Reading, by_day, gaps, parse
from tidewatch.settings import BadSetting, Thresholds, thresholds

NOON = datetime(2025, 3, 14, 12, tzinfo=UTC)


def reading(minutes: int, level_mm: int, good: bool = True) -> Reading:
    return Reading(NOON + timedelta(minutes=minutes), level_mm, good, 12.6)


class Readings(unittest.TestCase):
    def test_a_line_is_read_whole(self) -> None:
        self.assertEqual(parse("2025-03-14T12:00Z 3127 mm q=ok batt=12.6"), reading(0, 3127))

    def test_a_line_that_is_no_reading_is_named_with_its_number(self) -> None:
        with self.assertRaisesRegex(BadLine, "line 7 "):
            parse("2025-03-14T12:00Z 3127 inches q=ok batt=12.6", 7)

    def test_a_gap_counts_what_is_missing(self) -> None:
        self.assertEqual([gap.missing for gap in gaps([reading(0, 1), reading(15, 1), reading(75, 1)])], [3])

    def test_a_bad_reading_is_nobodys_highest_water(self) -> None:
        self.assertEqual(by_day([reading(0, 3000), reading(15, 9000, good=False)])[0].highest_mm, 3000)


class Tides(unittest.TestCase):
    def test_without_sun_and_moon_the_sea_is_flat(self) -> None:
        self.assertEqual(height_mm(NOON, []), MEAN_LEVEL_MM)

    def test_the_tide_turns_twice_in_one_wave(self) -> None:
        wave = [Constituent("M2", 1000, 30, 90)]
        self.assertEqual([turn.kind for turn in turns(NOON, NOON + timedelta(hours=12), wave)], ["high", "low"])

    def test_a_small_range_is_neaps(self) -> None:
        self.assertEqual(kind_of_day([Turn(NOON, "high", 4000), Turn(NOON, "low", 2100)]), "neaps")


class Warnings(unittest.TestCase):
    def test_one_tide_gives_one_alert_at_its_top(self) -> None:
        found = alerts([reading(0, 5100), reading(15, 5650), reading(30, 5200)], Thresholds(5000, 5600))
        self.assertEqual([str(alert) for alert in found], ["2025-03-14T12:15Z flood 5650"])

    def test_a_spike_warns_nobody(self) -> None:
        self.assertEqual(alerts([reading(0, 9000, good=False)], Thresholds(5000, 5600)), [])

    def test_thresholds_the_wrong_way_round_are_refused(self) -> None:
        with self.assertRaisesRegex(BadSetting, "must lie below"):
            thresholds({"alerts.watch_mm": "5600", "alerts.flood_mm": "5000"})


if __name__ == "__main__":
    unittest.main()
