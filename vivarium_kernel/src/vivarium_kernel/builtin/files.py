"""The room of residents' files: tools that list, read, search and write. Which is allowed where: docs/tools.md.

The work is done in a thread, for a disk may be slow; in a simulation inside the loop, where a thread's time would be
taken for the village's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

from attrs import evolve, field, frozen, validators

from vivarium_kernel.actions import Action, Meta
from vivarium_kernel.builtin.file_places import Places, Target, shown
from vivarium_kernel.builtin.file_walking import Content, Walker
from vivarium_kernel.clock import SimulatedClock
from vivarium_kernel.errors import Conflict, Forbidden, Invalid, NotFound
from vivarium_kernel.grants import PluginTx
from vivarium_kernel.jobs import Job
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.store import Tx

T = TypeVar("T")
LONGEST_LINE = 1_000
SHOWN_CHARACTERS = 16_000  # less than the loop of thought shows of a reply
MOST_ENTRIES = 500


def _from(least: int, most: int) -> Any:
    return validators.and_(validators.ge(least), validators.le(most))


@frozen
class FilesConfig:
    """``[plugins.files]``."""

    read_bytes: int = field(
        default=1_000_000,
        validator=_from(1_000, 100_000_000),
        metadata={"doc": "How much of a file is read; the rest is cut and marked."},
    )
    write_bytes: int = field(
        default=200_000, validator=_from(1, 100_000_000), metadata={"doc": "The largest file that is written."}
    )
    resident_bytes: int = field(
        default=50_000_000,
        validator=_from(0, 10**15),
        metadata={"doc": "What the files that one resident wrote may have together."},
    )
    search_bytes: int = field(
        default=20_000_000, validator=_from(1_000, 10**12), metadata={"doc": "How much one search looks at."}
    )
    search_hits: int = field(
        default=50, validator=_from(1, 1_000), metadata={"doc": "How many lines one search shows."}
    )


@frozen
class List:
    path: str = ""


@frozen
class Read:
    path: str
    offset: int = 0
    lines: int = 400


@frozen
class Search:
    text: Annotated[str, Meta(min_length=1)]
    path: str = ""


@frozen
class Write:
    path: str
    text: str


class Files(Plugin):
    """Files of residents: their own workspace, the library, and what the operator lets them read."""

    name = "files"
    Config = FilesConfig
    migrations = "vivarium_kernel.builtin.file_tables:migrations"
    config: FilesConfig

    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        return [
            Action(name="files.list", doc="List a folder; without a path, the folders you have.", Input=List,
                   effect="pure", act=self._list),
            Action(name="files.read", doc="Read lines of a text file.", Input=Read, effect="pure", act=self._read),
            Action(name="files.search", doc="Find text in files; * is anything.", Input=Search, effect="pure",
                   act=self._search),
            Action(name="files.write", doc="Write a whole text file; ~/ is your own folder.", Input=Write,
                   effect="idempotent", act=self._write),
        ]  # fmt: skip

    def places(self, resident: str) -> Places:
        """Where a resident may read and write, as the settings have it now."""
        settings = self.village.settings
        return Places(self.village.folder, resident, settings.commands.read_roots, settings.write_policy)

    async def _list(self, job: Job, asked: List) -> str:
        return await self._away(lambda: self._listed(job.resident.name, asked.path))

    async def _read(self, job: Job, asked: Read) -> str:
        if asked.offset < 0 or asked.lines < 1:
            raise Invalid("files.lines", "offset is at least 0, lines at least 1.", "Ask for other lines.")
        return await self._away(lambda: self._lines(job.resident.name, asked))

    async def _search(self, job: Job, asked: Search) -> str:
        return await self._away(lambda: self._found(job.resident.name, asked))

    async def _write(self, job: Job, asked: Write) -> dict[str, Any]:
        name = job.resident.name
        places = self.places(name)
        target = places.to_write(asked.path)
        data = asked.text.encode()
        if b"\0" in data:
            raise Invalid("files.text", "The text holds a NUL, which no text has.", "Take it out.", field="text")
        if len(data) > self.config.write_bytes:
            most = self.config.write_bytes
            raise Invalid(
                "files.size", f"The text has {len(data):,} bytes, more than {most:,} (plugins.files.write_bytes).",
                "Write several files.", field="text",
            )  # fmt: skip
        await self._charge(places, target, len(data))
        unique = self.village.clock.secret()
        await self._away(lambda: Walker(self.village.folder, name).write(target, data, unique))
        return {"path": target.name, "bytes": len(data)}

    # What is shown

    def _listed(self, resident: str, path: str) -> str:
        places, walker = self.places(resident), Walker(self.village.folder, resident)
        if _is_top(path):
            return "\n".join(f"{place.name}/" for place in places.readable())
        entries = walker.entries(places.to_read(path))
        lines = [f"{each.name}/" if each.is_folder else f"{each.name} {each.size}" for each in entries[:MOST_ENTRIES]]
        if len(entries) > MOST_ENTRIES:
            lines.append(f"[cut: {len(entries) - MOST_ENTRIES:,} more]")
        return "\n".join(lines) or "[empty]"

    def _lines(self, resident: str, asked: Read) -> str:
        walker = Walker(self.village.folder, resident)
        content = walker.read(self.places(resident).to_read(asked.path), self.config.read_bytes)
        text = content.text
        if text is None:
            raise Conflict("files.binary", f"{shown(content.name)} is binary, not text.", "Ask a person about it.")
        lines = lines_of(text)
        taken, size = [], 0
        for number, line in enumerate(lines[asked.offset : asked.offset + asked.lines], asked.offset + 1):
            taken.append(f"{number}: {_cut(line)}")
            size += len(taken[-1])
            if size > SHOWN_CHARACTERS:
                break
        last = asked.offset + len(taken)
        if not taken:
            taken.append(f"[it has {len(lines):,} lines]")
        elif last < len(lines):
            taken.append(f"[cut: lines {last + 1:,} to {len(lines):,} follow, from offset {last}]")
        if content.is_cut:
            taken.append(f"[cut: {content.size:,} bytes, of which {len(content.data):,} are read]")
        return "\n".join(taken)

    def _found(self, resident: str, asked: Search) -> str:
        parts = [part.casefold() for part in asked.text.split("*") if part]
        if not parts:
            raise Invalid("files.search", "A search needs more than *.", "Say some of the text.", field="text")
        found, left, note = [], self.config.search_bytes, ""
        for content in self._contents(resident, asked.path):
            left -= len(content.data)
            for number, line in enumerate(lines_of(content.text or ""), 1):
                if _has(line.casefold(), parts):
                    found.append(f"{content.name}:{number}: {_cut(line.strip())}")
                    if len(found) >= self.config.search_hits:
                        return "\n".join([*found, "[cut: there may be more]"])
            if left <= 0:
                note = f"[cut: only {self.config.search_bytes:,} bytes were searched; name a folder]"
                break
        return "\n".join([*found, note]).strip() or "[nothing found]"

    def _contents(self, resident: str, path: str) -> Iterator[Content]:
        places, walker = self.places(resident), Walker(self.village.folder, resident)
        most = self.config.read_bytes
        if not _is_top(path):
            yield from walker.below(places.to_read(path), most)
            return
        for place in places.readable():
            try:
                yield from walker.below(places.to_read(place.name), most)
            except NotFound:
                continue  # nobody has written there yet

    # What each may have

    async def _charge(self, places: Places, target: Target, size: int) -> None:
        """Count a file as the resident's before it is written; raises Forbidden when it would have too much."""
        asked = _Charge(target.name, places.resident, size, self.config.resident_bytes)
        over = await self.village.store.write(_charge, asked)
        if over:
            gone = await self._away(lambda: _gone(places, over))
            over = await self.village.store.write(_charge, evolve(asked, gone=tuple(gone)))
        if over:
            raise Forbidden(
                "files.quota",
                f"With {size:,} bytes more, your files would have more than {self.config.resident_bytes:,} "
                "(plugins.files.resident_bytes).",
                "Write shorter versions of your files over them.",
            )

    async def _away(self, work: Callable[[], T]) -> T:
        if isinstance(self.village.clock, SimulatedClock):
            return work()
        return await asyncio.to_thread(work)


@frozen
class _Charge:
    """A file that is to be written; ``gone`` are files of the resident that are there no more."""

    path: str
    resident: str
    size: int
    most: int
    gone: tuple[str, ...] = ()


def _charge(tx: Tx, asked: _Charge) -> list[str]:
    """Count a file as its writer's; where that would be too much count nothing, and name all of the writer's files."""
    own: PluginTx = tx.plugin(Files.name)
    for name in asked.gone:
        own.execute("DELETE FROM files_written WHERE path = ? AND resident = ?", (name, asked.resident))
    ((used,),) = own.read(
        "SELECT coalesce(sum(bytes), 0) FROM files_written WHERE resident = ? AND path <> ?",
        (asked.resident, asked.path),
    )
    if used + asked.size > asked.most:
        rows = own.read("SELECT path FROM files_written WHERE resident = ?", (asked.resident,))
        return [*(row[0] for row in rows), asked.path]
    own.execute(
        "INSERT INTO files_written (path, resident, bytes) VALUES (?1, ?2, ?3) "
        "ON CONFLICT (path) DO UPDATE SET resident = ?2, bytes = ?3",
        (asked.path, asked.resident, asked.size),
    )
    return []


def _gone(places: Places, names: Sequence[str]) -> list[str]:
    walker = Walker(places.village, places.resident)
    return [name for name in names if not walker.is_there(Target(name, places.village, tuple(name.split("/")), True))]


def _is_top(path: str) -> bool:
    """Whether a path means all places together."""
    return path in ("", ".", "./", "/")


def lines_of(text: str) -> list[str]:
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} [cut: {len(line) - LONGEST_LINE:,} more]"


def _has(line: str, parts: Sequence[str]) -> bool:
    """Whether a line has these parts in this order: never slower than the line is long, unlike a pattern might be."""
    place = 0
    for part in parts:
        place = line.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True
