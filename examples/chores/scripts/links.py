"""Do the links of these pages lead anywhere? links.py PAGE ... names each dead one; status 1 if there is any."""

import re
import sys
from pathlib import Path

alive = dead = 0
for name in sys.argv[1:]:
    page = Path(name)
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        if (page.parent / target).exists():
            alive += 1
        else:
            dead += 1
            print(f"{name}: {target} does not exist")
print(f"{alive} links alive, {dead} dead")
sys.exit(1 if dead else 0)
