"""The room of the citations: whether the lines that an answer names are there, and say what it says they say.

A citation is ``[path:line]`` or ``[path:line-line]``, in the answer or in a markdown file that the task claims. It is
looked up where the resident may read; a quotation right before it must stand on those lines. Rules: docs/models.md.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from vivarium_kernel.builtin.file_places import Places, Target
from vivarium_kernel.builtin.file_walking import Walker
from vivarium_kernel.builtin.files import FilesConfig, lines_of
from vivarium_kernel.clock import SimulatedClock
from vivarium_kernel.errors import VivariumError
from vivarium_kernel.grants import PluginView
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Outcome, Resident, Review, Section, Task

MOST = 500  # citations of one outcome that are looked up
LONGEST_QUOTE = 600  # characters
_LOOKED_BACK = LONGEST_QUOTE + 20  # characters before a citation, with its marks
SHOWN = 20  # wrong citations that are kept with what was found
_SURE, _REJECTED = 0.95, 0.90
# No part of it can begin within another: a text is gone through once, whatever is in it. The interpreter's lock is held
# all the while.
_CITATION = re.compile(r"\[([^\[\]:\n]{1,500}+):(\d{1,9})(?:-(\d{1,9}))?\]")
_BETWEEN = " \t\n.,;:("  # what may stand between a quotation and its citation
_GAP = re.compile(r"…|\.\.\.|\[…\]|\[\.\.\.\]")


@frozen
class Citation:
    """A claim that something stands on these lines of a file; ``quote`` is empty where no words are claimed."""

    path: str
    first: int
    last: int
    quote: str = ""

    def __str__(self) -> str:
        lines = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.path}:{lines}"


class Citations(Plugin):
    """Checks the file-and-line citations of what residents answer and write. A task demands N by ``data.citations``."""

    name = "citations"

    @hookimpl
    def enrich_prompt(self, resident: Resident, task: Task, view: PluginView) -> Sequence[Section]:
        wanted = demanded(task)
        if not wanted:
            return ()
        said = (
            f"Name your sources, {wanted} at least, each as [path:line] or [path:first-last] with the path as the "
            'tools show it. Words in "quotation marks" right before it must stand on those lines. They are looked up.'
        )
        return (Section("situation", said, 90),)

    @hookimpl
    async def review_outcome(self, task: Task, outcome: Outcome) -> Review | None:
        wanted = demanded(task)
        if not wanted and (task.mode == "command" or not (task.files or any(citations(outcome.answer)))):
            return None
        if isinstance(self.village.clock, SimulatedClock):
            return self._reviewed(task, outcome, wanted)  # a thread's time would be taken for the village's
        return await asyncio.to_thread(self._reviewed, task, outcome, wanted)

    def _reviewed(self, task: Task, outcome: Outcome, wanted: int) -> Review | None:
        with self.village.store.view() as view:
            row = view.row("SELECT resident FROM attempts WHERE task = ? ORDER BY id DESC LIMIT 1", (task.id,))
        walker = Walker(self.village.folder, row[0] if row else "")
        settings = self.village.settings
        places = Places(
            self.village.folder, row[0] if row else "", settings.commands.read_roots, settings.write_policy
        )  # fmt: skip
        most = self.village.config("files", FilesConfig).read_bytes
        found: dict[Citation, str] = {}
        texts = [(task.id, outcome.answer), *_claimed(walker, self.village.folder, task, most)]
        for citation in (each for _, text in texts for each in citations(text)):
            if len(found) >= MOST:
                break
            found.setdefault(citation, "")
        if not found and not wanted:
            return None
        read: dict[str, list[str] | str] = {}
        wrong = []
        for citation in found:
            if citation.path not in read:
                read[citation.path] = _lines(walker, places, citation.path, most)
            fault = fault_of(citation, read[citation.path])
            if fault:
                wrong.append({"claimed": str(citation), "quoted": citation.quote, "found": fault})
        verified = len(found) - len(wrong)
        facts = {"citations": len(found), "verified": verified, "wrong": wrong[:SHOWN]}
        if verified < wanted:
            return Review("reject", _REJECTED, _too_few(verified, wanted, wrong), facts)
        return Review("accept", _SURE, "", facts)


def demanded(task: Task) -> int:
    """How many verified citations a task demands; what is no count demands none."""
    asked = task.data.get("citations") if task.data else None
    return asked if isinstance(asked, int) and not isinstance(asked, bool) and asked > 0 else 0


def citations(text: str) -> Iterator[Citation]:
    """The citations of a text in its order, each with the quotation right before it."""
    for match in _CITATION.finditer(text):
        if "." not in match[1] and "/" not in match[1]:
            continue  # [12:30] is a time, not a line of a file
        first = int(match[2])
        before = text[max(0, match.start() - _LOOKED_BACK) : match.start()]
        yield Citation(match[1].strip(), first, int(match[3] or first), _quoted(before))


def fault_of(citation: Citation, lines: list[str] | str) -> str:
    """What there is instead of what a citation claims; empty when it holds. ``lines`` may be why there are none."""
    if isinstance(lines, str):
        return lines
    if not 1 <= citation.first <= citation.last <= len(lines):
        return (
            f"it has {len(lines):,} lines" if citation.first <= citation.last else "its lines are the wrong way round"
        )
    if not citation.quote:
        return ""
    there = _plain(" ".join(lines[citation.first - 1 : citation.last]))
    place = 0
    for part in _GAP.split(citation.quote):
        words = _plain(part).strip(" .,;:!?")
        place = there.find(words, place)
        if place < 0:
            return f"the words are not there, but: {there[:160]}"
        place += len(words)
    return ""


def _quoted(before: str) -> str:
    """The quotation that a text ends with, without its marks; empty when it ends with none."""
    said = before.rstrip(_BETWEEN)
    marks = {'"': '"', "”": "“"}
    opening = said.rfind(marks[said[-1]], 0, len(said) - 1) if said and said[-1] in marks else -1
    return said[opening + 1 : -1].strip() if opening >= 0 else ""


def _plain(text: str) -> str:
    """Words as they are compared: case, white space, emphasis and the form of an apostrophe make no difference."""
    return " ".join(text.replace("\u2019", "'").replace("*", "").replace("_", "").casefold().split())


def _claimed(walker: Walker, folder: Any, task: Task, most: int) -> Iterable[tuple[str, str]]:
    """The markdown files that a task claims. One that is not there is the verifier's to tell."""
    for name in task.files:
        if name.lower().endswith(".md"):
            parts = tuple(part for part in name.split("/") if part not in ("", "."))
            try:
                yield name, walker.read(Target(name, folder, parts, True), most).text or ""
            except VivariumError:
                continue


def _lines(walker: Walker, places: Places, path: str, most: int) -> list[str] | str:
    """The lines of a cited file, or why the resident can't have read them."""
    try:
        text = walker.read(places.to_read(path), most).text
    except VivariumError as error:
        return error.message
    return "it is binary, not text" if text is None else lines_of(text)


def _too_few(verified: int, wanted: int, wrong: Sequence[Mapping[str, str]]) -> str:
    needed = "1 citation that holds" if wanted == 1 else f"{wanted} citations that hold"
    said = f"it needs {needed}, and has {verified}"
    return said + "".join(f"; [{each['claimed']}]: {each['found']}" for each in wrong[:3])
