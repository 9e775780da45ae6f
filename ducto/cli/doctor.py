"""`ducto doctor`: is every model route of an app metered?"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ducto.cli.output import Output
from ducto.cli.running import StoreOption, plain_command
from ducto.cli.settings import store_is_named, store_url
from ducto.errors import ConfigError

__all__ = ["register"]

# The doctor brings a simulated provider with it, so it is imported when it is asked for.


def register(app: typer.Typer) -> None:
    plain_command(app, "doctor")(_doctor)


async def _doctor(
    out: Output,
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
        # A file is tried out on books in memory, whatever store the environment names.
        named = store is not None if pricing is not None else store_is_named(store)
        url = store_url(store) if named else None
        report = await check_gateway(GatewayCheck(store_url=url, pricing_file=pricing, model=model))
    elif pricing is not None:
        raise ConfigError("--pricing is for the built-in gateway; an app has its own prices.")
    else:
        headers = dict(_header(one) for one in header or ())
        report = await check_app(AppCheck(app=target, manager=manager, user=user, headers=headers, model=model))
    if out.as_json:
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
