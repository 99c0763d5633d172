"""The room of what people and residents say about bounties: each action's input, the settings, and the guilds asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from attrs import field, frozen
from attrs.validators import and_, ge, gt, le

from vivarium_kernel import Meta, PluginTx

LONGEST_TEXT = 20_000

Number = Annotated[int, Meta(ge=1)]
Line = Annotated[str, Meta(min_length=1, max_length=120)]
FilePath = Annotated[str, Meta(min_length=1, max_length=200)]


class Guild(Protocol):
    """What this plugin needs to know of a guild."""

    @property
    def name(self) -> str: ...

    @property
    def founder(self) -> str: ...

    @property
    def members(self) -> Sequence[str]: ...


class Guilds(Protocol):
    """What ``village.service("guilds")`` must be able to do for a guild to submit."""

    def guild_of(self, tx: PluginTx, resident: str, /) -> Guild | None: ...


@frozen
class BountiesConfig:
    """``[plugins.bounties]``. ``claim_days`` are village days after which a claim without a submission is given up."""

    overflow_factor: float = field(
        default=0.5,
        validator=and_(gt(0), le(1)),
        metadata={"doc": "What each place past the slots keeps of the one before."},
    )
    least_multiplier: float = field(
        default=0.05, validator=and_(ge(0), le(1)), metadata={"doc": "What every place keeps at least."}
    )
    least_text: int = field(
        default=20, validator=ge(1), metadata={"doc": "Characters that a submission without files has at least."}
    )
    most_alive: int = field(
        default=20, validator=ge(1), metadata={"doc": "Bounties of one resident that are not over."}
    )
    most_submissions: int = field(
        default=5, validator=ge(1), metadata={"doc": "Submissions of one resident to one bounty."}
    )
    claim_days: int = field(
        default=2, validator=ge(1), metadata={"doc": "Village days until a claim without a submission lapses."}
    )


@frozen
class Post:
    """A bounty to post. ``judge`` is a resident; without one the poster judges. ``task`` is the id of a task."""

    title: Line
    text: Annotated[str, Meta(max_length=4_000)]
    prize_micros: int
    runner_up_micros: int | None = None
    mode: Literal["rivalry", "cooperation", "both"] = "rivalry"
    slots: Annotated[int, Meta(ge=1, le=1_000)] = 1
    judge: Annotated[str, Meta(min_length=1, max_length=40)] | None = None
    task: Annotated[str, Meta(min_length=1, max_length=80)] | None = None


@frozen
class Which:
    """The number of a bounty."""

    bounty: Number


@frozen
class Enter:
    """A bounty to work on, for oneself or for one's guild."""

    bounty: Number
    as_guild: bool = False


@frozen
class Submit:
    """What was made for a bounty: text, or paths of files in the village, or both."""

    bounty: Number
    text: Annotated[str, Meta(max_length=LONGEST_TEXT)] = ""
    artifacts: Annotated[tuple[FilePath, ...], Meta(max_length=20)] = ()
    as_guild: bool = False


@frozen
class Complete:
    """The judge's choice, by numbers of submissions. An operator may name none: then all of the escrow returns."""

    bounty: Number
    winner: Annotated[tuple[Number, ...], Meta(max_length=50)] = ()
    runner_up: Annotated[tuple[Number, ...], Meta(max_length=50)] = ()


@frozen
class Listing:
    """Which bounties to list: those of a state, after a number."""

    state: Literal["open", "claimed", "completed", "cancelled"] | None = None
    after: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
