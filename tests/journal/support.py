"""Stores whose books outlast a manager, and a look at the journal's files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ducto.journal import BooksFolder, SettleJournal
from ducto.journal.records import Contents, read_segment
from ducto.manager import CreditManager
from ducto.models import DeductionResult
from tests.unit.manager_support import TroubledStore

BOOKS = "books of the test"


class LastingStore(TroubledStore):
    """Stands for a store whose books are elsewhere: they are there for the next manager, as the object is."""

    durable = True

    async def charge_credits(self, *args: Any, **kwargs: Any) -> DeductionResult:
        return await self._troubled("charge", lambda: super(LastingStore, self).charge_credits(*args, **kwargs))

    @property
    def books_name(self) -> str | None:
        return BOOKS


def segments(folder: Path, books: str = BOOKS) -> list[Path]:
    return list(BooksFolder(folder, books).segments())


def contents(folder: Path, books: str = BOOKS) -> list[Contents]:
    return [read_segment(path.read_bytes()) for path in segments(folder, books)]


def outstanding(folder: Path, books: str = BOOKS) -> list[dict[str, Any]]:
    return [record.entry for one in contents(folder, books) for record in one.records.values()]


def put_aside(folder: Path, pattern: str) -> list[Path]:
    """The files of refused or corrupt records."""
    return sorted(folder.glob(f"*/{pattern}"))


@asynccontextmanager
async def managed(store: Any, folder: Path, **options: Any) -> AsyncIterator[CreditManager]:
    """A manager without maintenance, that looks for left journals often."""
    journal = options.pop("journal", SettleJournal(folder, replay_every_seconds=0.05))
    async with CreditManager(store, maintain_every_seconds=None, journal=journal, **options) as manager:
        yield manager
