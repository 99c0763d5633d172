"""Calls the far gauge at Oxna Rock: far_gauge.py CALLS.

It answers the third call. How often it was called stands in the file CALLS, so that the next try knows.
"""

import sys
from pathlib import Path

calls = Path(sys.argv[1])
number = int(calls.read_text()) + 1 if calls.exists() else 1
calls.write_text(f"{number}\n")
if number < 3:
    print(f"call {number}: nothing but the sea", file=sys.stderr)
    sys.exit(1)
print("Oxna Rock: battery 12.4 V, float free, all well")
