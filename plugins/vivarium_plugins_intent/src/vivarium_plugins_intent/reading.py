"""The room of the folder's files: those that a plan is made of, with the beginning of each that is text."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

from vivarium_kernel.commands.places import protected_name

from vivarium_kernel import Invalid, NotFound

MOST_FILES = 100
MOST_LOOKED_AT = 20_000
SHOWN_CHARACTERS = 60_000  # of all files together
# What the village itself is made of, besides what no command may read either: no plan needs it.
_OWN_NAME, _OWN_BEGINNING = "plugins.json", "vivarium."


def read(folder: Path, pattern: str, characters: int) -> list[tuple[str, str]]:
    """The files below ``folder`` whose path fits, each with its first ``characters``; in the order of their paths.

    ``*`` stands for folders too. Hidden files, links, keys and the village's own files are left out. Raises Invalid for
    a pattern that leads outside or fits too many, NotFound for one that fits none.
    """
    if pattern.startswith("/") or ".." in pattern.split("/"):
        raise Invalid("plan.files", f"{pattern!r} leads out of the village's folder.",
                      'Write it relative to the folder, such as "notes/*.md".', field="files")  # fmt: skip
    names = _fitting(folder, pattern)
    if not names:
        raise NotFound("plan.files", f"No file in the village's folder fits {pattern!r}.",
                       'Write a path relative to the folder, such as "notes/*.md".', field="files")  # fmt: skip
    each = min(characters, SHOWN_CHARACTERS // len(names))
    return [(name, _beginning(folder / name, each)) for name in names]


def _fitting(folder: Path, pattern: str) -> list[str]:
    found: list[str] = []
    looked = 0
    for root, folders, files in os.walk(folder):
        above = Path(root).relative_to(folder)
        at_top = above == Path()
        folders[:] = sorted(name for name in folders if _is_open(name, at_top))
        for name in sorted(files):
            looked += 1
            path = (above / name).as_posix()
            if _is_open(name, at_top) and fnmatchcase(path, pattern) and _is_plain(folder / path):
                found.append(path)
        if looked > MOST_LOOKED_AT or len(found) > MOST_FILES:
            what = f"more than {MOST_FILES} files" if len(found) > MOST_FILES else f"a folder of over {looked:,} files"
            raise Invalid("plan.files", f"{pattern!r} means {what}.", "Name fewer, or plan a part of them at a time.",
                          field="files")  # fmt: skip
    return sorted(found)


def _is_open(name: str, at_top: bool) -> bool:
    """Whether a model may read it. Keys are kept out wherever they lie, and however they are written."""
    low = name.lower()
    if at_top and (low == _OWN_NAME or low.startswith(_OWN_BEGINNING)):
        return False
    return not (low.startswith(".") or protected_name(low))


def _is_plain(path: Path) -> bool:
    """Whether it is a file: no link, which may lead anywhere, and no pipe, which would be waited for."""
    return path.is_file() and not path.is_symlink()


def _beginning(path: Path, characters: int) -> str:
    """The beginning of a text file; empty for any other."""
    try:
        with path.open("rb") as file:
            raw = file.read(4 * characters)
    except OSError:
        return ""
    text = raw.decode("utf-8", "ignore")
    if "\0" in text or len(text) * 2 < len(raw):
        return ""
    kept = "".join(sign for sign in text if sign.isprintable() or sign in "\n\t")
    return kept[:characters]
