"""The room of the places of residents' files: where a path leads, and what a resident may read and write there.

A path is taken by its words alone: from the village folder, or from one's own workspace where it begins with ``~/``.
What the words can't tell (links, the case of names, what changes meanwhile) is ``file_walking``'s part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from vivarium_kernel.commands.places import FILES, resolved, unfit_roots
from vivarium_kernel.errors import Forbidden, Invalid, VivariumError

WORKSPACES, LIBRARY = (FILES, "workspaces"), (FILES, "library")
COMMUNITY = (*LIBRARY, "community_library")
DOCUMENTS = ((*COMMUNITY, "swarm_docs"), (*LIBRARY, "creative_works"))
SUGGESTIONS = (*COMMUNITY, "resident_suggestions")
LONGEST_PATH, LONGEST_NAME = 1_000, 200  # a name's bytes: the file system has 255, and a temporary name is longer


@frozen
class Place:
    """A folder that a resident may read, by the name that it is called by.

    ``base`` is the operator's and opened as it is; ``way`` goes on from there, and no link is followed on it.
    """

    name: str
    base: Path
    way: tuple[str, ...] = ()


@frozen
class Target:
    """What a path leads to. ``shared`` places are those that commands of residents may write in."""

    name: str
    base: Path
    parts: tuple[str, ...]
    shared: bool


@frozen
class Places:
    """The places of one resident, as the village's settings have them now."""

    village: Path
    resident: str
    read_roots: tuple[str, ...]
    write_policy: str

    @property
    def own(self) -> tuple[str, ...]:
        """The resident's workspace, from the village folder."""
        return (*WORKSPACES, self.resident)

    def readable(self) -> Iterator[Place]:
        """The folders that the resident may read. A root that would open what is protected is none."""
        yield Place("/".join(self.own), self.village, self.own)
        yield Place("/".join(LIBRARY), self.village, LIBRARY)
        for root in self.read_roots:
            real = resolved(root, self.village)
            if unfit_roots(self.village, [real]):
                continue
            words = Path(root)
            if words.is_relative_to(self.village):
                words = words.relative_to(self.village)
            if words.parts[:1] == (FILES,) and ".." not in words.parts:
                # Here a command may have made a link of what the setting names: its words count, not where it leads.
                if not _below(words.parts, WORKSPACES):
                    yield Place(words.as_posix(), self.village, words.parts)
            elif not real.is_relative_to(self.village / FILES):
                yield Place(str(real) if ".." in words.parts else words.as_posix(), real)

    def to_read(self, path: str) -> Target:
        """Where a path leads that is to be read; raises Forbidden, naming the places that there are."""
        words = self._words(path)
        name = _joined(words)
        if words[:2] == WORKSPACES and len(words) > 2:
            self._refuse_others(words)
        places = list(self.readable())
        # The longest first: a root may lie in another.
        for place in sorted(places, key=lambda place: -len(place.name)):
            start = Path(place.name).parts
            if words[: len(start)] == start:
                parts = (*place.way, *words[len(start) :])
                return Target(name, place.base, parts, place.base == self.village)
        raise Forbidden(
            "files.place",
            f"{shown(name)} is in no place that you may read.",
            f"You may read {listed(each.name for each in places)}; the setting commands.read_roots names more.",
        )

    def to_write(self, path: str) -> Target:
        """Where a path leads that is to be written; raises Forbidden with the rule and the setting."""
        words = self._words(path)
        name = _joined(words)
        if words[:2] == WORKSPACES:
            self._refuse_others(words)
        document = words[-1:] and words[-1].lower().endswith(".md")
        if document and any(_below(words, place) for place in (*DOCUMENTS, (*SUGGESTIONS, self.resident))):
            return Target(name, self.village, words, True)
        if self.write_policy == "work" and any(_below(words, place) for place in (self.own, LIBRARY)):
            return Target(name, self.village, words, True)
        own = "/".join((*SUGGESTIONS, self.resident))
        documents = listed(["/".join(place) for place in DOCUMENTS] + [own])
        rule = {
            "documents": f"Write a .md file below {documents}.",
            "work": f"Write below {'/'.join(self.own)} or {'/'.join(LIBRARY)}.",
        }
        raise Forbidden(
            "files.write_policy",
            f"{shown(name)} may not be written under write_policy = {self.write_policy!r}.",
            f"{rule[self.write_policy]} An operator sets write_policy.",
        )

    def _refuse_others(self, words: tuple[str, ...]) -> None:
        if words[:3] != self.own:
            own = "/".join(self.own)
            raise Forbidden("files.workspace", f"{shown(_joined(words))} is not your workspace.", f"Yours is {own}/.")

    def _words(self, path: str) -> tuple[str, ...]:
        """The names that a path is made of, from the village folder; the first is ``/`` where it is outside of it."""
        if len(path) > LONGEST_PATH:
            raise bad_path(path, f"it has more than {LONGEST_PATH:,} characters")
        if any(ord(letter) < 32 or ord(letter) == 127 or "\ud800" <= letter <= "\udfff" for letter in path):
            raise bad_path(path, "it holds a character that no path has")
        words = tuple(word for word in path.split("/") if word not in ("", "."))
        if ".." in words:
            raise Forbidden("files.path", f"{shown(path)} goes up by '..'.", "Write it from the village folder.")
        if any(len(word.encode()) > LONGEST_NAME for word in words):
            raise bad_path(path, f"a name in it has more than {LONGEST_NAME} bytes")
        if path.startswith("/"):
            home = self.village.parts[1:]
            return words[len(home) :] if words[: len(home)] == home else ("/", *words)
        return (*self.own, *words[1:]) if words[:1] == ("~",) else words


def _joined(words: tuple[str, ...]) -> str:
    return "/" + "/".join(words[1:]) if words[:1] == ("/",) else "/".join(words)


def shown(path: str) -> str:
    """A path in a message."""
    return repr(path if len(path) <= 200 else f"{path[:200]}…")


def listed(names: Sequence[str] | Iterator[str]) -> str:
    return ", ".join(f"{name}/" for name in names)


def bad_path(path: str, why: str) -> VivariumError:
    return Invalid("files.path", f"{shown(path)} is no path: {why}.", "Write names with / between them.", field="path")


def _below(words: tuple[str, ...], place: tuple[str, ...]) -> bool:
    return len(words) > len(place) and words[: len(place)] == place
