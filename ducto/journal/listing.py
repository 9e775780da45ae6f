"""What a journal's folder holds, for people. Reads only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ducto.journal.folder import CORRUPT, REFUSED_NAME, SEGMENT
from ducto.journal.records import read_segment
from ducto.journal.segment import is_held

__all__ = ["BooksListing", "SegmentListing", "list_journal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentListing:
    """One segment: `outstanding` records of `bytes` bytes; `held` while a process writes or replays it."""

    path: str
    held: bool
    outstanding: int
    bytes: int
    oldest_at_milliseconds: int | None
    corrupt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksListing:
    """The folder of one set of books. `refused` and `corrupt` count what was put aside: records, and files."""

    folder: str
    books: str | None
    segments: tuple[SegmentListing, ...]
    refused: int
    corrupt: int

    @property
    def outstanding(self) -> int:
        return sum(one.outstanding for one in self.segments)


def list_journal(root: Path) -> list[BooksListing]:
    """Every set of books below `root`, by folder; nothing where there is no such folder. Raises `OSError`."""
    if not root.is_dir():
        return []
    return [_books(folder) for folder in sorted(root.iterdir()) if folder.is_dir()]


def _books(folder: Path) -> BooksListing:
    books: str | None = None
    segments: list[SegmentListing] = []
    for path in sorted(folder.glob("*" + SEGMENT)):
        try:
            listed, named = _segment(path)
        except FileNotFoundError:  # Its last record was struck out while we looked.
            continue
        segments.append(listed)
        books = books or named
    refused = folder / REFUSED_NAME
    return BooksListing(
        folder=str(folder),
        books=books,
        segments=tuple(segments),
        refused=refused.read_bytes().count(b"\n") if refused.exists() else 0,
        corrupt=len(list(folder.glob("*" + CORRUPT))),
    )


def _segment(path: Path) -> tuple[SegmentListing, str | None]:
    with path.open("rb") as file:
        held = is_held(file.fileno())
        contents = read_segment(file.read())
    records = contents.records.values()
    listed = SegmentListing(
        path=str(path),
        held=held,
        outstanding=len(records),
        bytes=os.stat(path).st_size,
        oldest_at_milliseconds=min((one.at_milliseconds for one in records), default=None),
        corrupt=len(contents.corrupt),
    )
    return listed, contents.books
