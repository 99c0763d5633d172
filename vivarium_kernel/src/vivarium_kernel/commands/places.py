"""The room of places: which paths below a village are nobody's to read, and which folders a command may be given."""

import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

PROTECTED = ("vivarium.db*", "vivarium.lock*", "keys", "*.key", "*.pem", ".secrets*", ".env*")
"""Names directly below the village folder that no command may read: the database, its lock, and keys."""

FILES = "files"
"""The folder below the village that commands may write in."""


def resolved(path: str | Path, base: Path) -> Path:
    """The absolute path without symlinks that `path`, taken from the folder `base`, names; it need not exist."""
    return Path(os.path.realpath(base / path))


def protected_name(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in PROTECTED)


def is_protected(path: Path, village: Path) -> bool:
    """Whether the resolved `path` is, or lies in, the database, the lock or the keys of the resolved `village`."""
    if path == village or not path.is_relative_to(village):
        return False
    return protected_name(path.relative_to(village).parts[0])


def readable_entries(village: Path) -> Iterator[os.DirEntry[str]]:
    """What lies directly below the village and may be read, without `files`.

    Symlinks are left out: a permission for a symlink would be one for whatever it points to.
    """
    with os.scandir(village) as entries:
        for entry in entries:
            if entry.name != FILES and not entry.is_symlink() and not protected_name(entry.name):
                yield entry


def unfit_roots(village: Path, read_roots: Iterable[Path]) -> list[str]:
    """Why some of the resolved `read_roots` can't be given to commands of the resolved `village`; empty if all can.

    Permissions only add up, so a root that contains the village would open its database.
    """
    faults = []
    for root in read_roots:
        if village.is_relative_to(root):
            faults.append(f"read_roots: {root} contains the village {village} and with it the database and the keys")
        elif is_protected(root, village):
            faults.append(f"read_roots: {root} is one of the village's protected places ({', '.join(PROTECTED)})")
        elif not root.exists():
            faults.append(f"read_roots: {root} does not exist")
    return faults


def lies_in(path: Path, village: Path, read_roots: Sequence[Path]) -> bool:
    """Whether the resolved `path` is below the village or one of the resolved `read_roots`."""
    return path.is_relative_to(village) or any(path.is_relative_to(root) for root in read_roots)
