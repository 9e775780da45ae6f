"""The command line: `ducto demo`, `ducto gateway` and `ducto migrate`."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

from ducto.errors import ConfigError, DuctoError

try:
    import typer
    from rich.console import Console
except ImportError as error:  # pragma: no cover - without the extra there is nothing to run
    raise ConfigError("The command line needs the extra `cli`: pip install 'ducto[cli]'.") from error

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Metering of language-model calls with prepaid credits."
)


@app.callback()
def _ducto() -> None:
    """Metering of language-model calls with prepaid credits."""


StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="DUCTO_STORE",
        show_envvar=True,
        help="memory, embedded:FOLDER, postgresql://... or https://... (default: a Postgres of its own in ~/.ducto). "
        "A URL with a password belongs into the environment variable. DUCTO_REDIS_URL puts a Redis in front of it.",
    ),
]


@app.command()
def demo(store: StoreOption = None) -> None:
    """Run a metered gateway, drive it with the real OpenAI and Anthropic SDKs, and check the books."""
    from ducto.demo.report import run_demo

    if not asyncio.run(run_demo(Console(), store_url=store)):
        raise typer.Exit(1)


@app.command()
def gateway(
    store: StoreOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 0,
) -> None:
    """Serve the demo's gateway, in front of a simulated provider, until it is stopped."""
    from ducto.demo.serving import serve_until_stopped

    asyncio.run(serve_until_stopped(Console(), store_url=store, host=host, port=port))


@app.command()
def migrate(
    database_url: Annotated[
        str | None,
        typer.Option(envvar="DUCTO_DATABASE_URL", show_envvar=True, help="The database, as its owner or a superuser."),
    ] = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the SQL for an empty database; change nothing.")
    ] = False,
    grant_to: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Let this role call the functions, and nothing else.")
    ] = None,
) -> None:
    """Bring a database's tables and functions up to date. Idempotent, and safe while gateways use it."""
    from ducto.migrate import migration_sql, run_migrations

    if print_:
        print(migration_sql(grant_to=grant_to))
        return
    if database_url is None:
        raise ConfigError("Which database? Set DUCTO_DATABASE_URL, or give --database-url.")
    result = run_migrations(database_url, grant_to=grant_to)
    for error in result.errors:
        print(f"ducto: {error}", file=sys.stderr)
    if not result.success:
        raise typer.Exit(1)
    print("\n".join(f"applied {name}" for name in result.applied) or "Everything is up to date.")


def main() -> None:
    """Run the command line; a mistake of the user ends in a sentence and exit code 2, not in a traceback."""
    try:
        app()
    except DuctoError as error:
        print(f"ducto: {error}", file=sys.stderr)
        sys.exit(2)
