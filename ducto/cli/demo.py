"""`ducto demo` and `ducto gateway`: the gateway in front of a simulated provider."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.console import Console

from ducto.cli.output import Output
from ducto.cli.running import StoreOption, plain_command
from ducto.cli.settings import store_url

__all__ = ["register"]

# The demo brings a web server and a simulator with it, so it is imported when it is asked for.


def register(app: typer.Typer) -> None:
    plain_command(app, "demo")(_demo)
    plain_command(app, "gateway", has_document=False)(_gateway)


async def _demo(out: Output, store: StoreOption = None) -> None:
    """Run a metered gateway, drive it with the real OpenAI and Anthropic SDKs, and check the books.

    Without --store and DUCTO_STORE its books are in a Postgres of its own in ~/.ducto.
    """
    from ducto.demo.environment import default_store_url
    from ducto.demo.report import run_demo

    url = store_url(store, default=default_store_url())
    if out.as_json:
        as_it_should = await _as_document(out, url)
    else:
        as_it_should = await run_demo(Console(), store_url=url)
    if not as_it_should:
        raise typer.Exit(1)


async def _gateway(
    out: Output,
    store: StoreOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 0,
) -> None:
    """Serve the demo's gateway, in front of a simulated provider, until it is stopped."""
    from ducto.demo.environment import default_store_url
    from ducto.demo.serving import serve_until_stopped

    url = store_url(store, default=default_store_url())
    await serve_until_stopped(Console(), store_url=url, host=host, port=port)


async def _as_document(out: Output, url: str) -> bool:
    """The steps of the demo and the audits after them as JSON."""
    from ducto.demo.environment import gateway_environment
    from ducto.demo.report import play_and_audit

    async with gateway_environment(store_url=url) as environment:
        outcome = await play_and_audit(environment)
    out.show({"ok": outcome.ok, **dataclasses.asdict(outcome), "faults": outcome.faults})
    return outcome.ok
