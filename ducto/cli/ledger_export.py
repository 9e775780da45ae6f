"""`ducto credits export`: the ledger into a file or a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from typing import Annotated, BinaryIO

import typer

from ducto.cli.options import OutOption
from ducto.cli.running import Books, store_command
from ducto.cli.times import moment
from ducto.errors import ArgumentError, ConfigError
from ducto.export import ExportFormat, ExportPart, export_transactions

__all__ = ["register"]


def register(credits: typer.Typer) -> None:
    store_command(credits, "export")(_export)


async def _export(
    books: Books,
    format: Annotated[ExportFormat, typer.Option("--format", help="A row a line, or one JSON array.")] = "jsonl",
    user: Annotated[str | None, typer.Option("--user", help="The account of this user alone.")] = None,
    team: Annotated[
        str | None, typer.Option("--team", help="This team's alone; with --user, the member's rows.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="From when on; by default the beginning.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="Up to, and without; by default all there is.")
    ] = None,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="Go on from where an earlier export ended: its next_cursor.")
    ] = None,
    out: OutOption = None,
) -> None:
    """Write the ledger, of all accounts unless one is named, whatever its size.

    With --json the rows go to --out, and the document tells how many there are and where the next export goes on.
    """
    if books.out.as_json and out is None:
        raise ArgumentError("With --json the rows need a file of their own: give --out FILE.")
    parts = export_transactions(
        books.store,
        format=format,
        user_id=user,
        team_id=team,
        start=None if since is None else moment(since, option="--since"),
        end=None if until is None else moment(until, option="--until"),
        cursor=cursor,
        page_size=1000,
    )
    if out is None:
        await _write(parts, sys.stdout.buffer, books)
        return
    part_file = out.with_name(f"{out.name}.part")
    try:
        # Under another name until it is whole, so that half of a ledger is never taken for all of it.
        with part_file.open("wb") as target:
            rows, next_cursor = await _write(parts, target, books)
        os.replace(part_file, out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or type(error).__name__}.") from None
    document = {"rows": rows, "written": str(out), "format": format, "next_cursor": next_cursor}
    books.out.show(document, f"{rows:,} rows are in {out}.")
    if next_cursor is not None:
        books.out.note(f"What comes later: --cursor {next_cursor}")


async def _write(parts: AsyncIterator[ExportPart], target: BinaryIO, books: Books) -> tuple[int, str | None]:
    """How many rows were written, and the cursor after the last of them."""
    rows, next_cursor = 0, None
    with books.out.progress("Rows written") as advance:
        async for part in parts:
            target.write(part.data)
            rows += part.rows
            next_cursor = part.next_cursor if part.rows else next_cursor
            advance(part.rows)
    target.flush()
    return rows, next_cursor
