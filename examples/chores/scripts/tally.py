"""How often each value stands in a column: tally.py FILE COLUMN [SEPARATOR]; counted from 1, blanks by default."""

import sys
from collections import Counter
from pathlib import Path

lines = Path(sys.argv[1]).read_text().splitlines()
column = int(sys.argv[2]) - 1
separator = sys.argv[3] if len(sys.argv) > 3 else None
found = Counter(line.split(separator)[column] for line in lines)
for value, count in sorted(found.items(), key=lambda pair: (-pair[1], pair[0])):
    print(count, value)
