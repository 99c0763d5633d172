"""The room of the shipped commands' grammar: which flags they may be given, and which arguments are paths.

Flags are allowed by name, so that a newer version's new flag is refused until somebody has looked at it. Left out on
purpose: what runs programs (`rg --pre`, `--hostname-bin`, `--search-zip`), what reads lists of files
(`wc --files0-from`), what never ends (`tail -f`), and what follows symlinks while it walks (`ls -L`, `rg -L`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from attrs import frozen


class Takes(Enum):
    """What follows a flag."""

    NOTHING = "nothing"
    OPTIONAL = "text, only after ="
    TEXT = "text"
    PATH = "a path"


_VALUED = (Takes.TEXT, Takes.PATH)


class Operands(Enum):
    """What the arguments are that belong to no flag."""

    PATHS = "paths"
    TEXT = "text"
    PATTERN_THEN_PATHS = "a pattern, then paths"


@frozen
class Grammar:
    """How one shipped command reads its arguments."""

    operands: Operands
    flags: Mapping[str, Takes]
    any_flags: bool = False
    counts: bool = False
    """Whether `-5` is a flag."""
    walks: bool = False
    """Whether it reads the files below a folder that it is given, and the working directory when given none."""
    pattern_flags: frozenset[str] = frozenset()
    """Flags that make the first operand a path, because they give the pattern or need none."""


@frozen
class Reading:
    """What a command would do with its arguments: the paths it opens, or the flag that it may not have."""

    paths: tuple[str, ...] = ()
    refused: str | None = None


def read(grammar: Grammar, arguments: Sequence[str]) -> Reading:
    """Read `arguments` (without the command's name) the way the command does."""
    if grammar.any_flags:
        return Reading()
    operands: list[str] = []
    paths: list[str] = []
    seen: set[str] = set()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            operands += rest
            break
        if argument == "-" or not argument.startswith("-"):
            operands.append(argument)
        elif not (grammar.counts and re.fullmatch(r"-[0-9]+", argument)):
            for flag, attached in _flags(argument, grammar.flags):
                takes = grammar.flags.get(flag)
                value = rest.pop(0) if takes in _VALUED and attached is None and rest else attached
                if takes is None or ((value is None) is (takes in _VALUED) and takes is not Takes.OPTIONAL):
                    return Reading(refused=argument)
                seen.add(flag)
                if takes is Takes.PATH and value is not None:
                    paths.append(value)
    return Reading(paths=(*paths, *_operand_paths(grammar, operands, seen)))


def _operand_paths(grammar: Grammar, operands: list[str], seen: set[str]) -> list[str]:
    if grammar.operands is Operands.TEXT:
        return []
    if grammar.operands is Operands.PATTERN_THEN_PATHS and not seen & grammar.pattern_flags:
        operands = operands[1:]
    return operands or (["."] if grammar.walks else [])


def _flags(argument: str, known: Mapping[str, Takes]) -> Iterable[tuple[str, str | None]]:
    """The flags in one argument, each with the value that is attached to it."""
    if argument.startswith("--"):
        name, equals, value = argument.partition("=")
        return [(name, value if equals else None)]
    found: list[tuple[str, str | None]] = []
    for position, letter in enumerate(argument[1:], start=2):
        flag, attached = f"-{letter}", argument[position:]
        if known.get(flag) in _VALUED:
            # Some commands drop a = here and some keep it: such a value is no flag that we know.
            return [*found, (argument if attached.startswith("=") else flag, attached or None)]
        found.append((flag, None))
    return found


def grammars() -> Mapping[str, Grammar]:
    """The grammar of every shipped command, by its name."""
    return {
        "ls": Grammar(Operands.PATHS, _ls()),
        "pwd": Grammar(Operands.TEXT, _table("-L -P --logical --physical --help --version")),
        "echo": Grammar(Operands.TEXT, {}, any_flags=True),
        "cat": Grammar(Operands.PATHS, _cat()),
        "head": Grammar(Operands.PATHS, _ends(), counts=True),
        "tail": Grammar(Operands.PATHS, _ends(), counts=True),
        "wc": Grammar(Operands.PATHS, _wc()),
        "rg": Grammar(
            Operands.PATTERN_THEN_PATHS,
            _rg(),
            walks=True,
            pattern_flags=frozenset({"-e", "--regexp", "-f", "--file", "--files", "--type-list"}),
        ),
    }


def _table(nothing: str = "", *, optional: str = "", text: str = "", path: str = "") -> dict[str, Takes]:
    table = dict.fromkeys(nothing.split(), Takes.NOTHING)
    table |= dict.fromkeys(optional.split(), Takes.OPTIONAL)
    table |= dict.fromkeys(text.split(), Takes.TEXT)
    return table | dict.fromkeys(path.split(), Takes.PATH)


def _ls() -> dict[str, Takes]:
    return _table(
        "-a -A -b -B -c -C -d -f -F -g -G -h -i -k -l -m -n -N -o -p -q -Q -r -R -s -S -t -u -U -v -x -X -1 "
        "--all --almost-all --author --escape --ignore-backups --directory --file-type --full-time "
        "--group-directories-first --no-group --human-readable --si --inode --kibibytes --numeric-uid-gid --literal "
        "--hide-control-chars --show-control-chars --quote-name --reverse --recursive --size --zero --help --version",
        optional="--color --classify --hyperlink",
        text="-I -T -w --block-size --format --hide --ignore --indicator-style --quoting-style --sort --time "
        "--time-style --tabsize --width",
    )


def _cat() -> dict[str, Takes]:
    return _table(
        "-A -b -e -E -n -s -t -T -u -v --show-all --number-nonblank --show-ends --number --squeeze-blank --show-tabs "
        "--show-nonprinting --help --version"
    )


def _ends() -> dict[str, Takes]:
    return _table(
        "-q -v -z --quiet --silent --verbose --zero-terminated --help --version", text="-c -n --bytes --lines"
    )


def _wc() -> dict[str, Takes]:
    return _table(
        "-c -m -l -L -w --bytes --chars --lines --max-line-length --words --help --version", optional="--total"
    )


def _rg() -> dict[str, Takes]:
    return _table(
        "-a -c -F -h -H -i -I -l -n -N -o -p -P -q -s -S -u -U -v -V -w -x -0 -. "
        "--text --auto-hybrid-regex --binary --block-buffered --byte-offset --case-sensitive --column --no-column "
        "--count --count-matches --crlf --files --files-with-matches --files-without-match --fixed-strings --heading "
        "--no-heading --help --hidden --no-hidden --glob-case-insensitive --ignore-case --include-zero "
        "--invert-match --json --line-buffered --line-number --no-line-number --line-regexp "
        "--max-columns-preview --mmap --no-mmap --multiline --multiline-dotall --no-config --no-filename --no-ignore "
        "--no-ignore-dot --no-ignore-exclude --no-ignore-files --no-ignore-global --no-ignore-messages "
        "--no-ignore-parent --no-ignore-vcs --no-messages --no-pcre2-unicode --no-unicode --null --null-data "
        "--one-file-system --only-matching --passthru --pcre2 --pretty --quiet --smart-case --stats "
        "--trim --type-list --unrestricted --version --vimgrep --with-filename --word-regexp",
        text="-A -B -C -d -e -E -g -j -m -M -r -t -T --after-context --before-context --color --colors --context "
        "--context-separator --dfa-size-limit --encoding --engine --field-context-separator --field-match-separator "
        "--glob --iglob --max-columns --max-count --max-depth --max-filesize --path-separator --regex-size-limit "
        "--regexp --replace --sort --sortr --threads --type --type-not",
        path="-f --file --ignore-file",
    )
