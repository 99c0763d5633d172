"""The room of ``vivarium key``: the keys of model providers, which are typed in and never shown again."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.cli.lazy import Entry, LazyGroup
from vivarium_kernel.cli.opening import acting, as_option, folder_of, json_option, village_option
from vivarium_kernel.cli.showing import print_json, several, table
from vivarium_kernel.errors import Invalid, StoreError

if TYPE_CHECKING:
    from vivarium_kernel.settings import Settings
    from vivarium_kernel.store import Tx
    from vivarium_kernel.terms import Actor

key = LazyGroup(
    "key",
    help="The keys of model providers.",
    no_args_is_help=True,
    sections={
        "Commands": {
            "set": Entry("keys:set_", "Keep a provider's key, typed in or read from standard input."),
            "clear": Entry("keys:clear", "Forget a provider's key."),
            "status": Entry("keys:status", "Show which keys there are, and where each comes from."),
        }
    },
)


@click.command("set")
@click.argument("provider")
@click.argument("more", nargs=-1, metavar="", type=click.UNPROCESSED)
@village_option
@as_option
def set_(provider: str, more: tuple[str, ...], village: Path | None, token: str | None) -> None:
    """Keep a provider's key, typed in or read from standard input.

    It is kept in the village's folder in a file that only its owner may read, and shown nowhere. A running village
    takes it at its next call. PROVIDER is the part before the colon in a model's name, such as groq.
    """
    from vivarium_kernel import keys
    from vivarium_kernel.settling import wake_all_for_keys

    if more:  # what was typed is not repeated: it may be the key
        raise Invalid(
            "key.argument", "A key is never an argument: it would stay in the shell's history.",
            f"vivarium key set {provider}, which asks for it; or let it come in: … | vivarium key set {provider}",
            field="key",
        )  # fmt: skip
    with acting(village, token, "POST /keys") as (opened, actor):
        path = keys.save(opened.folder, provider, _typed(provider))
        opened.store.call(_note, ("key.set", provider, actor))
        woken = asyncio.run(wake_all_for_keys(opened.store, str(actor)))
        _say_what_is_stronger(provider)
        _say_if_unknown(provider, opened.settings)
    click.echo(f"The key of {provider} is kept in {path}; it is used from the next call on")
    if woken:
        waited = "that waited for a key is" if woken == 1 else "that waited for a key are"
        click.echo(f"{several(woken, 'task')} {waited} open again")


def _typed(provider: str) -> str:
    from vivarium_kernel.keys import MOST_CHARACTERS

    if sys.stdin.isatty():
        typed: str = click.prompt(f"Key of {provider} (not shown)", hide_input=True, err=True)
        return typed
    try:
        return sys.stdin.read(MOST_CHARACTERS + 100)
    except UnicodeDecodeError:
        raise Invalid("key.text", "That is no API key: it is not even text.", "Copy it again.", field="key") from None


def _note(tx: Tx, asked: tuple[str, str, Actor]) -> None:
    from vivarium_kernel.audit import emit

    kind, provider, actor = asked
    emit(tx, kind, actor, provider=provider)


def _say_what_is_stronger(provider: str) -> None:
    from vivarium_kernel.keys import variable

    name = variable(provider)
    if os.environ.get(name, "").strip():
        click.echo(f"{name} is set in this environment and is stronger: what is started here uses that one", err=True)


def _say_if_unknown(provider: str, settings: Settings) -> None:
    """Hint at a slip of the pen. A provider for many servers keeps a key a server, under the name of its table."""
    from vivarium_kernel.installed import MODELS, claims

    there = sorted(claims(MODELS))
    if provider in there or any(provider in _servers(settings.plugins.get(name, {})) for name in there):
        return
    click.echo(
        f"Nothing here is known to use a key of the name {provider}: no installed plugin brings models {provider}:… "
        f"(there are: {', '.join(there) or 'none'}), and no table [plugins.PROVIDER.servers.{provider}] of "
        f"vivarium.toml describes such a server. It is kept all the same.", err=True,
    )  # fmt: skip


def _servers(table_: Mapping[str, Any]) -> set[str]:
    """The names under which the keys of a provider's servers are kept: a table's own, or what its ``key`` says."""
    servers = table_.get("servers")
    if not isinstance(servers, Mapping):
        return set()
    return {str(one.get("key") or name) for name, one in servers.items() if isinstance(one, Mapping)}


@click.command()
@click.argument("provider")
@village_option
@as_option
def clear(provider: str, village: Path | None, token: str | None) -> None:
    """Forget a provider's key.

    A variable of the environment that has one is not touched.
    """
    from vivarium_kernel import keys

    with acting(village, token, "POST /keys") as (opened, actor):
        path = keys.clear(opened.folder, provider)
        opened.store.call(_note, ("key.cleared", provider, actor))
        _say_what_is_stronger(provider)
    click.echo(f"The key of {provider} is forgotten: {path} is gone")


@click.command()
@click.argument("provider", required=False)
@village_option
@json_option
def status(provider: str | None, village: Path | None, as_json: bool) -> int:
    """Show which keys there are, and where each comes from.

    No key is shown, only its length and its last characters. Exit status 1 if PROVIDER is named and has none.
    """
    from vivarium_kernel import keys
    from vivarium_kernel.installed import MODELS, claims

    folder = folder_of(village)
    names = [provider] if provider is not None else sorted({*keys.kept(folder), *claims(MODELS)})
    found = [_status_of(folder, name) for name in names]
    if as_json:
        print_json(found)
    else:
        if not found:
            click.echo("No key is kept, and no plugin that is installed brings models that would take one.")
        table(
            ("provider", "key", "!from", "!problem"),
            ((one["provider"], one["masked"] or "none", one["source"], one["problem"]) for one in found),
        )
    return 1 if provider is not None and not found[0]["set"] else 0


def _status_of(folder: Path, provider: str) -> dict[str, Any]:
    from vivarium_kernel import keys

    try:
        found = keys.find(folder, os.environ, provider)
    except StoreError as error:
        return {"provider": provider, "set": False, "masked": "", "source": "", "problem": str(error)}
    if found is None:
        return {"provider": provider, "set": False, "masked": "", "source": "", "problem": ""}
    return {"provider": provider, "set": True, "masked": found.masked, "source": found.source, "problem": ""}
