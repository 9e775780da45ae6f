"""`ducto journal`: what finished calls still owe, and charging it by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from ducto.cli.options import group
from ducto.cli.output import Output
from ducto.cli.running import StoreOption, plain_command
from ducto.cli.settings import store_url
from ducto.errors import ConfigError
from ducto.journal import JOURNAL_VARIABLE, BooksListing, journal_of_environment, list_journal
from ducto.manager import CreditManager
from ducto.stores.opening import open_store

__all__ = ["register"]

FolderOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="FOLDER",
        help=f"The journal's folder; by default what {JOURNAL_VARIABLE} says, else the one of this user.",
        show_default=False,
    ),
]
_COLUMNS = ("books", "segment", "held", "outstanding", "oldest", "refused", "corrupt")


def register(app: typer.Typer) -> None:
    journal = group(app, "journal", help="What finished calls still owe, on this machine's disk.")
    plain_command(journal, "list")(_list)
    plain_command(journal, "replay")(_replay)


async def _list(out: Output, folder: FolderOption = None) -> None:
    """What is outstanding, by books and segment, and how much was put aside. Reads only.

    A segment that is held belongs to a process that lives, which charges it by itself.
    """
    root = _root(folder)
    try:
        listed = list_journal(root)
    except OSError as error:
        raise ConfigError(f"The journal in {root} cannot be read ({error.strerror}).") from None
    rows = [row for books in listed for row in _rows(books)]
    if out.as_json:
        out.show(listed)
    else:
        out.rows(rows, _COLUMNS, empty=f"Nothing is outstanding in {root}.")


async def _replay(out: Output, store: StoreOption = None, folder: FolderOption = None) -> None:
    """Charge to --store what processes left that are not there any more. Running gateways do it by themselves.

    Exit code 1 where something is outstanding still, because the store did not answer, or was refused.
    """
    async with (
        open_store(store_url(store)) as opened,
        CreditManager(opened, maintain_every_seconds=None, journal=_root(folder)) as manager,
    ):
        report = await manager.replay_journal()
    text = f"{report.booked:,} settles booked, {report.refused:,} refused, {report.outstanding:,} outstanding."
    out.show(report, text)
    if report.refused or report.outstanding:
        raise typer.Exit(1)


def _root(folder: Path | None) -> Path:
    root = folder if folder is not None else journal_of_environment()[0]
    if root is None:
        raise ConfigError(f"The journal is off ({JOURNAL_VARIABLE}=off); name its folder with --folder.")
    return root


def _rows(books: BooksListing) -> list[dict[str, object]]:
    """A row for each segment, and one for what was put aside where nothing else is to be said."""
    name = books.books or Path(books.folder).name
    aside = {"refused": books.refused, "corrupt": books.corrupt}
    if not books.segments:
        return [{"books": name, "outstanding": 0, **aside}] if any(aside.values()) else []
    return [
        {
            "books": name,
            "segment": Path(one.path).name,
            "held": one.held,
            "outstanding": one.outstanding,
            "oldest": None if one.oldest_at_milliseconds is None else _instant(one.oldest_at_milliseconds),
            **aside,
        }
        for one in books.segments
    ]


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds // 1000, UTC)
