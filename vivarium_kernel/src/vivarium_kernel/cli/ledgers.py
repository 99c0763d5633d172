"""The room of ``vivarium ledger``: what every account holds, how it came to it, and whether the books agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import asdict

from vivarium_kernel.cli.lazy import Entry, LazyGroup
from vivarium_kernel.cli.opening import folder_of, json_option, looking, village_option
from vivarium_kernel.cli.showing import money, plain, print_json, print_json_list, several, table
from vivarium_kernel.errors import NotFound
from vivarium_kernel.problems import near, quoted
from vivarium_kernel.wording import when

if TYPE_CHECKING:
    from vivarium_kernel.store import View

ledger = LazyGroup(
    "ledger",
    help="Read and verify the ledger.",
    no_args_is_help=True,
    sections={
        "Commands": {
            "balances": Entry("ledgers:balances", "Show what every account holds."),
            "history": Entry("ledgers:history", "Show the newest transfers."),
            "verify": Entry("ledgers:verify", "Recompute every balance, hold and budget."),
        }
    },
)


@click.command()
@click.argument("prefix", default="", metavar="[PREFIX]")
@village_option
@json_option
def balances(prefix: str, village: Path | None, as_json: bool) -> None:
    """Show what every account holds.

    PREFIX shows only accounts whose names begin so, such as resident:ada.
    """
    from vivarium_kernel import ledger as books

    with looking(folder_of(village)) as view:
        found = books.balances(view, prefix)
    if as_json:
        print_json_list({"account": name, "currency": currency, "micros": micros} for name, currency, micros in found)
        return
    if not found:
        click.echo(f"No account begins with {quoted(prefix)}." if prefix else "There are no accounts.")
    table(("!account", ">holds"), ((name, money(micros, currency)) for name, currency, micros in found))


@click.command()
@click.argument("account", required=False, metavar="[ACCOUNT]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The newest N; by default 50, with --json all.")
@village_option
@json_option
def history(account: str | None, limit: int | None, village: Path | None, as_json: bool) -> None:
    """Show the newest transfers.

    Of one account such as resident:ada:free, or of all; the newest comes first.
    """
    from vivarium_kernel import ledger as books

    with looking(folder_of(village)) as view:
        found = books.history(view, account, limit or (-1 if as_json else 50))
        if account is not None and not found:
            _check_known(view, account)
        now = view.now
    if as_json:
        print_json_list(plain(one) for one in found)
        return
    if not found:
        click.echo("There are no transfers.")
    table(
        ("when", ">amount", "*from", "*to", "*reason", "*about"),
        (
            (when(one.at, now), money(one.micros, one.currency), one.payer, one.payee, one.reason, one.ref)
            for one in found
        ),
    )


def _check_known(view: View, account: str) -> None:
    """Raises NotFound for the name of no account."""
    names = [name for (name,) in view.rows("SELECT DISTINCT name FROM accounts")]
    if account not in names:
        meant = near(account, names)
        step = f"Did you mean {meant}?" if meant else "See `vivarium ledger balances`."
        raise NotFound("ledger.account", f"There is no account {quoted(account)}.", step, field="ACCOUNT")


@click.command()
@village_option
@json_option
def verify(village: Path | None, as_json: bool) -> int:
    """Recompute every balance, hold and budget.

    Exit status 1 if the books don't agree.
    """
    from vivarium_kernel import ledger as books

    with looking(folder_of(village)) as view:
        found = books.verify(view)
    if as_json:
        print_json(asdict(found))
    elif not found.problems:
        said = f"{several(found.accounts, 'account')} and {several(found.transfers, 'transfer')}"
        click.echo(f"The books agree: {said}")
    for problem in () if as_json else found.problems:
        click.echo(problem, err=True)
    return 1 if found.problems else 0
