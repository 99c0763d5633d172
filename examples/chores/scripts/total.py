"""The sum of one column of a table: total.py TABLE COLUMN."""

import csv
import sys
from pathlib import Path

with Path(sys.argv[1]).open(newline="") as table:
    print(sum(int(row[sys.argv[2]]) for row in csv.DictReader(table)))
