"""The command line: `ducto demo` and `ducto gateway`."""

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


@app.command()
def demo() -> None:
    """Run a metered gateway, drive it with the real OpenAI and Anthropic SDKs, and check the books."""
    from ducto.demo.report import run_demo

    if not asyncio.run(run_demo(Console())):
        raise typer.Exit(1)


@app.command()
def gateway(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 0,
) -> None:
    """Serve the demo's gateway, in front of a simulated provider, until it is stopped."""
    from ducto.demo.serving import serve_until_stopped

    asyncio.run(serve_until_stopped(Console(), host=host, port=port))


def main() -> None:
    """Run the command line; a mistake of the user ends in a sentence and exit code 2, not in a traceback."""
    try:
        app()
    except DuctoError as error:
        print(f"ducto: {error}", file=sys.stderr)
        sys.exit(2)
