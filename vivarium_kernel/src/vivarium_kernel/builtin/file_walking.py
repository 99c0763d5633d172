"""The room of the walk to a file: each folder is opened from the one above it, and no link is ever followed.

So what is checked is what is opened, whatever others do to the names meanwhile. All of it waits for the disk: it is
done in a thread.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from vivarium_kernel.builtin.file_places import WORKSPACES, Target, shown
from vivarium_kernel.commands.places import protected_name
from vivarium_kernel.errors import Conflict, Forbidden, Invalid, NotFound, VivariumError

DEEPEST = 32  # folders below the one that is searched
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a pipe must not hold us up
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@frozen
class Entry:
    """What lies in a folder: a file with its size, or a folder."""

    name: str
    is_folder: bool
    size: int


@frozen
class Content:
    """What was read of a file, and how large it is."""

    name: str
    data: bytes
    size: int

    @property
    def is_cut(self) -> bool:
        return len(self.data) < self.size

    @property
    def text(self) -> str | None:
        """The text; None for what is none."""
        if b"\0" in self.data:
            return None
        try:
            return codecs.getincrementaldecoder("utf-8")().decode(self.data, final=not self.is_cut)
        except UnicodeDecodeError:
            return None


class Walker:
    """Opens files for one resident. What another's workspace and the protected names are, it knows by their identity:
    a file system that takes ``Files`` for ``files``, or is mounted twice, changes nothing."""

    def __init__(self, village: Path, resident: str) -> None:
        self._resident = resident
        self._village = _identity(village.stat())
        try:
            self._workspaces: tuple[int, int] | None = _identity(village.joinpath(*WORKSPACES).stat())
        except OSError:
            self._workspaces = None

    def entries(self, target: Target) -> list[Entry]:
        """What lies in a folder and may be seen, by name. Links, devices and pipes are left out."""
        with told(target.name), self._folder(target.base, target.parts) as folder:
            return self._entries(folder)

    def read(self, target: Target, most: int) -> Content:
        """The first ``most`` bytes of a file; raises what keeps it from being read."""
        if not target.parts:
            raise _no_file(target.name)
        with told(target.name), self._folder(target.base, target.parts[:-1]) as folder:
            return self._read(folder, target.parts[-1], target.name, most, target.shared)

    def below(self, target: Target, most: int) -> Iterator[Content]:
        """The files below a folder, or the file itself, in the order of their names; hidden ones are left out."""
        with told(target.name):
            try:
                with self._folder(target.base, target.parts) as folder:
                    yield from self._below(folder, target.name, most, target.shared, DEEPEST)
                return
            except NotADirectoryError:
                if not target.parts:
                    raise
        yield self.read(target, most)

    def write(self, target: Target, data: bytes, unique: str) -> None:
        """Write a whole file: under a name of its own first, so that nobody ever reads half of it."""
        with told(target.name), self._folder(target.base, target.parts[:-1], make=True) as folder:
            name = target.parts[-1]
            self._may_pass(folder, name)
            try:
                mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            except FileNotFoundError:
                mode = stat.S_IFREG
            if not stat.S_ISREG(mode):
                raise _no_file(target.name)
            beside = f".{unique}.tmp"
            made = os.open(beside, _NEW, 0o644, dir_fd=folder)
            try:
                with os.fdopen(made, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(beside, dir_fd=folder)
                raise
            os.fsync(folder)

    def is_there(self, target: Target) -> bool:
        """Whether there is a file."""
        try:
            with self._folder(target.base, target.parts[:-1]) as folder:
                return stat.S_ISREG(os.stat(target.parts[-1], dir_fd=folder, follow_symlinks=False).st_mode)
        except (OSError, VivariumError):
            return False

    @contextmanager
    def _folder(self, base: Path, parts: tuple[str, ...], make: bool = False) -> Iterator[int]:
        folder = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in parts:
                self._may_pass(folder, name)
                if make:
                    _make(folder, name)
                below = os.open(name, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def _may_pass(self, folder: int, name: str) -> None:
        here = _identity(os.fstat(folder))
        if here == self._workspaces and name != self._resident:
            raise Forbidden("files.workspace", f"The workspace {shown(name)} is not yours.", "Yours is ~/.")
        if here == self._village and protected_name(name.lower()):
            raise Forbidden("files.protected", f"{shown(name)} is the village's own.", "Nobody reads it by a tool.")

    def _may_see(self, folder: int, name: str) -> bool:
        try:
            self._may_pass(folder, name)
        except Forbidden:
            return False
        return True

    def _entries(self, folder: int) -> list[Entry]:
        found = []
        with os.scandir(folder) as entries:
            for each in entries:
                try:
                    about = each.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # it was taken away meanwhile
                is_folder = stat.S_ISDIR(about.st_mode)
                if (is_folder or stat.S_ISREG(about.st_mode)) and self._may_see(folder, each.name):
                    found.append(Entry(each.name, is_folder, about.st_size))
        return sorted(found, key=lambda entry: entry.name)

    def _read(self, folder: int, name: str, told_as: str, most: int, shared: bool) -> Content:
        self._may_pass(folder, name)
        # Looked at before it is opened, for opening a device may do something, and again after.
        if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise _no_file(told_as)
        with os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise _no_file(told_as)
            if shared and about.st_nlink > 1:
                raise Forbidden(
                    "files.hard_link", f"{shown(told_as)} has a second name, and nobody knows where.", "Copy it."
                )
            data = file.read(most)
            return Content(told_as, data, max(len(data), about.st_size))

    def _below(self, folder: int, where: str, most: int, shared: bool, deep: int) -> Iterator[Content]:
        for entry in self._entries(folder):
            if entry.name.startswith("."):
                continue
            name = f"{where}/{entry.name}"
            try:
                if not entry.is_folder:
                    yield self._read(folder, entry.name, name, most, shared)
                    continue
                below = os.open(entry.name, _FOLDER, dir_fd=folder)
            except (OSError, VivariumError):
                continue  # it may not be read, or was taken away meanwhile: the others are searched
            try:
                if deep:
                    yield from self._below(below, name, most, shared, deep - 1)
            finally:
                os.close(below)


@contextmanager
def told(name: str) -> Iterator[None]:
    """Say in the village's words what the system refuses with."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("files.missing", f"There is no {shown(name)}.", "See files.list.") from error
    except NotADirectoryError as error:
        raise Forbidden(
            "files.link", f"{shown(name)} is no folder, or leads through a link, which is not followed.",
            "See files.list.",
        ) from error  # fmt: skip
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Forbidden("files.link", f"{shown(name)} is a link, and no link is followed.", "Copy it.") from error
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
            raise Invalid("files.path", f"{shown(name)} is no path here: {error.strerror}.", field="path") from error
        raise Conflict("files.system", f"{shown(name)}: {error.strerror}.", "Tell a person: desk.flag.") from error


def _make(folder: int, name: str) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=folder)
    except FileExistsError:
        return


def _identity(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


def _no_file(name: str) -> Forbidden:
    return Forbidden("files.kind", f"{shown(name)} is no file: a folder, link, device or pipe.", "See files.list.")
