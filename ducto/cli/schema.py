"""`ducto setup` and `ducto migrate`: tables and functions."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ducto.cli.output import Output
from ducto.cli.running import Books, plain_command, store_command
from ducto.cli.settings import DATABASE_VARIABLE, database_url
from ducto.errors import ConfigError
from ducto.models import SetupResult

__all__ = ["register"]

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help=f"The database, as its owner or a superuser; by default what {DATABASE_VARIABLE} says. A URL with a "
        "password belongs into that variable.",
    ),
]


def register(app: typer.Typer) -> None:
    store_command(app, "setup")(_setup)
    plain_command(app, "migrate")(_migrate)


async def _setup(books: Books, database: DatabaseOption = None) -> None:
    """Make the store ready: its tables and functions. Idempotent, and safe while gateways use it.

    A Supabase store needs the URL of its database for this; other stores do it by their own login.
    """
    with books.out.progress("Setting up"):
        result = await books.manager.setup(database_url(database))
    _report(books.out, result)


async def _migrate(
    out: Output,
    database: DatabaseOption = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the SQL for an empty database; change nothing.")
    ] = False,
    grant_to: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Let this role call the functions, and nothing else.")
    ] = None,
) -> None:
    """Bring a database's tables and functions up to date. Idempotent, and safe while gateways use it."""
    from ducto.migrate import migrate, migration_sql

    if print_:
        sql = await asyncio.to_thread(migration_sql, grant_to=grant_to)
        if out.as_json:
            out.show({"sql": sql})
        else:
            typer.echo(sql, nl=False)
        return
    url = database_url(database)
    if url is None:
        raise ConfigError(f"Which database? Set {DATABASE_VARIABLE}, or give --database-url.")
    with out.progress("Migrating"):
        result = await migrate(url, grant_to=grant_to)
    _report(out, result)


def _report(out: Output, result: SetupResult) -> None:
    if result.newer:
        done = f"A newer version of ducto has migrated this database ({result.newer[-1]}); its functions stay."
    else:
        done = "Everything is up to date." if result.success else "Nothing was changed."
    out.show(result, *([f"applied {name}" for name in result.applied] or [done]))
    for error in result.errors:
        out.note(f"ducto: {error}")
    if not result.success:
        raise typer.Exit(1)
