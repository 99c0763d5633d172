"""Days among the first N of both tables: springs.py HIGHEST LOWEST N.

Wind can lift one high water. Only sun and moon lift the high waters and lower the low ones on the same day.
"""

import sys
from pathlib import Path

first, second, number = sys.argv[1:]
highest, lowest = (
    {line.split(",")[0] for line in Path(name).read_text().splitlines()[: int(number)]} for name in (first, second)
)
print("springs:", *sorted(highest & lowest))
print("only high:", *sorted(highest - lowest))
