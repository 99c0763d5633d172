"""The order as a letter to the chandler: letter.py ORDER TARGET."""

import csv
import sys
from pathlib import Path

with Path(sys.argv[1]).open(newline="") as table:
    rows = list(csv.DictReader(table))
pence = sum(int(row["cost_pence"]) for row in rows)
lines = [
    "Dear Mr Harcus,",
    "",
    "the station would be glad of:",
    "",
    *(f"- {row['number']} x {row['item']}" for row in rows),
    "",
    f"By our list that makes {pence // 100}.{pence % 100:02d} pounds.",
    "",
    "Mara, Greyling Point",
]
Path(sys.argv[2]).write_text("\n".join(lines) + "\n")
print(lines[-3])
