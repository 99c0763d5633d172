"""Makes the station's March of 2025 from one seed: three logs with their checksums, and three tables.

Run from the village folder, with a folder to write to: python3 -m tools.make_material .
The same seed gives the same bytes. Only `Random.random` is drawn from: its numbers are the same in every Python.
"""

import hashlib
import math
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random

from tidewatch import VERSION
from tidewatch.harmonics import height_mm, load_constituents, turns
from tidewatch.readings import STEP

HERE = Path(__file__).resolve().parent.parent
START = datetime(2025, 3, 1, tzinfo=UTC)
END = datetime(2025, 4, 1, tzinfo=UTC)
STORM = datetime(2025, 3, 14, 13, 30, tzinfo=UTC)
SILENCES = (  # the first reading that is missing, and how many are
    (datetime(2025, 3, 5, 2, 30, tzinfo=UTC), 17),  # a flat battery
    (datetime(2025, 3, 14, 14, 15, tzinfo=UTC), 9),  # the wave that went over the hut
    (datetime(2025, 3, 27, 13, 15, tzinfo=UTC), 6),  # a mouse in the cable duct
)
CALLERS = (
    ["Gannet"] * 9
    + ["Eider"] * 6
    + ["Anna-Brae"] * 5
    + ["Northern-Diver", "Saint-Orrin"] * 4
    + ["Island-Lass", "Fair-Morag"] * 3
    + ["Kittiwake", "Half-Moon", "Merganser"] * 2
    + ["Bonnie-Tern", "Corncrake", "Dunlin", "Lapwing", "Oystercatcher", "Pole-Star", "Whimbrel"]
    + ["Blue-Halibut", "Margit-af-Stavn", "Petrel-II"]
)
SAID = {
    "HAIL": ["good morning Greyling", "radio check please", "how do you read", "is anyone at the set"],
    "BERTH": ["asks for a berth tonight", "berth taken", "asks who lies at the inner quay", "will raft up outside"],
    "WEATHER": ["asks for the afternoon", "reports fog at Oxna", "reports a swell", "asks if it will blow"],
    "DEPART": ["leaves for Holm", "leaves for the banks", "leaves on the ebb", "leaves for Sandvoe"],
    "TIDE": ["asks for high water", "asks for the depth on the bar", "reports two metres at the beacon"],
}
DISTRESS = [
    ("2025-03-14T11:42:18Z", "ch16 Kittiwake MAYDAY taking water, one mile north of Oxna, two aboard"),
    ("2025-03-14T11:43:05Z", "ch16 Greyling-Point MAYDAY-RELAY Kittiwake, one mile north of Oxna, two aboard"),
    ("2025-03-14T11:44:31Z", "ch16 Oystercatcher MAYDAY-REPLY launching now"),
    ("2025-03-14T12:58:47Z", "ch16 Oystercatcher MAYDAY-END both aboard and warm, Kittiwake in tow"),
]


def pick(random: Random, choices: Sequence[str]) -> str:
    return choices[int(random.random() * len(choices))]


def clock(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def gauge_log(random: Random) -> list[str]:
    """Tide, swell and two blows of wind; now and then a wake makes a spike, and three times nothing is written."""
    waves = load_constituents(HERE / "tables" / "constituents.csv")
    silent = {first + number * STEP for first, count in SILENCES for number in range(count)}
    lines = []
    volts = 12.9
    for number in range((END - START) // STEP):
        at = START + number * STEP
        hours = (at - STORM).total_seconds() / 3600
        wind = 1140 * math.exp(-((hours / 6) ** 2)) + 260 * math.exp(-(((hours - 260) / 9) ** 2))
        level = height_mm(at, waves) + wind + 44 * (random.random() - 0.5)
        spike = random.random() < 0.011
        if spike:
            level += 450 + 700 * random.random()
        volts = 12.9 if at.hour == 12 and at.day % 9 == 5 else volts - 0.0012
        if at not in silent:
            lines.append(f"{at:%Y-%m-%dT%H:%MZ} {round(level)} mm q={'bad' if spike else 'ok'} batt={volts:.1f}")
    return lines


def radio_log(random: Random) -> list[str]:
    """A month of calls, more by day than by night, and one bad noon."""
    lines = [f"{at} {said}" for at, said in DISTRESS]
    for day in range(31):
        for _ in range(17 + int(random.random() * 13)):
            hour = 5 + 17 * (random.random() + random.random()) / 2
            at = START + timedelta(days=day, seconds=int(hour * 3600))
            kind = pick(random, list(SAID))
            channel = "ch16" if kind == "HAIL" else pick(random, ["ch10", "ch12", "ch12", "ch12"])
            lines.append(f"{clock(at)} {channel} {pick(random, CALLERS)} {kind} {pick(random, SAID[kind])}")
    return sorted(lines)


def system_log(random: Random, gauge: Sequence[str]) -> list[str]:
    """What the program wrote while all this happened."""
    lines = [f"{clock(START + timedelta(seconds=2))} INFO main started, version {VERSION}"]
    stored: dict[str, int] = {}
    for line in gauge:
        at, level, _, quality, _ = line.split()
        stored[at[:13]] = stored.get(at[:13], 0) + 1
        if quality == "q=bad":
            lines.append(f"{at[:-1]}:03Z WARN gauge reading of {level} mm is a spike, kept as bad")
    lines += [f"{hour}:59:30Z INFO gauge {count} readings stored" for hour, count in stored.items()]
    for first, count in SILENCES:
        lines.append(f"{clock(first + timedelta(minutes=1))} ERROR gauge no reading, the line is silent")
        back = first + count * STEP - timedelta(minutes=2)
        lines.append(f"{clock(back)} INFO main started, version {VERSION}")
    for day in range(31):
        morning = START + timedelta(days=day, hours=7)
        lines.append(f"{clock(morning)} INFO bulletin written for {morning:%Y-%m-%d}")
        if random.random() < 0.12:
            lines.append(f"{clock(morning + timedelta(seconds=9))} ERROR bulletin the printer is out of paper")
        for _ in range(int(random.random() * 4)):
            called = START + timedelta(days=day, seconds=int(86400 * random.random()))
            lines.append(f"{clock(called)} WARN radio far gauge at Oxna Rock does not answer")
            if random.random() < 0.3:
                lines.append(f"{clock(called + timedelta(seconds=40))} ERROR radio far gauge given up after 3 calls")
        if day % 7 == 2:
            lines.append(f"{clock(morning + timedelta(hours=3))} WARN clock drifted by {int(random.random() * 900)} ms")
    return sorted(lines)


def high_waters(_: Random) -> list[str]:
    """The printed tide table: every turn of the predicted tide."""
    found = turns(START, END, load_constituents(HERE / "tables" / "constituents.csv"))
    return ["time,kind,level_mm"] + [f"{turn.at:%Y-%m-%dT%H:%MZ},{turn.kind},{turn.level_mm}" for turn in found]


def visits(random: Random) -> list[str]:
    """Nights at the quay: eight pounds fifty a night, six for a creel boat."""
    rows = ["date,vessel,nights,fee_pence"]
    small = {"Bonnie-Tern", "Fair-Morag", "Half-Moon", "Lapwing", "Whimbrel"}
    for day in range(31):
        for _ in range(2 + int(random.random() * 6)):
            vessel, nights = pick(random, CALLERS), 1 + int(3 * random.random() ** 2)
            rows.append(f"{date(2025, 3, 1 + day)},{vessel},{nights},{nights * (600 if vessel in small else 850)}")
    return rows


def watches(random: Random) -> list[str]:
    """Who stood which watch; nobody stands two in a row."""
    rows, before = ["date,watch,keeper"], ""
    for day in range(31):
        for watch in ("morning", "afternoon", "evening", "night"):
            before = pick(random, [keeper for keeper in ("Ines", "Mara", "Mara", "Tobias") if keeper != before])
            rows.append(f"{date(2025, 3, 1 + day)},{watch},{before}")
    return rows


def main(folder: Path) -> None:
    random = Random(1896)  # noqa: S311 - the year the station was built; nothing here is a secret
    gauge = gauge_log(random)
    made = {
        "logs/gauge.log": gauge,
        "logs/radio.log": radio_log(random),
        "logs/system.log": system_log(random, gauge),
        "tables/high_waters.csv": high_waters(random),
        "tables/visits.csv": visits(random),
        "tables/watches.csv": watches(random),
    }
    made["logs/SHA256SUMS"] = [
        f"{hashlib.sha256(_text(lines)).hexdigest()}  {name.removeprefix('logs/')}"
        for name, lines in made.items()
        if name.startswith("logs/")
    ]
    for name, lines in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_text(lines))


def _text(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
