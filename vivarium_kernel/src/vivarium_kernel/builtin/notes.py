"""The room of the residents' notes: what one of them keeps for its later tasks. Nobody else reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import field, frozen, validators

from vivarium_kernel.actions import Action
from vivarium_kernel.errors import Invalid, NotFound
from vivarium_kernel.grants import PluginTx, PluginView
from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Resident, Section, Task
from vivarium_kernel.terms import Actor

HEADING = "Your notes, by number:"
PER_MINUTE = 30


def _from(least: int, most: int) -> Any:
    return validators.and_(validators.ge(least), validators.le(most))


@frozen
class NotesConfig:
    """``[plugins.notes]``."""

    prompt_characters: int = field(
        default=2_000,
        validator=_from(0, 100_000),
        metadata={"doc": "Characters of a prompt that a resident's newest notes may have."},
    )
    note_characters: int = field(
        default=500, validator=_from(1, 20_000), metadata={"doc": "Characters that one note may have."}
    )
    kept: int = field(
        default=100,
        validator=_from(1, 10_000),
        metadata={"doc": "Notes that a resident keeps; the oldest make room for new ones."},
    )


@frozen
class Remember:
    text: str


@frozen
class Forget:
    note: int


class Notes(Plugin):
    """What a resident keeps in mind from task to task."""

    name = "notes"
    Config = NotesConfig
    migrations = "vivarium_kernel.builtin.note_tables:migrations"
    config: NotesConfig

    # Steps and prompts are seen by people, so both are private: what is kept of them shows no text.
    @hookimpl
    def register_actions(self) -> Sequence[Action[Any]]:
        more: dict[str, Any] = {"private": True, "rate_per_minute": PER_MINUTE}
        return [
            Action(name="notes.remember", doc="Keep a note for later tasks.", Input=Remember, run=self._remember,
                   **more),
            Action(name="notes.forget", doc="Delete a note.", Input=Forget, effect="idempotent", run=self._forget,
                   **more),
        ]  # fmt: skip

    @hookimpl
    def enrich_prompt(self, resident: Resident, task: Task, view: PluginView) -> Sequence[Section]:
        if (resident.name,) not in view.read_once("SELECT DISTINCT resident FROM notes_kept"):
            return ()  # most have none, and this is asked at every claim
        left, lines = self.config.prompt_characters, []
        for number, text in view.read(
            "SELECT id, private_text FROM notes_kept WHERE resident = ? ORDER BY id DESC LIMIT ?",
            (resident.name, self.config.kept),
        ):
            line = f"{number}: {text}"
            left -= len(line) + 1
            if left < 0:
                break
            lines.append(line)
        # A note may repeat what a file said: it is no more of an instruction for having been remembered.
        text = "\n".join([HEADING, *reversed(lines)])
        return (Section("memory", text, 10, private=True, untrusted="your notes"),)

    def _remember(self, tx: PluginTx, actor: Actor, asked: Remember) -> dict[str, int]:
        text = " ".join(asked.text.split())
        most = self.config.note_characters
        if not text or len(text) > most:
            raise Invalid(
                "notes.text", f"A note has from 1 to {most:,} characters, not {len(text):,}.", "Say it shorter.",
                field="text",
            )  # fmt: skip
        ((number,),) = tx.execute(
            "INSERT INTO notes_kept (resident, private_text) VALUES (?, ?) RETURNING id", (actor.name, text)
        )
        tx.execute(
            "DELETE FROM notes_kept WHERE resident = ?1 AND id NOT IN "
            "(SELECT id FROM notes_kept WHERE resident = ?1 ORDER BY id DESC LIMIT ?2)",
            (actor.name, self.config.kept),
        )
        return {"note": number}

    def _forget(self, tx: PluginTx, actor: Actor, asked: Forget) -> dict[str, int]:
        gone = tx.execute("DELETE FROM notes_kept WHERE id = ? AND resident = ? RETURNING id", (asked.note, actor.name))
        if not gone:  # another's and none are the same answer
            raise NotFound("notes.note", f"You have no note {asked.note}.", "Your notes are in the prompt.")
        return {"forgotten": asked.note}
