"""The room of ``vivarium models``: which there are, whether one answers, and what they cost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.cli.lazy import Entry, LazyGroup
from vivarium_kernel.cli.named import named_table
from vivarium_kernel.cli.opening import folder_of, json_option, refuse_lost, village_option
from vivarium_kernel.cli.showing import fields, print_json, print_json_list
from vivarium_kernel.problems import key_path

if TYPE_CHECKING:
    from vivarium_kernel.catalog import Listed
    from vivarium_kernel.models import Price
    from vivarium_kernel.village import Village

models = LazyGroup(
    "models",
    help="List, try and price models.",
    no_args_is_help=True,
    sections={
        "Commands": {
            "list": Entry("models:list_", "List the models that there are now, and what they cost."),
            "test": Entry("models_test:test", "Make one small call of a model, paid as any other."),
            "price": Entry("models:price", "Show what a model costs, or how to set it."),
        }
    },
)
_FROM = {"settings": "vivarium.toml", "provider": "its provider", "unknown": "nobody"}


@click.command("list")
@village_option
@json_option
def list_(village: Path | None, as_json: bool) -> None:
    """List the models that there are now, and what they cost.

    Every provider is asked at once; one that can't be asked is a row that says so. Prices are US dollars for a million
    tokens read and written.
    """
    from attrs import asdict

    from vivarium_kernel.village import Village

    folder = folder_of(village)
    refuse_lost(folder)
    with Village(folder) as opened:
        found = asyncio.run(_listing(opened))
    if as_json:
        print_json_list(asdict(row) for row in found)
        return
    named_table(
        (
            "model", "class", ">context", ">running", ">waiting", ">cached", ">in", ">out", "price from", "allowed",
            "note",
        ),
        (_row(row) for row in found),
    )  # fmt: skip


async def _listing(village: Village) -> list[Listed]:
    from vivarium_kernel.catalog import listing

    try:
        return await listing(village)
    finally:
        await village.close_providers()


def _row(row: Listed) -> tuple[Any, ...]:
    names = [*row.classes, *(["default"] if row.is_default else [])]
    price = row.price
    return (
        row.model or f"{row.provider}:",
        ", ".join(names),
        "" if row.context_tokens is None else f"{row.context_tokens:,}",
        row.running,
        row.waiting,
        "" if row.cached is None else f"{row.cached:.0%}",
        "" if price is None else _usd(price.in_micros),
        "" if price is None else _usd(price.out_micros),
        (_FROM[row.price_from] if price is not None else "unknown") if row.model else "",
        ("yes" if row.allowed else "no") if row.model else "",
        "; ".join(filter(None, (row.problem, row.note, _by_the_second(price)))),
    )


def _usd(micros: int) -> str:
    from vivarium_kernel.amounts import money_text

    return money_text(micros)


def _by_the_second(price: Price | None) -> str:
    return f"{_usd(price.second_micros)} USD a second" if price is not None and price.second_micros else ""


@click.command()
@click.argument("model")
@click.option("--in-usd", metavar="USD", help="For a million tokens read.")
@click.option("--out-usd", metavar="USD", help="For a million tokens written.")
@click.option("--cached-usd", metavar="USD", help="For a million tokens that the server had read before.")
@click.option("--second-usd", metavar="USD", help="For a second of local compute.")
@village_option
@json_option
def price(
    model: str, in_usd: str | None, out_usd: str | None, cached_usd: str | None, second_usd: str | None,
    village: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what a model costs, or how to set it.

    With prices it says which line of vivarium.toml sets them; the file itself is yours to change. MODEL is
    PROVIDER:NAME.
    """
    given = {"in_usd": in_usd, "out_usd": out_usd, "cached_usd": cached_usd, "second_usd": second_usd}
    asked = {name: text for name, text in given.items() if text is not None}
    if asked:
        _tell_line(folder_of(village), model, asked, as_json)
    else:
        _tell_price(folder_of(village), model, as_json)


def _tell_line(folder: Path, model: str, asked: dict[str, str], as_json: bool) -> None:
    from vivarium_kernel.amounts import money, money_text
    from vivarium_kernel.models import split_name
    from vivarium_kernel.settings import FILE_NAME, load
    from vivarium_kernel.settings_text import toml

    split_name(model)
    table_ = ", ".join(
        f"{name} = {toml(money_text(money(text, f'--{name}'.replace('_', '-'))))}" for name, text in asked.items()
    )
    line = f"{toml(model)} = {{ {table_} }}"
    known = model in load(folder).settings.models.prices
    if as_json:
        print_json({"model": model, "line": line, "replaces": known})
        return
    where = (
        "in place of the line that names it"
        if known
        else "below the line [models.prices] (or with that line, at the end)"
    )
    click.echo(f"Write this into {folder / FILE_NAME}, {where}; it counts from the next start on:", err=True)
    click.echo(line)


def _tell_price(folder: Path, model: str, as_json: bool) -> None:
    from attrs import asdict

    from vivarium_kernel.catalog import row_of
    from vivarium_kernel.cli.showing import money
    from vivarium_kernel.models import split_name
    from vivarium_kernel.village import Village

    refuse_lost(folder)
    with Village(folder) as opened:
        row = row_of(opened, model, opened.provider(split_name(model)[0]))
    if as_json:
        print_json({"model": model, "from": row.price_from, "price": None if row.price is None else asdict(row.price)})
        return
    found = row.price
    if found is None:
        fields([("model", model), ("price", "unknown, so it can't be called under a budget"), ("why", row.problem)])
        click.echo(f"Set it: vivarium models price {key_path(model)} --in-usd 0.10 --out-usd 0.40")
        return
    cached = found.in_micros if found.cached_micros is None else found.cached_micros
    a_million = "for a million tokens"
    fields(
        [
            ("model", model),
            ("read", f"{money(found.in_micros, 'usd')} {a_million}"),
            ("written", f"{money(found.out_micros, 'usd')} {a_million}"),
            ("cached", f"{money(cached, 'usd')} {a_million} that the server had read before"),
            ("compute", f"{money(found.second_micros, 'usd')} for a second" if found.second_micros else ""),
            ("price from", _FROM[row.price_from]),
        ]
    )
