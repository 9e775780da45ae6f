"""The command line: `ducto demo`, `ducto doctor`, `ducto gateway` and `ducto migrate`."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
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
def doctor(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODULE:APP]",
            help="An ASGI app, or a function that makes one. Default: the built-in gateway, over --store.",
        ),
    ] = None,
    store: StoreOption = None,
    pricing: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Try this pricing config on the gateway, with books in memory.")
    ] = None,
    manager: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="The app's CreditManager (default: found in the app).")
    ] = None,
    user: Annotated[str, typer.Option(help="Whom the app takes the canaries for; must have credits.")] = "canary",
    header: Annotated[
        list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="Authenticates the canaries; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model to ask for (default: the first with a price).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Send a call through every model route, and report those that the books do not notice.

    Exit code 0: all are metered or refused; 1: some are not; 2: it could not be tried. An app has to take its
    providers' addresses from OPENAI_BASE_URL, ANTHROPIC_BASE_URL or DUCTO_PROVIDER_URL, which lead to a simulated one.
    """
    from ducto.doctor.checking import AppCheck, GatewayCheck, check_app, check_gateway
    from ducto.doctor.report import print_json, print_report

    # That requests are refused is what is looked for; the report says it.
    logging.getLogger("ducto.middleware").setLevel(logging.ERROR)
    if target is None:
        report = asyncio.run(check_gateway(GatewayCheck(store_url=store, pricing_file=pricing, model=model)))
    else:
        if pricing is not None:
            raise ConfigError("--pricing is for the built-in gateway; an app has its own prices.")
        headers = dict(_header(one) for one in header or ())
        check = AppCheck(app=target, manager=manager, user=user, headers=headers, model=model)
        report = asyncio.run(check_app(check))
    if as_json:
        print_json(report)
    else:
        print_report(Console(), report)
    if not report.ok:
        raise typer.Exit(1)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ConfigError("A header is given as 'name: value'.")
    return name.strip(), value.strip()


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
