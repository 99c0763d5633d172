"""The different values of one column, sorted, as a file: column.py FILE COLUMN SEPARATOR TARGET."""

import sys
from pathlib import Path

source, column, separator, target = sys.argv[1:]
lines = Path(source).read_text().splitlines()
if source.endswith(".csv"):
    lines = lines[1:]
values = sorted({line.split(separator)[int(column) - 1] for line in lines})
Path(target).write_text("".join(f"{value}\n" for value in values))
print(len(values), "different values")
