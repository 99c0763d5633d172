"""The room of confinement: what a command of a village may touch, as Landlock rules."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from attrs import evolve

from vivarium_kernel.commands import landlock, seccomp
from vivarium_kernel.commands.places import FILES, readable_entries, resolved

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Folders whose programs may be run and whose files may be read."""

_ETC = (
    "ld.so.*", "localtime", "timezone", "locale.*", "default/locale", "passwd", "group", "nsswitch.conf", "hosts",
    "host.conf", "services", "protocols", "alternatives", "os-release", "debian_version", "*-release", "magic",
    "mime.types", "python3*", "perl", "gitconfig", "ssl/openssl.cnf", "pki/tls/openssl.cnf", "crypto-policies",
)  # fmt: skip
_KERNEL = (
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/version", "/proc/filesystems",
    "/proc/uptime", "/proc/sys/kernel/random/uuid", "/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu",
)  # fmt: skip
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def rules_for(village: Path, read_roots: Sequence[Path], program: Path) -> landlock.Rules:
    """What one command may touch: the system, the village without its protected names, and `files` for writing.

    All paths are resolved but `program`'s, which may be a symlink (a virtual environment's `python` is).
    Equal rules mean the same permissions: a new, replaced or removed file at the top of the village changes them.
    """
    files = resolved(FILES, village)
    entries = sorted((entry.path, entry.inode()) for entry in readable_entries(village))
    runs, reads = _program_places(program)
    roots = (*read_roots, files, *runs, *reads)
    return landlock.Rules(
        execute=(*map(Path, SYSTEM), *runs),
        read=(*(Path(path) for path, _ in entries), *read_roots, *reads),
        listed=(village,),
        write=(files,),
        stamp=(*entries, *((str(root), _inode(root)) for root in roots)),
    )


def confine_thread(rules: landlock.Rules, version: int) -> None:
    """Restrict the calling thread for good to `rules` and what every program needs. Raises OSError."""
    # The system's files are looked up here, once a thread, because rules are made for every command.
    whole = evolve(rules, read=(*rules.read, *_system_files()), devices=tuple(map(Path, _DEVICES)))
    landlock.restrict_thread(whole, version)
    if seccomp.available():
        seccomp.restrict_thread(deny_truncation=version < 3)


def describe(version: int) -> str:
    """What confines commands, in words for people."""
    if not version:
        return "none"
    return f"Landlock (ABI {version}) and seccomp" if seccomp.available() else f"Landlock (ABI {version})"


def _program_places(program: Path) -> tuple[list[Path], list[Path]]:
    """For a program outside the system's folders: files to run, and what such a program reads besides itself.

    Only `lib` folders beside its `bin` are given, never the whole prefix: that may be somebody's home.
    """
    runs: list[Path] = []
    reads: list[Path] = []
    for path in _unique((program, Path(os.path.realpath(program)))):
        if any(path.is_relative_to(folder) for folder in SYSTEM):
            continue
        runs.append(path)
        if path.parent.name in ("bin", "sbin"):
            beside = (path.parent.parent / name for name in ("lib", "lib64", "libexec", "pyvenv.cfg"))
            reads.extend(place for place in beside if place.exists())
    return runs, reads


def _system_files() -> Iterator[Path]:
    for pattern in _ETC:
        yield from sorted(Path("/etc").glob(pattern))
    yield from map(Path, _KERNEL)


def _unique(paths: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
