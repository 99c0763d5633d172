"""The room of the command policy: which commands may run, with which arguments, and where.

Pure functions over the file system as it stands. Nothing in a task, and no vocabulary, switches a rule off.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from vivarium_kernel.commands import grammar
from vivarium_kernel.commands.places import FILES, is_protected, lies_in, resolved

SEARCH_PATH = ("/usr/bin", "/bin")
SHIPPED = ("ls", "pwd", "echo", "cat", "head", "tail", "wc", "rg")
MAX_ARGUMENTS = 1024
MAX_BYTES = 65536
"""Of all arguments together."""


@frozen
class Allowed:
    """A command that may run. `path` is absolute; symlinks stay in it, since some programs go by their own name.

    `shipped` commands are confined by their argument rules alone; the operator's need a sandbox beside that.
    """

    name: str
    path: Path
    shipped: bool


@frozen
class Refused:
    """Why a command may not run: the rule's name, what is wrong, and what to do."""

    rule: str
    message: str
    next_step: str


class BadAllow(ValueError):
    """Entries of `[commands.allow]` that name nothing that can be run; `faults` has a line for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


def shipped() -> dict[str, Allowed]:
    """The shipped commands that this system has, by name."""
    found = ((name, _program(name)) for name in SHIPPED)
    return {name: Allowed(name, path, shipped=True) for name, path in found if path is not None}


def resolve_allowed(allow: Mapping[str, str], *, strict: bool = True) -> dict[str, Allowed]:
    """The shipped commands and the operator's: a name for each, with a program's name or absolute path.

    A shipped name keeps its argument rules, whatever program is named for it. Raises BadAllow with all faults; not
    ``strict``, entries with a fault are left out, and their commands are refused.
    """
    allowed = shipped()
    faults = []
    for name, program in allow.items():
        path = _program(program)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", name):
            faults.append(f'commands.allow: the name "{name}" may have letters, digits and . _ + - only')
        elif path is None:
            faults.append(
                f'commands.allow.{name} = "{program}": no program of that name in {":".join(SEARCH_PATH)}'
                " and no absolute path of one; install it or correct the entry"
            )
        else:
            allowed[name] = Allowed(name, path, shipped=name in SHIPPED)
    if faults and strict:
        raise BadAllow(faults)
    return allowed


def check(
    argv: Sequence[str], *, cwd: Path, village: Path, read_roots: Sequence[Path], allowed: Mapping[str, Allowed]
) -> Refused | None:
    """The first rule that the command breaks, or None. Relative `cwd` and `read_roots` count from the village."""
    malformed = _malformed(argv)
    if malformed is not None:
        return malformed
    village = resolved(village, Path.cwd())
    roots = [resolved(root, village) for root in read_roots]
    folder = resolved(cwd, village)
    if not folder.is_relative_to(village) or is_protected(folder, village) or not folder.is_dir():
        return Refused(
            "command.cwd", f'cwd: "{cwd}" is no folder of the village', "Name an existing folder below the village's"
        )
    command = find(argv[0], allowed)
    if command is None:
        names = ", ".join(sorted(allowed)) or "none"
        return Refused(
            "command.unknown",
            f'"{argv[0]}" is not among the allowed commands ({names})',
            "Use one of these, or ask the operator to add it to [commands.allow] in vivarium.toml",
        )
    if resolved(command.path, village).is_relative_to(resolved(FILES, village)):
        return Refused(
            "command.program",
            f"{command.path} lies where commands may write, so anyone could replace it",
            "Ask the operator to keep programs outside the village's files folder",
        )
    place = _Place(folder, village, roots)
    return _shipped_rules(command, argv[1:], place) if command.shipped else _operator_rules(argv[1:], place)


def find(name: str, allowed: Mapping[str, Allowed]) -> Allowed | None:
    """The allowed command that `argv[0]` names: by its bare name or by exactly its absolute path."""
    if name in allowed:
        return allowed[name]
    return next((command for command in allowed.values() if str(command.path) == name), None)


@frozen
class _Place:
    """Where a command would run: resolved folders."""

    cwd: Path
    village: Path
    roots: Sequence[Path]

    def refuse(self, argument: str, path: str, *, walks: bool = False) -> Refused | None:
        """Why `path`, which stands in `argument`, can't be given to a command; None if it can."""
        target = resolved(path, self.cwd)
        if is_protected(target, self.village) or _is_link_to_protected(target, self.village):
            return Refused(
                "command.path",
                f'"{argument}" is among the village\'s database, lock and keys, which no command may read',
                "Name other files",
            )
        if not lies_in(target, self.village, self.roots):
            return Refused(
                "command.path",
                f'"{argument}" leads to {target}, outside the village {self.village}',
                "Name paths below the village, or ask the operator to add the folder to read_roots in [commands]",
            )
        if walks and self.village.is_relative_to(target):
            return Refused(
                "command.path",
                f'"{argument}" holds the village\'s database and keys beside what is searched',
                "Name the folders or files to search, or set the task's cwd to one of them",
            )
        return None


def _malformed(argv: Sequence[str]) -> Refused | None:
    if isinstance(argv, str) or not argv or not all(isinstance(part, str) for part in argv) or not argv[0]:
        return Refused(
            "command.empty", "command: a list of strings is needed, the program first", 'Write e.g. ["ls", "files"]'
        )
    for part in argv:
        if "\0" in part or not _encodable(part):
            return Refused(
                "command.argument", f"command: {part[:80]!r} has characters that no argument can have", "Leave them out"
            )
    size = sum(len(part.encode()) + 1 for part in argv)
    if len(argv) > MAX_ARGUMENTS or size > MAX_BYTES:
        return Refused(
            "command.size",
            f"command: {len(argv):,} arguments of {size:,} bytes; at most {MAX_ARGUMENTS:,} of {MAX_BYTES:,} are taken",
            "Put long text into a file below files/ and name the file",
        )
    return None


def _shipped_rules(command: Allowed, arguments: Sequence[str], place: _Place) -> Refused | None:
    rules = grammar.grammars()[command.name]
    reading = grammar.read(rules, arguments)
    if reading.refused is not None:
        return Refused(
            "command.flag",
            f'{command.name}: "{reading.refused}" is not among the flags that it may have here',
            f"Leave it out; `{command.name}` reads files and ends, nothing more",
        )
    refusals = (place.refuse(path, path, walks=rules.walks) for path in reading.paths)
    return next((refusal for refusal in refusals if refusal is not None), None)


def _operator_rules(arguments: Sequence[str], place: _Place) -> Refused | None:
    for argument in arguments:
        for path in _path_like(argument, place.cwd):
            refusal = place.refuse(argument, path)
            if refusal is not None:
                return refusal
    return None


def _path_like(argument: str, cwd: Path) -> Iterator[str]:
    """What in an unknown program's argument looks like a path: it exists, or has a `/` and a folder it could lie in.

    So a pattern such as `/error/` is none, while `../new` is one before anybody has made it.
    """
    if re.fullmatch(r"-[dFst]/", argument):
        return  # a delimiter, as of cut, awk, paste and sort
    candidates = [argument.partition("=")[2]]
    if argument.startswith("-"):
        clustered = re.match(r"-[A-Za-z0-9]+?((?:\.{1,2})?/.*)", argument, re.DOTALL)
        candidates += [argument[2:], clustered.group(1) if clustered else ""]
    else:
        candidates += [argument, argument.removeprefix("@")]
    for candidate in dict.fromkeys(filter(None, candidates)):
        path = os.path.join(cwd, candidate)  # noqa: PTH118 - Path would drop a final slash
        if os.path.lexists(path) or ("/" in candidate and os.path.isdir(os.path.dirname(path))):  # noqa: PTH112, PTH120
            yield candidate


def _is_link_to_protected(target: Path, village: Path) -> bool:
    """Whether the file is a protected one under a second name (a hard link)."""
    try:
        found = target.stat()
        if found.st_nlink < 2 or target.is_dir():
            return False
        if found.st_dev != village.stat().st_dev:
            return False
        with os.scandir(village) as entries:
            return any(
                entry.inode() == found.st_ino and is_protected(village / entry.name, village) for entry in entries
            )
    except OSError:
        return False


def _program(name: str) -> Path | None:
    """The program's absolute path, symlinks and all; None if there is none that can be run."""
    if name.startswith("/"):
        places = [Path(os.path.normpath(name))]
    else:
        places = [Path(folder, name) for folder in SEARCH_PATH] if name and "/" not in name else []
    return next((place for place in places if place.is_file() and os.access(place, os.X_OK)), None)


def _encodable(part: str) -> bool:
    try:
        part.encode()
    except UnicodeEncodeError:
        return False
    return True
