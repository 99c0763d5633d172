"""The room of refusals: every error that a person may meet names its rule and the next step to take."""

from __future__ import annotations

import os
from pathlib import Path

READ_ONLY_STEP = "Mount it for writing, or move the village to another disk: permissions don't matter there."


def is_read_only(path: Path) -> bool:
    """Whether a path is on a file system that nobody can write on, whatever its permissions."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


class VivariumError(Exception):
    """What went wrong, by which rule, and what to do next. Nothing was changed.

    ``rule`` is a stable name such as ``ledger.floor``; ``status`` is the HTTP status that the API answers with.
    """

    status = 409

    def __init__(self, rule: str, message: str, next_step: str = "", *, field: str | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message
        self.next_step = next_step
        self.field = field

    def __str__(self) -> str:
        return f"{self.message} [{self.rule}]" + (f" {self.next_step}" if self.next_step else "")


class Invalid(VivariumError):
    """The input can never be right as it is."""

    status = 422


class NotFound(VivariumError):
    """There is no such thing."""

    status = 404


class Forbidden(VivariumError):
    """The actor may not do this."""

    status = 403


class Distrusted(Forbidden):
    """A provider that reported nonsense is refused until an operator has looked: no fault of the task that asked."""


class Unauthorized(VivariumError):
    """There is no credential, or it is not valid any more."""

    status = 401


class Conflict(VivariumError):
    """The state of things does not allow it now."""

    status = 409


class LeaseLapsed(Conflict):
    """The attempt is no longer the caller's: its lease lapsed or it was ended by somebody else."""


class RateLimited(Conflict):
    """A limit of requests or tokens is reached; it is no fault of the task.

    ``requested`` and ``remaining`` are in the limit's own measure.
    """

    status = 429

    def __init__(self, rule: str, message: str, next_step: str = "", *, requested: int = 1, remaining: int = 0) -> None:
        super().__init__(rule, message, next_step)
        self.requested = requested
        self.remaining = remaining


class OverBudget(Conflict):
    """A reservation does not fit under a cap; ``for_now`` once running attempts give back what they have set aside."""

    def __init__(
        self,
        rule: str,
        message: str,
        next_step: str = "",
        *,
        scope: str = "",
        requested: int | None = None,
        remaining: int | None = None,
        cap: int | None = None,
        for_now: bool = False,
    ) -> None:
        super().__init__(rule, message, next_step)
        self.scope = scope
        self.cap = cap
        self.for_now = for_now
        self.requested = requested
        self.remaining = remaining


class StoreError(VivariumError):
    """The database can't be used as it is."""

    status = 503


class StoreCorrupt(StoreError):
    """The database file is damaged: nothing is served from it."""


class StoreFull(StoreError):
    """There is no room left on the disk; what was asked was not done and may be tried again."""
