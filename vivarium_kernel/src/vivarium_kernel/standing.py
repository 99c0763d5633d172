"""The room of how each plugin stands: on, off or failed, why, and what to do; found by name, nothing is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import evolve, field, frozen

from vivarium_kernel.builtin import builtin_places
from vivarium_kernel.installed import TAKEN, UNCLASH, Found, claimants, claims, versions
from vivarium_kernel.problems import near, quoted
from vivarium_kernel.registry import EVERY, Choice, Recorded, changed
from vivarium_kernel.terms import LOADING

if TYPE_CHECKING:
    from vivarium_kernel.inspecting import Looked

KERNEL = "vivarium-kernel"
ACCEPT = "look at what has changed, then accept it: vivarium plugins enable {}"


@frozen
class Standing:
    """How a plugin stands. ``hooks`` and ``config`` are None where nobody has looked yet.

    ``off_on`` has the hooks that it is switched off on, with their causes: by its breaker or the watchdog;
    ``offers`` are the hooks of its own, each with what it says of itself.
    """

    name: str
    distribution: str
    version: str
    state: Literal["on", "off", "failed"]
    cause: str = ""
    next_step: str = ""
    hooks: tuple[str, ...] | None = None
    config: tuple[str, ...] | None = None
    import_ms: float | None = None
    off_on: Mapping[str, str] = field(factory=dict)
    offers: tuple[str, ...] = ()


def standings(
    choice: Choice,
    breakers: Mapping[str, Mapping[str, str]] | None = None,
    looked: Mapping[str, Looked] | None = None,
) -> list[Standing]:
    """Every plugin: the kernel's own, then those that are installed, recorded or switched off, by name.

    ``looked`` has what was found out by importing, for those that were.
    """
    found = list(_own(choice))
    own = {one.name for one in found}
    claimed = claims()
    for name, claim in claimed.items():
        recorded = choice.registry.plugins.get(name)
        one = _installed(choice, name, claim, recorded, own)
        known = (looked or {}).get(name)
        if known is not None and one.name not in own:
            one = evolve(one, hooks=known.hooks, config=tuple(each.key for each in known.config))
            one = evolve(one, import_ms=known.import_ms, offers=known.offers)
            if known.faults and one.state == "on":
                one = evolve(one, state="failed", cause="; ".join(known.faults), next_step=_off(name))
        found.append(one)
    found += _absent(choice, {*claimed, *own})
    found = _without_requirements(found, choice)
    return [_as_it_ran(one, dict((breakers or {}).get(one.name, {}))) for one in found]


def _as_it_ran(one: Standing, off_on: dict[str, str]) -> Standing:
    """With what the village's processes found of it, where that was not looked for just now."""
    cause = off_on.pop(LOADING, None)
    if cause is not None and one.state == "on" and one.import_ms is None:
        what, _, step = cause.rpartition("; ")
        return evolve(one, state="failed", cause=what or cause, next_step=step if what else "", off_on=off_on)
    return evolve(one, off_on=off_on)


def notices(choice: Choice) -> Iterator[str]:
    """What an opening village says: names of no plugin, what is recorded and missing, what has changed since."""
    yield from misnamed(choice, every=False)
    claimed = claims()
    for name, recorded in choice.registry.plugins.items():
        if choice.why_off(name, installed=True):
            continue
        claim = claimed.get(name, ())
        if not claim:
            yield f"plugin {name} is recorded ({recorded.requirement}) and not installed: {_restore(name)}"
        elif len(claim) == 1 and not choice.strict:
            what = changed(recorded, claim[0])
            if what:
                yield f"plugin {name} has changed: {what}; {ACCEPT.format(name)}"


def misnamed(choice: Choice, *, every: bool = True) -> Iterator[str]:
    """The names of no plugin in plugins.json, vivarium.toml and VIVARIUM_PLUGINS: what they were to do is not done.

    Without ``every`` those that are switched off and like no other name are left out: they may be plugins that have
    gone since, which is no news at each start.
    """
    known = {*claims(), *builtin_places(), *choice.registry.plugins}
    for place, does, names in (
        ('"disabled" in plugins.json', "switches nothing off", choice.registry.disabled),
        ("plugins_allow in vivarium.toml", "lets nothing load", {*choice.allow} - {EVERY}),
        ("VIVARIUM_PLUGINS or --with-only", "leaves nothing on", choice.only or ()),
        ("[plugins.NAME] in vivarium.toml", "sets nothing", {*choice.configured} - choice.registry.disabled),
    ):
        for name in sorted({*names} - known):
            meant = near(name, known)
            if not (meant or every) and names is choice.registry.disabled:
                continue
            step = f"did you mean {meant}?" if meant else "see `vivarium plugins list`"
            yield f"{place} names {quoted(name)}, which no plugin here is called, and so {does}: {step}"


def _own(choice: Choice) -> Iterator[Standing]:
    version = versions([KERNEL]).get(KERNEL, "0")
    for name, one in builtin_places().items():
        why = choice.why_off(name, installed=False)
        yield Standing(name, KERNEL, version, "off" if why else "on", why, _on(name, why), one.hooks, ())


def _installed(choice: Choice, name: str, claim: Sequence[Found], recorded: Recorded | None, own: set[str]) -> Standing:
    first = claim[0]
    one = Standing(name, first.distribution, first.version, "on")
    if recorded is not None:
        one = evolve(one, hooks=recorded.hooks, config=recorded.config, offers=recorded.offers)
    why = choice.why_off(name, installed=True)
    if name in own:
        return evolve(
            one, state="failed", cause="has the name of one of the kernel's own, which stays", next_step=TAKEN
        )
    if why:
        return evolve(one, state="off", cause=why, next_step=_on(name, why))
    if len(claim) > 1:
        both = f"is claimed by {claimants(claim)}; neither is taken"
        owners = ", ".join(sorted(each.distribution for each in claim))
        return evolve(one, distribution=owners, version="", state="failed", cause=both, next_step=UNCLASH)
    what = changed(recorded, first) if recorded is not None else ""
    if what:
        return evolve(one, state="failed" if choice.strict else "on", cause=what, next_step=ACCEPT.format(name))
    return one


def _absent(choice: Choice, present: set[str]) -> Iterator[Standing]:
    """What the record speaks of and nobody has installed."""
    known = choice.registry.plugins
    for name in sorted((known.keys() | choice.registry.disabled) - present):
        recorded = known.get(name)
        one = Standing(name, recorded.distribution if recorded else "", recorded.version if recorded else "", "off")
        why = choice.why_off(name, installed=True)
        if why:
            yield evolve(one, cause=f"{why}, and not installed")
        else:
            yield evolve(one, state="failed", cause="it is recorded and not installed", next_step=_restore(name))


def _without_requirements(found: list[Standing], choice: Choice) -> list[Standing]:
    """The same; those that require what is not on have failed, as far as the record tells, and others with them."""
    requires = {name: one.requires for name, one in choice.registry.plugins.items()}
    while True:
        names, on = {one.name for one in found}, {one.name for one in found if one.state == "on"}
        lost = {name: other for name in on for other in requires.get(name, ()) if other not in on}
        if not lost:
            return found
        found = [_lacking(one, lost[one.name], names) if one.name in lost else one for one in found]


def _lacking(one: Standing, other: str, names: set[str]) -> Standing:
    step = f"vivarium plugins enable {other}" if other in names else "vivarium plugins install its distribution"
    return evolve(one, state="failed", cause=f"it requires {other}, which is not on", next_step=step)


def _on(name: str, why: str) -> str:
    return f"vivarium plugins enable {name}" if why == "switched off" else ""


def _off(name: str) -> str:
    return f"mend it, or switch it off: vivarium plugins disable {name}"


def _restore(name: str) -> str:
    return f"vivarium plugins sync restores it; or vivarium plugins disable {name}"
