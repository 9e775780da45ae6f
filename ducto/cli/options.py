"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "AmountArgument",
    "ExpiresOption",
    "KeyOption",
    "OutOption",
    "SinceOption",
    "TeamArgument",
    "TeamOption",
    "UntilOption",
    "UserArgument",
    "group",
]

UserArgument: TypeAlias = Annotated[str, typer.Argument(metavar="USER", help="Id of the user.")]
TeamArgument: TypeAlias = Annotated[str, typer.Argument(metavar="TEAM", help="Id of the team.")]
AmountArgument: TypeAlias = Annotated[int, typer.Argument(metavar="CREDITS", help="A whole number of credits.")]
TeamOption: TypeAlias = Annotated[
    str | None, typer.Option("--team", metavar="TEAM", help="The pool of this team, for the user as its member.")
]
KeyOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="Idempotency key, such as the id of a payment: run again with it, the command is done once. By default "
        "one is made and printed.",
        show_default=False,
    ),
]
SinceOption: TypeAlias = Annotated[
    str, typer.Option("--since", metavar="WHEN", help="From when on: 12h, 30d or 4w ago, or a date (UTC).")
]
UntilOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--until", metavar="WHEN", help="Up to, and without: as --since; by default the end of today (UTC)."),
]
ExpiresOption: TypeAlias = Annotated[
    str | None, typer.Option("--expires", metavar="DATE", help="When the credits expire, such as 2027-01-31 (UTC).")
]
OutOption: TypeAlias = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write into this file instead of printing.")
]


def group(app: typer.Typer, name: str, *, help: str) -> typer.Typer:
    """A group of commands below `app`."""
    made = typer.Typer(no_args_is_help=True, help=help)
    app.add_typer(made, name=name)
    return made
