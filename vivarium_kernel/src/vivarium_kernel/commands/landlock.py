"""The room of Landlock: what a thread, and every process it starts from then on, may still touch.

Landlock restricts the calling *thread*. A thread that restricts itself once and then starts children hands its
restriction on to them, so nothing needs to run between fork and exec. Rules only add permissions; what no rule names
is denied. Not covered by Landlock itself: stat, chdir, chmod, chown, utime and extended attributes.
"""

import ctypes
import os
import stat
import sys
from enum import IntFlag
from pathlib import Path

from attrs import field, frozen


class _Fs(IntFlag):
    """LANDLOCK_ACCESS_FS_* of <linux/landlock.h>."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on x86_64 and aarch64
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_ON_FILES = _Fs.EXECUTE | _Fs.WRITE_FILE | _Fs.READ_FILE | _Fs.TRUNCATE | _Fs.IOCTL_DEV
_READ = _Fs.READ_FILE | _Fs.READ_DIR
_EXECUTE = _READ | _Fs.EXECUTE
_DEVICE = _Fs.READ_FILE | _Fs.WRITE_FILE | _Fs.TRUNCATE | _Fs.IOCTL_DEV
_WRITE = (
    _READ
    | _Fs.WRITE_FILE
    | _Fs.TRUNCATE
    | _Fs.REFER
    | _Fs.REMOVE_DIR
    | _Fs.REMOVE_FILE
    | _Fs.MAKE_DIR
    | _Fs.MAKE_REG
    | _Fs.MAKE_SYM
    | _Fs.MAKE_FIFO
)


@frozen
class Rules:
    """What stays allowed. Folders count with all that is below them; a path that does not exist grants nothing.

    `listed` folders give the names below them and no content.
    """

    execute: tuple[Path, ...] = ()
    read: tuple[Path, ...] = ()
    listed: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()
    stamp: tuple[tuple[str, int], ...] = field(default=())
    """Names and inodes that the rules were made from: rules hold on to inodes, so a replaced file needs new ones."""


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """The version of Landlock that the running kernel offers; 0 if it has none or has it switched off."""
    if sys.platform != "linux":
        return 0
    found = _libc().syscall(
        ctypes.c_long(_CREATE_RULESET), ctypes.c_void_p(None), ctypes.c_size_t(0), ctypes.c_uint32(1)
    )
    return max(int(found), 0)


def no_new_privs() -> None:
    """Give up, for this thread and its children, whatever set-user-id programs would add. Raises OSError."""
    arguments = (ctypes.c_ulong(value) for value in (1, 0, 0, 0))
    _checked(_libc().prctl(ctypes.c_int(_PR_SET_NO_NEW_PRIVS), *arguments), "prctl(PR_SET_NO_NEW_PRIVS)")


def restrict_thread(rules: Rules, version: int) -> None:
    """Restrict the calling thread for good to `rules`, with all that Landlock of ABI `version` can do.

    TCP (from ABI 4) is denied altogether; from ABI 6 also signals and abstract sockets to processes outside.
    Raises OSError if the kernel refuses; the thread must then start nothing.
    """
    handled = _handled(version)
    no_new_privs()
    ruleset = _new_ruleset(handled, version)
    try:
        for paths, access in (
            (rules.execute, _EXECUTE),
            (rules.read, _READ),
            (rules.listed, _Fs.READ_DIR),
            (rules.write, _WRITE),
            (rules.devices, _DEVICE),
        ):
            for path in paths:
                _allow(ruleset, path, access & handled)
        restricted = _libc().syscall(ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(ruleset), ctypes.c_uint32(0))
        _checked(restricted, "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _handled(version: int) -> _Fs:
    """Every right that ABI `version` knows; a right that is not handled stays allowed everywhere."""
    rights = _Fs((1 << 13) - 1)
    for since, right in ((2, _Fs.REFER), (3, _Fs.TRUNCATE), (5, _Fs.IOCTL_DEV)):
        if version >= since:
            rights |= right
    return rights


def _new_ruleset(handled: _Fs, version: int) -> int:
    # Net: bind and connect of TCP. Scope: abstract unix sockets and signals. No rule gives any of them back.
    attr = _RulesetAttr(handled, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    made = _libc().syscall(
        ctypes.c_long(_CREATE_RULESET), ctypes.byref(attr), ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    return _checked(made, "landlock_create_ruleset")


def _allow(ruleset: int, path: Path, access: _Fs) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            access &= _ON_FILES  # the kernel refuses rights of folders in a rule for a file
        if not access:
            return
        attr = _PathBeneathAttr(access, place)
        added = _libc().syscall(
            ctypes.c_long(_ADD_RULE),
            ctypes.c_int(ruleset),
            ctypes.c_int(_RULE_PATH_BENEATH),
            ctypes.byref(attr),
            ctypes.c_uint32(0),
        )
        _checked(added, f"landlock_add_rule for {path}")
    finally:
        os.close(place)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result
