"""What finished calls owe, kept in the settle journal until the store has answered."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ducto.errors import ConfigError
from ducto.events import EventEmitter
from ducto.journal import (
    JOURNAL_VARIABLE,
    BooksFolder,
    JournalUnavailableError,
    JournalWriter,
    SettleJournal,
    journal_of_environment,
)
from ducto.manager.entries import Owed, entry_of, worth_keeping
from ducto.stores.base import CreditStore

__all__ = ["CallJournal", "Debt", "open_journal"]

logger: logging.Logger = logging.getLogger("ducto.journal")


@dataclass(slots=True, eq=False)
class Debt:
    """An outstanding record: `owed` by a call, until `struck`. It is not tried before `not_before` (monotonic)."""

    owed: Owed
    struck: Callable[[], None]
    failures: int = 0
    not_before: float = 0.0


class CallJournal:
    """The journal of one manager. `later` are the debts that wait for the store to answer again."""

    def __init__(self, folder: BooksFolder, settings: SettleJournal, events: EventEmitter) -> None:
        self.folder = folder
        self.replay_every_seconds: float = settings.replay_every_seconds
        #: In the order in which they came; each counts once, by identity.
        self.later: dict[Debt, None] = {}
        self._writer = JournalWriter(folder, max_bytes=settings.max_bytes)
        self._events = events
        self._failing_since: float | None = None
        self._not_kept = 0
        self._closed = False

    @property
    def outstanding(self) -> int:
        """How many records of this manager have not been answered for."""
        return self._writer.outstanding

    @property
    def failing(self) -> bool:
        """Could the last record not be written?"""
        return self._failing_since is not None

    async def keep(self, owed: Owed) -> Debt | None:
        """Put `owed` on the disk, before the store is asked.

        `None` where it is none of the journal's business, or where the journal cannot take it, which is announced; the
        store is to be asked all the same.
        """
        if not worth_keeping(owed):
            return None
        entry = entry_of(owed)
        if entry is None:
            return None
        try:
            number = await self._writer.append(entry)
        except JournalUnavailableError as error:
            self._fails(error)
            return None
        if self._failing_since is not None:
            self._recovered()
        if self._writer.became_nearly_full():
            self._announce_nearly_full()
        return Debt(owed, lambda: self._writer.strike(number))

    async def refused(self, debt: Debt, error: Exception) -> None:
        """The store will never book it: put it aside with the reason, and strike it out."""
        await self.put_aside(json.loads(entry_of(debt.owed) or b"null"), error)
        debt.struck()

    async def put_aside(self, entry: object, error: Exception) -> None:
        """Note an entry that cannot be booked, with the reason. What fails here is logged: the log has it as well."""
        noted = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "code": getattr(error, "code", type(error).__name__),
            "reason": str(error),
            "entry": entry,
        }
        try:
            line = json.dumps(noted).encode() + b"\n"
            if not await asyncio.to_thread(self.folder.put_aside_refused, line):
                logger.error(
                    "Too many settles were put aside as refused in %s; this one is in the log alone.", self.folder.path
                )
        except OSError as failure:
            logger.error("A refused settle could not be put aside (%s); it is in the log alone.", failure.strerror)  # noqa: TRY400 - the errno is all there is to say

    def close(self) -> None:
        """Give the segment back; what is outstanding in it is the next process's to replay. Harmless when repeated.

        Waits for the disk, so not to be called on an event loop.
        """
        left, self._closed = 0 if self._closed else self.outstanding, True
        if left:
            logger.warning(
                "%d settles are left to the journal in %s; the next start replays them.", left, self.folder.path
            )
        self.later.clear()
        self._writer.close()

    def _fails(self, error: JournalUnavailableError) -> None:
        self._not_kept += 1
        if self._failing_since is not None:
            return
        self._failing_since = time.monotonic()
        logger.error(
            "The journal in %s cannot be written: %s. Calls are settled without it, so that what the store does not "
            "answer now may be lost. Make room, or repair the disk.",
            self.folder.path,
            error,
        )
        self._events.emit("journal.failing", data={**self._facts(), "error": str(error)})

    def _recovered(self) -> None:
        seconds, self._failing_since = time.monotonic() - (self._failing_since or 0.0), None
        not_kept, self._not_kept = self._not_kept, 0
        logger.warning("The journal is written again after %.1f s; %d settles went without it.", seconds, not_kept)

    def _announce_nearly_full(self) -> None:
        logger.warning(
            "The journal in %s is nearly full: %d settles (%d bytes) are outstanding. Is the store down?",
            self.folder.path,
            self._writer.outstanding,
            self._writer.outstanding_bytes,
        )
        self._events.emit("journal.nearly_full", data=self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder.path),
            "outstanding": self._writer.outstanding,
            "outstanding_bytes": self._writer.outstanding_bytes,
        }


def open_journal(
    option: SettleJournal | Path | str | None, store: CreditStore, events: EventEmitter
) -> CallJournal | None:
    """The journal that `option` asks for: `"auto"`, a folder, or settings; `None` for none.

    Raises `ConfigError` where a folder that was named cannot be used, and for books that end with the process.
    """
    if option is None:
        return None
    if option == "auto":
        return _automatic(store, events)
    settings = option if isinstance(option, SettleJournal) else SettleJournal(option)
    if not store.durable:
        raise ConfigError(
            f"The books of {type(store).__name__} end with the process, so a journal of them would be replayed against "
            "empty ones; leave journal= out."
        )
    books = settings.books_name or store.books_name
    if books is None:
        raise ConfigError(
            f"{type(store).__name__} cannot tell which books are behind it; name them with "
            "journal=SettleJournal(folder, books_name=...), by another name for every database."
        )
    return _opened(settings, books, events, told_by="journal=")


def _automatic(store: CreditStore, events: EventEmitter) -> CallJournal | None:
    if not store.durable:
        return None
    root, named = journal_of_environment()
    if root is None:
        return None
    if store.books_name is None:
        logger.warning(
            "No settle journal: %s cannot tell which books are behind it. Give the manager "
            "journal=SettleJournal(folder, books_name=...), or journal=None.",
            type(store).__name__,
        )
        return None
    try:
        return _opened(SettleJournal(root), store.books_name, events, told_by=JOURNAL_VARIABLE)
    except ConfigError as error:
        if named:
            raise
        _without_default_folder(str(error))
        return None


def _opened(settings: SettleJournal, books: str, events: EventEmitter, *, told_by: str) -> CallJournal:
    root = Path(settings.folder).expanduser().absolute()
    folder = BooksFolder(root, books)
    try:
        folder.check()
    except OSError as error:
        raise ConfigError(
            f"The settle journal cannot be kept in {root} ({error.strerror}); set {told_by} to a folder that this "
            "process may write, or to none: 'off' in the environment, None as the argument."
        ) from None
    return CallJournal(folder, settings, events)


_complained: set[str] = set()


def _without_default_folder(reason: str) -> None:
    """Said once a process: every manager of it would say the same."""
    if reason not in _complained:
        _complained.add(reason)
        logger.error("No settle journal: what is owed when this process dies is lost. %s", reason)
