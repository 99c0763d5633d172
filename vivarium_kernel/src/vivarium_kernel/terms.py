"""The room of the terms: the words and numbers that everything is told in, and who acts.

Apart from the other records, because a help page needs some of them and is not to wait for msgspec.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen

MICROS = 1_000_000

Effect = Literal["pure", "idempotent", "once"]
TaskState = Literal["waiting", "open", "claimed", "parked", "review", "done", "failed", "cancelled", "blocked"]
ENDED_STATES = ("done", "failed", "cancelled", "blocked")
LOADING = "loading"  # what a plugin is off on that is left out whole
BUILT_IN_MODES = ("command", "llm")  # of tasks, that built-in plugins execute
ANY_ENDING = "any"  # what a task expects that may end in any of them
EndingKind = Literal["accepted", "rejected", "failed", "released", "lapsed", "parked", "cancelled", "blocked"]
ParkedFor = Literal["approval", "answer", "key", "pause", "quota", "time", "backoff"]
FOR_PEOPLE: tuple[ParkedFor, ...] = ("approval", "answer", "key")  # what only a person can end
ResidentState = Literal["active", "paused", "quarantined", "banned", "retired"]
Role = Literal["operator", "human", "resident", "worker"]


@frozen
class Actor:
    """Who acts. It comes from a credential, never from a field of a request.

    ``scope`` narrows a token further: ``None`` is everything that the role may do, else names of scopes.
    ``attempt`` is set for the token of one attempt; it is dead with that attempt's lease.
    """

    role: Role
    name: str
    attempt: int | None = None
    token: int | None = None
    scope: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return self.name if ":" in self.name else f"{self.role}:{self.name}"
