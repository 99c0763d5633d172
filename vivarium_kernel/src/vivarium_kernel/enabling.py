"""The room of enabling and disabling: what is refused, what is given back first, and the record of it.

``plugins.json`` is written as the last act of the transaction that checks, drains and logs, while no other process can
write in the village: a switch is whole or has not happened.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from vivarium_kernel import breakers, holds, registry
from vivarium_kernel.amounts import money_text
from vivarium_kernel.audit import emit
from vivarium_kernel.builtin import builtin_places
from vivarium_kernel.deciding import Decision, decide
from vivarium_kernel.errors import Conflict, NotFound
from vivarium_kernel.health import describe
from vivarium_kernel.inspecting import Looked, look
from vivarium_kernel.installed import MODELS, UNCLASH, Found, claimants, claims, digest, requirement_of
from vivarium_kernel.problems import near
from vivarium_kernel.registry import Choice, Recorded, Registry
from vivarium_kernel.routing import providers_named
from vivarium_kernel.settings import Settings
from vivarium_kernel.settling import EndAttempt
from vivarium_kernel.store import Tx, View
from vivarium_kernel.terms import Actor

_OPEN = "('waiting', 'open', 'claimed', 'parked', 'review')"


@frozen
class Held:
    """What a plugin holds in a village: its accounts' balances (name, currency, micros), holds (number, currency,
    micros), open tasks that it posted, and open tasks of others that need it."""

    accounts: tuple[tuple[str, str, int], ...] = ()
    holds: tuple[tuple[int, str, int], ...] = ()
    posted: tuple[str, ...] = ()
    needing: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.accounts or self.holds or self.posted or self.needing)

    def __str__(self) -> str:
        money: dict[str, int] = {}
        for _, currency, micros in (*self.accounts, *self.holds):
            money[currency] = money.get(currency, 0) + micros
        parts = [f"{money_text(micros)} {currency}" for currency, micros in sorted(money.items())]
        if self.posted:
            parts.append(f"open tasks that it posted ({_some(self.posted)})")
        if self.needing:
            parts.append(f"open tasks that need it ({_some(self.needing)})")
        return ", ".join(parts)


def held(source: View | Tx, plugin: str) -> Held:
    """What a plugin holds now."""
    return Held(
        tuple(
            (name, currency, micros)
            for name, currency, micros in source.rows(
                "SELECT name, currency, balance FROM accounts WHERE name GLOB ? AND balance <> 0 ORDER BY 1, 2",
                (f"plugin:{plugin}:*",),
            )
        ),
        tuple(
            (number, currency, micros)
            for number, currency, micros in source.rows(
                "SELECT id, currency, micros FROM holds WHERE owner = ? AND state = 'held' ORDER BY id", (plugin,)
            )
        ),
        tuple(
            row[0]
            for row in source.rows(
                f"SELECT id FROM tasks WHERE state IN {_OPEN} AND by = ? ORDER BY seq", (f"plugin:{plugin}",)
            )
        ),
        tuple(
            row[0]
            for row in source.rows(
                f"SELECT id FROM tasks WHERE state IN {_OPEN} AND by <> ? AND EXISTS "
                "(SELECT 1 FROM json_each(spec, '$.plugins') WHERE value = ?) ORDER BY seq",
                (f"plugin:{plugin}", plugin),
            )
        ),
    )


@frozen
class Drain:
    """Give back what a plugin holds. ``own`` is the plugin's ``drain(tx)`` if it has one and can be run."""

    plugin: str
    actor: Actor | str
    end_attempt: EndAttempt | None = None
    own: Callable[[Any], Any] | None = None


def drain(tx: Tx, asked: Drain) -> Held:
    """Give everything back that a plugin holds; returns what that was.

    First the plugin's own ``drain(tx)``, which knows whose money it is. Then the kernel's rule for what is left: tasks
    that the plugin posted are cancelled, and holds return to their payers. Of an account's balance the newest payments
    into it go back: to the resident or operator who made them, all else to the commons (in usd to the operator). Tasks
    of others that need the plugin stay on the board and are held, with that as the reason.
    """
    tx.flush()
    before = held(tx, asked.plugin)
    if asked.own is not None:
        try:
            asked.own(tx.plugin(asked.plugin))
            tx.flush()
        except Exception as error:  # the whole transaction ends with it: nothing was given back
            raise Conflict(
                "plugins.drain", f"The plugin {asked.plugin} could not give back what it holds: {describe(error)}.",
                "Mend it. Left out by VIVARIUM_PLUGINS=OTHERS, the kernel gives everything back by its own rule.",
            ) from error  # fmt: skip
    left = held(tx, asked.plugin)
    why = f"plugin {asked.plugin} is switched off"
    for name in left.posted:
        decide(tx, Decision(name, "cancel", asked.actor, why, asked.end_attempt))
    tx.flush()
    for number, _, _ in held(tx, asked.plugin).holds:
        holds.release_hold(tx, number, owner=asked.plugin, actor=str(asked.actor))
    tx.flush()
    for name, currency, micros in held(tx, asked.plugin).accounts:
        _return(tx, name, currency, micros, asked)
    tx.flush()
    return before


def _return(tx: Tx, account: str, currency: str, micros: int, asked: Drain) -> None:
    """Undo the newest payments into an account until it is empty: what was paid out again came from the older ones."""
    for key, payer, paid in tx.rows(
        "SELECT key, payer, micros FROM transfers WHERE payee = ? AND currency = ? ORDER BY id DESC",
        (account, currency),
    ):
        if micros <= 0:
            return
        back = min(paid, micros)
        micros -= back
        payee = payer if payer == "operator" or payer.startswith("resident:") else _common(currency)
        tx.books.transfer(
            f"drain:{key}",
            account,
            payee,
            currency,
            back,
            "drain",
            asked.plugin,
            str(asked.actor),
            f"plugin:{asked.plugin}",
        )


def _common(currency: str) -> str:
    return "commons" if currency == "aid" else "operator"


@frozen
class Off:
    """Switch plugins off. ``requires`` says of every other enabled plugin which ones it requires."""

    folder: Path
    names: Sequence[str]
    actor: Actor | str
    settings: Settings
    requires: Mapping[str, Collection[str]] = field(factory=dict)
    drain: bool = False
    end_attempt: EndAttempt | None = None
    own: Mapping[str, Callable[[Any], Any]] = field(factory=dict)


def disable(tx: Tx, asked: Off) -> dict[str, Held]:
    """Switch plugins off; returns what each held and gave back. Raises Conflict with the reason, changing nothing."""
    before = registry.read(asked.folder)
    refuse_needed(asked.names, asked.settings, asked.requires)
    found = {name: held(tx, name) for name in asked.names}
    if not asked.drain:
        for name, what in found.items():
            if what:
                raise Conflict(
                    "plugins.holds", f"The plugin {name} holds {what}.",
                    f"Let it finish, or give everything back: vivarium plugins disable {name} --drain.", field="name",
                )  # fmt: skip
    after = before
    for name in asked.names:
        if found[name]:
            drain(tx, Drain(name, asked.actor, asked.end_attempt, asked.own.get(name)))
        if name not in before.disabled:
            emit(
                tx, "plugin.disabled", asked.actor, plugin=name, version=_version(before, name), **_drained(found[name])
            )
        after = after.disable(name)
    tx.flush()
    registry.write(asked.folder, after)
    return found


def forget(tx: Tx, asked: tuple[Path, Sequence[str], str]) -> None:
    """Take plugins that were uninstalled, and their distribution's requirement, out of the record."""
    folder, names, distribution = asked
    registry.write(folder, registry.read(folder).forget(names, distribution))


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Put ``plugins.json`` back as it was if the transaction of the body can't be committed."""
    before = registry.read(folder)
    stamp = registry.stamp(folder)
    try:
        yield
    except BaseException:
        if registry.stamp(folder) != stamp:
            registry.write(folder, before)
        raise


def refuse_needed(names: Collection[str], settings: Settings, requires: Mapping[str, Collection[str]]) -> None:
    """Raise Conflict if something that stays on can't do without one of these plugins."""
    for name in names:
        if name in settings.safety_required:
            raise Conflict(
                "plugins.safety", f"The plugin {name} is a safety check without which nothing runs.",
                "safety_required in vivarium.toml names it: take it out there first.", field="name",
            )  # fmt: skip
        users = sorted(other for other, needs in requires.items() if name in needs and other not in names)
        if users:
            raise Conflict(
                "plugins.required",
                f"The plugin {name} is required by plugins that are on: {_some(users)}.",
                f"Switch both off: vivarium plugins disable {' '.join(users)} {name}.", field="name",
            )  # fmt: skip
    providers = providers_named(settings.model, settings.models)
    for name in names:
        brings = sorted(provider for provider in providers if name in _plugins_of_model(provider))
        if brings:
            raise Conflict(
                "plugins.model", f"The settings name models of {_some(brings)}, which come from the plugin {name}.",
                "Set other models in vivarium.toml first (model, models.small, .medium, .large).", field="name",
            )  # fmt: skip


def _plugins_of_model(provider: str) -> set[str]:
    """The plugins that stand for a model provider: the one of its name, or the only one of its distribution."""
    owners = {found.distribution for found in claims(MODELS).get(provider, ())}
    together = {name for name, found in claims().items() if any(one.distribution in owners for one in found)}
    return ({provider} & together) or (together if len(together) == 1 else set()) if owners else {provider}


@frozen
class On:
    """Switch plugins on, as they were found and looked at; a plugin of the kernel's own has no record.

    ``installed`` are requirements that were installed for them; what was switched off by hand stays off then.
    """

    folder: Path
    records: Mapping[str, Recorded | None]
    actor: Actor | str
    installed: Sequence[str] = ()


def enable(tx: Tx, asked: On) -> None:
    """Switch plugins on and record them as they are now: version, requirement, hash of their files, hooks, keys."""
    after = registry.read(asked.folder)
    for name, recorded in asked.records.items():
        if asked.installed and recorded is not None and name in after.disabled:
            after = after.record(name, recorded)
            continue
        after = after.enable(name, recorded)
        breakers.close(tx, breakers.Closing(name, actor=asked.actor, cause="enabled"))
        version = recorded.version if recorded is not None else ""
        emit(tx, "plugin.enabled", asked.actor, plugin=name, version=version, files=recorded.files if recorded else "")
    tx.flush()
    registry.write(asked.folder, after.install(asked.installed))


def refuse_unmet(requires: Mapping[str, Collection[str]], choice: Choice, present: Mapping[str, bool]) -> None:
    """Raise Conflict if a plugin that is to be enabled requires one that is not on. ``present`` are those that are
    there, by name: whether they are installed ones."""
    for name, needs in requires.items():
        for other in needs:
            if other not in requires and other not in present:
                raise Conflict(
                    "plugins.requires", f"The plugin {name} requires {other}, which is not installed.",
                    "Install it first: vivarium plugins install DISTRIBUTION.", field="name",
                )  # fmt: skip
            if other not in requires and choice.why_off(other, installed=present[other]):
                raise Conflict(
                    "plugins.requires", f"The plugin {name} requires {other}, which is off.",
                    f"Switch both on: vivarium plugins enable {other} {name}.", field="name",
                )  # fmt: skip


def records_of(
    names: Iterable[str], choice: Choice, config: Mapping[str, Mapping[str, Any]]
) -> dict[str, Recorded | None]:
    """What is recorded of plugins that are to be on, by name; each is looked at in a process of its own.

    ``config`` has the tables of ``vivarium.toml``. Raises NotFound or Conflict for what is not there, may not load, is
    faulty, or requires what is off.
    """
    own, claimed = builtin_places(), claims()
    wanted = dict.fromkeys(names)
    there = {name: _one(name, claimed, choice) for name in wanted if name not in own}
    looked = look(there, config)
    for name, what in looked.items():
        if what.faults:
            raise Conflict("plugins.faulty", f"The plugin {name} can't be on: {'; '.join(what.faults)}.")
    present = {name: name not in own for name in (*own, *claimed)}
    refuse_unmet({name: what.requires for name, what in looked.items()}, choice, present)
    return {name: record_of(there[name], looked[name]) if name in there else None for name in wanted}


def _one(name: str, claimed: Mapping[str, Sequence[Found]], choice: Choice) -> Found:
    """The one distribution that claims a name and may load; raises NotFound or Conflict."""
    found = claimed.get(name, ())
    if not found:
        recorded = choice.registry.plugins.get(name)
        if recorded is not None:
            raise Conflict(
                "plugins.missing", f"The plugin {name} is recorded ({recorded.requirement}) and not installed.",
                "Restore it: vivarium plugins sync.", field="name",
            )  # fmt: skip
        raise unknown(name, {*claimed, *builtin_places()})
    if len(found) > 1:
        raise Conflict(
            "plugins.clash", f"The plugin {name} is claimed by {claimants(found)}; neither is taken.",
            f"{UNCLASH.capitalize()}.", field="name",
        )  # fmt: skip
    if choice.strict and name not in choice.allow:
        raise Conflict(
            "plugins.allow", f"plugins_allow in vivarium.toml does not name {name}, so that it would not load.",
            f'Add "{name}" to plugins_allow first.', field="name",
        )  # fmt: skip
    return found[0]


def record_of(found: Found, looked: Looked) -> Recorded:
    """An installed plugin as it is now, of which this was found out by looking."""
    return Recorded(
        found.distribution,
        found.version,
        requirement_of(found.entry_point.dist),
        digest(found),
        looked.hooks,
        tuple(setting.key for setting in looked.config),
        looked.requires,
        looked.offers,
    )


def refuse_unknown(names: Iterable[str], registry: Registry) -> None:
    """Raise NotFound for a name that no plugin has: none that is installed, recorded, switched off or the kernel's."""
    known = {*claims(), *builtin_places(), *registry.plugins, *registry.disabled}
    for name in names:
        if name not in known:
            raise unknown(name, known)


def unknown(name: str, names: Collection[str]) -> NotFound:
    """The refusal of a name that no plugin has."""
    meant = near(name, names)
    return NotFound(
        "plugins.unknown", f"There is no plugin {name!r} here.",
        f"Did you mean {meant}?" if meant else "See `vivarium plugins list`.", field="name",
    )  # fmt: skip


def _version(registry: Registry, name: str) -> str:
    return registry.plugins[name].version if name in registry.plugins else ""


def _drained(what: Held) -> dict[str, Any]:
    if not what:
        return {}
    return {"holds": [number for number, _, _ in what.holds], "accounts": [name for name, _, _ in what.accounts],
            "cancelled": list(what.posted), "needing": list(what.needing)}  # fmt: skip


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
