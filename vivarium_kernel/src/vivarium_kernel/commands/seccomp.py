"""The room of seccomp: system calls that a confined thread, and every process it starts, goes without.

Landlock says nothing of UDP and of sockets in the file system (a container daemon's, say), and before ABI 3 nothing
of truncation. A filter of a few instructions closes that: no sockets at all, nothing that makes them another way,
no kernel keyring, and where Landlock lacks it no truncation of files that are not open for writing.
"""

import ctypes
import errno
import os
import platform
import sys

from attrs import frozen

_LOAD_WORD, _AND, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_PR_GET_SECCOMP, _PR_SET_SECCOMP, _MODE_FILTER = 21, 22, 2

_Instruction = tuple[int, int, int, int]


@frozen
class _Machine:
    """System call numbers of one architecture."""

    audit: int
    denied: tuple[tuple[int, int], ...]
    truncate: int
    opens: tuple[tuple[int, int], ...]
    """Number of an opening call, and which of its arguments holds the flags."""
    foreign_from: int | None
    """Numbers from here on belong to another calling convention (x32)."""


def _machine() -> _Machine | None:
    """This machine's numbers; None where we know none."""
    shared = ((425, errno.ENOSYS),)  # io_uring_setup: its rings make sockets that no filter sees
    match platform.machine():
        case "x86_64":
            keys = ((248, errno.ENOSYS), (249, errno.ENOSYS), (250, errno.ENOSYS))
            return _Machine(0xC000003E, (*shared, (41, errno.EACCES), *keys), 76, ((2, 1), (257, 2)), 0x40000000)
        case "aarch64":
            keys = ((217, errno.ENOSYS), (218, errno.ENOSYS), (219, errno.ENOSYS))
            return _Machine(0xC00000B7, (*shared, (198, errno.EACCES), *keys), 45, ((56, 2),), None)
    return None


def available() -> bool:
    """Whether this kernel takes filters and we know this machine's numbers."""
    if sys.platform != "linux" or sys.byteorder != "little" or _machine() is None:
        return False
    return int(_prctl(_PR_GET_SECCOMP, 0, None)) >= 0


def restrict_thread(*, deny_truncation: bool) -> None:
    """Install the filter on the calling thread, which must have no_new_privs already. Raises OSError."""
    machine = _machine()
    if machine is None:
        raise OSError(errno.ENOSYS, f"no system call numbers are known for {platform.machine()}")
    program = _program(machine, deny_truncation)
    filters = (_Filter * len(program))(*(_Filter(*instruction) for instruction in program))
    if _prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(_Program(len(program), filters))) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_SECCOMP): {os.strerror(number)}")


def _program(machine: _Machine, deny_truncation: bool) -> list[_Instruction]:
    refuse_foreign = (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
    program: list[_Instruction] = [
        (_LOAD_WORD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, machine.audit),
        refuse_foreign,
        (_LOAD_WORD, 0, 0, _NUMBER),
    ]
    if machine.foreign_from is not None:
        program += [(_JUMP_AT_LEAST, 0, 1, machine.foreign_from), refuse_foreign]
    denied = list(machine.denied)
    if deny_truncation:
        # openat2 keeps its flags behind a pointer, where no filter can look.
        denied += [(machine.truncate, errno.EACCES), (437, errno.ENOSYS)]
    for number, code in denied:
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | code)]
    for number, position in machine.opens if deny_truncation else ():
        # O_TRUNC needs no write access mode, and mode 3 is neither reading nor writing to Landlock.
        program += [
            (_JUMP_EQUAL, 0, 6, number),
            (_LOAD_WORD, 0, 0, _ARGUMENTS + 8 * position),
            (_AND, 0, 0, os.O_TRUNC | 3),
            (_JUMP_EQUAL, 1, 0, os.O_TRUNC),
            (_JUMP_EQUAL, 0, 1, os.O_TRUNC | 3),
            (_RETURN, 0, 0, _ERRNO | errno.EACCES),
            (_RETURN, 0, 0, _ALLOW),
        ]
    return [*program, (_RETURN, 0, 0, _ALLOW)]


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Filter)))


def _prctl(option: int, mode: int, argument: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    pointer = ctypes.c_void_p(None) if argument is None else argument
    return int(libc.prctl(ctypes.c_int(option), ctypes.c_ulong(mode), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)))
