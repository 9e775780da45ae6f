"""All commands under one roof, and how the program starts."""

from __future__ import annotations

import logging
import sys

import typer

from ducto.cli import (
    caps,
    credits,
    demo,
    doctor,
    explain,
    journal,
    plans,
    pricing,
    reservations,
    schema,
    simulate,
    teams,
    upkeep,
    usage,
)
from ducto.cli.dotenv import load_dotenv
from ducto.cli.output import Output
from ducto.cli.running import exit_code
from ducto.errors import DuctoError

__all__ = ["app", "run"]

# Plain tracebacks where the fault is ours: the others would print local variables, and a URL may be among them.
app: typer.Typer = typer.Typer(
    name="ducto",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Metering of language-model calls with prepaid credits. The store is named by --store or DUCTO_STORE; a "
    ".env file in the working folder is read.",
)


@app.callback()
def _ducto() -> None:
    """Metering of language-model calls with prepaid credits."""


for _part in (
    schema,
    demo,
    doctor,
    pricing,
    credits,
    plans,
    caps,
    teams,
    usage,
    reservations,
    upkeep,
    journal,
    explain,
    simulate,
):
    _part.register(app)


def run() -> None:
    """Start with the arguments of the process."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show must not end the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # That listening for prices was interrupted is for processes that stay; a command says what went wrong by itself.
    logging.getLogger("ducto.stores.postgres").setLevel(logging.ERROR)
    try:
        load_dotenv()
    except DuctoError as error:
        Output(as_json="--json" in sys.argv).error(error)
        sys.exit(exit_code(error))
    app(prog_name="ducto")
