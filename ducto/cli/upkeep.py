"""`ducto sweep`, `ducto verify` and `ducto maintain`: keeping the books in order, and auditing them."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from ducto.cli.output import rows_table
from ducto.cli.running import Books, store_command

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    store_command(app, "sweep")(_sweep)
    store_command(app, "verify")(_verify)
    store_command(app, "maintain")(_maintain)


async def _sweep(
    books: Books, dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what is due; book nothing.")] = False
) -> None:
    """Book the expiry of credits that are due. Done by `maintain` and by running gateways as well."""
    with books.out.progress("Sweeping"):
        result = await books.manager.sweep_expired_credits(dry_run)
    done = "would expire" if result.dry_run else "expired"
    text = f"{result.amount:,} credits {done}, of {result.grants:,} grants on {result.accounts:,} accounts."
    books.out.show(result, text)


async def _verify(books: Books) -> None:
    """Audit the books. Reads only. Exit code 1 where anything does not agree."""
    with books.out.progress("Auditing"):
        result = await books.manager.verify()
    if result.ok:
        books.out.show(result, "The books agree.")
        return
    columns = ("invariant", "account", "expected", "found", "row")
    books.out.show(result, rows_table(result.faults, columns, title="The books do not agree"))
    raise typer.Exit(1)


async def _maintain(books: Books) -> None:
    """End holds past their grace, expire credits that are due, forget reservations that ended long ago.

    Running gateways do this by themselves; it is for stores that no long-lived process uses.
    """
    with books.out.progress("Maintaining"):
        report = await books.manager.maintain()
    books.out.record(dataclasses.asdict(report))
