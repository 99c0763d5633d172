"""What the stores lack, as a table of what to order: order.py STORES TARGET."""

import csv
import sys
from pathlib import Path

with Path(sys.argv[1]).open(newline="") as stores:
    rows = [row for row in csv.DictReader(stores) if int(row["in_stock"]) < int(row["wanted"])]
with Path(sys.argv[2]).open("w", newline="") as target:
    order = csv.writer(target, lineterminator="\n")
    order.writerow(["item", "number", "cost_pence"])
    for row in rows:
        number = int(row["wanted"]) - int(row["in_stock"])
        order.writerow([row["item"], number, number * int(row["price_pence"])])
print(len(rows), "items to order")
